"""How errors look when they come through the real gateways, or from them."""

from __future__ import annotations

import pytest

from byok_testing.raw_server import http

REWRITING = ["unified", "invocations", "legacy", "legacy-endpoint"]
# The raw proxy has a reading of errors of its own.
READING_ALIKE = [*REWRITING, "passthrough"]
UNSUPPORTED = "The returned data type from the route service is not supported. Received content type: "
PLAIN_500 = "Internal Server Error"
VALIDATION = {"type": "missing", "loc": ["body", "x"], "msg": "Field required"}


@pytest.mark.parametrize("route", READING_ALIKE, indirect=True)
@pytest.mark.parametrize(
    ("reply", "status", "detail"),
    [
        (http(429, {"error": {"message": "slow down", "type": "tokens", "code": "rate_limit"}}), 429, "slow down"),
        (http(400, {"error": {"message": None}}), 400, "Bad Request"),
        (http(503, "overloaded", kind="text/plain"), 503, {"message": "overloaded"}),
        (http(400, {"message": "from a proxy"}), 400, {"message": "from a proxy"}),
        (http(422, {"detail": [VALIDATION]}), 422, {"detail": [VALIDATION]}),
        (http(404, {"detail": "Not Found"}), 404, {"detail": "Not Found"}),
        (http(400, [{"error": {"message": "in a list"}}]), 400, [{"error": {"message": "in a list"}}]),
        (http(502, "<html>bad</html>", kind="text/html"), 502, UNSUPPORTED + "text/html"),
        (http(400, {"error": {"message": "x"}}, kind="application/problem+json"), 502, UNSUPPORTED + "application/problem+json"),
        (http(200, "<html>a login page</html>", kind="text/html"), 502, UNSUPPORTED + "text/html"),
    ],
    ids=["openai", "no-message", "plain", "message", "validation", "detail", "list", "page", "problem", "page-in-200"],
)
def test_an_error_of_the_upstream_becomes_a_detail(route, upstream, reply, status, detail):
    upstream.says(reply)
    got = route.ask()
    assert (got.status_code, got.json()) == (status, {"detail": detail})


@pytest.mark.parametrize("route", READING_ALIKE, indirect=True)
@pytest.mark.parametrize(
    "reply",
    [
        http(401, {"error": "Unauthorized"}),
        http(500, b""),
        http(302, b"", location="http://127.0.0.1:1/elsewhere"),
        http(200, {"object": "chat.completion"}, content_length="9999"),
    ],
    ids=["vllm-401", "empty", "redirect", "cut"],
)
def test_what_the_gateway_cannot_read_becomes_a_plain_500(route, upstream, reply):
    """A wrong key of an upstream vLLM is one of these: it looks like a failing server."""
    upstream.says(reply)
    got = route.ask()
    assert (got.status_code, got.headers["content-type"], got.text) == (500, "text/plain; charset=utf-8", PLAIN_500)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("route", ["proxy"], indirect=True)
@pytest.mark.parametrize(
    ("reply", "status", "told"),
    [
        (http(429, {"error": {"message": "slow down"}}), 429, {"detail": "slow down"}),
        (http(401, {"error": "Unauthorized"}), 401, {"detail": "{'error': 'Unauthorized'}"}),
        (http(422, {"detail": [{"msg": "m"}]}), 422, {"detail": "{'detail': [{'msg': 'm'}]}"}),
        (http(503, "overloaded", kind="text/plain"), 503, {"detail": "overloaded"}),
        (http(502, "<html>bad</html>", kind="text/html"), 502, {"detail": "<html>bad</html>"}),
        (http(200, {"error": {"message": "in a success"}}), 200, {"error": {"message": "in a success"}}),
        # A redirect, which is not followed, ends as a success that says nothing.
        (http(302, b"", location="http://127.0.0.1:1/elsewhere"), 200, None),
    ],
    ids=["openai", "vllm-401", "validation", "plain", "page", "in-200", "redirect"],
)
def test_the_raw_proxy_makes_a_text_of_every_error(route, upstream, reply, status, told):
    upstream.says(reply)
    got = route.ask()
    assert (got.status_code, got.json()) == (status, told)


