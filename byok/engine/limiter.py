"""How many requests are under way at once, and whether a run has been told to stop.

All shards of a run in one process share one gate. A waiting retry sleeps outside its slot, so a slow server never freezes
the run. (A fixed number of slots; finding the number is the limiter's next step and stays behind this face.)
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from byok.errors import ByokError

_gates: weakref.WeakValueDictionary[tuple[int, str], Gate] = weakref.WeakValueDictionary()


class Gate:
    """The slots of one run towards one model, and its stop sign.

    Args:
        limit: Most requests under way at once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.stopped_by: ByokError | None = None
        self._slots = asyncio.Semaphore(limit)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one slot."""
        async with self._slots:
            yield

    def stop(self, reason: ByokError) -> None:
        """No further request starts; those under way come to their end. The first reason is kept."""
        self.stopped_by = self.stopped_by or reason


def shared_gate(name: str, limit: int) -> Gate:
    """The gate that all users of `name` on this event loop share, as long as anybody holds it."""
    key = (id(asyncio.get_running_loop()), name)
    gate = _gates.get(key)
    if gate is None:
        gate = _gates[key] = Gate(limit)
    return gate
