"""A run in numbers, read from the published snapshot."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

from byok.errors import InputError, NotFound
from byok.money import ecu
from byok.warehouse import Queries


class RunNotFound(NotFound):
    """No run of that id, prefix or word."""

    code = "run_not_found"


class RunAmbiguous(InputError):
    """A prefix that several runs have."""

    code = "run_ambiguous"


@dataclass(frozen=True)
class Score:
    """One grader over one run; see `ScoreRow`."""

    grader: str
    kind: str
    metric: str
    score: float | None
    low: float | None
    high: float | None
    method: str
    planned: int
    answered: int
    empty: int
    refused: int
    failed: int
    unscored: int
    scored: int
    worst: float | None
    best: float | None


@dataclass(frozen=True)
class RunSummary:
    """How a run went.

    Attributes:
        below: Graders under their threshold.
        not_asked: Planned rows that have not ended (of a partial run).
        latency_p50_ms: Median latency of the answers.
        prompt_tokens: Of requests whose usage is believed, as they are billed; None when there is none.
        provider_usd: Known part of the provider bill; None when nothing of it is known.
        unpriced_charges: Lines of the provider bill whose amount is unknown.
        micro_ecu: The platform's bill.
        unknown_attempts: Requests whose end nobody saw: they may have been paid for.
        reused: Rows whose answer an earlier run has paid for.
    """

    run_id: str
    status: str
    model_key: str
    dataset_name: str
    dataset_version: str
    started_at: datetime
    finished_at: datetime | None
    error_code: str | None
    error_message: str | None
    config: dict[str, Any]
    planned: int
    answered: int | None
    empty: int | None
    refused: int | None
    failed: int | None
    not_asked: int | None
    scores: tuple[Score, ...]
    below: tuple[str, ...]
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    attempts: int
    provider_usd: Decimal | None
    unpriced_charges: int
    micro_ecu: int | None
    unknown_attempts: int | None = None
    reused: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape of a run."""
        told = asdict(self)
        told["ecu"] = None if self.micro_ecu is None else ecu(self.micro_ecu)
        return told


_RUN = """
SELECT run_id, status, model_key, dataset_name, dataset_version, started_at, finished_at, error_code, error_message, config,
    planned, answered, empty, refused, failed, unknown_attempts, reused
FROM v1.runs WHERE org_id = ? AND run_id = ?
"""
_SCORES = """
SELECT grader, kind, metric, score, low, high, method, planned, answered, empty, refused, failed, unscored, scored, worst, best
FROM v1.scores WHERE org_id = ? AND run_id = ? ORDER BY kind, grader
"""
_LATENCY = """
SELECT quantile_cont(latency_ms, 0.5), quantile_cont(latency_ms, 0.95)
FROM v1.samples WHERE org_id = ? AND run_id = ? AND latency_ms IS NOT NULL
"""
_TOKENS = """
SELECT CAST(sum(prompt_tokens) FILTER (WHERE usage_class = 'reported') AS BIGINT),
    CAST(sum(completion_tokens) FILTER (WHERE usage_class = 'reported') AS BIGINT), count(*)
FROM v1.attempts WHERE org_id = ? AND run_id = ?
"""
_COST = """
SELECT sum(amount_usd), count(*) FILTER (WHERE amount_usd IS NULL AND plane = 'provider')
        - count(*) FILTER (WHERE corrects IS NOT NULL AND plane = 'provider'),
    CAST(sum(amount_micro_ecu) AS BIGINT)
FROM v1.charges WHERE org_id = ? AND run_id = ?
"""


def run_summary(warehouse: Queries, org_id: str, run_id: str) -> RunSummary:
    """The summary of one run.

    Raises:
        RunNotFound: The organisation has no such run.
    """
    who = [org_id, run_id]
    found = warehouse.query(_RUN, who).dicts()
    if not found:
        raise RunNotFound(f"no run {run_id}", hint="list the runs with: byok run list", run=run_id)
    (run,) = found
    run["config"] = orjson.loads(run["config"])
    scores = tuple(Score(*row) for row in warehouse.query(_SCORES, who).rows)
    ended = None if run["answered"] is None else run["answered"] + run["empty"] + run["refused"] + run["failed"]
    p50, p95 = warehouse.query(_LATENCY, who).rows[0]
    prompt, completion, attempts = warehouse.query(_TOKENS, who).rows[0]
    usd, unpriced, micro = warehouse.query(_COST, who).rows[0]
    return RunSummary(
        **run,
        not_asked=None if ended is None else run["planned"] - ended,
        scores=scores,
        below=_below(run["config"]["min_scores"], scores) if run["finished_at"] else (),
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        prompt_tokens=prompt,
        completion_tokens=completion,
        attempts=attempts,
        provider_usd=usd,
        unpriced_charges=unpriced,
        micro_ecu=micro,
    )


def _below(least: dict[str, float], scores: tuple[Score, ...]) -> tuple[str, ...]:
    found = {score.grader: score.score for score in scores}
    return tuple(name for name, threshold in least.items() if (score := found.get(name)) is None or score < threshold)


def find_run(warehouse: Queries, org_id: str, name: str) -> str:
    """The id of a run from its id, a unique beginning of it, or `latest`.

    Raises:
        RunNotFound: There is none.
        RunAmbiguous: Several begin so.
    """
    if name == "latest":
        found = warehouse.query("SELECT run_id FROM v1.runs WHERE org_id = ? ORDER BY started_at DESC, run_id DESC LIMIT 1", [org_id]).rows
    else:
        query = "SELECT run_id FROM v1.runs WHERE org_id = ? AND starts_with(run_id, ?) ORDER BY run_id LIMIT 3"
        found = warehouse.query(query, [org_id, name.lower()]).rows
    if not found:
        raise RunNotFound(f"no run {name}", hint="list the runs with: byok run list", run=name)
    if len(found) > 1:
        raise RunAmbiguous(f"several runs begin with {name}", hint="give more of the id", run=name)
    return str(found[0][0])