@pytest.mark.parametrize("route", REWRITING, indirect=True)
@pytest.mark.parametrize(
    ("wrong", "place", "said"),
    [
        ({"messages": []}, ["messages"], "List should have at least 1 item after validation, not 0"),
        ({"stop": "x"}, ["stop"], "Input should be a valid list"),
        ({"temperature": 3}, ["temperature"], "Input should be less than or equal to 2"),
        ({"max_tokens": 0}, ["max_tokens"], "Input should be greater than or equal to 1"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            ["response_format", "json_schema", "name"],
            "Field required",
        ),
        ({"response_format": {"type": "grammar"}}, ["response_format", "type"], "Input should be 'text', 'json_object' or 'json_schema'"),
    ],
    ids=["no-messages", "stop", "temperature", "limit", "schema-name", "format"],
)
def test_a_request_that_does_not_fit_is_refused_as_one_text_or_as_a_list(route, upstream, wrong, place, said):
    upstream.requests.clear()
    got = route.ask(**wrong)
    detail = got.json()["detail"]
    if route.name.startswith("legacy"):
        assert got.status_code == 422
        assert (detail[0]["loc"], detail[0]["msg"]) == (["body", *place], said)
    else:
        assert got.status_code == 400
        assert detail.startswith(f"Invalid chat payload: 1 validation error for RequestPayload\n{'.'.join(place)}\n  {said} [type=")
    assert upstream.requests == []


def test_a_body_that_is_no_json_is_refused_in_each_gateways_own_way(tracking, legacy):
    for path in ("/gateway/mlflow/v1/chat/completions", "/gateway/openai/v1/chat/completions"):
        got = tracking.ask("POST", path, None)
        assert (got.status_code, got.json()["detail"].partition(":")[0]) == (400, "Invalid JSON payload")
    got = legacy.ask("POST", "/v1/chat/completions", None)
    assert (got.status_code, got.json()["detail"][0]["type"]) == (422, "missing")


def test_an_unknown_endpoint_is_an_object_with_a_code_here_and_a_plain_500_there(tracking, legacy):
    body = {"model": "nobody", "messages": [{"role": "user", "content": "hi"}]}
    for path in ("/gateway/mlflow/v1/chat/completions", "/gateway/openai/v1/chat/completions"):
        got = tracking.ask("POST", path, body)
        told = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "GatewayEndpoint not found (name='nobody')"}
        assert (got.status_code, got.json()) == (404, {"detail": told})
        got = tracking.ask("POST", path, {"messages": body["messages"]})
        assert (got.status_code, got.json()) == (400, {"detail": "Missing required 'model' parameter in request body"})
    for named in (body, {"messages": body["messages"]}):
        got = legacy.ask("POST", "/v1/chat/completions", named)
        assert (got.status_code, got.text) == (500, PLAIN_500)


@pytest.mark.parametrize("route", ["invocations", "legacy-endpoint"], indirect=True)
def test_a_route_of_one_endpoint_refuses_a_model(route):
    got = route.ask(model="raw")
    said = "The parameter 'model' is not permitted to be passed. The route being queried already defines a model instance."
    assert (got.status_code, got.json()) == (422, {"detail": said})


def test_the_old_gateways_limit_holds_for_each_of_its_own_routes_and_not_for_the_openai_route(legacy, upstream):
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [], "usage": {}}
    upstream.says(http(200, answer))
    body = {"messages": [{"role": "user", "content": "hi"}]}
    for path in ("/endpoints/limited/invocations", "/gateway/limited/invocations"):
        assert [legacy.ask("POST", path, body).status_code for _ in range(2)] == [200, 200]
        refused = legacy.ask("POST", path, body)
        assert (refused.status_code, refused.json()) == (429, {"error": "Rate limit exceeded: 2 per 1 hour"})
        assert not [name for name in refused.headers if "retry" in name or "ratelimit" in name]
    assert [legacy.ask("POST", "/v1/chat/completions", {**body, "model": "limited"}).status_code for _ in range(3)] == [200] * 3
