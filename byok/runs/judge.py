"""Judge one shard: ask one judge about each answer that there is.

Judging has its own journal: when it fails, no answer is paid for again.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

from byok.app import Services
from byok.clock import iso, utcnow
from byok.datasets import DataRow
from byok.endpoint import EndpointError
from byok.engine.attempts import Outcome, Unit, attempt_unit, work_off
from byok.engine.journal import Journal, read_journal
from byok.engine.limiter import shared_gate
from byok.engine.plan import JudgeRef, RunPlan
from byok.engine.replay import Replay, attempt_rows, replay
from byok.engine.retry import RetryPolicy
from byok.grading import Verdict, judge_request, parse_verdict
from byok.ids import natural_id
from byok.runs import answer as answering
from byok.runs.folder import open_run
from byok.warehouse.rows import Row, VerdictRow

JUDGE_MAX_TOKENS = 1024
"""Room for the reason and the verdict."""

Mode = Literal["json_schema", "text"]


def stage_of(judge: JudgeRef) -> str:
    """The name of a judge's stage: of its journals and its progress."""
    return f"judge-{judge.name}"


def verdict_id(sample: str, judge: JudgeRef) -> str:
    """The id of a judge's verdict on a sample: the same after a restart."""
    return natural_id("verdict", sample, "judge", judge.id, judge.version)


async def judge_shard(services: Services, run_id: str, judge_name: str, shard: int) -> answering.ShardReport:
    """Ask one judge about all answers of one shard that have no verdict of it yet.

    Raises:
        RunUnknown: There is no such run.
        OutsideError: The key store does not open the judge's key.
    """
    folder, plan = open_run(services, run_id, "run.judge")
    judge = next(one for one in plan.judges if one.name == judge_name)
    answers = replay(read_journal(folder.journal(answering.STAGE, shard)))
    planned = sum(result["status"] == "answered" for result in answers.results.values())
    path = folder.journal(stage_of(judge), shard)
    before = replay(read_journal(path))
    progress = folder.progress_file(stage_of(judge), shard, planned)
    progress.add(failed=False, count=len(before.results))
    gate = shared_gate(f"{run_id}:{stage_of(judge)}", plan.concurrency)
    asking = _Asking(judge)

    def units() -> Iterator[Unit]:
        for row in services.datasets.rows(plan.dataset.version, plan.rows_of(shard)):
            sample = answering.sample_id(plan, row)
            result = answers.results.get(sample)
            unit_id = verdict_id(sample, judge)
            if result is not None and result["status"] == "answered" and unit_id not in before.results:
                yield asking.unit(unit_id, sample, row, result["output"], before.next_attempt(unit_id))

    with Journal(path) as journal:
        async with services.registry.client(judge.model, plan.org_id, connections=plan.concurrency) as client:

            async def ask(unit: Unit) -> None:
                outcome = await attempt_unit(unit, client, journal, gate, RetryPolicy(), stops=asking.stops(unit))
                if outcome is not None and asking.falls_back(outcome):
                    journal.append(*outcome.records)
                    unit = asking.again(unit, first_attempt=unit.first_attempt + outcome.attempts)
                    outcome = await attempt_unit(unit, client, journal, gate, RetryPolicy())
                if outcome is not None:
                    result = asking.result(outcome)
                    journal.append(*outcome.records, result)
                    progress.add(failed=result["outcome"] != "ok")

            await work_off(units(), min(plan.concurrency, max(1, planned)), ask)
    progress.flush()
    state = replay(read_journal(path))
    services.warehouse.write_segment(_rows(plan, judge, state))
    return answering.ShardReport(shard, planned, len(state.results), gate.stopped_by.code if gate.stopped_by else None)


class _Asking:
    """How this judge is asked: as JSON schema until the endpoint refuses that, then in words.

    The first refusal is remembered for the rest of the shard.
    """

    def __init__(self, judge: JudgeRef) -> None:
        self.judge = judge
        self.mode: Mode = "json_schema"
        self._parts: dict[str, tuple[DataRow, str]] = {}

    def unit(self, unit_id: str, sample: str, row: DataRow, output: str, first_attempt: int) -> Unit:
        self._parts[unit_id] = (row, output)
        request = judge_request(self.judge, input=row.input, output=output, expected=row.expected, context=row.context, mode=self.mode)
        room = min(JUDGE_MAX_TOKENS, self.judge.model.max_tokens or JUDGE_MAX_TOKENS)
        return Unit(
            id=unit_id,
            sample_id=sample,
            messages=request.messages,
            max_tokens=room,
            temperature=0.0,
            response_format=request.response_format,
            first_attempt=first_attempt,
        )

    def again(self, unit: Unit, *, first_attempt: int) -> Unit:
        """The same question, asked in the mode that holds now."""
        row, output = self._parts[unit.id]
        return self.unit(unit.id, unit.sample_id, row, output, first_attempt)

    def stops(self, unit: Unit) -> Any:
        """A refused response format is no reason to stop: there is another way to ask."""
        return lambda error: error.stops_run and not (unit.response_format is not None and _about_format(error))

    def falls_back(self, outcome: Outcome) -> bool:
        if outcome.unit.response_format is None or outcome.error is None or not _about_format(outcome.error):
            return False
        self.mode = "text"
        return True

    def result(self, outcome: Outcome) -> dict[str, Any]:
        self._parts.pop(outcome.unit.id, None)
        verdict = self._verdict(outcome)
        return {
            "k": "result",
            "unit": outcome.unit.id,
            "sample_id": outcome.unit.sample_id,
            "attempt_id": outcome.attempt_id,
            "outcome": verdict.outcome,
            "score": verdict.score,
            "passed": verdict.passed,
            "label": verdict.label,
            "reasoning": verdict.reasoning,
            "at": iso(utcnow()),
        }

    def _verdict(self, outcome: Outcome) -> Verdict:
        answer = outcome.answer
        if answer is None:
            kind = "refused" if outcome.error is not None and outcome.error.code == "content_filtered" else "error"
            return Verdict(outcome=kind, score=None, passed=None, label=None, reasoning=None)
        if answer.refusal or answer.finish_reason == "content_filter":
            return Verdict(outcome="refused", score=None, passed=None, label=None, reasoning=None)
        mode: Mode = "json_schema" if outcome.unit.response_format is not None else "text"
        verdict = parse_verdict(self.judge, answer.text or "", mode)
        if verdict.outcome == "unparsable" and answer.finish_reason == "length":
            return Verdict(outcome="truncated", score=None, passed=None, label=None, reasoning=None)
        return verdict


def _about_format(error: EndpointError) -> bool:
    """Whether a refusal may be about `response_format`: it names it, or names nothing at all."""
    return error.code == "bad_request" and (error.parameter is None or "response_format" in error.parameter)


def _rows(plan: RunPlan, judge: JudgeRef, state: Replay) -> Iterator[Row]:
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
        )
