"""What becomes of a flow that is told to stop: by Prefect's cancel button, by a worker that goes down, by Ctrl-C.

Its requests under way come to their end, so that no answer is lost that was paid for; then it is billed and reported, and only then does
the flow end.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from byok.home import Home
from byok.runs import RunFolder

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_running: set[str] = set()
_before: dict[signal.Signals, Any] = {}


@contextmanager
def ended_by_signals(run_id: str) -> Iterator[None]:
    """As long as this lasts, a signal that would end the process cancels the run instead, as `byok run cancel` does."""
    loop = asyncio.get_running_loop()

    def cancel(number: int, frame: FrameType | None) -> None:
        for one in _running:
            RunFolder.of(Home.from_environment(), one).control.ask("cancel", "signal")
        # The loop may be asleep: it has to look at the wish.
        loop.call_soon_threadsafe(lambda: None)

    _running.add(run_id)
    # Only the main thread may; elsewhere (a test, a thread of a dask worker) signals end the process as they would.
    with suppress(ValueError):
        for number in _SIGNALS:
            previous = signal.signal(number, cancel)
            _before.setdefault(number, previous)
    try:
        yield
    finally:
        _running.discard(run_id)
        if not _running:
            with suppress(ValueError):
                for number, previous in _before.items():
                    signal.signal(number, previous)
            _before.clear()
