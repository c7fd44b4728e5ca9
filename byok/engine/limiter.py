"""How many requests may be under way at one endpoint with one key, found by asking.

The limit starts low enough to be polite and doubles with each round of answers (slow start) until the endpoint refuses; from then on it
grows by one a round. Refusals for being too many cut it in proportion to their share (as DCTCP does, RFC 8257, section 3.3): a few of
them trim it, a wall of them halves it round after round. What is a rate rather than a number is left to `Pace`. When nothing gets
through any more, requests are held back, and one is let through from time to time to see (a circuit breaker); if that goes on for too
long, the limiter gives up.
"""

from __future__ import annotations

import asyncio
import random
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from byok.endpoint import Limits
from byok.engine.buckets import Clock
from byok.engine.pace import Pace
from byok.errors import OutsideError

Sleep = Callable[[float], Awaitable[None]]

FIRST = 32
"""Requests under way at once at the beginning. Enough that a run of some seconds is not over before the limit is found."""

MOST = 512
"""Beyond this, more requests at once need more machines."""

_STORM = 5
"""So many refusals in a row, without an answer between them, are no accident."""

_TRIP = 16
"""So many failures in a row open the circuit."""

_FIRST_HOLD_S, _LONGEST_HOLD_S = 1.0, 15.0


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


@dataclass(frozen=True)
class Ended:
    """How a request ended, as far as the limiter is concerned.

    Attributes:
        kind: `answered`; `refused` (too many requests); `failed` (the endpoint did not answer as it should, but may later);
            `slow` (no answer in time: as bad as a refusal); `other` (says nothing of the endpoint's state).
        tokens: What the answer reports, or None.
        limits: What its headers say, or None.
        retry_after_s: The endpoint's own wait, or None.
        latency_s: From sending to the end, or None.
    """

    kind: Literal["answered", "refused", "failed", "slow", "other"]
    tokens: int | None = None
    limits: Limits | None = None
    retry_after_s: float | None = None
    latency_s: float | None = None


