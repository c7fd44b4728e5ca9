"""Evaluate one model on one data set: register, probe, evaluate, score with embeddings, judge, bill, report."""

from __future__ import annotations

from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from byok.engine.plan import RunPlan
from byok.errors import ByokError
from byok.runs import EvaluationRequest, Finished
from flows.events import announce
from flows.shards import side_by_side
from tasks.bill import bill
from tasks.embed import embed_shard
from tasks.evaluate import evaluate_shard
from tasks.judge import judge_shard
from tasks.probe import probe
from tasks.register import find, register
from tasks.report import report


@flow(name="evaluate", persist_result=False, validate_parameters=True)
async def evaluate(request: EvaluationRequest) -> State[Any]:
    """Register (look up and pin), probe, evaluate, score with embeddings, judge, bill and report one run.

    Args:
        request: The model, the data set, the graders and judges, and how to run them.
    """
    return await _carry_out(register(request, str(runtime.flow_run.id)))


@flow(name="resume", persist_result=False, validate_parameters=True)
async def resume(run_id: str) -> State[Any]:
    """Go on with a run that was stopped: what is answered, scored or judged is not asked for again.

    Args:
        run_id: Id of the run (byok run list).
    """
    return await _carry_out(find(run_id))


async def _carry_out(plan: RunPlan) -> State[Any]:
    announce(plan.run_id)
    run = plan.run_id
    try:
        await probe(run)
        stage = await side_by_side(evaluate_shard(run, shard) for shard in range(plan.shards))
        for embedder in plan.embedders:
            if stage.stopped_by is None:
                stage = await side_by_side(embed_shard(run, embedder.spec, shard) for shard in range(plan.shards))
        for judge in plan.judges:
            if stage.stopped_by is None:
                stage = await side_by_side(judge_shard(run, judge.name, shard) for shard in range(plan.shards))
    except ByokError as error:
        # What was done was paid for: it is billed and reported before the flow fails.
        bill(run)
        await report(run, error)
        raise
    bill(run)
    return _final_state(await report(run, stopped_by=stage.stopped_by))


def _final_state(finished: Finished) -> State[Any]:
    """Green only for a run that is complete, valid and above its thresholds."""
    if finished.status != "completed":
        return Failed(name=finished.status.capitalize(), message=f"run {finished.run_id} is {finished.status}")
    if finished.below:
        return Failed(name="BelowThreshold", message=f"run {finished.run_id}: {len(finished.below)} score(s) below the threshold")
    return Completed(message=f"run {finished.run_id} is completed")
