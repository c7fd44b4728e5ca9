"""Probe the models of a run."""

from __future__ import annotations

from prefect import task

from byok.runs import probe_models
from tasks.opening import open_services
from tasks.policies import SETTINGS


@task(name="probe", **SETTINGS)
async def probe(run_id: str) -> int:
    """Ask each model of the run for one token, or for one vector."""
    return await probe_models(open_services(), run_id)
