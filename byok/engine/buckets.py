"""Token buckets: how much of something may be used for a time."""

from __future__ import annotations

from collections import deque
from typing import Protocol

WINDOW_S = 60.0
"""Seconds that a declared limit is for."""

_GRAIN_S = 0.05
"""What is taken within so short a time is remembered as one."""

_LATER_S, _LITTLE = 1e-6, 1e-9
"""So much after the end of a window, and with such a part more or less, floats leave no doubt."""


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
        """Take `need`, whatever is left then; a negative amount gives back."""
        self._fill(now)
        self._level = min(self.depth, self._level - need)

    def level(self, now: float) -> float:
        """What is in it; negative: what is owed."""
        self._fill(now)
        return self._level

    def change(self, rate: float, depth: float, now: float) -> None:
        """Fill it at another rate up to another depth from now on."""
        self._fill(now)
        self.rate, self.depth = rate, depth
        self._level = min(self._level, depth)

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._level = min(self.depth, self._level + (now - self._at) * self.rate)
            self._at = now


def per_minute(most: float, now: float, unit: float = 0.0) -> Bucket:
    """A bucket that never lets more than `most` through in any minute: a second's worth at once (or one), the rest evenly.

    So do several of them one after another, if each begins when the one before would be full.

    Args:
        most: Units in any 60 seconds.
        now: Seconds of the clock in use.
        unit: What all that is taken is a multiple of; 0.0: nothing. A part of a unit that the minute has room for lets nothing through.
    """
    depth = max(min(most, 1.0), most / WINDOW_S)
    rate = (most + unit - depth) / WINDOW_S * (1 - _LITTLE)
    return Bucket(rate if rate > 0 else most / WINDOW_S, depth, now)


class Taken:
    """What was taken of a minute's limit within one grain of time."""

    __slots__ = ("amount", "at", "first_at", "over")

    def __init__(self, now: float) -> None:
        self.amount, self.at, self.first_at, self.over = 0.0, now, now, False


class Minute:
    """A limit of what is let through in any minute, of which the amounts are known only afterwards, and may be large.

    A bucket makes it even. What it cannot see, since it takes large amounts as a debt and does not know how late an amount turned out to
    be larger, a record of the last minute does (a sliding window log).

    Args:
        most: Units in any 60 seconds.
        now: Seconds of the clock in use.
        unit: What all that is taken is a multiple of; 0.0: nothing.
    """

    def __init__(self, most: float, now: float, unit: float = 0.0) -> None:
        self.most = most
        self._unit = unit
        self._bucket = per_minute(most, now, unit)
        self._log: deque[Taken] = deque()
        self._used = 0.0

    def lower(self, most: float, now: float) -> None:
        """Let less through from now on; what was taken in the last minute counts."""
        self.most = most
        lower = per_minute(most, now, self._unit)
        self._bucket.change(lower.rate, lower.depth, now)

    def wait_s(self, need: float, now: float) -> float:
        """Seconds until it is worth asking again; 0.0: `need` may be taken now."""
        log = self._log
        while log and now - log[0].at > WINDOW_S:
            gone = log.popleft()
            gone.over = True
            self._used -= gone.amount
        if not log:
            self._used = 0.0
        elif self._used + need > self.most * (1 + _LITTLE):
            return log[0].at + WINDOW_S + _LATER_S - now
        return self._bucket.wait_s(need, now)

    def take(self, need: float, now: float) -> Taken:
        """Take `need`.

        Returns:
            Where it is remembered, for `correct`.
        """
        self._bucket.take(need, now)
        self._used += need
        if not self._log or now - self._log[-1].first_at > _GRAIN_S:
            self._log.append(Taken(now))
        taken = self._log[-1]
        taken.amount += need
        taken.at = now
        return taken

    def correct(self, taken: Taken, more: float, now: float) -> None:
        """It turned out that so much more was used than was taken; negative: less."""
        self._bucket.take(more, now)
        if not taken.over:
            taken.amount += more
            self._used += more
