"""The embedded key store: AES-256-GCM with a data key for each secret, wrapped by a key-encryption key (KEK) in a file.

Both layers authenticate the same context bytes. A sealed text reads `local:v1:<kek id>:<wrapped data key>:<ciphertext>`, with the
12-byte nonce before each ciphertext, in URL-safe base64. The first KEK of the file encrypts; all of them decrypt. A rotation puts a
new KEK in front, wraps every data key anew (the secrets themselves stay closed), and then takes the old KEK out of the file. A home
belongs to one organisation, and so do its KEKs. What this store cannot do: separate roles, since who reads both the file and the database
opens everything.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hmac
import os
import re
import secrets
import stat
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from byok.errors import ByokError
from byok.home import Home, write_private
from byok.keystore.errors import (
    KeyStoreDenied,
    KeyStoreMismatch,
    KeyStoreRolledBack,
    KeyStoreUnreachable,
    OrgKeyMissing,
    SecretIntegrity,
    SecretVersionRetired,
)
from byok.keystore.protocol import OrgKey, SealContext, check_org_id

_NONCE = 12
_NUMBERED = re.compile(r"k([1-9][0-9]{0,8})-")


class LocalKeyStore:
    """Seals with keys from a file.

    Args:
        keks: Key-encryption keys by id, the one that encrypts first; 32 bytes each.
        fingerprint_key: What fingerprints are keyed with; by default the oldest KEK.
        path: The file that they came from; without it, the store cannot rotate.
    """

    name = "local"

    def __init__(self, keks: dict[str, bytes], *, fingerprint_key: bytes | None = None, path: Path | None = None) -> None:
        self._keks, self._path = keks, path
        self._fingerprint_key = fingerprint_key or list(keks.values())[-1]

    def __repr__(self) -> str:
        return f"LocalKeyStore({list(self._keks)})"

    def seal(self, secret: str, context: SealContext) -> str:
        """See `KeyStore.seal`."""
        self._reload()
        bound = context.encode()
        kek_id, kek = next(iter(self._keks.items()))
        data_key = AESGCM.generate_key(bit_length=256)
        return ":".join(("local", "v1", kek_id, _encrypt(kek, data_key, bound), _encrypt(data_key, secret.encode(), bound)))

    def open(self, sealed: str, context: SealContext) -> str:
        """See `KeyStore.open`."""
        kek_id, wrapped, body = _parts(sealed)
        bound = context.encode()
        return _decrypt(_decrypt(self._kek(kek_id), wrapped, bound), body, bound).decode()

    def fingerprint(self, secret: str, org_id: str) -> str:
        """See `KeyStore.fingerprint`."""
        info = b"byok-fingerprint-v1:" + check_org_id(org_id).encode()
        key = HKDF(SHA256(), 32, salt=None, info=info).derive(self._fingerprint_key)
        return hmac.new(key, secret.encode(), sha256).hexdigest()[:8]

    def org_key(self, org_id: str) -> OrgKey:
        """See `KeyStore.org_key`; the KEKs are the home's, which belongs to one organisation."""
        check_org_id(org_id)
        self._reload()
        numbers = [_number(kek_id) for kek_id in self._keks]
        return OrgKey(max(numbers), min(numbers))

    def rotate(self, org_id: str) -> OrgKey:
        """See `KeyStore.rotate`."""
        check_org_id(org_id)
        with _Locked(self._file()) as locked:
            keks, fingerprint_key = _read(self._file())
            number = max(map(_number, keks)) + 1
            made = {f"k{number}-{secrets.token_hex(4)}": secrets.token_bytes(32)}
            # A file without a fingerprint key used its oldest KEK, which is about to go: fingerprints begin anew.
            locked.write(made | keks, fingerprint_key or secrets.token_bytes(32))
        return self.org_key(org_id)

    def sealed_version(self, sealed: str) -> int:
        """See `KeyStore.sealed_version`."""
        return _number(_parts(sealed)[0])

    def rewrap(self, org_id: str, items: Sequence[tuple[str, SealContext]]) -> list[str | ByokError]:
        """See `KeyStore.rewrap`: only the data keys are unwrapped, never the secrets."""
        check_org_id(org_id)
        self._reload()
        return [self._rewrap_one(sealed, context.encode()) for sealed, context in items]

    def retire(self, org_id: str, least: int) -> None:
        """See `KeyStore.retire`: the old KEKs leave the file."""
        check_org_id(org_id)
        with _Locked(self._file()) as locked:
            keks, fingerprint_key = _read(self._file())
            kept = {kek_id: kek for kek_id, kek in keks.items() if _number(kek_id) >= least}
            if kept and kept != keks:
                locked.write(kept, fingerprint_key)
        self._reload()

    def _rewrap_one(self, sealed: str, bound: bytes) -> str | ByokError:
        try:
            kek_id, wrapped, body = _parts(sealed)
            data_key = _decrypt(self._kek(kek_id), wrapped, bound)
        except ByokError as error:
            return error
        newest, kek = next(iter(self._keks.items()))
        return ":".join(("local", "v1", newest, _encrypt(kek, data_key, bound), body))

    def _kek(self, kek_id: str) -> bytes:
        if kek_id not in self._keks:
            # Another process may have rotated since this one read the file.
            self._reload()
        if kek_id in self._keks:
            return self._keks[kek_id]
        numbers = [_number(known) for known in self._keks]
        if _NUMBERED.match(kek_id) and _number(kek_id) < min(numbers):
            raise SecretVersionRetired("the key-encryption key that sealed a secret has been retired", hint=_INTEGRITY_HINT)
        if _NUMBERED.match(kek_id) and _number(kek_id) > max(numbers):
            raise KeyStoreRolledBack("a secret was sealed with a newer key than the key file holds", hint="restore the newest key file")
        raise OrgKeyMissing("the key-encryption key that sealed a secret is not in the key file", hint="restore the key file")

    def _reload(self) -> None:
        if self._path is not None:
            self._keks, fingerprint_key = _read(self._path)
            self._fingerprint_key = fingerprint_key or list(self._keks.values())[-1]

    def _file(self) -> Path:
        if self._path is None:
            raise KeyStoreDenied("this key store has no file to change", hint="open it from its key file")
        return self._path


