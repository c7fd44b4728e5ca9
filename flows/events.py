"""Lets whoever started a flow in this process hear which run it drives; in a worker nobody listens."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

Listener = Callable[[str], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def listen(listener: Listener) -> None:
    """Hear of runs that flows of this context start."""
    _listener.set(listener)


def announce(run_id: str) -> None:
    """Say that a run has been planned."""
    listener = _listener.get()
    if listener is not None:
        listener(run_id)
