"""Token buckets: how much of something may be used for a time, evenly spread."""

from __future__ import annotations

from typing import Protocol

WINDOW_S = 60.0
"""Seconds that a declared limit is for."""


class Clock(Protocol):
    """Monotonic seconds."""

    def __call__(self) -> float: ...


class Bucket:
    """A bucket that fills at a rate up to its depth. What is larger than the depth is taken as a debt that later ones wait for.

    Args:
        rate: Units a second.
        depth: Units that may be taken at once after a quiet time.
        now: Seconds of the clock in use.
    """

    def __init__(self, rate: float, depth: float, now: float) -> None:
        self.rate, self.depth = rate, depth
        self._level, self._at = depth, now

    def wait_s(self, need: float, now: float) -> float:
        """Seconds until `need` may be taken; 0.0: now."""
        self._fill(now)
        short = min(need, self.depth) - self._level
        # Floats: a bucket that lacks the last bit of a unit has it.
        return short / self.rate if short > 1e-9 * self.depth else 0.0

    def take(self, need: float, now: float) -> None:
        """Take `need`, whatever is left then."""
        self._fill(now)
        self._level -= need

    def give_back(self, amount: float, now: float) -> None:
        """Return what was taken too much; a negative amount takes what was taken too little."""
        self._fill(now)
        self._level = min(self.depth, self._level + amount)

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._level = min(self.depth, self._level + (now - self._at) * self.rate)
            self._at = now


def per_minute(most: float, now: float) -> Bucket:
    """A bucket that never lets more than `most` through in any minute: a second's worth at once, the rest evenly.

    Args:
        most: Units in any 60 seconds.
        now: Seconds of the clock in use.
    """
    depth = max(min(most, 1.0), most / WINDOW_S)
    return Bucket((most - depth) / WINDOW_S if most > depth else most / WINDOW_S, depth, now)
