"""Vectors of texts: made of hashed words and parts of words, so that texts with the same words lie near each other."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from functools import lru_cache

_GRAM = 4
_SHORT = 3


def normal(text: str) -> str:
    """A text without differences of letter case and of space: what two texts must share to have one vector."""
    return " ".join(text.casefold().split())


def features(text: str) -> dict[str, float]:
    """Words and parts of words of a text, with their weights: long words count more than short ones, which are mostly grammar."""
    found: dict[str, float] = {}
    for word in normal(text).split(" "):
        bare = "".join(sign for sign in word if sign.isalnum())
        if not bare:
            continue
        weight = 1.0 if len(bare) > _SHORT else 0.25
        found[bare] = found.get(bare, 0) + weight
        padded = f"^{bare}$"
        grams = [padded[start : start + _GRAM] for start in range(len(padded) - _GRAM + 1)] if len(bare) > _SHORT else []
        for gram in grams:
            found[f"#{gram}"] = found.get(f"#{gram}", 0) + weight / len(grams)
    # A text of signs alone is its own only feature.
    return found or {f"={normal(text)}": 1.0}


def embed(text: str, dimensions: int, kept: int | None = None) -> list[float]:
    """The vector of a text: of length 1, and the same one each time.

    Args:
        text: The text.
        dimensions: Of the model.
        kept: Of the vector: the first ones, brought to length 1 again.

    Returns:
        Floats of single precision.
    """
    total = [0.0] * dimensions
    for feature, weight in features(text).items():
        # Many equal words say little more than some.
        strength = math.sqrt(weight)
        total = [value + sign * strength for value, sign in zip(total, _signs(feature, dimensions), strict=True)]
    total = total[:kept]
    length = math.sqrt(math.fsum(value * value for value in total))
    if not length:
        total, length = [1.0, *total[1:]], 1.0
    return list(struct.unpack(f"<{len(total)}f", struct.pack(f"<{len(total)}f", *(value / length for value in total))))


def as_base64(vector: list[float]) -> str:
    """A vector as base64 of its floats of single precision, the lowest byte first."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


@lru_cache(maxsize=4096)
def _signs(feature: str, dimensions: int) -> tuple[int, ...]:
    """A direction for a feature: 1 or -1 for each dimension."""
    digest = hashlib.shake_256(feature.encode()).digest((dimensions + 7) // 8)
    return tuple(1 if digest[position // 8] >> (position % 8) & 1 else -1 for position in range(dimensions))
