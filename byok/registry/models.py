"""A registered model as people and programs see it; never its key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import Row

from byok.clock import utcnow
from byok.endpoint import BaseUrl, Credentials
from byok.endpoint.profiles import RESERVED, ProfileUnknown, profile
from byok.engine.plan import ModelRef
from byok.ids import SLUG
from byok.keystore import mask
from byok.warehouse.rows import ModelRow


def _check_payload(value: dict[str, Any] | None) -> dict[str, Any] | None:
    taken = sorted(RESERVED & (value or {}).keys())
    if taken:
        raise ValueError(f"may not set {', '.join(taken)}")
    return value


def _check_tags(value: list[str] | None) -> list[str] | None:
    if any(not tag or len(tag) > 40 or not tag.replace("-", "").replace("_", "").isalnum() for tag in value or []):
        raise ValueError("tags are words of letters, digits, - and _")
    return None if value is None else sorted(set(value))


def _check_provider(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return profile(value).name
    except ProfileUnknown as unknown:
        problem = ValueError(f"{unknown.message}; {unknown.hint}")
    raise problem


RATE_LIMITS: Final = ("requests_per_minute", "tokens_per_minute")
"""The rate limits that an owner may declare."""

MOST_PER_MINUTE: Final = 2**31 - 1
"""Largest rate limit: what an integer column of every database holds, and more than any endpoint serves."""


class RegisterRequest(BaseModel):
    """What registering a model takes, but for the key."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    key: str = Field(pattern=f"^{SLUG}$", description="The slug that people type.")
    name: str = Field(min_length=1, max_length=128)
    base_url: str
    remote_id: str = Field(min_length=1, max_length=512, description="What the endpoint calls the model.")
    tags: list[str] = Field(default_factory=list, max_length=20)
    description: str = Field(default="", max_length=2000)
    max_tokens: int | None = Field(default=None, ge=1)
    extra_payload: dict[str, Any] = Field(default_factory=dict)
    price_input: Decimal | None = Field(default=None, ge=0, description="USD per million tokens.")
    price_output: Decimal | None = Field(default=None, ge=0)
    public: bool = False
    provider: str | None = Field(default=None, description="Provider profile (byok provider list); empty: by the base URL.")
    requests_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=MOST_PER_MINUTE,
        title="Requests per minute",
        description="Rate limit that runs keep: most requests that they send to the model in a minute. Empty: none is declared.",
    )
    tokens_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=MOST_PER_MINUTE,
        title="Tokens per minute",
        description="Rate limit that runs keep: most tokens, of prompts and answers together, in a minute. Empty: none is declared.",
    )

    _nothing_reserved = field_validator("extra_payload")(_check_payload)
    _tags_are_words = field_validator("tags")(_check_tags)
    _provider_is_known = field_validator("provider")(_check_provider)