class Limiter:
    """The slots towards one endpoint with one key; for one event loop.

    Args:
        requests_per_minute: Declared limit, or None.
        tokens_per_minute: Declared limit, or None.
        first: Requests at once at the beginning.
        patience: When to give up.
        clock: Monotonic seconds.
        sleep: How to wait.
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
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock, self._sleep, self._jitter = clock, sleep, jitter
        now = clock()
        self.pace = Pace(requests_per_minute, tokens_per_minute, now)
        self.limit = float(first)
        self.in_flight = 0
        self.broken: CircuitOpen | None = None
        self._threshold = float(MOST)
        self._patience = patience or Patience()
        self._waiting: deque[tuple[asyncio.Future[float], float]] = deque()
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = float("inf")
        # The round: about as long as a request takes.
        self._round_at, self._latency_s = now, 0.0
        self._round_seen = self._round_refused = 0
        # What is in a row without an answer.
        self._refusals = self._failures = 0
        self._bad_since: float | None = None
        self._holds = 0
        self._trying = False

    def mend(self) -> None:
        """Begin anew after having given up: somebody has come to try again."""
        if self.broken is not None:
            self.broken, self._bad_since, self._trying = None, None, False
            self._refusals = self._failures = self._holds = 0
            self.limit, self._threshold = float(min(FIRST, 4)), float(MOST)

    @property
    def held(self) -> bool:
        """Whether nothing starts but a trial, because nothing got through."""
        return self._holds > 0

    async def take(self, tokens: float = 0.0, waiters: set[asyncio.Future[float]] | None = None) -> float:
        """Wait for a slot, in the order of asking.

        Args:
            tokens: Upper bound of the tokens that the request may use.
            waiters: Where to note who waits, for somebody who would end the waiting by an exception.

        Returns:
            Tokens that were set aside for it, to be handed to `end`.
        """
        if not self._waiting:
            now = self._clock()
            if self._delay(tokens, now) == 0.0:
                return self._start(tokens, now)
        slot: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((slot, tokens))
        if waiters is not None:
            waiters.add(slot)
        self._pump()
        try:
            return await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():
                self.end(slot.result(), Ended("other"))
            raise
        finally:
            if waiters is not None:
                waiters.discard(slot)

    def end(self, reserved: float, ended: Ended) -> None:
        """A request is over: free its slot and learn from how it ended.

        Args:
            reserved: What `take` returned.
            ended: How it ended.
        """
        now = self._clock()
        saturated = self.in_flight >= 0.8 * self.limit
        self.in_flight -= 1
        if ended.kind == "answered":
            self._answered(reserved, ended, saturated, now)
        elif ended.kind == "refused":
            self._refused(reserved, ended, now)
        elif ended.kind in ("failed", "slow"):
            self._failed(reserved, ended, now)
        else:
            self.pace.failed(reserved, now)
            self._trying = False
        self._pump()

    def _answered(self, reserved: float, ended: Ended, saturated: bool, now: float) -> None:
        self.pace.answered(reserved, ended.tokens, ended.limits, self.in_flight, now)
        if ended.latency_s is not None:
            self._latency_s = ended.latency_s if not self._latency_s else 0.9 * self._latency_s + 0.1 * ended.latency_s
        if self._holds:
            # It is back: as many at once as before, found anew from the half of what it was.
            self._threshold = max(self._threshold, 4.0)
            self.limit = max(self.limit, min(4.0, self._threshold))
        self._refusals = self._failures = self._holds = 0
        self._bad_since, self._trying = None, False
        self._round_seen += 1
        self._end_round(now)
        if saturated and self.limit < MOST:
            self.limit += 1.0 if self.limit < self._threshold else 1.0 / self.limit

    def _refused(self, reserved: float, ended: Ended, now: float) -> None:
        self.pace.refused(reserved, now)
        self._round_seen += 1
        self._round_refused += 1
        self._end_round(now)
        self._refusals += 1
        self._bad(now)
        if self._refusals >= _STORM:
            self._hold(ended, now, self._patience.refusing_s)

    def _failed(self, reserved: float, ended: Ended, now: float) -> None:
        self.pace.failed(reserved, now)
        if ended.kind == "slow":
            self._round_seen += 1
            self._round_refused += 1
            self._end_round(now)
        self._failures += 1
        self._bad(now)
        if self._failures + self._refusals >= _TRIP or self._holds:
            self._hold(ended, now, self._patience.failing_s)

    def _bad(self, now: float) -> None:
        if self._bad_since is None:
            self._bad_since = now

    def _end_round(self, now: float) -> None:
        """At the end of a round with refusals, cut the limit by half of their share of it."""
        if not self._round_refused:
            if now - self._round_at >= self._latency_s:
                self._round_at, self._round_seen = now, 0
            return
        # One refusal of the first few answers is not yet a share.
        if now - self._round_at < max(self._latency_s, 0.02) or self._round_seen < min(8.0, self.limit):
            return
        share = self._round_refused / self._round_seen
        self._round_at, self._round_seen, self._round_refused = now, 0, 0
        self.limit = self._threshold = max(1.0, self.limit * (1 - share / 2))

    def _hold(self, ended: Ended, now: float, patience_s: float) -> None:
        """Let nothing start for a while, and then one request to see."""
        assert self._bad_since is not None
        if now - self._bad_since >= patience_s and self._holds:
            minutes = f"{now - self._bad_since:.0f} s"
            self.broken = self.broken or CircuitOpen(
                f"the endpoint has answered nothing for {minutes}", hint="see what is wrong with it, then go on: byok run resume RUN"
            )
            return
        if self._holds and not self._trying:
            return  # one of those that were under way when the hold began
        if not self._holds:
            self._threshold = max(2.0, self.limit / 2)
        self.limit, self._trying = 1.0, False
        own = min(_FIRST_HOLD_S * 2.0**self._holds, _LONGEST_HOLD_S)
        self._holds += 1
        wait = own if ended.retry_after_s is None else min(max(own / 4, ended.retry_after_s), patience_s)
        self.pace.hold(now + wait * (1 + 0.1 * self._jitter()))

    def _delay(self, tokens: float, now: float) -> float | None:
        """Seconds until a request may start; None: not before another one ends."""
        if self.broken is not None:
            return 0.0  # nobody is to wait for what does not come; whoever gets a slot looks at `broken` first
        if self._holds:
            if self._trying or self.in_flight:
                return None
        elif self.in_flight >= int(self.limit):
            return None
        return self.pace.wait_s(tokens, now)

    def _start(self, tokens: float, now: float) -> float:
        self.in_flight += 1
        self._trying = self._holds > 0
        return self.pace.start(tokens, now)

    def _pump(self) -> None:
        """Let those start that may, in the order of asking; wake up again when the first of the others may."""
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
                self._wake_in(delay, now)
                return
            waiting.popleft()
            slot.set_result(self._start(tokens, now))

    def _wake_in(self, delay: float, now: float) -> None:
        if self._timer is not None and not self._timer.done():
            if self._timer_at <= now + delay:
                return
            self._timer.cancel()
        self._timer_at = now + delay
        self._timer = asyncio.get_running_loop().create_task(self._wake(delay))

    async def _wake(self, delay: float) -> None:
        await self._sleep(delay)
        self._timer_at = float("inf")
        self._timer = None
        self._pump()


_limiters: weakref.WeakValueDictionary[tuple[int, str], Limiter] = weakref.WeakValueDictionary()


def shared_limiter(pool: str, *, requests_per_minute: int | None, tokens_per_minute: int | None) -> Limiter:
    """The limiter of one endpoint and key, shared by all shards on this event loop as long as one of them holds it.

    Args:
        pool: Names endpoint and key without telling the key.
        requests_per_minute: Declared limit; the smallest of all that share it counts.
        tokens_per_minute: Declared limit; the smallest of all that share it counts.
    """
    key = (id(asyncio.get_running_loop()), pool)
    found = _limiters.get(key)
    if found is None:
        found = _limiters[key] = Limiter()
    found.pace.declare(requests_per_minute, tokens_per_minute, time.monotonic())
    return found
