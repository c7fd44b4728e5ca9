"""Score one shard of a run with embeddings."""

from __future__ import annotations

from prefect import task

from byok.runs import ShardReport
from byok.runs import embed_shard as ask_embedder
from tasks.opening import open_services
from tasks.policies import SETTINGS


@task(name="embed-shard", **SETTINGS)
async def embed_shard(run_id: str, grader: str, shard: int, parts: int = 1) -> ShardReport:
    """Ask for the vectors of the answers of one shard, and compare them with what was expected."""
    return await ask_embedder(open_services(), run_id, grader, shard, parts)
