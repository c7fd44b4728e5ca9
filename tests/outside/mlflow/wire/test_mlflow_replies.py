"""What the real gateways do to a request and to its answer: those that write it anew, and those that hand it on."""

from __future__ import annotations

import pytest

from byok_testing.raw_server import http

REWRITING = ["unified", "invocations", "legacy", "legacy-endpoint"]
VERBATIM = ["passthrough", "proxy"]
USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 1,
    "total_tokens": 4,
    "cached_tokens": 2,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
    "total_latency": 1.5,
}
TOOL_CALL = {"id": "call-1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}


def completion(**changes) -> dict:
    message = {
        "role": "assistant",
        "content": "yes",
        "reasoning": "why",
        "reasoning_content": "because",
        "refusal": "no",
        "annotations": [],
    }
    scored = {"content": [{"token": "yes", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
    choice = {"index": 7, "message": message, "logprobs": scored, "finish_reason": "eos", "stop_reason": 5}
    told = {
        "id": "c-1",
        "object": "chat.completion",
        "created": 5,
        "model": "upstream-name",
        "system_fingerprint": "fp",
        "choices": [choice],
    }
    return {**told, "usage": USAGE, **changes}


@pytest.mark.parametrize("route", REWRITING, indirect=True)
def test_an_answer_is_written_anew_without_logprobs_reasoning_and_refusal(route, upstream):
    upstream.says(http(200, completion()))
    assert route.ask(logprobs=True).json() == {
        "id": "c-1",
        "object": "chat.completion",
        "created": 5,
        "model": "upstream-name",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "yes", "tool_calls": None, "refusal": None}, "finish_reason": "eos"}
        ],
        "usage": USAGE,
        "provider": "openai",
    }
    assert upstream.asked["logprobs"] is True


@pytest.mark.parametrize("route", VERBATIM, indirect=True)
def test_an_answer_is_handed_on_as_it_is(route, upstream):
    told = completion(choices=[], seed=15924764223251450000, created=5.5)
    upstream.says(http(200, told))
    assert route.ask().json() == told


@pytest.mark.parametrize("route", REWRITING, indirect=True)
def test_tool_calls_survive(route, upstream):
    message = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
    upstream.says(http(200, completion(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])))
    assert route.ask().json()["choices"] == [{"index": 0, "message": {**message, "refusal": None}, "finish_reason": "tool_calls"}]


@pytest.mark.parametrize("route", REWRITING, indirect=True)
@pytest.mark.parametrize(
    "told",
    [
        completion(usage=None),
        completion(created=5.5),
        {name: value for name, value in completion().items() if name != "id"},
        {"error": {"message": "an error inside a success"}},
    ],
    ids=["usage-null", "created-float", "no-id", "error-in-200"],
)
def test_what_does_not_fit_the_gateways_own_schema_becomes_a_plain_500(route, upstream, told):
    upstream.says(http(200, told))
    got = route.ask()
    assert (got.status_code, got.headers["content-type"], got.text) == (500, "text/plain; charset=utf-8", "Internal Server Error")


@pytest.mark.parametrize("route", REWRITING, indirect=True)
def test_missing_usage_becomes_null_counts(route, upstream):
    upstream.says(http(200, {name: value for name, value in completion().items() if name != "usage"}))
    assert route.ask().json()["usage"] == {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}
    upstream.says(http(200, completion(usage={"prompt_tokens": 3})))
    assert route.ask().json()["usage"] == {"prompt_tokens": 3, "completion_tokens": None, "total_tokens": None}


@pytest.mark.parametrize("route", REWRITING + VERBATIM, indirect=True)
def test_no_header_of_the_upstream_gets_through(route, upstream):
    sent = {"x_ratelimit_remaining_requests": "5", "x_ratelimit_over_limit": "yes", "retry_after": "3", "x_request_id": "r-1"}
    for status, body in ((200, completion()), (429, {"error": {"message": "slow down"}})):
        upstream.says(http(status, body, **sent))
        got = route.ask()
        assert got.status_code == status
        assert not got.headers.keys() & {name.replace("_", "-") for name in sent}
        assert ("x-mlflow-gateway-duration-ms" in got.headers) is not route.name.startswith("legacy")


@pytest.mark.parametrize("route", REWRITING, indirect=True)
def test_a_request_gains_n_and_strictness_and_keeps_what_the_gateway_does_not_know(route, upstream):
    upstream.says(http(200, completion()))
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"x": {"minLength": 1}}}}}
    more = {"logprobs": 1, "reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}, "max_tokens": 4, "seed": 2**64}
    assert route.ask(**more, response_format=shape).status_code == 200
    strict = {**shape, "json_schema": {**shape["json_schema"], "strict": True}}
    messages = [{"role": "user", "content": "hi"}]
    assert upstream.asked == {"model": "upstream-model", "messages": messages, "n": 1, **more, "response_format": strict}


@pytest.mark.parametrize("route", REWRITING, indirect=True)
def test_the_schema_of_a_tool_loses_all_but_its_first_level(route, upstream):
    upstream.says(http(200, completion()))
    inner = {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]}
    parameters = {"type": "object", "properties": {"a": inner, "c": {"anyOf": [{"type": "string"}]}}, "required": ["a"]}
    assert route.ask(tools=[{"type": "function", "function": {"name": "add", "parameters": parameters}}]).status_code == 200
    (tool,) = upstream.asked["tools"]
    assert tool["function"]["parameters"] == {"type": "object", "properties": {"a": {"type": "object"}, "c": {}}, "required": ["a"]}
    refused = route.ask(tools=[{"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}])
    assert refused.status_code in (400, 422)
    assert "properties" in refused.text


@pytest.mark.parametrize("route", VERBATIM, indirect=True)
def test_a_request_is_handed_on_with_every_header_but_those_that_authenticate(route, upstream):
    upstream.says(http(200, completion()))
    keys = {"authorization": "Bearer mine", "x_api_key": "mine", "x_mlflow_authorization": "Basic mine"}
    route.gateway.ask("POST", route.path, route.body(top_k=3), **keys, x_other="seen by the provider", user_agent="byok/test")
    model = "raw" if route.name == "proxy" else "upstream-model"
    assert upstream.asked == {"model": model, "messages": [{"role": "user", "content": "hi"}], "top_k": 3}
    _, headers, _ = upstream.requests[-1]
    assert headers["authorization"].startswith("Bearer sk-upstream-")
    assert (headers["x-other"], headers["user-agent"]) == ("seen by the provider", "byok/test")
    assert headers["accept-encoding"] == "gzip, deflate, identity"
    assert not [name for name, value in headers.items() if "mine" in value]


@pytest.mark.parametrize("route", REWRITING, indirect=True)
def test_of_the_clients_headers_nothing_reaches_the_upstream(route, upstream):
    upstream.says(http(200, completion()))
    route.gateway.ask("POST", route.path, route.body(), authorization="Bearer mine", x_other="mine", user_agent="mine")
    _, headers, _ = upstream.requests[-1]
    assert not [name for name, value in headers.items() if "mine" in value]
    assert headers["authorization"].startswith("Bearer sk-upstream-")
