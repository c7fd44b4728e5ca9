"""What every key store does, and how it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from byok.errors import NotPermitted, OutsideError

_FORMAT = "byok-key-v1"


@dataclass(frozen=True)
class SealContext:
    """What a sealed key is bound to: it opens only where all of this is the same.

    Attributes:
        org_id: The organisation.
        model_id: The model.
        key_version: Version of the model's key, from 1.
        origin: Canonical origin of the base URL: `scheme://host:port`.
    """

    org_id: str
    model_id: str
    key_version: int
    origin: str

    def encode(self) -> bytes:
        """The context as bytes: a format tag and the parts, each with its length before it, so that no two contexts are alike."""
        parts = (_FORMAT, self.org_id, self.model_id, str(self.key_version), self.origin)
        encoded = [part.encode() for part in parts]
        return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


class KeyStore(Protocol):
    """Seals and opens provider keys. There is no fallback from one store to another."""

    name: str

    def seal(self, secret: str, context: SealContext) -> str:
        """Ciphertext of a secret, bound to a context.

        Raises:
            OutsideError: The store does not answer.
        """
        ...

    def open(self, sealed: str, context: SealContext) -> str:
        """The secret that was sealed under the same context.

        Raises:
            SecretIntegrity: Another context, or a changed ciphertext.
            OutsideError: The store does not answer, or has lost the key.
        """
        ...

    def fingerprint(self, secret: str, org_id: str) -> str:
        """8 hex digits that tell whether two secrets of an organisation are the same, and nothing else."""
        ...


class KeyStoreUnreachable(OutsideError):
    """The key store does not answer."""

    code = "key_store_unreachable"
    retryable = True


class KeyStoreDenied(NotPermitted):
    """The key store, or the file that holds its keys, may not be used as it is."""

    code = "key_store_denied"


class OrgKeyMissing(OutsideError):
    """The key that sealed this secret is not in the store (any more)."""

    code = "org_key_missing"


class SecretIntegrity(OutsideError):
    """A sealed key does not open: it was changed, moved to another row, or its URL was edited. A security event."""

    code = "secret_integrity"


def mask(secret: str) -> str:
    """What people are shown of a key: its vendor prefix and at most four characters, at a fixed width.

    Nothing is shown of a key under 20 characters: four would be too large a part of it.
    """
    if len(secret) < 20:
        return "*" * 12
    head, dash, _ = secret[:8].rpartition("-")
    prefix = head + dash
    return (prefix + secret[len(prefix) : len(prefix) + 4] + "…").ljust(13, "*")
