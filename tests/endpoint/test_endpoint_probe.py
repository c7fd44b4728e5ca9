"""The probe, against scripted servers and the sandbox."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from byok.endpoint import EgressPolicy, EndpointClient, EndpointError, ProbeResult, probe
from byok.sandbox import Sandbox

KEY = "sk-test-0123456789abcdef"
ANSWERS = [("What is 2+2?", "4")]


def run(host_port: str, *, key: str | None = KEY, model: str = "sandbox-model") -> ProbeResult:
    async def go() -> ProbeResult:
        async with EndpointClient(f"http://{host_port}/v1", model, key, policy=EgressPolicy.parse(host_port)) as client:
            return await probe(client)

    return asyncio.run(go())


def test_a_good_endpoint_costs_one_token() -> None:
    with Sandbox(ANSWERS, api_key=KEY) as sandbox:
        found = run(sandbox.host_port)
        stats = sandbox.stats()
    assert found.models_listed is True
    assert found.warnings == []
    (attempt,) = found.attempts
    assert (attempt.status, attempt.error_code, attempt.http_status, attempt.usage.completion_tokens) == ("ok", None, 200, 1)
    assert attempt.opened_at < attempt.closed_at
    assert found.latency_ms == attempt.latency_ms
    assert (stats["chat_requests"], stats["models_requests"], stats["completion_tokens"]) == (1, 1, 1)


def test_a_wrong_key_and_a_wrong_model_are_named() -> None:
    with Sandbox(ANSWERS, api_key=KEY) as sandbox:
        with pytest.raises(EndpointError) as caught:
            run(sandbox.host_port, key="sk-wrong-0123456789")
        assert caught.value.code == "endpoint_auth"
        with pytest.raises(EndpointError) as caught:
            run(sandbox.host_port, model="sandbox-modle")
        assert caught.value.code == "model_not_found"
        assert "sandbox-model" in caught.value.hint
        assert sandbox.stats()["wrong_keys"] == 2


def test_no_usage_is_a_warning() -> None:
    with Sandbox(ANSWERS, usage=False) as sandbox:
        found = run(sandbox.host_port)
    assert found.attempts[0].usage.usage_class == "missing"
    assert "cost" in found.warnings[0]


def test_the_list_alone_decides_nothing(
    serve: Callable[..., Any], reply: Callable[..., bytes], chat_completion: Callable[..., Any]
) -> None:
    good = reply(200, chat_completion())
    closed = run(serve(reply(401, {"error": "Unauthorized"}), good).host_port)
    assert closed.models_listed is None
    assert "cannot be read" in closed.warnings[0]
    assert run(serve(reply(404, {"detail": "Not Found"}), good).host_port).models_listed is None
    other = run(serve(reply(200, [{"id": "another"}]), good).host_port)
    assert other.models_listed is False
    assert "does not list" in other.warnings[0]
    with pytest.raises(EndpointError) as caught:
        run(serve(reply(200, [{"id": "sandbox-model"}]), reply(401, {"error": "Unauthorized"})).host_port)
    assert caught.value.code == "endpoint_auth"


def test_each_request_of_the_token_limit_switch_is_an_attempt(
    serve: Callable[..., Any], reply: Callable[..., bytes], chat_completion: Callable[..., Any]
) -> None:
    other = reply(
        400, {"error": {"message": "Use 'max_completion_tokens' instead.", "param": "max_tokens", "code": "unsupported_parameter"}}
    )
    least = reply(
        400, {"error": {"message": "Expected a value >= 16.", "param": "max_completion_tokens", "code": "integer_below_min_value"}}
    )
    server = serve(reply(404, ""), other, least, reply(200, chat_completion()))
    found = run(server.host_port)
    assert [attempt.error_code for attempt in found.attempts] == ["bad_request", "bad_request", None]
    assert found.token_parameter == "max_completion_tokens"
    sent = [json.loads(body) for _, _, body in server.requests[1:]]
    assert [{name: value for name, value in one.items() if "tokens" in name} for one in sent] == [
        {"max_tokens": 1},
        {"max_completion_tokens": 1},
        {"max_completion_tokens": 16},
    ]


def test_a_redirecting_endpoint_is_refused_at_once(serve: Callable[..., Any], reply: Callable[..., bytes]) -> None:
    server = serve(reply(301, "", location="https://elsewhere.example/v1/models"))
    with pytest.raises(EndpointError) as caught:
        run(server.host_port)
    assert caught.value.code == "endpoint_redirect"
    assert len(server.requests) == 1
