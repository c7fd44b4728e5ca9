"""Seal provider keys: one protocol and two stores, Vault's transit engine and an embedded one. Neither stands in for the other."""

from typing import Literal

from byok.home import Home
from byok.keystore.errors import (
    BadOrgId,
    BadVaultSettings,
    KeyStoreAuth,
    KeyStoreBusy,
    KeyStoreDenied,
    KeyStoreError,
    KeyStoreMismatch,
    KeyStoreRolledBack,
    KeyStoreSealed,
    KeyStoreUnreachable,
    OrgKeyDisabled,
    OrgKeyMissing,
    SecretIntegrity,
    SecretVersionRetired,
)
from byok.keystore.local import LocalKeyStore, create_kek, open_local
from byok.keystore.protocol import KeyStore, OrgKey, SealContext, check_org_id, mask
from byok.keystore.settings import VaultSettings


def open_keystore(home: Home, vault: VaultSettings | Literal["local"] | None = None) -> KeyStore:
    """The key store of an installation: Vault where it is configured, else the embedded one. Nothing is asked of it yet.

    Args:
        home: The installation.
        vault: Settings of Vault, or `local` for the embedded store; by default what the environment says.

    Raises:
        BadVaultSettings: A setting cannot be used.
        KeyStoreUnreachable: The key file of the embedded store cannot be read.
        KeyStoreDenied: A file with secrets can be read by others.
    """
    vault = vault or VaultSettings.from_environment(home)
    if vault is None or vault == "local":
        return open_local(home.kek_file)
    # hvac and requests are loaded only where they are used.
    from byok.keystore.transit import TransitKeyStore

    return TransitKeyStore(vault)


__all__ = [
    "BadOrgId",
    "BadVaultSettings",
    "KeyStore",
    "KeyStoreAuth",
    "KeyStoreBusy",
    "KeyStoreDenied",
    "KeyStoreError",
    "KeyStoreMismatch",
    "KeyStoreRolledBack",
    "KeyStoreSealed",
    "KeyStoreUnreachable",
    "LocalKeyStore",
    "OrgKey",
    "OrgKeyDisabled",
    "OrgKeyMissing",
    "SealContext",
    "SecretIntegrity",
    "SecretVersionRetired",
    "VaultSettings",
    "check_org_id",
    "create_kek",
    "mask",
    "open_keystore",
    "open_local",
]
