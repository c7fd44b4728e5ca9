"""The probe: is this an endpoint that answers for this model with this key, at the price of one token?"""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from byok.clock import utcnow
from byok.endpoint.answers import Usage
from byok.endpoint.classify import TOKEN_PARAMETERS
from byok.endpoint.client import EndpointClient
from byok.endpoint.errors import (
    BadRequest,
    EndpointError,
    EndpointRedirect,
    EndpointTls,
    EndpointUnreachable,
    ForbiddenAddress,
    RemoteModelNotFound,
)

MORE_TOKENS = 16
"""Asked for when an endpoint refuses a limit of one token (some have a least value)."""

_QUESTION = [{"role": "user", "content": "Reply with OK."}]
_FATAL = (EndpointUnreachable, EndpointTls, EndpointRedirect, ForbiddenAddress)


@dataclass(frozen=True)
class ProbeAttempt:
    """One chat request of a probe, as it is recorded and charged.

    Attributes:
        status: Whether an answer came.
        error_code: Code of the error, when none came.
        http_status: None when there was no HTTP answer.
        latency_ms: To the last byte, or to the failure.
        usage: Tokens; `missing` for an error.
        request_id: The provider's id.
        opened_at: Before the request left.
        closed_at: When the answer was complete.
    """

    status: Literal["ok", "error"]
    error_code: str | None
    http_status: int | None
    latency_ms: float
    usage: Usage
    request_id: str | None
    opened_at: datetime
    closed_at: datetime


@dataclass(frozen=True)
class ProbeResult:
    """What a successful probe found.

    Attributes:
        models_listed: Whether the model is in the endpoint's list; None when there is no list to be read.
        attempts: The chat requests, in order; the last one was answered.
        latency_ms: Of the answered one.
        warnings: What is odd but no obstacle.
        token_parameter: What the endpoint calls the limit of the answer's tokens.
    """

    models_listed: bool | None
    attempts: list[ProbeAttempt]
    latency_ms: float
    warnings: list[str]
    token_parameter: str


async def probe(client: EndpointClient) -> ProbeResult:
    """Read the models list where one is offered, and ask for one token.

    The list alone decides nothing: it may be open while chat needs a key, closed while chat works, or incomplete.

    Raises:
        EndpointError: The endpoint does not answer for this model with this key.
    """
    warnings: list[str] = []
    listed = await _list(client, warnings)
    attempts: list[ProbeAttempt] = []
    failure: EndpointError | None = await _ask(client, attempts, 1)
    if failure is not None and client.adapt(failure):
        warnings.append(f"the endpoint takes {client.token_parameter}, not {_other(client.token_parameter)}")
        failure = await _ask(client, attempts, 1)
    if isinstance(failure, BadRequest) and failure.parameter in TOKEN_PARAMETERS:
        warnings.append("the endpoint refuses a limit of one token")
        failure = await _ask(client, attempts, MORE_TOKENS)
    if failure is not None:
        raise _with_near_names(failure, client.remote_id, listed)
    known = None if listed is None else client.remote_id in listed
    if known is False:
        warnings.append(f"the endpoint answers for {client.remote_id!r}, but does not list it")
    last = attempts[-1]
    if last.usage.usage_class != "reported":
        warnings.append(f"usage is {last.usage.usage_class}: the cost of answers will be unknown")
    return ProbeResult(known, attempts, last.latency_ms, warnings, client.token_parameter)


async def _list(client: EndpointClient, warnings: list[str]) -> list[str] | None:
    try:
        return await client.models()
    except _FATAL:
        raise
    except EndpointError as error:
        warnings.append(f"the models list cannot be read: {error.message}")
    return None


async def _ask(client: EndpointClient, attempts: list[ProbeAttempt], tokens: int) -> EndpointError | None:
    opened, started = utcnow(), time.perf_counter()
    try:
        answer = await client.attempt(_QUESTION, max_tokens=tokens)
    except EndpointError as error:
        failure = error
    else:
        attempts.append(ProbeAttempt("ok", None, answer.http_status, answer.latency_ms, answer.usage, answer.request_id, opened, utcnow()))
        return None
    spent = (time.perf_counter() - started) * 1000
    request_id = failure.fields.get("request_id")
    named = request_id if isinstance(request_id, str) else None
    attempts.append(ProbeAttempt("error", failure.code, failure.status, spent, Usage(), named, opened, utcnow()))
    return failure


def _other(name: str) -> str:
    return next(other for other in TOKEN_PARAMETERS if other != name)


def _with_near_names(error: EndpointError, remote_id: str, listed: list[str] | None) -> EndpointError:
    """The same error; for an unknown model with what the endpoint does list."""
    if not isinstance(error, RemoteModelNotFound) or not listed:
        return error
    # Comparing takes time that grows with length and number, and a list may have any.
    compared = [name for name in listed[:1000] if len(name) <= 100]
    near = difflib.get_close_matches(remote_id, compared, n=3, cutoff=0.4) or listed[:3]
    shown = ", ".join(name[:80] for name in near)
    return RemoteModelNotFound(error.message, hint=f"the endpoint lists {len(listed)} models, such as: {shown}", **error.fields)
