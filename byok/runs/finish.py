"""Finish a run: its scores with their whole denominator, its status, and the published snapshot."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from byok.app import Services
from byok.clock import utcnow
from byok.engine.journal import read_journal
from byok.engine.plan import JudgeRef, RunPlan
from byok.engine.replay import replay
from byok.errors import ByokError
from byok.grading import LEAST_COSINE, MOST_COSINE, Interval, mean_interval, parse_grader, pass_rate_interval
from byok.runs.folder import RunFolder, open_run
from byok.runs.journals import answer_journal, embed_journal, judge_journal, probe_journal, probed_of
from byok.runs.rows import sample_id
from byok.runs.start import run_row
from byok.warehouse.rows import ScoreRow


@dataclass
class _Tally:
    """Samples by how they ended."""

    answered: int = 0
    empty: int = 0
    refused: int = 0
    failed: int = 0
    reused: int = 0
    unknown: int = 0
    """Attempts of all stages that were opened and never closed."""

    @property
    def ended(self) -> int:
        return self.answered + self.empty + self.refused + self.failed


@dataclass
class _Scores:
    """The usable verdicts of one grader."""

    kind: str
    metric: str
    low: float = 0.0
    high: float = 1.0
    values: list[float] = field(default_factory=list)
    passed: int = 0


@dataclass(frozen=True)
class Finished:
    """How a run ended.

    Attributes:
        run_id: The run.
        status: completed, partial, invalid or failed.
        below: Graders whose score is under its threshold (or that have no score though they have a threshold).
        stopped_by: Code of the error that stopped it, if one did.
    """

    run_id: str
    status: str
    below: tuple[str, ...]
    stopped_by: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the run is complete, valid and above its thresholds."""
        return self.status == "completed" and not self.below


RESUMABLE = frozenset({"budget_reached", "run_cancelled", "run_crashed", "circuit_open", "unknown_held"})
"""Codes of what stops a run that is good as far as it got, even if that is nowhere yet."""


def finish_run(
    services: Services, run_id: str, error: ByokError | None = None, stopped_by: str | None = None, stopped_message: str | None = None
) -> Finished:
    """Write the scores and the final state of a run, and publish everything it left.

    Calling it again, after a resume, writes the new state over the old one.

    Args:
        services: The installation.
        run_id: The run.
        error: What ended the run early, if anything did.
        stopped_by: Code of the error that stopped its requests, if one did.
        stopped_message: What that error said.

    Raises:
        RunUnknown: There is no such run.
    """
    folder, plan = open_run(services, run_id, "run.report")
    tally, graded, scored_fully = _collect(services, plan, folder)
    # A later state must win over an earlier one whichever arrives first: the clock is the revision.
    revision = time.time_ns() // 1000
    code = error.code if error else stopped_by
    status = _status(plan, tally, scored_fully and error is None, code)
    scores = [_score_row(plan, tally, name, one, revision) for name, one in graded.items()]
    by_name = {row.grader: row.score for row in scores}
    below = tuple(name for name, least in plan.min_scores.items() if by_name[name] is None or by_name[name] < least)  # type: ignore[operator]
    services.warehouse.write_segment(
        [
            *scores,
            run_row(
                plan,
                status=status,
                revision=revision,
                answered=tally.answered,
                empty=tally.empty,
                refused=tally.refused,
                failed=tally.failed,
                error_code=code,
                error_message=error.message if error else stopped_message,
                finished_at=utcnow(),
                unknown_attempts=tally.unknown,
                reused=tally.reused,
            ),
        ]
    )
    services.warehouse.drain()
    folder.control.end()
    return Finished(run_id, status, below, code)


