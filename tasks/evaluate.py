"""Evaluate one shard of a run: one task run, with its own concurrency inside."""

from __future__ import annotations

from prefect import task

from byok.runs import ShardReport, answer_shard
from tasks.opening import open_services
from tasks.policies import SETTINGS


@task(name="evaluate-shard", **SETTINGS)
async def evaluate_shard(run_id: str, shard: int, parts: int = 1) -> ShardReport:
    """Answer and grade the rows of one shard."""
    return await answer_shard(open_services(), run_id, shard, parts)
