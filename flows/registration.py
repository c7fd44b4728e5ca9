"""Register models and rotate their keys from the Prefect UI: with a sealed key and a grant, never with a key."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from byok.registry import RegisterRequest
from tasks.registration import register_by_grant, rotate_by_grant


class Registration(BaseModel):
    """A model, its sealed key, and the grant that allows it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"title": "Registration"}, hide_input_in_errors=True)

    model: RegisterRequest = Field(title="Model", description="What to register.", json_schema_extra={"position": 0})
    sealed_key: str | None = Field(
        default=None,
        title="Sealed key",
        description="What `byok key seal` printed. Never the key itself. Empty for an endpoint without a key.",
        json_schema_extra={"position": 1},
    )
    grant: str | None = Field(
        default=None, title="Grant", description="What `byok grant register` printed; it works once.", json_schema_extra={"position": 2}
    )


class Rotation(BaseModel):
    """A model's next key, sealed, and the grant that allows the change."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"title": "Rotation"}, hide_input_in_errors=True)

    model: str = Field(title="Model", description="Key of a registered model (byok model list).", json_schema_extra={"position": 0})
    sealed_key: str = Field(
        title="Sealed key", description="What `byok key seal` printed. Never the key itself.", json_schema_extra={"position": 1}
    )
    grant: str | None = Field(
        default=None, title="Grant", description="What `byok grant rotate` printed; it works once.", json_schema_extra={"position": 2}
    )
    grace_hours: float = Field(
        default=24,
        ge=0,
        le=720,
        title="Grace in hours",
        description="How long runs in flight may go on with the old key; 0 for a compromised one.",
        json_schema_extra={"position": 3},
    )


@flow(name="register_model", persist_result=False, validate_parameters=True)
async def register_model(registration: Registration) -> State[Any]:
    """Register a model on behalf of the member who made the grant.

    Args:
        registration: The model, its sealed key and the grant.
    """
    model_id = await register_by_grant(registration.model, registration.sealed_key, registration.grant)
    return Completed(message=f"registered as {model_id}")


@flow(name="rotate_key", persist_result=False, validate_parameters=True)
async def rotate_key(rotation: Rotation) -> State[Any]:
    """Give a model a new key on behalf of the member who made the grant; a failed probe leaves the old key active.

    Args:
        rotation: The model, its new key, sealed, and the grant.
    """
    version = await rotate_by_grant(rotation.model, rotation.sealed_key, rotation.grant, rotation.grace_hours)
    return Completed(message=f"version {version} is active")
