"""Run evaluations in this process, for the command line.

    python -m flows.launch < requests.json

Reads `{"requests": [EvaluationRequest or {"resume": run id}, …]}` from standard input and writes one JSON event a line to standard output:
`{"event": "run", "index": 0, "run_id": …}` when a run has been planned, `{"event": "end", "index": 0, "run_id": …, "error": …}`
when it has ended. Prefect's own output goes to standard error.

It is started before its requests are known, to import Prefect while they are checked; when none come, it ends without a word.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable


def main() -> None:
    """Entry point."""
    # Nothing is under way yet: until there are requests, an interrupt leaves no traceback behind.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    is_done = _leave_at_once()
    # Events own the real standard output; whatever a library prints goes to standard error.
    events = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    # What is imported stays: looking for garbage in it, now or later, would take a sixth of the time of a short run.
    gc.disable()
    from flows.running import run_all

    gc.freeze()
    gc.enable()
    given = sys.stdin.buffer.read()
    if given:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run_all(given, events.write)
    is_done()


def _leave_at_once() -> Callable[[], None]:
    """Once the function that is returned has been called, let this process end without taking the interpreter apart.

    That would take a third of a second, for which whoever waits for the run waits too. What must be done at the end still is: handlers of
    `atexit`, which send Prefect's last events and stop its ephemeral server, are called last come, first served. This is the first.
    """
    done = False

    def is_done() -> None:
        nonlocal done
        done = True

    def leave() -> None:
        if done:
            sys.stderr.flush()
            os._exit(0)

    atexit.register(leave)
    return is_done


if __name__ == "__main__":
    main()
