"""Log probabilities of an answer's tokens: made up, but always the same ones, and each token the likeliest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

_OTHERS = (" the", " a", " and", " of", " to", " in", " is", " it", " on", " as", " at", " by", " or", " an", " so", " if", " no", " we")


def logprob(position: int, piece: str) -> float:
    """Of one token; between -0.5 and 0."""
    return -round(hashlib.sha256(f"{position}:{piece}".encode()).digest()[0] / 512, 4)


def alternatives(position: int, piece: str, most: int) -> list[tuple[str, float]]:
    """The token itself and others that are less likely, `most` of them together."""
    own = logprob(position, piece)
    others = [word for word in (*_OTHERS, " x", " y", " z") if word != piece]
    return [(piece, own), *((word, round(own - 1 - number, 4)) for number, word in enumerate(others))][:most]


def token_id(piece: str) -> int:
    """A number for a token."""
    return int.from_bytes(hashlib.sha256(piece.encode()).digest()[:2]) + 1


def openai_entry(position: int, piece: str, top: int) -> dict[str, Any]:
    """One token in the shape of the OpenAI API."""
    found = alternatives(position, piece, top)
    return {**_token(piece, logprob(position, piece)), "top_logprobs": [_token(word, value) for word, value in found]}


def openai_logprobs(pieces: Sequence[str], top: int, start: int = 0) -> dict[str, Any]:
    """Some tokens of an answer in the shape of the OpenAI API.

    Args:
        pieces: The tokens.
        top: How many alternatives each has.
        start: Position of the first one in the answer.
    """
    return {"content": [openai_entry(start + number, piece, top) for number, piece in enumerate(pieces)], "refusal": None}


def _token(piece: str, value: float) -> dict[str, Any]:
    return {"token": piece, "logprob": value, "bytes": list(piece.encode())}
