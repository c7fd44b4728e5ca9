"""What the parts of a run share that go on in one event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Objects by name, one set for each event loop, each kept for as long as anybody holds it.

    Futures belong to a loop, so what makes them must not outlive it: another loop begins anew, even one that got the place in memory of a
    loop that is gone.
    """

    def __init__(self) -> None:
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.WeakValueDictionary[str, T]]
        self._loops = weakref.WeakKeyDictionary()

    def get(self, name: str, make: Callable[[], T]) -> T:
        """The object of this name in the running loop.

        Args:
            name: Its name.
            make: Makes it for the first who asks.
        """
        loop = asyncio.get_running_loop()
        known = self._loops.get(loop)
        if known is None:
            known = self._loops[loop] = weakref.WeakValueDictionary()
        found = known.get(name)
        if found is None:
            found = known[name] = make()
        return found
