"""The sandbox's tokens: words and single signs. Simple on purpose, so that anyone can count again."""

from __future__ import annotations

import re
from collections.abc import Iterable

_TOKEN = re.compile(r"\w+|[^\w\s]")
_PIECE = re.compile(r"\s*(?:\w+|[^\w\s])")


def count(text: str) -> int:
    r"""Tokens of a text: matches of `\w+|[^\w\s]`."""
    return len(_TOKEN.findall(text))


def count_messages(contents: Iterable[str]) -> int:
    """Tokens of a prompt: those of its messages' texts, and nothing for roles or separators."""
    return sum(map(count, contents))


def cut(text: str, limit: int) -> str:
    """The text up to the end of its token number `limit`; the whole text if it has no more."""
    end = 0
    for number, found in enumerate(_TOKEN.finditer(text)):
        if number >= limit:
            return text[:end]
        end = found.end()
    return text


def pieces(text: str) -> tuple[str, ...]:
    """The text in parts of one token each, with the space before it; space at the end belongs to the last part.

    Joined they are the text again. A text of space alone is one part, an empty one has none.
    """
    found = _PIECE.findall(text)
    rest = text[sum(map(len, found)) :]
    if rest:
        found[-1:] = [found[-1] + rest] if found else [rest]
    return tuple(found)
