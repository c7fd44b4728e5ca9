"""`byok run`: list runs, show one, steer one that is under way, or go on with one that was stopped."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import Any, Literal

from cyclopts import App
from pydantic import ValidationError
from rich.console import Console

from byok.access import MODELS_READ, require
from byok.app import Services, open_services
from byok.cli.output import Json, emit, note, table
from byok.cli.watch import watch
from byok.engine.control import Wish
from byok.errors import InputError
from byok.money import ecu, plain
from byok.reporting import RunNotFound, RunSummary, find_run, run_summary
from byok.runs import Resumption, RunUnknown, ask_run, change_run, open_run
from byok.text import visible

app = App(name="run", help="List runs, show one, watch or steer one that is under way, or go on with one that was stopped.")
app.command(watch)


class BadOption(InputError):
    """An option is out of its range."""

    code = "bad_option"


_SHORT = 8
"""Characters of a run's id in the list: enough to name it by."""

_LIST = """
SELECT r.run_id, r.started_at, r.status, r.model_key, r.dataset_name, r.planned, r.answered, r.failed, r.error_code,
    coalesce(list(struct_pack(grader := s.grader, score := s.score, low := s.low, high := s.high) ORDER BY s.kind, s.grader)
        FILTER (WHERE s.grader IS NOT NULL), []) AS scores
FROM v1.runs r LEFT JOIN v1.scores s USING (org_id, run_id)
WHERE r.org_id = $org AND ($model IS NULL OR r.model_key = $model) AND ($dataset IS NULL OR r.dataset_name = $dataset)
GROUP BY ALL ORDER BY r.started_at DESC, r.run_id DESC LIMIT $limit
"""


