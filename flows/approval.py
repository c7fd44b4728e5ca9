"""Ask somebody before a run begins that may cost more than the thresholds."""

from __future__ import annotations

from typing import Literal

from prefect import get_run_logger, runtime
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from byok.engine.plan import RunPlan
from byok.runs import EvaluationRequest
from tasks.register import register

WAIT_S = 7 * 24 * 3600
"""How long a run waits to be asked about."""


class Approval(RunInput):
    """The form that is shown in the Prefect UI."""

    decision: Literal["approve", "reject"] = Field(default="reject", title="Decision", description="Whether the run may begin.")
    reason: str = Field(default="", max_length=500, title="Reason", description="For the log; may stay empty.")


async def registered(request: EvaluationRequest) -> RunPlan | None:
    """The plan of a run that may begin; None when somebody has said no.

    A flow run of a deployment is suspended until its form is answered: its process ends, and the worker begins it anew. Elsewhere there
    is nobody to ask.

    Raises:
        ApprovalNeeded: Somebody has to agree, and cannot be asked here.
    """
    flow_run_id = str(runtime.flow_run.id)
    found = await register(request, flow_run_id)
    if isinstance(found, RunPlan):
        return found
    if runtime.deployment.id is None:
        raise found
    form = Approval.with_initial_data(description=str(found.fields["reckoned"]), decision="reject", reason="")
    answer = await suspend_flow_run(wait_for_input=form, timeout=WAIT_S, key="approval")
    get_run_logger().info("decision: %s; reason: %s", answer.decision, answer.reason or "none was given")
    if answer.decision != "approve":
        return None
    approved = await register(request.model_copy(update={"approved": True}), flow_run_id)
    if not isinstance(approved, RunPlan):
        raise approved
    return approved
