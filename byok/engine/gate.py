"""What stands between a run and its next request: stop, pause, budget, the run's own ceiling, and the endpoint's limiter.

All shards of a stage in one process share one gate. Whoever waits for a retry sleeps outside of it, so that a slow server never freezes
the run.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from byok.engine.buckets import Clock
from byok.engine.budget import Amount, Budget
from byok.engine.limiter import Ended, Limiter
from byok.engine.pace import Slot
from byok.engine.shared import Shared
from byok.errors import ByokError

_LOOK_AGAIN_S = 0.05
"""Between two looks at a budget of which other processes may free a part."""


@dataclass
class Ticket:
    """One request that may leave.

    Attributes:
        slot: Its slot at the limiter.
        reserved: What was set aside of the budget.
    """

    slot: Slot
    reserved: Amount


class _Stopped(Exception):
    """Ends the waiting of those who stand at the limiter when the run is stopped. Internal."""


_NOTHING = Amount()


class Gate:
    """The way out for the requests of one run to one model, in one event loop.

    Args:
        limit: Most requests of this run under way at once.
        limiter: The endpoint's limiter; one of its own by default.
        budget: The run's budget, or None: no cap.
        now: Monotonic seconds.
    """

    def __init__(self, limit: int, limiter: Limiter | None = None, budget: Budget | None = None, now: Clock = time.monotonic) -> None:
        self.limit, self._now = limit, now
        self.limiter = limiter or Limiter()
        self.limiter.mend()
        self.budget = budget
        self.stopped_by: ByokError | None = None
        self.in_flight = 0
        self._ceiling = asyncio.Semaphore(limit)
        self._going = asyncio.Event()
        self._going.set()
        self._paused_at: float | None = None
        self._paused_s = 0.0
        self._at_limiter: set[asyncio.Future[Slot]] = set()
        self._asleep: set[asyncio.Future[None]] = set()

    @property
    def paused(self) -> bool:
        """Whether no request starts until somebody says so."""
        return not self._going.is_set()

    def pause(self) -> None:
        """Let no further request start; those under way come to their end."""
        if self.stopped_by is None and not self.paused:
            self._going.clear()
            self._paused_at = self._now()

    def go_on(self) -> None:
        """End a pause."""
        if self._paused_at is not None:
            self._paused_s += self._now() - self._paused_at
            self._paused_at = None
        self._going.set()

    def clock(self) -> float:
        """Monotonic seconds in which the run was not paused."""
        return (self._now() if self._paused_at is None else self._paused_at) - self._paused_s

    def stop(self, reason: ByokError) -> None:
        """No further request starts, ever; those under way come to their end, those who wait are let go. The first reason is kept."""
        self.stopped_by = self.stopped_by or reason
        self.go_on()
        for slot in self._at_limiter:
            if not slot.done():
                slot.set_exception(_Stopped())
        for nap in self._asleep:
            if not nap.done():
                nap.set_result(None)

    async def enter(self, tokens: float = 0.0, bound: Amount | Callable[[], Amount] = _NOTHING) -> Ticket | None:
        """Wait until a request may leave.

        Args:
            tokens: Upper bound of the tokens that it may use.
            bound: Upper bound of what it may cost, where the run has a budget; or what tells it, anew after each wait: prices change.

        Returns:
            What is to be handed to `leave`; None when the run has been stopped.
        """
        await self._ceiling.acquire()
        try:
            ticket = await self._pass(tokens, bound if callable(bound) else lambda: bound)
        except BaseException:
            self._ceiling.release()
            raise
        if ticket is None:
            self._ceiling.release()
        else:
            self.in_flight += 1
        return ticket

    async def _pass(self, tokens: float, reckoned: Callable[[], Amount]) -> Ticket | None:
        while self.stopped_by is None:
            await self._going.wait()
            bound = reckoned()
            if self.stopped_by is not None or not await self._afford(bound):
                return None
            try:
                taken = await self.limiter.take(tokens, self._at_limiter)
            except _Stopped:
                self._release(bound)
                return None
            except BaseException:
                self._release(bound)
                raise
            if self.limiter.broken is not None:
                self.stop(self.limiter.broken)
            if self.stopped_by is None and self._going.is_set() and reckoned() == bound:
                return Ticket(taken, bound)
            # Stopped, paused or made dearer while it stood in the row: the slot is somebody else's.
            self.limiter.end(taken, Ended("other"))
            self._release(bound)
        return None

    async def _afford(self, bound: Amount) -> bool:
        """Set the bound aside; wait for what others may still give back; stop the run when nobody can."""
        if self.budget is None:
            return True
        while self.stopped_by is None:
            short = self.budget.reserve(bound)
            if short is None:
                return True
            if not self.budget.any_in_flight():
                # Once more: the last of them may have given its part back since.
                short = self.budget.reserve(bound)
                if short is None:
                    return True
                self.stop(short)
                return False
            await self.sleep(_LOOK_AGAIN_S)
        return False

    def _release(self, bound: Amount) -> None:
        if self.budget is not None:
            self.budget.settle(bound, Amount())

    def leave(self, ticket: Ticket, ended: Ended, spent: Amount | None = None) -> None:
        """A request is over.

        Args:
            ticket: What `enter` returned.
            ended: How it ended.
            spent: What it cost; None when that is not known: the whole bound counts as spent.
        """
        self.limiter.end(ticket.slot, ended)
        if self.budget is not None:
            over = self.budget.settle(ticket.reserved, ticket.reserved if spent is None else spent)
            if over is not None:
                self.stop(over)
        if self.limiter.broken is not None:
            self.stop(self.limiter.broken)
        self.in_flight -= 1
        self._ceiling.release()

    async def sleep(self, seconds: float) -> None:
        """Wait; shorter when the run is stopped meanwhile."""
        if self.stopped_by is not None:
            return
        loop = asyncio.get_running_loop()
        nap: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _end, nap)
        self._asleep.add(nap)
        try:
            await nap
        finally:
            timer.cancel()
            self._asleep.discard(nap)


def _end(nap: asyncio.Future[None]) -> None:
    if not nap.done():
        nap.set_result(None)


_gates: Shared[Gate] = Shared()


def shared_gate(name: str, make: Callable[[], Gate]) -> Gate:
    """The gate that all users of `name` on this event loop share, as long as anybody holds it.

    Args:
        name: Names the run and the stage.
        make: Makes it for the first of them.
    """

    def begin() -> Gate:
        gate = make()
        if gate.budget is not None:
            weakref.finalize(gate, gate.budget.close)
        return gate

    return _gates.get(name, begin)
