"""A circuit breaker: while an endpoint lets nothing through, one request now and then sees whether it does again.

Requests are taken in the order of their start: so late answers to early ones do not hide that nothing gets through any more, and the few
refusals of a rate that is nearly right, which come before the answers of the others, are not taken for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from byok.errors import OutsideError

_TRIP, _SHARE = 10, 0.9
"""So many in a row that got nothing open the circuit, if they are such a part of those that started meanwhile."""

_FEW, _LONG_S = 5, 0.5
"""Or so many, if they started over so many seconds."""

_FIRST_HOLD_S, _LONGEST_HOLD_S = 1.0, 15.0

_TIMES = 4
"""A trial that is under way for so many times as long as a refusal takes has been let through."""


class CircuitOpen(OutsideError):
    """The endpoint has answered nothing for too long: the run stops, keeps what it has, and can be resumed."""

    code = "circuit_open"
    retryable = True


@dataclass(frozen=True)
class Patience:
    """How long an endpoint may answer nothing before the limiter gives up.

    Attributes:
        failing_s: Seconds of failures (5xx, no connection, no answer in time).
        refusing_s: Seconds of refusals for too many requests.
    """

    failing_s: float = 60.0
    refusing_s: float = 600.0


class Circuit:
    """Whether anything gets through.

    Args:
        patience: When to give up.
        first: Requests that start at once at the beginning: that most of them are refused says no more than that they are too many.
        jitter: A number in [0, 1).
    """

    def __init__(self, patience: Patience, first: int, jitter: Callable[[], float]) -> None:
        self._patience, self._first, self._jitter = patience, first, jitter
        self.broken: CircuitOpen | None = None
        self.reset()

    def reset(self) -> None:
        """Something gets through."""
        self._holds = 0
        self._held_at = self._next_at = 0.0
        self._row = self.row_from = self._row_to = 0
        self._row_at = 0.0
        self._bad_since: float | None = None
        self._trial_at: float | None = None
        self._refusal_s: float | None = None

    @property
    def held(self) -> bool:
        """Whether nothing starts but a trial."""
        return self._holds > 0

    def wait_s(self, now: float) -> float:
        """Seconds until the next trial, while it is held."""
        return max(0.0, self._next_at - now)

    def start(self, now: float) -> bool:
        """A trial starts.

        Returns:
            Whether that ends the hold, since the one before has not been refused.
        """
        if self._trial_at is not None and self._refusal_s is not None and now - self._trial_at > _TIMES * self._refusal_s:
            self.reset()
            return True
        self._trial_at, self._next_at = now, now + self._hold_s()
        return False

    def good(self, seq: int, at: float) -> bool:
        """A request was answered.

        Args:
            seq: Its number.
            at: When it started.

        Returns:
            Whether that ends a hold.
        """
        self._bad_since = None
        if self._holds and at >= self._held_at:
            self.reset()
            return True
        if seq > self.row_from:
            self._row = 0
        return False

    def bad(self, seq: int, at: float, refused: bool, retry_after_s: float | None, now: float) -> bool:
        """A request got nothing.

        Args:
            seq: Its number.
            at: When it started.
            refused: Whether it was refused because there were too many.
            retry_after_s: The endpoint's own wait, or None.
            now: Seconds of the clock in use.

        Returns:
            Whether nothing gets through, as now shows.
        """
        if self._bad_since is None:
            self._bad_since = now
        if self._holds:
            self._still_bad(at, refused, retry_after_s, now)
            return False
        if self._row:
            self._row += 1
            self.row_from, self._row_to = min(self.row_from, seq), max(self._row_to, seq)
        if not self._row or self._row_to - self.row_from > 2 * self._row + _TRIP:
            self._row, self.row_from, self._row_to, self._row_at = 1, seq, seq, at
        most = _FEW if at - self._row_at >= _LONG_S else _TRIP
        if self._row < most or self._row < _SHARE * (self._row_to - self.row_from + 1):
            return False
        self._row = 0
        if seq > self._first:
            self._holds, self._held_at = 1, now
            self._next_at = now + self._hold_s(retry_after_s)
            self._refusal_s = now - at if refused else None
        return True

    def _still_bad(self, at: float, refused: bool, retry_after_s: float | None, now: float) -> None:
        assert self._bad_since is not None
        if now - self._bad_since >= (self._patience.refusing_s if refused else self._patience.failing_s):
            self.broken = self.broken or CircuitOpen(
                f"the endpoint has answered nothing for {now - self._bad_since:.0f} s",
                hint="see what is wrong with it, then go on: byok run resume RUN",
            )
        elif at >= self._held_at:
            self._holds += 1
            self._next_at = now + self._hold_s(retry_after_s)
            self._trial_at, self._refusal_s = None, now - at if refused else None

    def _hold_s(self, retry_after_s: float | None = None) -> float:
        own: float = min(_FIRST_HOLD_S * 2.0 ** (self._holds - 1), _LONGEST_HOLD_S)
        # A longer wait that the endpoint asks for is for the request that it refused: others may get through before.
        wait = own if retry_after_s is None else min(own, max(own / 4, retry_after_s))
        return wait * (1 + 0.1 * self._jitter())
