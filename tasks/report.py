"""Report a run: its scores and final state into the warehouse, its artifacts into Prefect."""

from __future__ import annotations

import asyncio

from prefect import task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.events import emit_event

from byok.app import Services
from byok.billing import two_bills
from byok.errors import ByokError
from byok.reporting import run_summary
from byok.runs import Finished, finish_run, tell_warnings
from tasks.artifacts import bill_rows, leaderboard_rows, summary_markdown
from tasks.opening import open_services
from tasks.policies import SETTINGS


@task(name="report", **SETTINGS)
async def report(
    run_id: str, error: ByokError | None = None, stopped_by: str | None = None, stopped_message: str | None = None
) -> Finished:
    """Close the run and show it: summary, leaderboard and the two bills."""
    services = open_services()
    finished = finish_run(services, run_id, error, stopped_by, stopped_message)
    await _show(services, finished)
    for alert in await tell_warnings(services):
        emit_event("byok.credit.low", {"prefect.resource.id": f"byok.org.{alert.org_id}"}, payload=alert.as_dict())
    return finished


async def _show(services: Services, finished: Finished) -> None:
    org = services.actor.org_id
    with services.warehouse.reading() as results:
        summary = run_summary(results, org, finished.run_id)
        bills = two_bills(results, org, finished.run_id)
        leaderboard = leaderboard_rows(results, org, summary)
    # Side by side: what takes time is the server.
    await asyncio.gather(
        acreate_markdown_artifact(
            key="run-summary", markdown=summary_markdown(summary, finished), description="How the run ended, with the whole denominator."
        ),
        acreate_table_artifact(key="leaderboard", table=leaderboard, description="Runs over the same data set, best first."),
        acreate_table_artifact(
            key="two-bills", table=bill_rows(bills), description="What the provider charges (USD) and what the platform charges (ECU)."
        ),
    )