@app.command(name="list")
def list_(*, limit: int = 20, model: str | None = None, dataset: str | None = None, json: Json = False) -> None:
    """List runs, the newest first.

    Args:
        limit: How many.
        model: Only runs of this model.
        dataset: Only runs over this data set.
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    require(services.actor, MODELS_READ, "run.list")
    which: Any = {"org": services.actor.org_id, "model": model, "dataset": dataset, "limit": max(0, limit)}
    runs = services.warehouse.query(_LIST, which).dicts()

    def draw(out: Console) -> None:
        if not runs:
            note("no runs yet: byok evaluate --help")
            return
        columns = ("run", "started (UTC)", "status", "model", "data set", "answered", "scores")
        rows = [
            (
                *(r["run_id"][:_SHORT], f"{r['started_at']:%m-%d %H:%M}", r["status"], r["model_key"], r["dataset_name"]),
                *(f"{_dash(r['answered'])} of {r['planned']}", _scores(r["scores"])),
            )
            for r in runs
        ]
        out.print(table(columns, rows))

    emit({"runs": runs}, json=json, human=draw)


def _scores(scores: list[dict[str, Any]]) -> str:
    return "\n".join(f"{one['grader']} {number(one['score'])}" for one in scores) or "-"


@app.command
def show(run: str, /, *, json: Json = False) -> None:
    """Show how a run went.

    Args:
        run: Id of the run, the beginning of it, or latest.
        json: Print JSON of a stable shape instead of tables.
    """
    services = open_services()
    require(services.actor, MODELS_READ, "run.show")
    summary = run_summary(services.warehouse, services.actor.org_id, find_run(services.warehouse, services.actor.org_id, run))
    emit({"run": summary.as_dict()}, json=json, human=lambda out: draw_summary(out, summary))


@app.command
def resume(
    run: str,
    /,
    *,
    max_usd: str | None = None,
    max_ecu: str | None = None,
    max_requests: int | None = None,
    on_unknown: Literal["resend", "hold"] | None = None,
    json: Json = False,
) -> int:
    """Go on with a run that was stopped: what is answered is not asked again, what is judged not judged again.

    Leaves with 0 when the run is complete and above its thresholds, with 1 when it is partial, invalid or below one.

    Args:
        run: Id of the run, the beginning of it, or latest.
        max_usd: Another cap on the providers' bill, in US dollars; what was spent before counts.
        max_ecu: Another cap on the platform's bill, in ECU.
        max_requests: Another cap on the number of requests.
        on_unknown: What becomes of rows whose answer was not seen when the run was killed: resend (it may be paid for twice) or hold.
        json: Print JSON of a stable shape instead of a table.
    """
    from byok.cli.evaluate import follow  # it draws a summary with this module

    services = open_services()
    org = services.actor.org_id
    run_id = _planned(services, run)
    _, plan = open_run(services, run_id, "run.resume")
    try:
        changes = Resumption(max_usd=max_usd, max_ecu=max_ecu, max_requests=max_requests, on_unknown=on_unknown)
    except ValidationError as invalid:
        first = invalid.errors(include_input=False, include_url=False)[0]
        raise BadOption(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}", hint="see: byok run resume --help") from None
    summary: RunSummary | None = None
    with suppress(RunNotFound):
        summary = run_summary(services.warehouse, org, run_id)
    if summary is not None and summary.status == "completed":
        note("this run is complete: there is nothing to go on with")
    else:
        change_run(services, run_id, changes)
        follow(services, [{"resume": run_id}], [plan.model.key], quiet=json)
        summary = run_summary(services.warehouse, org, run_id)
    emit({"run": summary.as_dict()}, json=json, human=lambda out: draw_summary(out, summary))
    return 0 if summary.status == "completed" and not summary.below else 1


def _planned(services: Services, run: str) -> str:
    """The id of a run, also of one whose process was killed before its first row was in the results: by its whole id.

    Raises:
        RunNotFound: There is none.
    """
    try:
        return find_run(services.warehouse, services.actor.org_id, run)
    except RunNotFound:
        with suppress(RunUnknown):
            return open_run(services, run, "run.resume")[1].run_id
        raise


@app.command
def pause(run: str, /, *, json: Json = False) -> None:
    """Let a run that is under way send nothing more, until it is told to continue; requests under way come to their end.

    Args:
        run: Id of the run, the beginning of it, or latest.
        json: Print JSON of a stable shape.
    """
    _ask(run, "pause", "no further request starts; go on with: byok run continue", json)


@app.command(name="continue")
def continue_(run: str, /, *, json: Json = False) -> None:
    """Let a paused run go on.

    Args:
        run: Id of the run, the beginning of it, or latest.
        json: Print JSON of a stable shape.
    """
    _ask(run, "run", "requests start again", json)


@app.command
def cancel(run: str, /, *, json: Json = False) -> None:
    """End a run that is under way: requests under way come to their end, what is done is graded, billed and reported.

    Args:
        run: Id of the run, the beginning of it, or latest.
        json: Print JSON of a stable shape.
    """
    _ask(run, "cancel", "it ends as soon as the requests under way have; go on with it later: byok run resume", json)


def _ask(run: str, wish: Wish, told: str, json: bool) -> None:
    services = open_services()
    run_id = find_run(services.warehouse, services.actor.org_id, run)
    ask_run(services, run_id, wish)
    emit({"run": {"run_id": run_id, "wish": wish}}, json=json, human=lambda out: note(f"run {run_id[:_SHORT]}: {told}"))


def number(value: float | None) -> str:
    """A score with four decimals; None as a dash."""
    return "-" if value is None else f"{value:.4f}"


def draw_summary(out: Console, run: RunSummary) -> None:
    """The final table of a run."""
    # Ended rows are the same for all graders of a run: told once below, so that the table fits a narrow terminal.
    columns = ("grader", "score", "95 % interval", "scored", "unscored", "worst to best")
    rows = [
        (
            *(s.grader, number(s.score), f"{number(s.low)} to {number(s.high)}", s.scored, s.unscored),
            f"{number(s.worst)} to {number(s.best)}",
        )
        for s in run.scores
    ]
    out.print(table(columns, rows, title=f"{run.model_key} on {run.dataset_name}: {run.status}"))
    latency = "-" if run.latency_p50_ms is None or run.latency_p95_ms is None else f"{run.latency_p50_ms:.0f} / {run.latency_p95_ms:.0f} ms"
    usd = "unknown" if run.provider_usd is None and run.unpriced_charges else plain(run.provider_usd or Decimal(0))
    unpriced = f" ({run.unpriced_charges} charges of unknown amount not in it)" if run.unpriced_charges else ""
    facts = [
        ("run", run.run_id),
        ("rows", ", ".join(f"{_dash(getattr(run, name))} {name}" for name in ("planned", "answered", "empty", "refused", "failed"))),
        ("latency p50 / p95", latency),
        ("tokens in + out", f"{_dash(run.prompt_tokens)} + {_dash(run.completion_tokens)} in {run.attempts} requests"),
        ("provider bill", f"{usd} USD{unpriced}"),
        ("platform bill", f"{ecu(run.micro_ecu or 0)} ECU"),
    ]
    if run.unknown_attempts:
        facts.append(("of unknown cost", f"{run.unknown_attempts} request(s) whose end nobody saw; they may have been paid for"))
    if run.reused:
        facts.append(("reused", f"{run.reused} answers of earlier runs, without a request"))
    if run.not_asked:
        facts.append(("not asked", f"{run.not_asked} of {run.planned} rows"))
    if run.error_code:
        facts.append(("stopped by", f"{run.error_code}: {run.error_message}" if run.error_message else run.error_code))
    if run.below:
        facts.append(("below threshold", ", ".join(run.below)))
    for name, value in facts:
        out.print(f"{name + ':':<19}{visible(value)}", soft_wrap=True)
    out.print()


def _dash(value: int | None) -> str:
    return "-" if value is None else str(value)
