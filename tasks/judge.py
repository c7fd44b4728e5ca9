"""Judge one shard of a run with one judge."""

from __future__ import annotations

from prefect import task

from byok.runs import ShardReport
from byok.runs import judge_shard as ask_judge
from tasks.opening import open_services
from tasks.policies import SETTINGS


@task(name="judge-shard", **SETTINGS)
async def judge_shard(run_id: str, judge: str, shard: int, parts: int = 1) -> ShardReport:
    """Ask one judge about the answers of one shard."""
    return await ask_judge(open_services(), run_id, judge, shard, parts)
