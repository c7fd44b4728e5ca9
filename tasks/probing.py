"""Check registered models: whether they answer, and on demand what they can do."""

from __future__ import annotations

from prefect import task

from byok.app import Services
from byok.registry.health import Checked, Health
from tasks.opening import open_services
from tasks.policies import SETTINGS


@task(name="models-to-check", **SETTINGS)
def models_to_check(models: list[str]) -> list[str]:
    """Keys of the active models among those named, or of all when none is."""
    services = open_services()
    return _health(services).to_check(services.actor, models)


@task(name="check-model", **SETTINGS)
async def check_model(model: str, full: bool) -> Checked:
    """Probe one model, and count the outcome for its health."""
    services = open_services()
    return await _health(services).check(services.actor, model, full=full)


def _health(services: Services) -> Health:
    return Health(services.control, services.registry, services.warehouse, services.audit)
