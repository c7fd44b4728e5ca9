"""`byok evaluate`: start a run, watch it, show how it ended."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from byok.access import RUNS_WRITE, require
from byok.app import Services, open_services
from byok.cli.estimating import draw_estimate
from byok.cli.output import Json, emit
from byok.cli.processes import FlowProcessFailed, flow_process
from byok.cli.run import draw_summary
from byok.engine.progress import read_progress
from byok.errors import ByokError, InputError
from byok.grading import EmbeddingOptions, parse_grader
from byok.reporting import run_summary
from byok.runs import Estimate, EvaluationRequest, RunFolder, check_approval, estimate_run, needs_approval


class BadRequest(InputError):
    """An option of an evaluation is out of its range."""

    code = "bad_option"


class RunFailed(ByokError):
    """A run ended with an error in the flow; carries the error's own code and exit code."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(str(told["message"]), hint=str(told.get("hint", "")), **told.get("fields", {}))
        self.code = told["code"]  # type: ignore[misc]
        self.exit_code = told.get("exit_code", 4)  # type: ignore[misc]
        self.retryable = told.get("retryable", False)  # type: ignore[misc]


def evaluate(
    model: str,
    dataset: str,
    /,
    *,
    grader: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    judge: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    limit: int | None = None,
    seed: int = 0,
    concurrency: int = 64,
    max_tokens: int | None = None,
    temperature: float | None = None,
    system: str | None = None,
    min_score: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    max_failure_rate: float = 0.1,
    shard_size: int = 500,
    max_usd: str | None = None,
    max_ecu: str | None = None,
    max_requests: int | None = None,
    deadline: float = 900,
    on_unknown: Literal["resend", "hold"] = "resend",
    reuse: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Evaluate a model on a data set with code graders and judges, and bill it.

    Runs the Prefect flow that the deployments run too. Leaves with 0 when the run is complete and above its thresholds,
    with 1 when it is partial, invalid or below one.

    Args:
        model: Key of a registered model.
        dataset: Name of a data set.
        grader: Code grader, may be given again: exact, includes, regex, numeric, choice; options as numeric:tolerance=0.01. Or
            embedding_similarity:model=KEY, which asks a registered embeddings model.
        judge: Name of a judge, may be given again.
        limit: Answer only this many rows, drawn with the seed.
        seed: Decides which rows a limit draws.
        concurrency: Most requests under way at once; how many the endpoint takes is found by asking.
        max_tokens: Most tokens of one answer.
        temperature: Sampling temperature; without it, the endpoint's own.
        system: System prompt, sent before each row.
        min_score: Threshold GRADER=SCORE, may be given again; below it the command leaves with 1.
        max_failure_rate: Share of failed rows above which the run is invalid.
        shard_size: Rows that one task run answers, with the key opened once.
        max_usd: Stop before the providers' bill could pass so many US dollars. The run is then partial, and can be resumed with more.
        max_ecu: Stop before the platform's bill could pass so many ECU.
        max_requests: Stop after so many requests, probes and retries included.
        deadline: Seconds for which a row is tried again, from its first request on.
        on_unknown: After a crash, what becomes of rows whose answer was not seen: resend (it may be paid for twice) or hold.
        reuse: Take over answers and verdicts that earlier runs got for the same question; they cost nothing.
        yes: Do not ask before starting: what the run may cost at most is agreed to.
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    request = build_request(
        model=model,
        dataset=dataset,
        graders=list(grader),
        judges=list(judge),
        limit=limit,
        seed=seed,
        concurrency=concurrency,
        max_tokens=max_tokens,
        temperature=temperature,
        system=system,
        min_scores=dict(_threshold(text) for text in min_score),
        max_failure_rate=max_failure_rate,
        shard_size=shard_size,
        max_usd=max_usd,
        max_ecu=max_ecu,
        max_requests=max_requests,
        deadline_s=deadline,
        on_unknown=on_unknown,
        reuse=reuse,
    )
    rows = _check_names(services, request)
    if yes:
        request.approved = True
    else:
        worst = estimate_run(services, request)
        ask = not json and sys.stdin.isatty()
        if not ask:
            check_approval(worst, request)
        elif not _confirmed(request, rows, worst):
            return 0
        request.approved = True
    (run_id,) = run_flows(services, [request], quiet=json)
    with services.warehouse.reading() as results:
        summary = run_summary(results, services.actor.org_id, run_id)
    passed = summary.status == "completed" and not summary.below
    emit({"run": summary.as_dict()}, json=json, human=lambda out: draw_summary(out, summary))
    return 0 if passed else 1


def build_request(**options: Any) -> EvaluationRequest:
    """The request that options make.

    Raises:
        BadRequest: An option is out of its range.
    """
    try:
        return EvaluationRequest(**options)
    except ValidationError as invalid:
        first = invalid.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "request"
        raise BadRequest(f"--{name.replace('_', '-')}: {first['msg']}", hint="see: byok evaluate --help") from None


def _threshold(text: str) -> tuple[str, float]:
    name, _, least = text.rpartition("=")
    try:
        return name or _no_name(), float(least)
    except ValueError:
        raise BadRequest(f"--min-score: {text!r} is not GRADER=SCORE", hint="for example --min-score numeric=0.6") from None


def _no_name() -> str:
    raise ValueError


def _check_names(services: Services, request: EvaluationRequest) -> int:
    """Fail on a missing scope or a wrong name at once, before Prefect starts; return how many rows will be answered."""
    require(services.actor, RUNS_WRITE, "run.start")
    services.registry.get(services.actor, request.model)
    rows = services.datasets.get(services.actor, request.dataset).rows
    for embeds in _embeds(request):
        services.registry.get(services.actor, embeds.model)
    for name in request.judges:
        services.judges.get(services.actor, name)
    return min(rows, request.limit or rows)


def _embeds(request: EvaluationRequest) -> list[EmbeddingOptions]:
    """What the graders ask endpoints for.

    Raises:
        InputError: A grader that there is none of.
    """
    return [embeds for spec in request.graders if (embeds := parse_grader(spec).embeds) is not None]


def _confirmed(request: EvaluationRequest, rows: int, worst: Estimate) -> bool:
    calls = rows * (1 + len(_embeds(request)) + len(request.judges))
    # What is costly is shown in full, and takes a yes; the rest goes on with a touch of the return key.
    costly = needs_approval(worst, request)
    if costly:
        draw_estimate(Console(stderr=True, markup=False, highlight=False, emoji=False), worst)
    answer = input(f"{rows} rows, at least {calls} requests on your keys; {worst.in_words()}. Start? {'[y/N]' if costly else '[Y/n]'} ")
    return answer.strip().lower() in (("y", "yes") if costly else ("", "y", "yes"))


def run_flows(services: Services, requests: list[EvaluationRequest], *, quiet: bool) -> list[str]:
    """Run evaluations to their end in a process of their own, showing progress; return the ids of the runs.

    Raises:
        RunFailed: A run ended with an error; what it had done is stored and billed.
        FlowProcessFailed: The process died.
    """
    return follow(services, [request.model_dump(mode="json") for request in requests], [request.model for request in requests], quiet=quiet)


def follow(services: Services, jobs: list[dict[str, Any]], labels: list[str], *, quiet: bool) -> list[str]:
    """Carry out jobs (see `FlowProcess.begin`) to their end, showing progress under their labels; return the ids of the runs.

    Raises:
        RunFailed, FlowProcessFailed: See `run_flows`.
    """
    process = flow_process(services.home)
    runs: dict[int, str] = {}
    ended: dict[int, dict[str, Any] | None] = {}
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        process.begin(jobs)
        with Progress(*columns, console=console, disable=quiet, transient=True) as shown:
            start = shown.add_task("starting Prefect", total=None)
            bars: dict[tuple[int, str], TaskID] = {}
            while process.running or len(ended) < len(jobs):
                alive = process.running
                for event in process.events():
                    if event.run_id is not None:
                        runs[event.index] = event.run_id
                        shown.update(start, visible=False)
                    if event.kind == "end":
                        ended[event.index] = event.error
                _draw(services, labels, runs, shown, bars)
                if not alive and len(ended) < len(jobs):
                    raise FlowProcessFailed("the flow process ended early", hint=f"its output is in {process.log}")
                if len(ended) == len(jobs):
                    break
                process.wait(0.15)
    finally:
        # A finished process still has its ephemeral server to put away; an interrupted one has journals to close.
        if len(ended) == len(jobs):
            process.child.wait()
        process.stop()
    for told in ended.values():
        if told is not None:
            raise RunFailed(told)
    return [runs[index] for index in range(len(jobs))]


def _draw(services: Services, labels: list[str], runs: dict[int, str], shown: Progress, bars: dict[tuple[int, str], TaskID]) -> None:
    for index, run_id in runs.items():
        for stage, counts in read_progress(RunFolder.of(services.home, run_id).progress).items():
            label = f"{labels[index]}: {'answers' if stage == 'answer' else stage}"
            if counts.failed:
                label += f" ({counts.failed} failed)"
            if (index, stage) not in bars:
                bars[index, stage] = shown.add_task(label, total=counts.total)
            bar = bars[index, stage]
            shown.update(bar, description=label, completed=counts.done, total=counts.total)
