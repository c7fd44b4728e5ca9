"""Evaluate one model on one data set: register, probe, evaluate, score with embeddings, judge, bill, report."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from byok.engine.plan import RunPlan
from byok.errors import ByokError
from byok.runs import EvaluationRequest, Finished, Resumption
from flows.approval import registered
from flows.events import announce
from flows.hooks import on_cancellation, on_crashed
from flows.shards import Spread, in_process
from flows.signals import ended_by_signals
from tasks.bill import bill
from tasks.embed import embed_shard
from tasks.evaluate import evaluate_shard
from tasks.judge import judge_shard
from tasks.probe import probe
from tasks.register import find
from tasks.report import report


@flow(name="evaluate", persist_result=False, validate_parameters=True, on_cancellation=[on_cancellation], on_crashed=[on_crashed])
async def evaluate(request: EvaluationRequest) -> State[Any]:
    """Register (look up and pin), probe, evaluate, score with embeddings, judge, bill and report one run.

    Args:
        request: The model, the data set, the graders and judges, and how to run them.
    """
    plan = await registered(request)
    return rejected() if plan is None else await carry_out(plan)


@flow(name="resume", persist_result=False, validate_parameters=True, on_cancellation=[on_cancellation], on_crashed=[on_crashed])
async def resume(run_id: str, changes: Resumption | None = None) -> State[Any]:
    """Go on with a run that was stopped: what is answered, scored or judged is not asked for again.

    Args:
        run_id: Id of the run (byok run list).
        changes: Other caps, and what becomes of rows whose answer was not seen; empty leaves them.
    """
    return await carry_out(await find(run_id, changes))


def rejected() -> State[Any]:
    """How a run ends that nobody agreed to."""
    return Cancelled(message="the run was not approved: nothing was asked, and nothing is owed")


async def carry_out(plan: RunPlan, spread: Spread = in_process) -> State[Any]:
    """All stages of a run that has been registered, from wherever it stands.

    Args:
        plan: The run.
        spread: How the shards of a stage are carried out.
    """
    announce(plan.run_id)
    with ended_by_signals(plan.run_id):
        return await _stages(plan, spread)


async def _stages(plan: RunPlan, spread: Spread) -> State[Any]:
    run = plan.run_id
    try:
        await probe(run)
        done = await spread(plan, evaluate_shard)
        for embedder in plan.embedders:
            if not done.halted:
                done = done.then(await spread(plan, embed_shard, embedder.spec))
        for judge in plan.judges:
            if not done.halted:
                done = done.then(await spread(plan, judge_shard, judge.name))
    except ByokError as error:
        # What was done was paid for: it is billed and reported before the flow fails.
        await bill(run)
        await report(run, error)
        raise
    await bill(run)
    return _final_state(await report(run, stopped_by=done.stopped_by, stopped_message=done.stopped_message))


def _final_state(finished: Finished) -> State[Any]:
    """Green only for a run that is complete, valid and above its thresholds."""
    if finished.stopped_by == "run_cancelled":
        return Cancelled(message=f"run {finished.run_id} was cancelled; what it has done is kept, and it can be resumed")
    if finished.stopped_by == "budget_reached":
        return Failed(name="BudgetReached", message=f"run {finished.run_id} has reached its cap; it can be resumed with a higher one")
    if finished.status != "completed":
        return Failed(name=finished.status.capitalize(), message=f"run {finished.run_id} is {finished.status}")
    if finished.below:
        return Failed(name="BelowThreshold", message=f"run {finished.run_id}: {len(finished.below)} score(s) below the threshold")
    return Completed(message=f"run {finished.run_id} is completed")
