"""Run evaluations in this process, for the command line.

    python -m flows.launch < requests.json

Reads `{"requests": [EvaluationRequest or {"resume": run id}, …]}` from standard input and writes one JSON event a line to standard output:
`{"event": "run", "index": 0, "run_id": …}` when a run has been planned, `{"event": "end", "index": 0, "run_id": …, "error": …}`
when it has ended. Prefect's own output goes to standard error.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import orjson
from prefect.exceptions import FailedRun

from byok.errors import ByokError
from byok.runs import EvaluationRequest
from flows.evaluation import evaluate, resume
from flows.events import listen


def main() -> None:
    """Entry point."""
    # Events own the real standard output; whatever a library prints goes to standard error.
    events = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    requests = [_read(one) for one in orjson.loads(sys.stdin.buffer.read())["requests"]]

    def say(event: dict[str, Any]) -> None:
        events.write(orjson.dumps(event) + b"\n")

    asyncio.run(_run_all(requests, say))


def _read(told: dict[str, Any]) -> EvaluationRequest | str:
    """A request for a new run, or the id of one to go on with."""
    return str(told["resume"]) if "resume" in told else EvaluationRequest.model_validate(told)


async def _run_all(requests: list[EvaluationRequest | str], say: Any) -> None:
    await asyncio.gather(*(asyncio.create_task(_run(index, request, say)) for index, request in enumerate(requests)))


async def _run(index: int, request: EvaluationRequest | str, say: Any) -> None:
    planned: list[str] = []

    def heard(run_id: str) -> None:
        planned.append(run_id)
        say({"event": "run", "index": index, "run_id": run_id})

    listen(heard)
    error: dict[str, object] | None = None
    if isinstance(request, str):
        state = await resume(request, return_state=True)
    else:
        state = await evaluate(request, return_state=True)
    if state.is_failed() or state.is_crashed():
        failure = await state.aresult(raise_on_failure=False)
        if isinstance(failure, ByokError):
            error = failure.as_dict() | {"exit_code": failure.exit_code}
        # A flow that returned a failed state (partial, invalid, below a threshold) has told all in the run itself.
        elif isinstance(failure, BaseException) and not isinstance(failure, FailedRun):
            error = {"code": "internal_error", "message": f"{type(failure).__name__} in the flow", "exit_code": 4}
    say({"event": "end", "index": index, "run_id": planned[0] if planned else None, "error": error})


if __name__ == "__main__":
    main()
