"""What is done when credit has fallen below a threshold: an automation starts this on the event `byok.credit.low`."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags, FlowFilter, FlowFilterName
from prefect.client.schemas.objects import State
from prefect.states import Completed

from byok.ledger import Balance
from byok.money import ecu
from tasks.credit import credit

SCHEDULED = "scheduled"
"""The tag of deployments that run by themselves."""


@flow(name="low-credit", persist_result=False, validate_parameters=True)
async def low_credit() -> State[Any]:
    """Show how little credit is left; below the last threshold, pause the evaluations that begin by themselves.

    What counts is the ledger as it is now, not what the event said: a top-up may have come meanwhile.
    """
    balance = await credit()
    paused = await _pause() if balance.below(min(balance.thresholds, default=0)) else []
    await acreate_markdown_artifact(
        key="low-credit", markdown=_markdown(balance, paused), description="What is left of the credit, and what was paused for it."
    )
    return Completed(message=f"{ecu(balance.left)} ECU are left" + (f"; paused: {', '.join(paused)}" if paused else ""))


async def _pause() -> list[str]:
    async with get_client() as client:
        found = await client.read_deployments(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["evaluate"])),
            deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[SCHEDULED])),
        )
        for deployment in found:
            await client.pause_deployment(deployment.id)
        return [deployment.name for deployment in found]


def _markdown(balance: Balance, paused: list[str]) -> str:
    left = f"**{ecu(balance.left)} ECU are left** of the {ecu(balance.reference)} ECU after the last top-up"
    lines = [f"{left}; {ecu(balance.available)} are available.", "", "Add credit: `byok bill topup ECU`."]
    if paused:
        lines += ["", f"Paused until somebody resumes them on their page: {', '.join(paused)}."]
    return "\n".join(lines)
