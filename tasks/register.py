"""Register a run (look its model, data set, graders and judges up and pin them), or find one that was registered before."""

from __future__ import annotations

from prefect import task

from byok.engine.plan import RunPlan
from byok.runs import EvaluationRequest, open_run, start_run
from tasks.opening import open_services
from tasks.policies import SETTINGS


@task(name="register", **SETTINGS)
def register(request: EvaluationRequest, flow_run_id: str) -> RunPlan:
    """Resolve the request into a plan and record the run."""
    return start_run(open_services(), request, flow_run_id)


@task(name="find", **SETTINGS)
def find(run_id: str) -> RunPlan:
    """The plan of a run of this organisation."""
    _, plan = open_run(open_services(), run_id, "run.resume")
    return plan
