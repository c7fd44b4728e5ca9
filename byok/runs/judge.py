"""Judge one shard: ask one judge about each answer that there is.

Judging has its own journal: when it fails, no answer is paid for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from byok.app import Services
from byok.clock import iso, utcnow
from byok.datasets import DataRow
from byok.endpoint import EndpointError
from byok.engine.attempts import Outcome, Unit
from byok.engine.journal import read_journal
from byok.engine.plan import JudgeRef
from byok.engine.replay import replay
from byok.grading import Verdict, judge_request, parse_verdict
from byok.runs.folder import open_run
from byok.runs.journals import answer_journal, judge_journal
from byok.runs.reuse import earlier_verdicts, judge_hash
from byok.runs.rows import judge_verdict_id, sample_id
from byok.runs.seal import seal
from byok.runs.stage import ShardReport, open_stage

JUDGE_MAX_TOKENS = 1024
"""Room for the reason and the verdict."""

Mode = Literal["json_schema", "text"]


async def judge_shard(services: Services, run_id: str, judge_name: str, shard: int, parts: int = 1) -> ShardReport:
    """Ask one judge about all answers of one shard that have no verdict of it yet.

    Args:
        services: The installation, and who asks.
        run_id: The run.
        judge_name: The judge.
        shard: Number of the shard.
        parts: Processes that work on this run at the same time, each with its share of the limits.

    Raises:
        RunUnknown: There is no such run.
        JournalBusy: Another process works on this shard.
        OutsideError: The key store does not open the judge's key.
    """
    folder, plan = open_run(services, run_id, "run.judge")
    judge = next(one for one in plan.judges if one.name == judge_name)
    answers = replay(read_journal(answer_journal(plan, folder, shard).path)).results
    of = judge_journal(folder, judge, shard)
    asking = _Asking(judge)

    def answered() -> Iterator[tuple[str, DataRow, str]]:
        """Sample, row and output of each answer."""
        for row in services.datasets.rows(plan.dataset.version, plan.rows_of(shard)):
            sample = sample_id(plan, row)
            result = answers.get(sample)
            if result is not None and result["status"] == "answered":
                yield sample, row, result["output"]

    planned = sum(result["status"] == "answered" for result in answers.values())
    async with open_stage(services, plan, folder, of, planned, parts) as stage:
        earlier = earlier_verdicts(services, plan, [judge_hash(judge, row, output) for _, row, output in answered()] if plan.reuse else [])

        def units() -> Iterator[Unit]:
            for sample, row, output in answered():
                unit_id = judge_verdict_id(sample, judge)
                if not stage.open(unit_id):
                    continue
                hashed = judge_hash(judge, row, output)
                found = earlier.get(hashed)
                if found is not None:
                    stage.take_over(_reused(unit_id, sample, hashed, found))
                    continue
                yield asking.unit(unit_id, sample, row, output, stage.before.next_attempt(unit_id))

        async def ask(unit: Unit) -> None:
            outcome = await stage.attempt(unit, stops=asking.stops, fresh=asking.fresh)
            if outcome is not None and asking.falls_back(outcome):
                stage.journal.append(*outcome.records)
                again = replace(outcome.unit, first_attempt=outcome.unit.first_attempt + outcome.attempts)
                outcome = await stage.attempt(again, fresh=asking.fresh)
            if outcome is not None:
                result = asking.result(outcome)
                stage.settle(result, *outcome.records, failed=result["outcome"] != "ok")

        await stage.work_off(units(), ask)
    # In a thread: the other shards go on asking meanwhile.
    return stage.report(await asyncio.to_thread(seal, services, plan, of))


def _reused(unit_id: str, sample: str, hashed: str, found: dict[str, Any]) -> dict[str, Any]:
    """The result of a verdict that an earlier run has paid for."""
    return {
        "k": "result",
        "unit": unit_id,
        "sample_id": sample,
        "attempt_id": None,
        "outcome": found["outcome"],
        "score": found["score"],
        "passed": found["passed"],
        "label": found["label"],
        "reasoning": found["reasoning"],
        "request_hash": hashed,
        "reused_from": found["verdict_id"],
        "at": iso(utcnow()),
    }


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

    def fresh(self, unit: Unit) -> Unit:
        """The same question, asked in the mode that holds now."""
        if self.mode == "json_schema" or unit.response_format is None:
            return unit
        row, output = self._parts[unit.id]
        return self.unit(unit.id, unit.sample_id, row, output, unit.first_attempt)

    def stops(self, error: EndpointError, unit: Unit) -> bool:
        """A refused response format is no reason to stop: there is another way to ask."""
        return error.stops_run and not (unit.response_format is not None and _about_format(error))

    def falls_back(self, outcome: Outcome) -> bool:
        if outcome.unit.response_format is None or outcome.error is None or not _about_format(outcome.error):
            return False
        self.mode = "text"
        return True

    def result(self, outcome: Outcome) -> dict[str, Any]:
        row, output = self._parts.pop(outcome.unit.id)
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
            "request_hash": judge_hash(self.judge, row, output),
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
