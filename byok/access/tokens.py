"""Member tokens: `byok_<public id>_<43 base62 of 256 bits><6 base62 CRC32>`.

The prefix lets secret scanners find a token, the checksum lets a mistyped one be told apart offline, and 256 random bits need no
slow hash: the public part and the SHA-256 of the whole are stored.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SHAPE = re.compile(r"byok_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")


@dataclass(frozen=True)
class NewToken:
    """A token that has just been made; `text` is shown once and never stored."""

    id: str
    text: str
    digest: str

    def __repr__(self) -> str:
        return f"NewToken({self.id})"


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, rest = divmod(number, 62)
        digits.append(_DIGITS[rest])
    return "".join(reversed(digits))


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), 6)


def new_token() -> NewToken:
    """Make a token."""
    public = _base62(secrets.randbits(71), 12)
    body = f"byok_{public}_{_base62(secrets.randbits(256), 43)}"
    text = body + _checksum(body)
    return NewToken(public, text, digest(text))


def digest(text: str) -> str:
    """SHA-256 of a whole token, hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def public_id(text: str) -> str | None:
    """The public part of a token, or None when its shape or checksum is wrong."""
    found = _SHAPE.fullmatch(text)
    if found is None or _checksum(text[:-6]) != found[3]:
        return None
    return found[1]
