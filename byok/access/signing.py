"""The installation's signing key: what audit entries and grants are signed with. It opens no secret."""

from __future__ import annotations

import base64
import secrets
import stat
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from byok.errors import NotPermitted, OutsideError
from byok.home import write_private


class SigningKeyMissing(OutsideError):
    """The file with the signing key is not there, or holds none."""

    code = "signing_key_missing"


class SigningKeyExposed(NotPermitted):
    """Others can read the signing key."""

    code = "signing_key_exposed"


def create_signing_key(path: Path) -> bool:
    """Make the file unless it is there; called by `byok init` alone.

    Returns:
        Whether it was made.
    """
    if path.exists():
        return False
    try:
        write_private(path, base64.b64encode(secrets.token_bytes(32)).decode() + "\n", anew=True)
    except FileExistsError:
        return False  # another `byok init` was faster
    return True


def read_signing_key(path: Path, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose (RFC 5869), so that a signature for one is none for another.

    Raises:
        SigningKeyMissing: The file is not there, or damaged.
        SigningKeyExposed: Others can read it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        key = base64.b64decode(path.read_text(encoding="ascii").strip(), validate=True)
    except (OSError, ValueError):
        key, mode = b"", 0
    if mode & 0o077:
        raise SigningKeyExposed(f"the signing key {path} can be read by others (mode {mode:o})", hint=f"chmod 600 {path}")
    if len(key) != 32:
        raise SigningKeyMissing(f"the signing key {path} cannot be read", hint="restore it from its backup, or set BYOK_SIGNING_KEY_FILE")
    return HKDF(SHA256(), 32, salt=None, info=b"byok-" + purpose.encode()).derive(key)
