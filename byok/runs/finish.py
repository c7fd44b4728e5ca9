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
from byok.runs import answer as answering
from byok.runs import embed as embedding
from byok.runs import judge as judging
from byok.runs.folder import RunFolder, open_run
from byok.runs.start import run_row
from byok.warehouse.rows import ScoreRow


@dataclass
class _Tally:
    """Samples by how they ended."""

    answered: int = 0
    empty: int = 0
    refused: int = 0
    failed: int = 0

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
    """

    run_id: str
    status: str
    below: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the run is complete, valid and above its thresholds."""
        return self.status == "completed" and not self.below


def finish_run(services: Services, run_id: str, error: ByokError | None = None, stopped_by: str | None = None) -> Finished:
    """Write the scores and the final state of a run, and publish everything it left.

    Calling it again, after a resume, writes the new state over the old one.

    Args:
        services: The installation.
        run_id: The run.
        error: What ended the run early, if anything did.
        stopped_by: Code of the endpoint's error that stopped it, if one did.

    Raises:
        RunUnknown: There is no such run.
    """
    folder, plan = open_run(services, run_id, "run.report")
    tally, graded, scored_fully = _collect(services, plan, folder)
    # A later state must win over an earlier one whichever arrives first: the clock is the revision.
    revision = time.time_ns() // 1000
    status = _status(plan, tally, scored_fully, error)
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
                error_code=error.code if error else stopped_by,
                error_message=error.message if error else None,
                finished_at=utcnow(),
            ),
        ]
    )
    services.warehouse.drain()
    return Finished(run_id, status, below)


def _collect(services: Services, plan: RunPlan, folder: RunFolder) -> tuple[_Tally, dict[str, _Scores], bool]:
    tally = _Tally()
    graders = [parse_grader(spec) for spec in plan.graders]
    graded = {grader.spec: _Scores("code", grader.metric) for grader in graders}
    graded |= {embedder.spec: _Scores("code", "mean", LEAST_COSINE, MOST_COSINE) for embedder in plan.embedders}
    graded |= {judge.name: _judge_scores(judge) for judge in plan.judges}
    stages = [(embedder.spec, embedding.stage_of(embedder)) for embedder in plan.embedders]
    stages += [(judge.name, judging.stage_of(judge)) for judge in plan.judges]
    scored_fully = True
    for shard in range(plan.shards):
        answers = replay(read_journal(folder.journal(answering.STAGE, shard)))
        for row in services.datasets.rows(plan.dataset.version, plan.rows_of(shard)):
            result = answers.results.get(answering.sample_id(plan, row))
            if result is None:
                continue
            setattr(tally, result["status"], getattr(tally, result["status"]) + 1)
            if result["status"] == "answered":
                for grader in graders:
                    verdict = grader.grade(result["output"], row.expected)
                    _count(graded[grader.spec], verdict.outcome, verdict.score, verdict.passed)
        answered = sum(result["status"] == "answered" for result in answers.results.values())
        for name, stage in stages:
            verdicts = replay(read_journal(folder.journal(stage, shard))).results
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


def _status(plan: RunPlan, tally: _Tally, scored_fully: bool, error: ByokError | None) -> str:
    if tally.ended == 0:
        return "failed"
    if error is not None or tally.ended < plan.planned or not scored_fully:
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
