"""A run from its first stage to its last, in this process and without Prefect: what the flow does, in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable

from byok.app import Services
from byok.engine.plan import RunPlan
from byok.errors import ByokError
from byok.runs import (
    Finished,
    ShardReport,
    answer_shard,
    bill_run,
    embed_shard,
    finish_run,
    judge_shard,
    probe_models,
    resume_run,
)


async def _stage(shards: Iterable[Awaitable[ShardReport]]) -> tuple[str | None, str | None]:
    reports = await asyncio.gather(*shards)
    stopped = next((report for report in reports if report.stopped_by), None)
    if stopped is not None:
        return stopped.stopped_by, stopped.stopped_message
    return ("unknown_held", None) if any(report.held for report in reports) else (None, None)


async def stages(services: Services, plan: RunPlan) -> tuple[str | None, str | None]:
    """Probe, answer, embed and judge; code and text of what stopped it, if anything did."""
    run = plan.run_id
    await probe_models(services, run)
    stopped = await _stage(answer_shard(services, run, shard) for shard in range(plan.shards))
    for embedder in plan.embedders:
        if stopped[0] is None:
            stopped = await _stage(embed_shard(services, run, embedder.spec, shard) for shard in range(plan.shards))
    for judge in plan.judges:
        if stopped[0] is None:
            stopped = await _stage(judge_shard(services, run, judge.name, shard) for shard in range(plan.shards))
    return stopped


def carry_out(services: Services, plan: RunPlan) -> Finished:
    """All stages of a run, from wherever it stands; an error of a stage ends it as it ends the flow, but is not raised."""
    resume_run(services, plan.run_id)
    error: ByokError | None = None
    stopped: tuple[str | None, str | None] = (None, None)
    try:
        stopped = asyncio.run(stages(services, plan))
    except ByokError as problem:
        error = problem
    bill_run(services, plan.run_id)
    return finish_run(services, plan.run_id, error, *stopped)
