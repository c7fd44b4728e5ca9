"""Texts that models and people wrote, made safe to look at."""

from __future__ import annotations

import re
import unicodedata

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSEEN = re.compile(f"[\x7f-\x9f{''.join(sorted(_BIDI))}]")


def visible(text: str) -> str:
    """`text` with control, escape and bidirectional characters replaced by U+FFFD; line ends and tabs stay."""
    return "".join(
        char if char in "\n\t" or (unicodedata.category(char) not in ("Cc", "Cs") and char not in _BIDI) else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def escaped_json(text: str) -> str:
    """JSON text with the control and bidirectional characters that JSON lets stand escaped too: the same value, safe in a terminal."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
