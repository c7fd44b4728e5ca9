"""The evaluation with its shards on the workers of a Dask cluster; everything else is done where the flow runs."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from byok.runs import EvaluationRequest, Resumption
from flows.approval import registered
from flows.dask import on_cluster
from flows.evaluation import carry_out, rejected
from flows.hooks import on_cancellation, on_crashed
from tasks.register import find


@flow(name="evaluate-scaled", persist_result=False, validate_parameters=True, on_cancellation=[on_cancellation], on_crashed=[on_crashed])
async def evaluate_scaled(request: EvaluationRequest, scheduler: str | None = None) -> State[Any]:
    """Evaluate as `evaluate` does, with the shards on the workers of a Dask cluster.

    Args:
        request: The model, the data set, the graders and judges, and how to run them.
        scheduler: Address of the Dask scheduler, such as tcp://127.0.0.1:8786; empty: what BYOK_DASK_SCHEDULER says.
    """
    with on_cluster(scheduler) as spread:
        plan = await registered(request)
        return rejected() if plan is None else await carry_out(plan, spread)


@flow(name="resume-scaled", persist_result=False, validate_parameters=True, on_cancellation=[on_cancellation], on_crashed=[on_crashed])
async def resume_scaled(run_id: str, changes: Resumption | None = None, scheduler: str | None = None) -> State[Any]:
    """Go on with a run that was stopped, with its shards on the workers of a Dask cluster.

    Args:
        run_id: Id of the run (byok run list).
        changes: Other caps, and what becomes of rows whose answer was not seen; empty leaves them.
        scheduler: Address of the Dask scheduler, such as tcp://127.0.0.1:8786; empty: what BYOK_DASK_SCHEDULER says.
    """
    with on_cluster(scheduler) as spread:
        return await carry_out(await find(run_id, changes), spread)
