"""How a limit that was found is tried again: carefully near where it was, then ever faster, for it may have been raised.

The shape is CUBIC's (RFC 9438, section 4.2): concave up to the old peak, flat around it, convex beyond. CUBIC counts seconds; here, a step
of the curve also takes so many requests that a refusal at each turn is no more than one in a hundred, however slow the endpoint is.
"""

from __future__ import annotations

_STEP_S, _STEP_REQUESTS = 8.0, 50
"""A step takes so many seconds and so many requests, whichever takes longer. The peak is reached after one step, passed by a twenty-fifth
after two, and tripled after less than five."""

_LONGEST_STEP_S = 60.0
"""But no longer than this."""

_DIP = 0.04
"""How far below the peak a rate begins anew after a refusal."""

_HURRY = 4
"""So many times faster from a peak that is no more than a first guess."""


class Cubic:
    """A curve around the last peak.

    Args:
        peak: Where the limit showed itself.
        now: Seconds of the clock in use.
        guessed: Whether the peak is no more than a first guess.
    """

    __slots__ = ("_at", "_last", "_seen", "_speed", "peak")

    def __init__(self, peak: float, now: float, guessed: bool = False) -> None:
        self.peak, self._at, self._last, self._seen = peak, now, now, 0
        self._speed = _HURRY if guessed else 1

    def saw(self, bound: bool, now: float) -> None:
        """One more request.

        Args:
            bound: Whether it was the limit that bound it. Time in which it was not does not count, or the limit would grow without ever
                having been tried (RFC 9438, section 5.8).
            now: Seconds of the clock in use.
        """
        if bound:
            self._seen += 1
        else:
            self._at += now - self._last
        self._last = now

    def steps(self, now: float) -> float:
        """Steps since the limit showed itself, at the usual speed."""
        seconds = now - self._at
        return min(seconds / _STEP_S, max(self._seen / _STEP_REQUESTS, seconds / _LONGEST_STEP_S))

    def rate(self, now: float) -> float:
        """The curve's value, for a rate: it dips, so that what was refused can be made up for."""
        return self.peak * (1 + _DIP * (self._speed * self.steps(now) - 1) ** 3)

    def number(self, now: float) -> float:
        """The curve's value without the dip, for a number of requests: one less of few would be a great deal less."""
        return self.peak * (1 + _DIP * max(0.0, self._speed * self.steps(now) - 1) ** 3)
