"""Score one shard with embeddings: ask for the vectors of each answer and of what was expected, and take their cosine.

Like judging, it has its own journal: when it fails, no answer is paid for again. Only the cosine is kept, not the vectors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from byok.app import Services
from byok.clock import iso, utcnow
from byok.datasets import DataRow
from byok.engine.attempts import Outcome, Unit
from byok.engine.journal import read_journal
from byok.engine.plan import EmbedderRef
from byok.engine.replay import replay
from byok.grading import Verdict, no_reference, similarity
from byok.runs.folder import open_run
from byok.runs.journals import answer_journal, embed_journal
from byok.runs.reuse import earlier_verdicts, embed_hash
from byok.runs.rows import embed_verdict_id, sample_id
from byok.runs.seal import seal
from byok.runs.stage import ShardReport, open_stage


async def embed_shard(services: Services, run_id: str, spec: str, shard: int, parts: int = 1) -> ShardReport:
    """Score all answers of one shard that have no verdict of one embedder yet: one request for each, with both texts.

    Rows without an expected answer are unscored; nothing is asked about them.

    Args:
        services: The installation, and who asks.
        run_id: The run.
        spec: Canonical text of the grader.
        shard: Number of the shard.
        parts: Processes that work on this run at the same time, each with its share of the limits.

    Raises:
        RunUnknown: There is no such run.
        JournalBusy: Another process works on this shard.
        OutsideError: The key store does not open the model's key.
    """
    folder, plan = open_run(services, run_id, "run.embed")
    embedder = next(one for one in plan.embedders if one.spec == spec)
    answers = replay(read_journal(answer_journal(plan, folder, shard).path)).results
    of = embed_journal(folder, embedder, shard)
    hashes: dict[str, str] = {}

    def answered() -> Iterator[tuple[str, DataRow, str]]:
        """Sample, row and output of each answer."""
        for row in services.datasets.rows(plan.dataset.version, plan.rows_of(shard)):
            sample = sample_id(plan, row)
            result = answers.get(sample)
            if result is not None and result["status"] == "answered":
                yield sample, row, result["output"]

    planned = sum(result["status"] == "answered" for result in answers.values())
    async with open_stage(services, plan, folder, of, planned, parts) as stage:
        hashed = [embed_hash(embedder, row, output) for _, row, output in answered()] if plan.reuse else []
        earlier = earlier_verdicts(services, plan, hashed)

        def units() -> Iterator[Unit]:
            for sample, row, output in answered():
                unit_id = embed_verdict_id(sample, embedder)
                if not stage.open(unit_id):
                    continue
                verdict = no_reference(row.expected)
                if verdict is not None:
                    stage.settle(_result(unit_id, sample, None, verdict), failed=False)
                    continue
                hashes[unit_id] = embed_hash(embedder, row, output)
                found = earlier.get(hashes[unit_id])
                if found is not None:
                    old = Verdict(found["outcome"], score=found["score"], passed=found["passed"], reasoning=found["reasoning"])
                    result = _result(unit_id, sample, None, old, hashes.pop(unit_id))
                    stage.take_over(result | {"reused_from": found["verdict_id"]})
                    continue
                yield Unit(
                    id=unit_id,
                    sample_id=sample,
                    texts=(output, row.expected or ""),
                    dimensions=embedder.dimensions,
                    first_attempt=stage.before.next_attempt(unit_id),
                )

        async def ask(unit: Unit) -> None:
            # A text that the endpoint does not take is this row's failure, not the run's: refusals are free.
            outcome = await stage.attempt(unit, stops=lambda error, _: error.stops_run and error.code != "bad_request")
            if outcome is not None:
                verdict = _verdict(embedder, outcome)
                result = _result(unit.id, unit.sample_id, outcome.attempt_id, verdict, hashes.pop(unit.id))
                stage.settle(result, *outcome.records, failed=verdict.outcome == "error")

        await stage.work_off(units(), ask)
    # In a thread: the other shards go on asking meanwhile.
    return stage.report(await asyncio.to_thread(seal, services, plan, of))


def _verdict(embedder: EmbedderRef, outcome: Outcome) -> Verdict:
    if outcome.embeddings is None:
        return Verdict("error", reasoning=None if outcome.error is None else f"no embeddings came: {outcome.error.code}")
    return similarity(outcome.embeddings, Decimal(embedder.threshold), embedder.dimensions)


def _result(unit_id: str, sample: str, attempt: str | None, verdict: Verdict, hashed: str | None = None) -> dict[str, Any]:
    return {
        "k": "result",
        "unit": unit_id,
        "sample_id": sample,
        "attempt_id": attempt,
        "outcome": verdict.outcome,
        "score": verdict.score,
        "passed": verdict.passed,
        "reasoning": verdict.reasoning,
        "request_hash": hashed,
        "at": iso(utcnow()),
    }
