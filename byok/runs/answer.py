"""Evaluate one shard: answer its rows, grade the answers with code, and seal both for the warehouse."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from byok.app import Services
from byok.clock import iso, utcnow
from byok.engine.attempts import Outcome, Unit
from byok.engine.plan import RunPlan
from byok.runs.folder import open_run
from byok.runs.journals import answer_journal
from byok.runs.reuse import earlier_answers, request_hash
from byok.runs.rows import messages_of, sample_id
from byok.runs.seal import seal
from byok.runs.stage import ShardReport, open_stage


async def answer_shard(services: Services, run_id: str, shard: int, parts: int = 1) -> ShardReport:
    """Answer all rows of one shard that have no answer yet.

    Args:
        services: The installation, and who asks.
        run_id: The run.
        shard: Number of the shard.
        parts: Processes that work on this run at the same time, each with its share of the limits.

    Raises:
        RunUnknown: There is no such run.
        JournalBusy: Another process works on this shard.
        OutsideError: The key store does not open the model's key.
    """
    folder, plan = open_run(services, run_id, "run.evaluate")
    numbers = plan.rows_of(shard)
    of = answer_journal(plan, folder, shard)
    async with open_stage(services, plan, folder, of, len(numbers), parts) as stage:
        earlier = _earlier(services, plan, numbers)

        def units() -> Iterator[Unit]:
            for row in services.datasets.rows(plan.dataset.version, numbers):
                unit_id = sample_id(plan, row)
                if not stage.open(unit_id):
                    continue
                messages = messages_of(plan, row)
                found = earlier.get(request_hash(plan, row, messages)) if earlier else None
                if found is not None:
                    stage.take_over(_reused(unit_id, found))
                    continue
                yield Unit(
                    id=unit_id,
                    sample_id=unit_id,
                    messages=messages,
                    max_tokens=plan.max_tokens,
                    temperature=plan.temperature,
                    first_attempt=stage.before.next_attempt(unit_id),
                )

        async def answer(unit: Unit) -> None:
            outcome = await stage.attempt(unit)
            if outcome is not None:
                result = _result(outcome)
                stage.settle(result, *outcome.records, failed=result["status"] == "failed")

        await stage.work_off(units(), answer)
    # In a thread: the other shards go on asking meanwhile.
    return stage.report(await asyncio.to_thread(seal, services, plan, of))


def _earlier(services: Services, plan: RunPlan, numbers: Sequence[int]) -> dict[str, dict[str, Any]]:
    if not plan.reuse:
        return {}
    rows = services.datasets.rows(plan.dataset.version, numbers)
    return earlier_answers(services, plan, [request_hash(plan, row, messages_of(plan, row)) for row in rows])


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


def _reused(unit_id: str, found: dict[str, Any]) -> dict[str, Any]:
    """The result of a sample whose answer an earlier run has paid for. Latency and tokens belong to that run."""
    return {
        "k": "result",
        "unit": unit_id,
        "attempt_id": None,
        "status": "answered",
        "output": found["output"],
        "reasoning": found["reasoning"],
        "finish_reason": found["finish_reason"],
        "error_code": None,
        "attempts": 0,
        "latency_ms": None,
        "prompt_tokens": None,
        "completion_tokens": None,
        "reused_from": found["sample_id"],
        "at": iso(utcnow()),
    }
