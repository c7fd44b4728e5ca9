"""Identifiers: UUIDv7 for what is new, UUIDv5 of the natural key for what a retry may write again."""

from __future__ import annotations

import re

import uuid_utils

_NAMESPACE = uuid_utils.UUID("6f3c1f0e-6a55-5d0c-9d0b-3a8b5f1d2c4e")


SLUG = r"[a-z0-9][a-z0-9-]{0,62}"
"""What may be part of a path, a key's name in Vault, or a command: names of organisations, keys of models, ids."""


def is_slug(text: str) -> bool:
    """Whether a text is a slug, from its first character to its last."""
    return re.fullmatch(SLUG, text) is not None


def new_id() -> str:
    """A new UUIDv7 (RFC 9562, section 5.7): unique, and in the order of creation."""
    return str(uuid_utils.uuid7())


def natural_id(kind: str, *parts: str | int) -> str:
    """The UUIDv5 of a natural key: the same parts give the same id, so a retry rewrites its own row.

    Each part is length-prefixed, so ("a", "bc") and ("ab", "c") differ.
    """
    name = f"{len(kind)}:{kind}" + "".join([f"{len(text)}:{text}" for text in map(str, parts)])
    return str(uuid_utils.uuid5(_NAMESPACE, name))
