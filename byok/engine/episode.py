"""Refusals that belong together, and what they tell of the rate that an endpoint lets through."""

from __future__ import annotations

import math
from collections import deque

_FEW = 4
"""Requests that tell a rate."""

_SURE_S, _SURE = 1.0, 8
"""A rate that is told by less time, or by fewer requests that got through, is a first guess."""

_SETTLED = 20
"""After so many that got through, a rate is known so well that refusals should end."""

_LATE = 8
"""So many refusals after that are no accident: they are not about the rate."""

_NOISE_FROM, _NOISE_TO = 0.04, 0.25
"""Between these shares of requests, late refusals are noise. Fewer are the last tries of a rate that is nearly right."""

_CROWD = 4
"""So many refusals among twice as many requests, after the rate was settled: the limit fell."""

_SAMPLE, _WEIGHT = 200, 0.25
"""Requests over which the share of noise is taken, and the weight of the newest share."""

_SIGMAS, _SLACK = 3, 4
"""So many standard deviations and requests more than usual are no noise."""


class Episode:
    """Refusals of which none is long after the one before.

    A token bucket that refuses is empty. So between two refusals, no more gets through than what flows in, whatever its depth: that is
    the rate. It is known at once, without waiting for answers, since refusals come fast: what was sent and not refused has got through.

    Args:
        seq: Number of the first refused request.
        at: When it started.
        pace: Requests a second at that time.
    """

    def __init__(self, seq: int, at: float, pace: float) -> None:
        self.pace = pace
        self._first, self._last = (seq, at), (seq, at)
        self._newest = deque([(seq, at)], _CROWD)
        self._refused = self._late = 0
        self._settled: int | None = None

    def add(self, seq: int, at: float, sent: int, sure: bool = True) -> None:
        """Another refused request.

        Args:
            seq: Its number.
            at: When it started.
            sent: Number of the newest request.
            sure: Whether it was refused for the rate, as far as is known.
        """
        if seq <= self._first[0]:
            return
        self._refused += 1
        if seq > self._last[0]:
            self._last = seq, at
            self._newest.append((seq, at))
        if self.passed < _SETTLED or not sure:
            self._settled, self._late = None, 0
        elif self._settled is None:
            self._settled = sent  # those that are on their way were sent faster
        elif seq > self._settled:
            self._late += 1

    @property
    def sent(self) -> int:
        """Requests from the first refused one to the last."""
        return self._last[0] - self._first[0]

    @property
    def passed(self) -> int:
        """Requests between the first and the last refused one that got through."""
        return max(0, self._last[0] - self._first[0] - self._refused)

    @property
    def seconds(self) -> float:
        """From the first refused request to the last."""
        return self._last[1] - self._first[1]

    @property
    def guessed(self) -> bool:
        """Whether its rate is no more than a first guess."""
        return self.seconds < _SURE_S or self.passed < _SURE

    def rate(self, more: float = 0.0) -> float | None:
        """Requests a second that got through; None: it is too early to tell.

        Args:
            more: To be added to their number, which is exact but for one.
        """
        if self.seconds <= 0 or self._last[0] - self._first[0] < _FEW:
            return None
        return (self.passed + more) / self.seconds

    def fallen(self, pace: float) -> Episode | None:
        """The episode that began within this one when the limit fell, so that most were refused; None: it did not.

        Args:
            pace: Requests a second now.
        """
        if self.passed < _SETTLED or len(self._newest) < _CROWD or self._last[0] - self._newest[0][0] >= 2 * _CROWD:
            return None
        _, first, *others = self._newest
        within = Episode(*first, pace)
        for seq, at in others:
            within.add(seq, at, seq)
        return within

    @property
    def noise(self) -> float | None:
        """Share of requests that are refused whatever their rate; None: there is no such noise."""
        if self._settled is None or self._late < _LATE:
            return None
        share = self._late / (self._last[0] - self._settled)
        return share if _NOISE_FROM <= share <= _NOISE_TO else None


class Noise:
    """Refusals that do not depend on the rate, and how many more than those there are.

    Args:
        share: Their share of requests.
        sent: Number of the newest request.
    """

    def __init__(self, share: float, sent: int) -> None:
        self._share, self._from, self._refused = share, sent, 0

    def refused(self, seq: int, sent: int) -> float | None:
        """Another request was refused.

        Args:
            seq: Its number.
            sent: Number of the newest request.

        Returns:
            Part of the rate that gets through, as far as that is the rate's own fault; None: no more are refused than usual.
        """
        if seq <= self._from:
            return None
        self._refused += 1
        started = sent - self._from
        usual = self._share * started
        if self._refused > usual + _SIGMAS * math.sqrt(usual) + _SLACK:
            passed = max(0.5, (1 - self._refused / started) / (1 - self._share))
            self._from, self._refused = sent, 0
            return min(passed, 1.0)
        if started >= _SAMPLE:
            self._share += _WEIGHT * (self._refused / started - self._share)
            self._from, self._refused = sent, 0
        return None

    @property
    def is_over(self) -> bool:
        """Whether hardly any are refused any more."""
        return self._share < _NOISE_FROM / 2


class Standing:
    """Whether about as many are refused whatever the rate: if so, they are noise."""

    def __init__(self) -> None:
        self._from, self._refused, self._pace = 0, 0, math.inf
        self._before: tuple[float, float] | None = None

    def begin(self, sent: int, pace: float = math.inf) -> None:
        """Count anew: nothing is known of what was before, but perhaps the rate."""
        self._from, self._refused, self._pace, self._before = sent, 0, pace, None

    def refused(self, seq: int, sent: int, pace: float) -> tuple[float, float] | None:
        """Another request was refused for the rate, as far as is known.

        Args:
            seq: Its number.
            sent: Number of the newest request.
            pace: Requests a second now.

        Returns:
            The share of noise, and the rate at which it was noticed first; None: there is none.
        """
        if seq <= self._from:
            return None
        self._refused += 1
        started = sent - self._from
        if started < _SAMPLE:
            return None
        this, before = (self._refused / started, self._pace), self._before
        self._from, self._refused, self._pace = sent, 0, pace
        self._before = this if this[0] >= _NOISE_FROM else None
        return None if before is None or self._before is None else (min(before[0], this[0]), before[1])
