"""Intervals for scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A score with its 95 % interval.

    Attributes:
        score: None when nothing was scored.
        low: Lower end; None where no interval can be given.
        high: Upper end.
        method: wilson, t or none.
    """

    score: float | None
    low: float | None
    high: float | None
    method: str


def pass_rate_interval(passed: int, n: int) -> Interval:
    """A pass rate with Wilson's score interval (Wilson 1927; Newcombe 1998, method 3)."""
    if n == 0:
        return Interval(None, None, None, "none")
    from scipy.stats import binomtest  # two seconds of import, so only where it is needed

    found = binomtest(passed, n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(passed / n, float(found.low), float(found.high), "wilson")


def mean_interval(scores: Sequence[float]) -> Interval:
    """A mean with Student's t interval; one score has none."""
    n = len(scores)
    if n == 0:
        return Interval(None, None, None, "none")
    mean = math.fsum(scores) / n
    if n == 1:
        return Interval(mean, None, None, "none")
    from scipy.stats import t

    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (n - 1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, "t")
