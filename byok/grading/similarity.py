"""Score an answer by how near its embedding is to that of the expected answer: what is asked for, and the verdict on what comes."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from byok.endpoint import Embeddings, cosine
from byok.endpoint.embeddings import MOST_DIMENSIONS
from byok.grading.verdict import Verdict, unscored
from byok.ids import is_slug

THRESHOLD: Final = Decimal("0.8")
"""Least cosine that passes, where the specification names none."""

LEAST_COSINE: Final = -1.0
MOST_COSINE: Final = 1.0

_PLACES = Decimal("0.000001")
_ROUNDING = 1e-12
"""How far below the threshold a cosine may come by rounding alone: equal vectors must reach a threshold of 1."""


@dataclass(frozen=True)
class EmbeddingOptions:
    """What an `embedding_similarity` grader asks for.

    Attributes:
        model: Key of a registered model that makes embeddings.
        threshold: Least cosine that passes, -1 to 1.
        dimensions: Length of the vectors to ask for; None leaves it to the endpoint.
    """

    model: str
    threshold: Decimal
    dimensions: int | None


def model_key(text: str) -> str:
    """The key of a model.

    Raises:
        ValueError: It cannot be one.
    """
    if not is_slug(text):
        raise ValueError("the key of a model (byok model list)")
    return text


def cosine_bound(text: str) -> Decimal:
    """A threshold for a cosine.

    Raises:
        ValueError: It is no number from -1 to 1, or has more than six decimals.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or abs(value) > 1 or value != value.quantize(_PLACES):
        raise ValueError("a number from -1 to 1 with at most six decimals")
    return value + 0  # there is one zero, without a sign


def vector_length(text: str) -> int:
    """A number of dimensions.

    Raises:
        ValueError: No vector has so many.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_DIMENSIONS)) and 1 <= int(text) <= MOST_DIMENSIONS):
        raise ValueError(f"a whole number from 1 to {MOST_DIMENSIONS}")
    return int(text)


def no_reference(expected: str | None) -> Verdict | None:
    """The verdict where there is nothing to compare an answer with; None where there is."""
    if expected is None:
        return unscored("the row has no expected answer")
    return None if expected.strip() else unscored("the expected answer is empty")


def similarity(found: Embeddings, threshold: Decimal, dimensions: int | None) -> Verdict:
    """The verdict on an answer: its score is the cosine of the two vectors, from -1 to 1.

    Args:
        found: The vectors of the answer and of the expected answer.
        threshold: Least cosine that passes.
        dimensions: Length of the vectors that was asked for; None when it was left to the endpoint.
    """
    answer, expected = found.vectors
    if dimensions is not None and len(answer) != dimensions:
        return unscored(f"vectors of {len(answer)} dimensions came, and {dimensions} were asked for")
    score = cosine(answer, expected)
    if score is None:
        return unscored("a vector is zero: it has no direction to compare")
    return Verdict("ok", score, score >= float(threshold) - _ROUNDING)
