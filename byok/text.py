"""Texts that models and people wrote, made safe to look at."""

from __future__ import annotations

import re
import unicodedata

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSEEN = re.compile(f"[\x7f-\x9f{''.join(sorted(_BIDI))}]")

# What GitHub's markdown takes for more than itself: marks, `://` and `www.` that become links on their own, and mentions, mail
# addresses and numbers of issues, which it looks for in the text that is left when all marks are gone.
_MARKUP = re.compile(r"[\\`*_~$\[\]|<>&]|:(?=//)|(?<=www)\.|@(?=\w)|#(?=\d)", re.IGNORECASE)
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "@\N{ZERO WIDTH SPACE}", "#": "#\N{ZERO WIDTH SPACE}"}


def visible(text: str) -> str:
    """`text` with control, escape and bidirectional characters replaced by U+FFFD; line ends and tabs stay."""
    return "".join(
        char if char in "\n\t" or (unicodedata.category(char) not in ("Cc", "Cs") and char not in _BIDI) else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def escaped_json(text: str) -> str:
    """JSON text with the control and bidirectional characters that JSON lets stand escaped too: the same value, safe in a terminal."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def markdown(value: object) -> str:
    """A value on one line of GitHub's markdown, in a table too, that stays what it is, whoever chose it; None is a dash."""
    text = "-" if value is None else " ".join(visible(str(value)).split())
    return _MARKUP.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), text)


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\0")


def inert(value: object) -> object:
    """A cell for a spreadsheet: a text that one would take for a formula gets a quote before it; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
