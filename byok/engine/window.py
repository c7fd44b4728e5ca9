"""How many requests may be under way at once.

Slow start doubles the limit with each round of answers (RFC 5681, section 3.1) until an endpoint refuses. Whether it was the number of
requests, or their rate, shows in how many were under way when a refused one started: a limit of the number never lets more at once
through, and goes on refusing at the same number although others end; a limit of the rate does neither.
"""

from __future__ import annotations

from typing import Literal

from byok.engine.cubic import Cubic

Verdict = Literal["number", "perhaps", "rate"]
"""What a request was refused for: the number of requests at once, their rate, or perhaps the number."""

_GENERATION = 64
"""Answers over which it is remembered how many at once got one; at least twice as many as are under way."""

_MARK = 0.5
"""What a request that got no answer in time takes off the limit. In a round of answers, a share of them takes half that share off: the
decrease in proportion of DCTCP (RFC 8257, section 3.3)."""

_SAME, _NEAR = 0.02, 0.1
"""Parts by which two numbers may differ and still be the same, and by which what ends while a request is on its way may raise one."""

_MANY_PASSED, _ENOUGH_PASSED = 4, 20
"""If so many times more got through than were refused, it was not their number; and after so many, that number is no limit."""


class Window:
    """A limit of requests under way.

    Args:
        first: The limit at the beginning.
        most: It never passes this.
    """

    def __init__(self, first: float, most: float) -> None:
        self.limit = float(first)
        self._most = most
        self._slow_start = True
        self._proven, self._proven_before, self._seen = 0, 0, 0
        # A number at which requests were refused; answers since then; and the refusals and, of those beyond it, the answers.
        self._suspect: float | None = None
        self._since = self._bad = self._good = 0
        # The number, once it is known.
        self._curve: Cubic | None = None

    @property
    def level(self) -> float | None:
        """Requests at once that are, or seem to be, the most."""
        return self._suspect if self._curve is None else self._curve.peak

    def answered(self, beside: int, saturated: bool, now: float) -> None:
        """A request was answered.

        Args:
            beside: Requests that were under way when it started, with it.
            saturated: Whether the limit is made use of.
            now: Seconds of the clock in use.
        """
        if beside > self._proven:
            self._proven = beside
        self._seen += 1
        self._since += 1
        if self._suspect is not None and beside > self._suspect + max(1.0, _SAME * self._suspect):
            self._suspect = None
        if self._seen >= _GENERATION and self._seen >= 2 * self.limit:
            self._proven_before, self._proven, self._seen = self._proven, 0, 0
        most = self._most
        if self._curve is not None:
            self._curve.saw(saturated, now)
            self._good += beside > self._curve.peak
            most = min(most, self._curve.number(now))
        if saturated and self.limit < most:
            # Additive increase of one a round (Chiu and Jain, 1989), once the limit does not double any more.
            self.limit = min(most, self.limit + (1.0 if self._slow_start else 1.0 / self.limit))

    def refused(self, beside: int, passed: int, now: float) -> Verdict:
        """A request was refused because there were too many.

        Args:
            beside: Requests that were under way when it started, with it, without those that were refused too.
            passed: Those that started before it with more beside them than `level`, and were not refused.
            now: Seconds of the clock in use.

        Returns:
            What it was refused for.
        """
        level = max(beside - 1.0, 1.0)
        if self._curve is not None and level >= self._curve.peak:
            return self._beyond(self._curve.peak, level, passed, now)
        if beside <= max(self._proven, self._proven_before):
            return "rate"
        suspect = self._suspect
        if suspect is None or level > suspect + max(1.0, _SAME * suspect):
            self._suspect, self._since, self._bad = level, 0, 1
            return "perhaps"
        if level < suspect - max(1.0, _SAME * suspect) or passed > self._bad:
            # Fewer and fewer are under way, or more got through: the number is not what it refuses for.
            self._suspect = None
            return "rate"
        self._bad += 1
        if self._since < max(4.0, suspect / 8):
            return "perhaps"
        self._found(min(self.limit, level), now)
        return "number"

    def _beyond(self, peak: float, level: float, passed: int, now: float) -> Verdict:
        """A request beyond the known number was refused."""
        self._bad += 1
        good = self._good + passed
        if good >= _MANY_PASSED * self._bad:
            if good >= _ENOUGH_PASSED:
                self._curve = self._suspect = None
            return "rate"
        if level <= (1 + _NEAR) * peak:
            self.limit, self._curve = min(self.limit, peak), Cubic(peak, now)
        else:
            self._found(min(self.limit, level), now)
        return "number"

    def _found(self, number: float, now: float) -> None:
        self._curve, self._good, self._bad = Cubic(number, now), 0, 0
        self.limit = number

    def storm(self) -> None:
        """Nothing gets through, which tells nothing of the number."""
        self._suspect = None

    def slow(self) -> None:
        """A request got no answer in time."""
        self._slow_start = False
        self.limit = max(1.0, self.limit - _MARK)
