"""Evaluate one shard: answer its rows, grade the answers with code, and seal both for the warehouse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from byok.app import Services
from byok.clock import iso, utcnow
from byok.datasets import DataRow
from byok.engine.attempts import Outcome, Unit, attempt_unit, work_off
from byok.engine.journal import Journal, read_journal
from byok.engine.limiter import shared_gate
from byok.engine.plan import RunPlan
from byok.engine.replay import Replay, attempt_rows, replay
from byok.engine.retry import RetryPolicy
from byok.grading import Grader, parse_grader
from byok.ids import natural_id
from byok.runs.folder import open_run
from byok.warehouse.rows import Row, SampleRow, VerdictRow

STAGE = "answer"


@dataclass(frozen=True)
class ShardReport:
    """What one task run achieved.

    Attributes:
        shard: Its number.
        planned: Units that it had to finish.
        finished: Units that are finished, those of earlier tries included.
        stopped_by: Code of the error that stopped the run, or None.
    """

    shard: int
    planned: int
    finished: int
    stopped_by: str | None


def sample_id(plan: RunPlan, row: DataRow) -> str:
    """The id of a data row in a run: the same after a restart."""
    return natural_id("sample", plan.run_id, row.id)


async def answer_shard(services: Services, run_id: str, shard: int) -> ShardReport:
    """Answer all rows of one shard that have no answer yet.

    Raises:
        RunUnknown: There is no such run.
        OutsideError: The key store does not open the model's key.
    """
    folder, plan = open_run(services, run_id, "run.evaluate")
    numbers = plan.rows_of(shard)
    path = folder.journal(STAGE, shard)
    before = replay(read_journal(path))
    progress = folder.progress_file(STAGE, shard, len(numbers))
    gate = shared_gate(f"{run_id}:{STAGE}", plan.concurrency)
    policy = RetryPolicy()
    if before.results:
        progress.add(failed=False, count=len(before.results))

    def units() -> Iterator[Unit]:
        for row in services.datasets.rows(plan.dataset.version, numbers):
            unit_id = sample_id(plan, row)
            if unit_id not in before.results:
                yield Unit(
                    id=unit_id,
                    sample_id=unit_id,
                    messages=_messages(plan, row),
                    max_tokens=plan.max_tokens,
                    temperature=plan.temperature,
                    first_attempt=before.next_attempt(unit_id),
                )

    with Journal(path) as journal:
        async with services.registry.client(plan.model, plan.org_id, connections=plan.concurrency) as client:

            async def answer(unit: Unit) -> None:
                outcome = await attempt_unit(unit, client, journal, gate, policy)
                if outcome is not None:
                    result = _result(outcome)
                    journal.append(*outcome.records, result)
                    progress.add(failed=result["status"] == "failed")

            await work_off(units(), min(plan.concurrency, len(numbers)), answer)
    progress.flush()
    state = replay(read_journal(path))
    services.warehouse.write_segment(_rows(services, plan, shard, state))
    return ShardReport(shard, len(numbers), len(state.results), gate.stopped_by.code if gate.stopped_by else None)


def _messages(plan: RunPlan, row: DataRow) -> list[dict[str, Any]]:
    text = f"{row.context}\n\n{row.input}" if row.context else row.input
    system = [{"role": "system", "content": plan.system}] if plan.system else []
    return [*system, {"role": "user", "content": text}]


def _status(outcome: Outcome) -> str:
    """answered, empty, refused or failed: the four ways in which a sample ends."""
    if outcome.answer is None:
        return "refused" if outcome.error is not None and outcome.error.code == "content_filtered" else "failed"
    if outcome.answer.refusal or outcome.answer.finish_reason == "content_filter":
        return "refused"
    return "answered" if outcome.answer.text and outcome.answer.text.strip() else "empty"


def _result(outcome: Outcome) -> dict[str, Any]:
    answer, error = outcome.answer, outcome.error
    return {
        "k": "result",
        "unit": outcome.unit.id,
        "attempt_id": outcome.attempt_id,
        "status": _status(outcome),
        "output": answer.text if answer else None,
        "reasoning": answer.reasoning if answer else None,
        "finish_reason": answer.finish_reason if answer else None,
        "error_code": error.code if error else None,
        "attempts": outcome.attempts,
        "latency_ms": answer.latency_ms if answer else None,
        "prompt_tokens": answer.usage.prompt_tokens if answer else None,
        "completion_tokens": answer.usage.completion_tokens if answer else None,
        "at": iso(utcnow()),
    }


def _rows(services: Services, plan: RunPlan, shard: int, state: Replay) -> Iterator[Row]:
    graders = [parse_grader(spec) for spec in plan.graders]
    now = utcnow()
    yield from attempt_rows(plan, state, role="candidate", model=plan.model)
    for row in services.datasets.rows(plan.dataset.version, plan.rows_of(shard)):
        unit_id = sample_id(plan, row)
        result = state.results.get(unit_id)
        if result is None:
            continue
        yield SampleRow(
            org_id=plan.org_id,
            run_id=plan.run_id,
            sample_id=unit_id,
            row_number=row.number,
            row_id=row.id,
            row_hash=row.hash,
            input=row.input,
            expected=row.expected,
            context=row.context,
            output=result["output"],
            reasoning=result["reasoning"],
            status=result["status"],
            finish_reason=result["finish_reason"],
            error_code=result["error_code"],
            attempts=result["attempts"],
            latency_ms=result["latency_ms"],
            prompt_tokens=result["prompt_tokens"],
            completion_tokens=result["completion_tokens"],
            occurred_at=datetime.fromisoformat(result["at"]),
            recorded_at=now,
        )
        if result["status"] == "answered":
            for grader in graders:
                yield _graded(plan, grader, row, unit_id, result, now)


def _graded(plan: RunPlan, grader: Grader, row: DataRow, unit_id: str, result: dict[str, Any], now: datetime) -> VerdictRow:
    verdict = grader.grade(result["output"], row.expected)
    return VerdictRow(
        org_id=plan.org_id,
        run_id=plan.run_id,
        verdict_id=natural_id("verdict", unit_id, "code", grader.spec),
        sample_id=unit_id,
        grader=grader.spec,
        kind="code",
        judge_version=None,
        judge_model_key=None,
        outcome=verdict.outcome,
        score=verdict.score,
        passed=verdict.passed,
        label=verdict.label,
        reasoning=verdict.reasoning,
        attempt_id=result["attempt_id"],
        occurred_at=datetime.fromisoformat(result["at"]),
        recorded_at=now,
    )
