"""Register a run (look its model, data set, graders and judges up and pin them), or find one that was registered before."""

from __future__ import annotations

from prefect import task

from byok.engine.plan import RunPlan
from byok.runs import ApprovalNeeded, EvaluationRequest, Resumption, change_run, resume_run, start_run
from tasks.opening import open_services
from tasks.policies import SETTINGS


@task(name="register", **SETTINGS)
async def register(request: EvaluationRequest, flow_run_id: str) -> RunPlan | ApprovalNeeded:
    """Resolve the request into a plan and record the run; or tell that somebody has to agree to what it may cost."""
    try:
        return start_run(open_services(), request, flow_run_id)
    except ApprovalNeeded as needed:
        return needed


@task(name="find", **SETTINGS)
async def find(run_id: str, changes: Resumption | None = None) -> RunPlan:
    """The plan of a run of this organisation, which is about to be gone on with."""
    services = open_services()
    if changes is not None:
        change_run(services, run_id, changes)
    return resume_run(services, run_id)
