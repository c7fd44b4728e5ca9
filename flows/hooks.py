"""What is done for a run whose flow run was ended from outside: killed, crashed, or cancelled before it could end by itself.

Prefect calls these in the process of the worker, with these very names of parameters.
"""

from __future__ import annotations

import logging
from typing import Any

from byok.errors import ByokError
from byok.runs import close_run, run_id_for

_log = logging.getLogger("byok.flows")


def _close(flow_run: Any, code: str) -> None:
    run_id = (flow_run.parameters or {}).get("run_id") or run_id_for(str(flow_run.id))
    from tasks.opening import open_services  # opens the block of the key store, which needs Prefect's API

    try:
        close_run(open_services(), run_id, code)
    except ByokError as problem:
        # The run's journals hold all that was done: going on with it finds them.
        _log.warning("run %s could not be closed: %s", run_id, problem.message)


def on_cancellation(flow: Any, flow_run: Any, state: Any) -> None:
    """Bill and report what a cancelled run has done, unless it did so itself."""
    _close(flow_run, "run_cancelled")


def on_crashed(flow: Any, flow_run: Any, state: Any) -> None:
    """Bill and report what a run has done whose process died."""
    _close(flow_run, "run_crashed")
