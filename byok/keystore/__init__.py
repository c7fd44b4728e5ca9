"""Seal provider keys: one protocol, and the embedded store."""

from byok.home import Home
from byok.keystore.local import LocalKeyStore, create_kek, open_local
from byok.keystore.protocol import (
    KeyStore,
    KeyStoreDenied,
    KeyStoreUnreachable,
    OrgKeyMissing,
    SealContext,
    SecretIntegrity,
    mask,
)


def open_keystore(home: Home) -> KeyStore:
    """The key store of an installation.

    Raises:
        KeyStoreUnreachable: It does not answer.
        KeyStoreDenied: It may not be used as it is.
    """
    return open_local(home.kek_file)


__all__ = [
    "KeyStore",
    "KeyStoreDenied",
    "KeyStoreUnreachable",
    "LocalKeyStore",
    "OrgKeyMissing",
    "SealContext",
    "SecretIntegrity",
    "create_kek",
    "mask",
    "open_keystore",
]
