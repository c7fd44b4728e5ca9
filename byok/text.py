"""Texts that models and people wrote, made safe to look at."""

from __future__ import annotations

import unicodedata

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """`text` with control, escape and bidirectional characters replaced by U+FFFD; line ends and tabs stay."""
    return "".join(
        char if char in "\n\t" or (unicodedata.category(char) not in ("Cc", "Cs") and char not in _BIDI) else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )
