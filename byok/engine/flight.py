"""The requests that are under way at one endpoint, and how many were so when each of them came to it."""

from __future__ import annotations

from byok.engine.buckets import Bucket
from byok.engine.pace import Slot

_MOMENT_S = 0.001
"""What ends within so short a time after another request started was not beside it when that came to the endpoint."""

_SPREAD, _AT_ONCE, _AT_ONCE_S = 1.2, 2.0, 0.01
"""Once an endpoint has refused, requests are spread over a round of answers: so many times as fast as they would be evenly (as Linux paces
TCP), and so many at once, or so many seconds' worth."""

_WEIGHT = 0.05
"""Of the newest answer in the running mean of how long they take."""


class Flight:
    """Requests that are under way."""

    def __init__(self) -> None:
        self._slots: set[Slot] = set()
        self._just: list[Slot] = []
        self._latency_s = 0.0
        self._round: Bucket | None = None

    def __len__(self) -> int:
        return len(self._slots)

    def wait_s(self, limit: float, now: float) -> float:
        """Seconds until another request may start; 0.0: now.

        Args:
            limit: Requests that may be under way at once.
            now: Seconds of the clock in use.
        """
        if self._round is None or not self._latency_s:
            return 0.0
        rate = _SPREAD * limit / self._latency_s
        self._round.change(rate, max(_AT_ONCE, rate * _AT_ONCE_S), now)
        return self._round.wait_s(1, now)

    def start(self, slot: Slot, now: float) -> None:
        """A request starts."""
        self._slots.add(slot)
        slot.beside = len(self._slots)
        if self._just and now - self._just[0].at > _MOMENT_S:
            self._just.clear()
        self._just.append(slot)
        if self._round is not None:
            self._round.take(1, now)

    def end(self, slot: Slot, now: float) -> None:
        """A request is over."""
        self._slots.remove(slot)
        if self._just and now - self._just[0].at <= _MOMENT_S:
            for other in self._just:
                other.beside -= 1

    def took(self, seconds: float) -> None:
        """A request was answered after so many seconds."""
        self._latency_s += (seconds - self._latency_s) * (_WEIGHT if self._latency_s else 1.0)

    def refused(self, slot: Slot, level: float | None, now: float) -> int:
        """A request that is over was refused: it was not beside any other.

        Args:
            slot: The request.
            level: A number of requests at once, or None.
            now: Seconds of the clock in use.

        Returns:
            Requests under way that started before it with more than `level` beside them, and were not refused.
        """
        if self._round is None:
            self._round = Bucket(1.0, _AT_ONCE, now)
        passed = 0
        for other in self._slots:
            if other.seq > slot.seq:
                other.beside -= 1
            elif level is not None and other.beside > level:
                passed += 1
        return passed
