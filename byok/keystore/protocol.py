"""What every key store does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from byok.errors import ByokError
from byok.ids import is_slug
from byok.keystore.errors import BadOrgId

_FORMAT = "byok-key-v1"
_VENDOR_PREFIX = re.compile(r"(?:[a-z]{2,5}-){1,2}")


def check_org_id(org_id: str) -> str:
    """An organisation's id, if it may become part of a key's name, a path or a query.

    Raises:
        BadOrgId: It may not.
    """
    if not is_slug(org_id):
        raise BadOrgId("this cannot be the id of an organisation", hint="lower-case letters, digits and dashes, at most 63")
    return org_id


@dataclass(frozen=True)
class SealContext:
    """What a sealed key is bound to: it opens only where all of this is the same.

    Attributes:
        org_id: The organisation.
        model_id: The model.
        key_version: Version of the model's key, from 1.
        origin: Canonical origin of the base URL: `scheme://host:port`.

    Raises:
        BadOrgId: The organisation's id is none.
    """

    org_id: str
    model_id: str
    key_version: int
    origin: str

    def __post_init__(self) -> None:
        check_org_id(self.org_id)

    def encode(self) -> bytes:
        """The context as bytes: a format tag and the parts, each with its length before it, so that no two contexts are alike."""
        parts = (_FORMAT, self.org_id, self.model_id, str(self.key_version), self.origin)
        encoded = [part.encode() for part in parts]
        return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


@dataclass(frozen=True)
class OrgKey:
    """The key of an organisation in the store.

    Attributes:
        latest: Its newest version.
        least: The oldest version that still opens anything.
    """

    latest: int
    least: int


class KeyStore(Protocol):
    """Seals and opens provider keys. There is no fallback from one store to another.

    All methods may raise the errors of `byok.keystore.errors`; those that are `retryable` have been tried again already, within
    the store's own deadline.
    """

    name: str

    def seal(self, secret: str, context: SealContext) -> str:
        """Ciphertext of a secret, bound to a context."""
        ...

    def open(self, sealed: str, context: SealContext) -> str:
        """The secret that was sealed under the same context.

        Raises:
            SecretIntegrity: Another context, or a changed ciphertext.
            KeyStoreMismatch: Another store sealed it.
        """
        ...

    def fingerprint(self, secret: str, org_id: str) -> str:
        """8 hex digits that tell whether two secrets of an organisation are the same, and nothing else."""
        ...

    def org_key(self, org_id: str) -> OrgKey:
        """The state of an organisation's key.

        Raises:
            OrgKeyMissing: It has none.
            OrgKeyDisabled: It is soft-deleted.
        """
        ...

    def rotate(self, org_id: str) -> OrgKey:
        """Make a new version of an organisation's key, with which everything is sealed from now on."""
        ...

    def sealed_version(self, sealed: str) -> int:
        """The version of the organisation's key that sealed a secret.

        Raises:
            SecretIntegrity: It is no ciphertext.
            KeyStoreMismatch: Another store sealed it.
        """
        ...

    def rewrap(self, org_id: str, items: Sequence[tuple[str, SealContext]]) -> list[str | ByokError]:
        """Seal secrets anew with the newest version, without opening them; for each the new ciphertext, or why it failed."""
        ...

    def retire(self, org_id: str, least: int) -> None:
        """Make versions before `least` open nothing any more."""
        ...


def mask(secret: str) -> str:
    """What people are shown of a key: its vendor prefix and at most four characters, at a fixed width.

    Nothing is shown of a key under 20 characters: four would be too large a part of it.
    """
    if len(secret) < 20:
        return "*" * 13
    # Words alone are taken for a prefix: a key of random characters may have dashes too, and what is before them is part of it.
    found = _VENDOR_PREFIX.match(secret, 0, 8)
    prefix = found[0] if found else ""
    return (prefix + secret[len(prefix) : len(prefix) + 4] + "…").ljust(13, "*")
