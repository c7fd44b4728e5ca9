"""Python's own settings while a run asks an endpoint."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_THRESHOLDS = (20_000, 20, 100)
"""New objects between two looks for garbage. The usual 700 are fewer than the requests under way at once are made of, so each look would go
through all of them for nothing: a tenth of the CPU."""

_SWITCH_S = 0.0005
"""How long a thread that computes keeps the others waiting. With the usual 5 ms, each sync of a journal would wait so long for its turn."""

_lock = threading.Lock()
_users = 0
_before: tuple[tuple[int, int, int], float] = (gc.get_threshold(), sys.getswitchinterval())


@contextmanager
def tuned_for_requests() -> Iterator[None]:
    """As long as anybody is within this, the interpreter looks for garbage seldom and lets threads take turns quickly."""
    global _users, _before
    with _lock:
        _users += 1
        if _users == 1:
            _before = gc.get_threshold(), sys.getswitchinterval()
            gc.set_threshold(*_THRESHOLDS)
            sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                gc.set_threshold(*_before[0])
                sys.setswitchinterval(_before[1])
