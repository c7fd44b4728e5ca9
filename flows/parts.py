"""What each shard may use of a run's limits when several work on it that cannot share a limiter."""

from __future__ import annotations

from byok.engine.buckets import per_minute
from byok.engine.plan import ModelRef, RunPlan


def parts_of(plan: RunPlan, threads: int) -> int:
    """How many shards of a run may be under way at once.

    Each keeps to its part of the run's limits, rounded down but to no less than one: with more of them, the parts would add up to more than
    the whole.

    Args:
        plan: The run.
        threads: Threads of all workers.
    """
    declared = [model.requests_per_minute for model in _models(plan) if model.requests_per_minute is not None]
    return max(1, min(threads, plan.shards, plan.concurrency, *declared))


def rest_of(plan: RunPlan, parts: int) -> float:
    """Seconds between the end of a shard and the start of the next one in its place.

    A shard begins with a fresh limiter, which lets a second's worth of a declared limit through at once. After this rest the limiter of the
    shard before it would have let through as much.
    """
    declared = [limit for model in _models(plan) for limit in (model.requests_per_minute, model.tokens_per_minute) if limit is not None]
    buckets = [per_minute(max(1, limit // parts), now=0.0) for limit in declared]
    return max((bucket.depth / bucket.rate for bucket in buckets), default=0.0)


def _models(plan: RunPlan) -> list[ModelRef]:
    return [plan.model, *(embedder.model for embedder in plan.embedders), *(judge.model for judge in plan.judges)]
