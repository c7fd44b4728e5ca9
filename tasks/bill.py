"""Bill a run on both planes."""

from __future__ import annotations

from prefect import task

from byok.runs import bill_run
from tasks.opening import open_services
from tasks.policies import SETTINGS


@task(name="bill", **SETTINGS)
async def bill(run_id: str) -> int:
    """Write the lines of the two bills."""
    return bill_run(open_services(), run_id)
