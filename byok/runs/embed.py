"""Score one shard with embeddings: ask for the vectors of each answer and of what was expected, and take their cosine.

Like judging, it has its own journal: when it fails, no answer is paid for again. Only the cosine is kept, not the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from byok.app import Services
from byok.clock import iso, utcnow
from byok.engine.attempts import Outcome, Unit, attempt_unit, work_off
from byok.engine.journal import Journal, read_journal
from byok.engine.limiter import shared_gate
from byok.engine.plan import EmbedderRef, RunPlan
from byok.engine.replay import Replay, attempt_rows, replay
from byok.engine.retry import RetryPolicy
from byok.grading import Verdict, no_reference, similarity
from byok.ids import natural_id
from byok.runs import answer as answering
from byok.runs.folder import open_run
from byok.warehouse.rows import Row, VerdictRow


def stage_of(embedder: EmbedderRef) -> str:
    """The name of an embedder's stage: of its journals and its progress. No two graders of a run share one."""
    options = embedder.spec.partition(":")[2].split(",")
    # No key of a model has a dot, so that none reads like another one with options.
    return ".".join([f"embed-{embedder.model.key}", *(option for option in options if not option.startswith("model="))])


def verdict_id(sample: str, embedder: EmbedderRef) -> str:
    """The id of an embedder's verdict on a sample: the same after a restart."""
    return natural_id("verdict", sample, "code", embedder.spec)


async def embed_shard(services: Services, run_id: str, spec: str, shard: int) -> answering.ShardReport:
    """Score all answers of one shard that have no verdict of one embedder yet: one request for each, with both texts.

    Rows without an expected answer are unscored; nothing is asked about them.

    Args:
        services: The installation, and who asks.
        run_id: The run.
        spec: Canonical text of the grader.
        shard: Number of the shard.

    Raises:
        RunUnknown: There is no such run.
        OutsideError: The key store does not open the model's key.
    """
    folder, plan = open_run(services, run_id, "run.embed")
    embedder = next(one for one in plan.embedders if one.spec == spec)
    stage = stage_of(embedder)
    answers = replay(read_journal(folder.journal(answering.STAGE, shard)))
    planned = sum(result["status"] == "answered" for result in answers.results.values())
    path = folder.journal(stage, shard)
    before = replay(read_journal(path))
    progress = folder.progress_file(stage, shard, planned)
    progress.add(failed=False, count=len(before.results))
    gate = shared_gate(f"{run_id}:{stage}", plan.concurrency)

    with Journal(path) as journal:

        def settle(unit_id: str, sample: str, attempt: str | None, verdict: Verdict, *closed: dict[str, Any]) -> None:
            journal.append(*closed, _result(unit_id, sample, attempt, verdict))
            progress.add(failed=verdict.outcome == "error")

        def units() -> Iterator[Unit]:
            for row in services.datasets.rows(plan.dataset.version, plan.rows_of(shard)):
                sample = answering.sample_id(plan, row)
                result, unit_id = answers.results.get(sample), verdict_id(sample, embedder)
                if result is None or result["status"] != "answered" or unit_id in before.results:
                    continue
                verdict = no_reference(row.expected)
                if verdict is not None:
                    settle(unit_id, sample, None, verdict)
                    continue
                yield Unit(
                    id=unit_id,
                    sample_id=sample,
                    texts=(result["output"], row.expected or ""),
                    dimensions=embedder.dimensions,
                    first_attempt=before.next_attempt(unit_id),
                )

        async with services.registry.client(embedder.model, plan.org_id, connections=plan.concurrency) as client:

            async def ask(unit: Unit) -> None:
                # A text that the endpoint does not take is this row's failure, not the run's: refusals are free.
                outcome = await attempt_unit(
                    unit, client, journal, gate, RetryPolicy(), stops=lambda error: error.stops_run and error.code != "bad_request"
                )
                if outcome is not None:
                    settle(unit.id, unit.sample_id, outcome.attempt_id, _verdict(embedder, outcome), *outcome.records)

            await work_off(units(), min(plan.concurrency, max(1, planned)), ask)
    progress.flush()
    state = replay(read_journal(path))
    services.warehouse.write_segment(_rows(plan, embedder, state))
    return answering.ShardReport(shard, planned, len(state.results), gate.stopped_by.code if gate.stopped_by else None)


def _verdict(embedder: EmbedderRef, outcome: Outcome) -> Verdict:
    if outcome.embeddings is None:
        return Verdict("error", reasoning=None if outcome.error is None else f"no embeddings came: {outcome.error.code}")
    return similarity(outcome.embeddings, Decimal(embedder.threshold), embedder.dimensions)


def _result(unit_id: str, sample: str, attempt: str | None, verdict: Verdict) -> dict[str, Any]:
    return {
        "k": "result",
        "unit": unit_id,
        "sample_id": sample,
        "attempt_id": attempt,
        "outcome": verdict.outcome,
        "score": verdict.score,
        "passed": verdict.passed,
        "reasoning": verdict.reasoning,
        "at": iso(utcnow()),
    }


def _rows(plan: RunPlan, embedder: EmbedderRef, state: Replay) -> Iterator[Row]:
    now = utcnow()
    yield from attempt_rows(plan, state, role="embedding", model=embedder.model)
    for unit_id, result in state.results.items():
        yield VerdictRow(
            org_id=plan.org_id,
            run_id=plan.run_id,
            verdict_id=unit_id,
            sample_id=result["sample_id"],
            grader=embedder.spec,
            kind="code",
            judge_version=None,
            judge_model_key=None,
            outcome=result["outcome"],
            score=result["score"],
            passed=result["passed"],
            label=None,
            reasoning=result["reasoning"],
            attempt_id=result["attempt_id"],
            occurred_at=datetime.fromisoformat(result["at"]),
            recorded_at=now,
        )
