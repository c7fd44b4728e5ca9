"""Register a run: look its model, data set, graders and judges up and pin them."""

from __future__ import annotations

from prefect import task

from byok.app import open_services
from byok.engine.plan import RunPlan
from byok.runs import EvaluationRequest, start_run
from tasks.policies import SETTINGS


@task(name="register", **SETTINGS)
def register(request: EvaluationRequest, flow_run_id: str) -> RunPlan:
    """Resolve the request into a plan and record the run."""
    return start_run(open_services(), request, flow_run_id)
