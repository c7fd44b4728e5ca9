"""Check registered models: whether they answer, and on demand what they can do."""

from __future__ import annotations

from prefect import task

from byok.registry import Checked
from tasks.opening import open_services
from tasks.policies import SETTINGS


@task(name="models-to-check", **SETTINGS)
def models_to_check(models: list[str]) -> list[str]:
    """Keys of the active models among those named, or of all when none is."""
    services = open_services()
    return services.health.to_check(services.actor, models)


@task(name="check-model", **SETTINGS)
async def check_model(model: str, full: bool) -> Checked:
    """Probe one model, and count the outcome for its health."""
    services = open_services()
    return await services.health.check(services.actor, model, full=full)
