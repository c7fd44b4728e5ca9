"""How many requests may be under way at one endpoint with one key, and how fast they may follow one another, found by asking.

An endpoint may limit the number of requests at once, their rate, or their tokens' rate; all that it says is that there were too many.
`Window` learns the number, `Pace` the rates, and each refusal is judged by how many were under way when the request started. While an
endpoint lets nothing through, `Circuit` holds requests back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from byok.endpoint import Limits
from byok.engine.buckets import Clock
from byok.engine.circuit import Circuit, CircuitOpen, Patience
from byok.engine.flight import Flight
from byok.engine.pace import Pace, Slot
from byok.engine.shared import Shared
from byok.engine.window import Window

FIRST = 32
"""Requests under way at once at the beginning. Enough that a run of some seconds is not over before the limit is found."""

MOST = 512
"""Beyond this, more requests at once need more machines."""

_SATURATED = 0.8
"""Part of the limit that is under way where it is made use of."""


@dataclass(frozen=True)
class Ended:
    """How a request ended, as far as the limiter is concerned.

    Attributes:
        kind: `answered`; `refused` (too many requests); `failed` (the endpoint did not answer as it should, but may later);
            `slow` (no answer in time: as bad as a refusal); `other` (says nothing of the endpoint's state).
        tokens: What the answer reports, or None.
        limits: What its headers say, or None.
        retry_after_s: The endpoint's own wait, or None.
    """

    kind: Literal["answered", "refused", "failed", "slow", "other"]
    tokens: int | None = None
    limits: Limits | None = None
    retry_after_s: float | None = None


class Limiter:
    """The slots towards one endpoint with one key; for one event loop.

    Args:
        requests_per_minute: Declared limit, or None.
        tokens_per_minute: Declared limit, or None.
        first: Requests at once at the beginning.
        patience: When to give up.
        clock: Monotonic seconds.
        jitter: A number in [0, 1).
    """

    def __init__(
        self,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        first: int = FIRST,
        patience: Patience | None = None,
        clock: Clock = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self.pace = Pace(requests_per_minute, tokens_per_minute, clock())
        self._window = Window(first, MOST)
        self._circuit = Circuit(patience or Patience(), first, jitter)
        self._flight = Flight()
        self._waiting: deque[tuple[asyncio.Future[Slot], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def limit(self) -> float:
        """Requests that may be under way at once."""
        return self._window.limit

    @property
    def in_flight(self) -> int:
        """Requests that are under way."""
        return len(self._flight)

    @property
    def broken(self) -> CircuitOpen | None:
        """Why the limiter has given up; None: it has not."""
        return self._circuit.broken

    @property
    def held(self) -> bool:
        """Whether nothing starts but a trial, because nothing got through."""
        return self._circuit.held

    def mend(self) -> None:
        """Begin anew after having given up: somebody has come to try again."""
        if self._circuit.broken is not None:
            self._circuit.broken = None
            self._circuit.reset()
            self.pace.learnt.restart(self._clock())

    async def take(self, tokens: float = 0.0, waiters: set[asyncio.Future[Slot]] | None = None) -> Slot:
        """Wait for a slot, in the order of asking.

        Args:
            tokens: Upper bound of the tokens that the request may use.
            waiters: Where to note who waits, for somebody who would end the waiting by an exception.

        Returns:
            The slot, to be handed to `end`.
        """
        if not self._waiting:
            now = self._clock()
            if self._delay(tokens, now) == 0.0:
                return self._start(tokens, now)
        slot: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting.append((slot, tokens))
        if waiters is not None:
            waiters.add(slot)
        self._pump()
        try:
            return await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled() and slot.exception() is None:
                self.end(slot.result(), Ended("other"))
            raise
        finally:
            if waiters is not None:
                waiters.discard(slot)

    def end(self, slot: Slot, ended: Ended) -> None:
        """A request is over: free its slot and learn from how it ended.

        Args:
            slot: What `take` returned.
            ended: How it ended.
        """
        now = self._clock()
        saturated = len(self._flight) >= _SATURATED * self._window.limit
        self._flight.end(slot, now)
        if ended.kind == "answered":
            self._answered(slot, ended, saturated, now)
        elif ended.kind == "refused":
            if not self._refused(slot, now):
                self._bad(slot, ended, now)
        else:
            self.pace.failed(slot, now)
            if ended.kind == "slow":
                self._window.slow()
            if ended.kind != "other":
                self._bad(slot, ended, now)
        if self._waiting:
            self._pump()

    def _answered(self, slot: Slot, ended: Ended, saturated: bool, now: float) -> None:
        self.pace.answered(slot, ended.tokens, ended.limits, now)
        self._window.answered(slot.beside, saturated, now)
        if self._circuit.good(slot.seq, slot.at):
            self.pace.learnt.restart(now)
        self._flight.took(now - slot.at)

    def _refused(self, slot: Slot, now: float) -> bool:
        """Whether there were too many at once, so that the endpoint is well."""
        self.pace.refused(slot, now)
        passed = self._flight.refused(slot, self._window.level, now)
        verdict = self._window.refused(slot.beside, passed, now)
        if verdict == "number":
            if self._circuit.held:
                self._circuit.reset()
                self.pace.learnt.restart(now)
            return True
        if not self._circuit.held:
            self.pace.learnt.refused(slot.seq, slot.at, verdict == "rate", now)
        return False

    def _bad(self, slot: Slot, ended: Ended, now: float) -> None:
        """A request got nothing: perhaps none does."""
        circuit, learnt = self._circuit, self.pace.learnt
        if not circuit.held and slot.seq <= learnt.restarted:
            return  # that was before
        if circuit.bad(slot.seq, slot.at, ended.kind == "refused", ended.retry_after_s, now):
            self._window.storm()
            learnt.stood(circuit.row_from, now)
            if not circuit.held:
                learnt.restart(now)

    def _delay(self, tokens: float, now: float) -> float | None:
        """Seconds until a request may start; None: not before another one ends."""
        circuit = self._circuit
        if circuit.broken is not None:
            return 0.0  # nobody is to wait for what does not come; whoever gets a slot looks at `broken` first
        if circuit.held:
            return max(circuit.wait_s(now), self.pace.declared_wait_s(tokens, now))
        limit = self._window.limit
        if len(self._flight) + 1 > limit:
            return None
        return max(self.pace.wait_s(tokens, now), self._flight.wait_s(limit, now))

    def _start(self, tokens: float, now: float) -> Slot:
        slot = self.pace.start(tokens, now)
        self._flight.start(slot, now)
        if self._circuit.held and self._circuit.broken is None and self._circuit.start(now):
            self.pace.learnt.restart(now)
        return slot

    def _pump(self) -> None:
        """Let those start that may, in the order of asking; wake up again when the first of the others may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = self._waiting
        while waiting:
            slot, tokens = waiting[0]
            if slot.done():
                waiting.popleft()  # cancelled meanwhile
                continue
            now = self._clock()
            delay = self._delay(tokens, now)
            if delay is None:
                return
            if delay > 0:
                self._timer = asyncio.get_running_loop().call_later(delay, self._pump)
                return
            waiting.popleft()
            slot.set_result(self._start(tokens, now))


_limiters: Shared[Limiter] = Shared()


def shared_limiter(pool: str, *, requests_per_minute: int | None, tokens_per_minute: int | None) -> Limiter:
    """The limiter of one endpoint and key, shared by all shards on this event loop as long as one of them holds it.

    Args:
        pool: Names endpoint and key without telling the key.
        requests_per_minute: Declared limit; the smallest of all that share it counts.
        tokens_per_minute: Declared limit; the smallest of all that share it counts.
    """
    limiter = _limiters.get(pool, Limiter)
    limiter.pace.declare(requests_per_minute, tokens_per_minute, time.monotonic())
    return limiter