def _collect(services: Services, plan: RunPlan, folder: RunFolder) -> tuple[_Tally, dict[str, _Scores], bool]:
    tally = _Tally()
    graders = [parse_grader(spec) for spec in plan.graders]
    graded = {grader.spec: _Scores("code", grader.metric) for grader in graders}
    graded |= {embedder.spec: _Scores("code", "mean", LEAST_COSINE, MOST_COSINE) for embedder in plan.embedders}
    graded |= {judge.name: _judge_scores(judge) for judge in plan.judges}
    for number, probed in enumerate(probed_of(plan)):
        tally.unknown += replay(read_journal(probe_journal(folder, number, probed).path)).unknown
    scored_fully = True
    for shard in range(plan.shards):
        answers = replay(read_journal(answer_journal(plan, folder, shard).path))
        tally.unknown += answers.unknown
        for row in services.datasets.rows(plan.dataset.version, plan.rows_of(shard)):
            result = answers.results.get(sample_id(plan, row))
            if result is None:
                continue
            setattr(tally, result["status"], getattr(tally, result["status"]) + 1)
            tally.reused += result.get("reused_from") is not None
            if result["status"] == "answered":
                for grader in graders:
                    verdict = grader.grade(result["output"], row.expected)
                    _count(graded[grader.spec], verdict.outcome, verdict.score, verdict.passed)
        answered = sum(result["status"] == "answered" for result in answers.results.values())
        stages = [(embedder.spec, embed_journal(folder, embedder, shard)) for embedder in plan.embedders]
        for name, journal in (*stages, *((judge.name, judge_journal(folder, judge, shard)) for judge in plan.judges)):
            told = replay(read_journal(journal.path))
            verdicts = told.results
            tally.unknown += told.unknown
            scored_fully = scored_fully and len(verdicts) == answered
            for result in verdicts.values():
                _count(graded[name], result["outcome"], result["score"], result["passed"])
    return tally, graded, scored_fully


def _judge_scores(judge: JudgeRef) -> _Scores:
    if judge.output == "score":
        return _Scores("judge", "mean", float(judge.scale_min), float(judge.scale_max))
    return _Scores("judge", "pass_rate")


def _count(scores: _Scores, outcome: str, score: float | None, passed: bool | None) -> None:
    if outcome == "ok" and score is not None:
        scores.values.append(score)
        scores.passed += bool(passed)


def _status(plan: RunPlan, tally: _Tally, whole: bool, code: str | None) -> str:
    if tally.ended == 0 and code not in RESUMABLE:
        return "failed"
    if tally.ended < plan.planned or not whole:
        return "partial"
    return "invalid" if tally.failed > plan.max_failure_rate * plan.planned else "completed"


def _interval(scores: _Scores) -> Interval:
    if scores.metric == "mean":
        # No mean lies outside of what a score can be, whatever Student's t says of few rows.
        found = mean_interval(scores.values)
        low, high = (None if end is None else min(max(end, scores.low), scores.high) for end in (found.low, found.high))
        return replace(found, low=low, high=high)
    return pass_rate_interval(scores.passed, len(scores.values))


def _score_row(plan: RunPlan, tally: _Tally, name: str, scores: _Scores, revision: int) -> ScoreRow:
    interval = _interval(scores)
    scored = len(scores.values)
    open_rows = plan.planned - scored
    # Bounds: what the score would be if every row without a usable verdict had got the worst or the best one.
    total = float(scores.passed) if scores.metric == "pass_rate" else sum(scores.values)
    return ScoreRow(
        org_id=plan.org_id,
        run_id=plan.run_id,
        grader=name,
        revision=revision,
        kind=scores.kind,
        metric=scores.metric,
        score=interval.score,
        low=interval.low,
        high=interval.high,
        method=interval.method,
        planned=plan.planned,
        answered=tally.answered,
        empty=tally.empty,
        refused=tally.refused,
        failed=tally.failed,
        unscored=tally.answered - scored,
        scored=scored,
        worst=(total + open_rows * scores.low) / plan.planned,
        best=(total + open_rows * scores.high) / plan.planned,
        recorded_at=utcnow(),
    )