_INTEGRITY_HINT = "the control plane or the model's URL was changed outside byok; give the key again: byok model rotate"


def _parts(sealed: str) -> tuple[str, str, str]:
    """KEK id, wrapped data key and ciphertext of a sealed text."""
    parts = sealed.split(":")
    if parts[0] == "vault":
        raise KeyStoreMismatch("this key was sealed by Vault, and this process uses the local key store", hint="set BYOK_VAULT_ADDR")
    if len(parts) != 5 or parts[:2] != ["local", "v1"]:
        raise SecretIntegrity("a sealed key is not of this store's form", hint=_INTEGRITY_HINT)
    return parts[2], parts[3], parts[4]


def _number(kek_id: str) -> int:
    """A KEK's place in the row of all that there were; an id without a number is the first one's."""
    found = _NUMBERED.match(kek_id)
    return int(found[1]) if found else 1


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


class _Locked:
    """The key file, while nobody else changes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Locked:
        _read(self._path)  # nothing is made beside a key file that is missing or none
        self._lock = os.open(self._path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def write(self, keks: dict[str, bytes], fingerprint_key: bytes | None, *, anew: bool = False) -> None:
        """Replace the file, or make it anew."""
        told: dict[str, object] = {"keks": [{"id": kek_id, "key": base64.b64encode(kek).decode()} for kek_id, kek in keks.items()]}
        if fingerprint_key is not None:
            told["fingerprint_key"] = base64.b64encode(fingerprint_key).decode()
        write_private(self._path, orjson.dumps(told, option=orjson.OPT_INDENT_2).decode(), anew=anew)


def create_kek(home: Home) -> bool:
    """Make the key file unless it is there. Called by `byok init` alone: a lost key file is never replaced silently.

    Returns:
        Whether it was made.
    """
    path = home.kek_file
    if path.exists():
        return False
    try:
        _Locked(path).write({f"k1-{secrets.token_hex(4)}": secrets.token_bytes(32)}, secrets.token_bytes(32), anew=True)
    except FileExistsError:
        return False  # another `byok init` was faster
    return True


def open_local(path: Path) -> LocalKeyStore:
    """Open the store of a key file.

    Raises:
        KeyStoreUnreachable: The file is missing or cannot be read.
        KeyStoreDenied: Others can read it, or it holds no keys.
    """
    keks, fingerprint_key = _read(path)
    return LocalKeyStore(keks, fingerprint_key=fingerprint_key, path=path)


def _read(path: Path) -> tuple[dict[str, bytes], bytes | None]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_bytes()
    except OSError:
        raise KeyStoreUnreachable(f"the key file {path} cannot be read", hint="restore it from its backup, or set BYOK_KEK_FILE") from None
    if mode & 0o077:
        raise KeyStoreDenied(f"the key file {path} can be read by others (mode {mode:o})", hint=f"chmod 600 {path}")
    try:
        told = orjson.loads(text)
        keks = {str(one["id"]): base64.b64decode(one["key"], validate=True) for one in told["keks"]}
        fingerprint_key = base64.b64decode(told["fingerprint_key"], validate=True) if "fingerprint_key" in told else None
        good = bool(keks) and all(len(key) == 32 for key in (*keks.values(), fingerprint_key or bytes(32)))
    except (ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise KeyStoreDenied(f"the key file {path} is not one", hint="restore it from its backup")
    return keks, fingerprint_key
