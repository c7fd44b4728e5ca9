"""Register a model or rotate its key, on behalf of the member whose grant the flow run carries."""

from __future__ import annotations

from datetime import timedelta

from prefect import task

from byok.registry import RegisterRequest
from tasks.opening import open_services
from tasks.policies import SETTINGS


@task(name="register-by-grant", **SETTINGS)
async def register_by_grant(request: RegisterRequest, sealed_key: str | None, grant: str | None) -> str:
    """Take the grant, probe the endpoint with the sealed key, store both; return the model's id."""
    services = open_services()
    model = await services.front_door.register(services.actor, request, sealed_key, grant)
    return model.id


@task(name="rotate-by-grant", **SETTINGS)
async def rotate_by_grant(model: str, sealed_key: str, grant: str | None, grace_hours: float) -> int:
    """Take the grant, probe the endpoint with the new key, make it the active one; return its version."""
    services = open_services()
    changed = await services.front_door.rotate(services.actor, model, sealed_key, grant, grace=timedelta(hours=grace_hours))
    return changed.key_version or 0