class ModelChanges(BaseModel):
    """What is to be changed about a model; what is None stays, and a rate limit of 0 is cleared."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str | None = Field(default=None, min_length=1, max_length=128)
    base_url: str | None = None
    remote_id: str | None = Field(default=None, min_length=1, max_length=512)
    tags: list[str] | None = Field(default=None, max_length=20)
    description: str | None = Field(default=None, max_length=2000)
    max_tokens: int | None = Field(default=None, ge=1)
    extra_payload: dict[str, Any] | None = None
    price_input: Decimal | None = Field(default=None, ge=0)
    price_output: Decimal | None = Field(default=None, ge=0)
    provider: str | None = None
    requests_per_minute: int | None = Field(default=None, ge=0, le=MOST_PER_MINUTE)
    tokens_per_minute: int | None = Field(default=None, ge=0, le=MOST_PER_MINUTE)

    _nothing_reserved = field_validator("extra_payload")(_check_payload)
    _tags_are_words = field_validator("tags")(_check_tags)
    _provider_is_known = field_validator("provider")(_check_provider)

    def values(self) -> dict[str, Any]:
        """What changes, but for the base URL; None clears a rate limit."""
        given = {name: value for name, value in self if value is not None and name != "base_url"}
        return given | {name: None for name in RATE_LIMITS if given.get(name) == 0}


def seen(shown: Credentials | None) -> dict[str, Any]:
    """What people may see of credentials, as columns of a model."""
    if shown is None:
        return {"key_mask": None, "auth": None}
    return {"key_mask": None if shown.key is None else mask(shown.key), "auth": shown.describe()}


CHANGEABLE = (
    *("name", "base_url", "origin", "remote_id", "tags", "description", "max_tokens", "extra_payload"),
    *("price_input", "price_output", "provider", "key_version", "key_mask", "auth", *RATE_LIMITS),
)
"""What may change about a model once it is registered."""


@dataclass(frozen=True)
class Model:
    """A registered model."""

    id: str
    org_id: str
    key: str
    name: str
    description: str
    base_url: str
    origin: str
    remote_id: str
    tags: list[str]
    max_tokens: int | None
    extra_payload: dict[str, Any]
    public: bool
    price_input: Decimal | None
    price_output: Decimal | None
    status: str
    key_version: int | None
    key_mask: str | None
    capabilities: dict[str, Any]
    provider: str | None
    auth: dict[str, Any] | None
    health: str
    health_failures: int
    checked_at: datetime | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    revision: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def new(cls, org_id: str, model_id: str, request: RegisterRequest, base: BaseUrl, shown: Credentials | None) -> Model:
        """The model that a request makes; with version 1 of its credentials when it has any."""
        now = utcnow()
        return cls(
            id=model_id,
            org_id=org_id,
            key=request.key,
            name=request.name,
            description=request.description,
            base_url=base.url,
            origin=base.origin,
            remote_id=request.remote_id,
            tags=request.tags,
            max_tokens=request.max_tokens,
            extra_payload=request.extra_payload,
            public=request.public,
            price_input=request.price_input,
            price_output=request.price_output,
            status="active",
            key_version=None if shown is None else 1,
            **seen(shown),
            capabilities={},
            provider=request.provider,
            health="unknown",
            health_failures=0,
            checked_at=None,
            requests_per_minute=request.requests_per_minute,
            tokens_per_minute=request.tokens_per_minute,
            revision=1,
            created_at=now,
            updated_at=now,
        )

    def with_(self, **values: Any) -> Model:
        """The model with other values."""
        return replace(self, **values)

    def columns(self) -> dict[str, Any]:
        """Its columns in the control plane."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def of(cls, row: Row[Any]) -> Model:
        """The model of a row of the control plane."""
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})

    def ref(self) -> ModelRef:
        """The model, pinned for a plan."""
        return ModelRef(
            id=self.id,
            key=self.key,
            revision=self.revision,
            remote_id=self.remote_id,
            base_url=self.base_url,
            origin=self.origin,
            max_tokens=self.max_tokens,
            extra_payload=self.extra_payload,
            public=self.public,
            price_input=self.price_input,
            price_output=self.price_output,
            key_version=self.key_version,
            capabilities=self.capabilities,
            provider=self.provider,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
        )

    def row(self) -> ModelRow:
        """The model as the warehouse stores it."""
        return ModelRow(
            org_id=self.org_id,
            model_id=self.id,
            revision=self.revision,
            key=self.key,
            name=self.name,
            description=self.description,
            base_url=self.base_url,
            remote_id=self.remote_id,
            tags=self.tags,
            public=self.public,
            max_tokens=self.max_tokens,
            price_input_usd_per_mtok=self.price_input,
            price_output_usd_per_mtok=self.price_output,
            status=self.status,
            key_mask=self.key_mask,
            capabilities=orjson.dumps(self.capabilities, option=orjson.OPT_SORT_KEYS).decode(),
            updated_at=self.updated_at,
            recorded_at=utcnow(),
            provider=self.provider,
            auth=None if self.auth is None else orjson.dumps(self.auth, option=orjson.OPT_SORT_KEYS).decode(),
            health=self.health,
            checked_at=self.checked_at,
        )

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape of a model."""
        names = (
            *("key", "name", "description", "status", "base_url", "remote_id", "tags", "max_tokens", "extra_payload", "public"),
            *("price_input", "price_output", *RATE_LIMITS, "provider", "key_mask", "key_version", "auth", "capabilities"),
            *("health", "health_failures", "checked_at", "revision", "created_at", "updated_at", "id"),
        )
        return {name: getattr(self, name) for name in names}
