"""From what the journals hold to the rows of the warehouse; and the ids that a restart finds again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from byok.app import Services
from byok.clock import utcnow
from byok.datasets import DataRow
from byok.engine.plan import EmbedderRef, JudgeRef, RunPlan
from byok.engine.replay import Replay, attempt_rows
from byok.grading import Grader, parse_grader
from byok.ids import natural_id
from byok.runs.reuse import request_hash
from byok.warehouse.rows import Row, SampleRow, VerdictRow


def sample_id(plan: RunPlan, row: DataRow) -> str:
    """The id of a data row in a run: the same after a restart."""
    return natural_id("sample", plan.run_id, row.id)


def judge_verdict_id(sample: str, judge: JudgeRef) -> str:
    """The id of a judge's verdict on a sample: the same after a restart."""
    return natural_id("verdict", sample, "judge", judge.id, judge.version)


def embed_verdict_id(sample: str, embedder: EmbedderRef) -> str:
    """The id of an embedder's verdict on a sample: the same after a restart."""
    return natural_id("verdict", sample, "code", embedder.spec)


def messages_of(plan: RunPlan, row: DataRow) -> list[dict[str, Any]]:
    """What a row asks of the candidate."""
    text = f"{row.context}\n\n{row.input}" if row.context else row.input
    system = [{"role": "system", "content": plan.system}] if plan.system else []
    return [*system, {"role": "user", "content": text}]


def answer_rows(services: Services, plan: RunPlan, shard: int, state: Replay) -> Iterator[Row]:
    """Attempts, samples and verdicts of code graders of one shard."""
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
            request_hash=request_hash(plan, row, messages_of(plan, row)),
            reused_from=result.get("reused_from"),
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


def judge_rows(plan: RunPlan, judge: JudgeRef, state: Replay) -> Iterator[Row]:
    """Attempts and verdicts of one judge on one shard."""
    now = utcnow()
    yield from attempt_rows(plan, state, role="judge", model=judge.model, judge=(judge.name, judge.version))
    for unit_id, result in state.results.items():
        yield VerdictRow(
            org_id=plan.org_id,
            run_id=plan.run_id,
            verdict_id=unit_id,
            sample_id=result["sample_id"],
            grader=judge.name,
            kind="judge",
            judge_version=judge.version,
            judge_model_key=judge.model.key,
            outcome=result["outcome"],
            score=result["score"],
            passed=result["passed"],
            label=result["label"],
            reasoning=result["reasoning"],
            attempt_id=result["attempt_id"],
            occurred_at=datetime.fromisoformat(result["at"]),
            recorded_at=now,
            request_hash=result.get("request_hash"),
            reused_from=result.get("reused_from"),
        )


def embed_rows(plan: RunPlan, embedder: EmbedderRef, state: Replay) -> Iterator[Row]:
    """Attempts and verdicts of one embedder on one shard."""
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
            request_hash=result.get("request_hash"),
            reused_from=result.get("reused_from"),
        )
