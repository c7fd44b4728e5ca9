"""Intervals for scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

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
    z, rate = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), passed / n
    middle, half = rate + z * z / (2 * n), z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends, the formula gives 0 and 1 but for the rounding.
    low, high = (middle - half) / scale, (middle + half) / scale
    return Interval(rate, 0.0 if passed == 0 else low, 1.0 if passed == n else high, "wilson")


def mean_interval(scores: Sequence[float]) -> Interval:
    """A mean with Student's t interval; one score has none."""
    n = len(scores)
    if n == 0:
        return Interval(None, None, None, "none")
    mean = math.fsum(scores) / n
    if n == 1:
        return Interval(mean, None, None, "none")
    from scipy.special import stdtrit  # a third of a second of import (scipy.stats: over one), so only where it is needed

    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (n - 1))
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, "t")
