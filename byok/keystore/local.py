"""The embedded key store: AES-256-GCM with a data key for each secret, wrapped by a key-encryption key (KEK) in a file.

Both layers authenticate the same context bytes. A sealed text reads `local:v1:<kek id>:<wrapped data key>:<ciphertext>`, with the
12-byte nonce before each ciphertext, in URL-safe base64. The first KEK of the file encrypts; all of them decrypt, so a new one can be
put before the old. What it cannot do: separate roles, since who reads both the file and the database opens everything.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
import stat
from hashlib import sha256
from pathlib import Path

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from byok.home import Home, write_private
from byok.keystore.protocol import KeyStoreDenied, KeyStoreUnreachable, OrgKeyMissing, SealContext, SecretIntegrity

_NONCE = 12


class LocalKeyStore:
    """Seals with keys from a file.

    Args:
        keks: Key-encryption keys by id, the one that encrypts first; 32 bytes each.
    """

    name = "local"

    def __init__(self, keks: dict[str, bytes]) -> None:
        self._keks = keks

    def __repr__(self) -> str:
        return f"LocalKeyStore({list(self._keks)})"

    def seal(self, secret: str, context: SealContext) -> str:
        """See `KeyStore.seal`."""
        bound = context.encode()
        kek_id, kek = next(iter(self._keks.items()))
        data_key = AESGCM.generate_key(bit_length=256)
        return ":".join(("local", "v1", kek_id, _encrypt(kek, data_key, bound), _encrypt(data_key, secret.encode(), bound)))

    def open(self, sealed: str, context: SealContext) -> str:
        """See `KeyStore.open`."""
        parts = sealed.split(":")
        if len(parts) != 5 or parts[:2] != ["local", "v1"]:
            raise SecretIntegrity("a sealed key is not of this store's form", hint=_INTEGRITY_HINT)
        kek = self._keks.get(parts[2])
        if kek is None:
            raise OrgKeyMissing("the key-encryption key that sealed a secret is not in the key file", hint="restore the key file")
        bound = context.encode()
        return _decrypt(_decrypt(kek, parts[3], bound), parts[4], bound).decode()

    def fingerprint(self, secret: str, org_id: str) -> str:
        """See `KeyStore.fingerprint`."""
        # The oldest KEK, so that putting a new one in front does not change what is the same.
        oldest = list(self._keks.values())[-1]
        key = HKDF(SHA256(), 32, salt=None, info=b"byok-fingerprint-v1:" + org_id.encode()).derive(oldest)
        return hmac.new(key, secret.encode(), sha256).hexdigest()[:8]


_INTEGRITY_HINT = "the control plane or the model's URL was changed outside byok; register the model again with its key"


def _encrypt(key: bytes, plain: bytes, bound: bytes) -> str:
    nonce = os.urandom(_NONCE)
    return base64.urlsafe_b64encode(nonce + AESGCM(key).encrypt(nonce, plain, bound)).decode()


def _decrypt(key: bytes, text: str, bound: bytes) -> bytes:
    try:
        raw = base64.b64decode(text, altchars=b"-_", validate=True)
        # Base64 has several spellings of some bytes; only the one that was written counts.
        if base64.urlsafe_b64encode(raw).decode() == text and len(raw) > _NONCE:
            return AESGCM(key).decrypt(raw[:_NONCE], raw[_NONCE:], bound)
    except (InvalidTag, binascii.Error, ValueError):
        pass
    raise SecretIntegrity("a sealed key does not open in its place", hint=_INTEGRITY_HINT)


def create_kek(home: Home) -> bool:
    """Make the key file unless it is there. Called by `byok init` alone: a lost key file is never replaced silently.

    Returns:
        Whether it was made.
    """
    path = home.kek_file
    if path.exists():
        return False
    kek = {"id": secrets.token_hex(4), "key": base64.b64encode(secrets.token_bytes(32)).decode()}
    write_private(path, orjson.dumps({"keks": [kek]}, option=orjson.OPT_INDENT_2).decode())
    return True


def open_local(path: Path) -> LocalKeyStore:
    """Open the store of a key file.

    Raises:
        KeyStoreUnreachable: The file is missing or cannot be read.
        KeyStoreDenied: Others can read it, or it holds no keys.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_bytes()
    except OSError:
        raise KeyStoreUnreachable(f"the key file {path} cannot be read", hint="restore it from its backup, or set BYOK_KEK_FILE") from None
    if mode & 0o077:
        raise KeyStoreDenied(f"the key file {path} can be read by others (mode {mode:o})", hint=f"chmod 600 {path}")
    try:
        keks = {str(one["id"]): base64.b64decode(one["key"], validate=True) for one in orjson.loads(text)["keks"]}
        good = bool(keks) and all(len(key) == 32 for key in keks.values())
    except (ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise KeyStoreDenied(f"the key file {path} is not one", hint="restore it from its backup")
    return LocalKeyStore(keks)
