"""`byok estimate`: what a run may cost at most, before it begins."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from byok.app import open_services
from byok.cli.estimating import draw_estimate
from byok.cli.evaluate import build_request
from byok.cli.output import Json, emit
from byok.runs import estimate_run, needs_approval


def estimate(
    model: str,
    dataset: str,
    /,
    *,
    grader: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    judge: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    limit: int | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    system: str | None = None,
    max_usd: str | None = None,
    max_ecu: str | None = None,
    reuse: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Show what a run may cost at most on both bills, and how that was reckoned; nothing is asked of any endpoint.

    Args:
        model: Key of a registered model.
        dataset: Name of a data set.
        grader: Code grader, may be given again (see byok evaluate --help).
        judge: Name of a judge, may be given again.
        limit: Answer only this many rows, drawn with the seed.
        seed: Decides which rows a limit draws.
        max_tokens: Most tokens of one answer.
        system: System prompt, sent before each row.
        max_usd: Cap in US dollars that the run would have.
        max_ecu: Cap in ECU that the run would have.
        reuse: Whether the run would take over answers of earlier runs.
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    options = {"limit": limit, "seed": seed, "max_tokens": max_tokens, "system": system, "max_usd": max_usd, "max_ecu": max_ecu}
    request = build_request(model=model, dataset=dataset, graders=list(grader), judges=list(judge), reuse=reuse, **options)
    worst = estimate_run(services, request)
    told = worst.as_dict() | {"needs_approval": needs_approval(worst, request)}
    emit({"estimate": told}, json=json, human=lambda out: draw_estimate(out, worst))
