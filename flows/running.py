"""Run what the command line asked for, and tell it how that goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from prefect.exceptions import FailedRun

from byok.errors import ByokError
from byok.runs import EvaluationRequest
from flows.evaluation import evaluate, resume
from flows.events import listen

Say = Callable[[dict[str, Any]], None]


def run_all(given: bytes, write: Callable[[bytes], object]) -> None:
    """Run evaluations side by side to their end.

    Args:
        given: What they are, as JSON; see `flows.launch`.
        write: Takes each event as a line of JSON.
    """
    requests = [_read(one) for one in orjson.loads(given)["requests"]]

    def say(event: dict[str, Any]) -> None:
        write(orjson.dumps(event) + b"\n")

    async def run() -> None:
        await asyncio.gather(*(asyncio.create_task(_run(index, request, say)) for index, request in enumerate(requests)))

    asyncio.run(run())


def _read(told: dict[str, Any]) -> EvaluationRequest | str:
    """A request for a new run, or the id of one to go on with."""
    return str(told["resume"]) if "resume" in told else EvaluationRequest.model_validate(told)


async def _run(index: int, request: EvaluationRequest | str, say: Say) -> None:
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
