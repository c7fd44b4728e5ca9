"""Which routes the real gateways have, and where: what a base URL must be, and what is missing below it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from byok_testing.raw_server import http

LOCK = Path(__file__).resolve().parents[4] / "requirements-mlflow.lock"
VECTORS = {
    "object": "list",
    "model": "upstream-embedder",
    "data": [{"object": "embedding", "index": 1, "embedding": [0.5, 1.0]}, {"object": "embedding", "index": 0, "embedding": [0.25, 2.0]}],
    "usage": {"prompt_tokens": 2, "total_tokens": 2},
}


def test_the_gateways_are_of_the_locked_version(tracking):
    locked = re.search(r"^mlflow==(\S+)", LOCK.read_text(), re.MULTILINE)
    assert locked and tracking.ask("GET", "/version").text == locked[1]


def test_models_are_listed_under_the_unified_base_url_only(tracking, legacy):
    listed = tracking.ask("GET", "/gateway/mlflow/v1/models")
    assert (listed.status_code, listed.json()["object"]) == (200, "list")
    entries = listed.json()["data"]
    assert {frozenset(entry) for entry in entries} == {frozenset({"id", "object", "created", "owned_by"})}
    assert {entry["owned_by"] for entry in entries} == {"mlflow"}
    names = [entry["id"] for entry in entries]
    # Other tests may have added some.
    assert names == sorted(names) and {"candidate", "embedder", "raw"} <= set(names)
    for path in ("/gateway/openai/v1/models", "/v1/models", "/gateway/proxy/raw/v1/models", "/gateway/mlflow/v1/models/raw"):
        missing = tracking.ask("GET", path)
        assert (missing.status_code, missing.headers["content-type"]) == (404, "text/html; charset=utf-8"), path
    missing = legacy.ask("GET", "/v1/models")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})


def test_the_old_gateway_lists_its_endpoints_in_its_own_ways(legacy):
    names = ["raw", "limited", "raw-embeddings", "candidate", "embedder"]
    assert [entry["name"] for entry in legacy.ask("GET", "/api/2.0/endpoints/").json()["endpoints"]] == names
    assert [entry["name"] for entry in legacy.ask("GET", "/api/2.0/gateway/routes/").json()["routes"]] == names
    one = legacy.ask("GET", "/api/3.0/gateway/endpoint/raw").json()
    assert (one["endpoint_type"], one["endpoint_url"]) == ("llm/v1/chat", "/gateway/raw/invocations")
    assert legacy.ask("GET", "/api/3.0/gateway/endpoint/none").status_code == 404


def test_health_is_text_on_the_one_and_json_on_the_other(tracking, legacy):
    assert tracking.ask("GET", "/health").text == "OK"
    assert legacy.ask("GET", "/health").json() == {"status": "OK"}


def test_a_wrong_method_or_a_slash_at_the_end_is_a_missing_page_here_and_an_error_or_a_redirect_there(tracking, legacy):
    for method, path in (("GET", "/gateway/mlflow/v1/chat/completions"), ("POST", "/gateway/mlflow/v1/chat/completions/")):
        assert tracking.ask(method, path).status_code == 404
    wrong = legacy.ask("GET", "/v1/chat/completions")
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})
    moved = legacy.ask("POST", "/v1/chat/completions/", {})
    assert (moved.status_code, moved.headers["location"]) == (307, f"{legacy.origin}/v1/chat/completions")


def test_one_gateway_has_none_of_the_other_ones_chat_routes(tracking, legacy):
    assert tracking.ask("POST", "/v1/chat/completions", {}).headers["content-type"] == "text/html; charset=utf-8"
    for path in ("/gateway/mlflow/v1/chat/completions", "/gateway/openai/v1/chat/completions", "/gateway/proxy/raw/v1/chat/completions"):
        missing = legacy.ask("POST", path, {})
        assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})


def test_the_unified_base_url_has_no_embeddings(tracking):
    missing = tracking.ask("POST", "/gateway/mlflow/v1/embeddings", {"model": "raw", "input": ["a"]})
    assert (missing.status_code, missing.headers["content-type"]) == (404, "text/html; charset=utf-8")


@pytest.mark.parametrize("path", ["/gateway/openai/v1/embeddings", "/gateway/proxy/raw/v1/embeddings"])
def test_these_routes_hand_embeddings_on_as_they_are(tracking, upstream, path):
    upstream.says(http(200, VECTORS))
    got = tracking.ask("POST", path, {"model": "raw", "input": ["a", "b"], "encoding_format": "float"})
    assert (got.status_code, got.json()) == (200, VECTORS)
    # The raw proxy leaves the model as the client wrote it, and an upstream that knows no endpoint names would refuse it.
    model = "raw" if "proxy" in path else "upstream-model"
    assert upstream.asked == {"model": model, "input": ["a", "b"], "encoding_format": "float"}


@pytest.mark.parametrize(
    ("gateway", "path", "named"),
    [
        ("tracking", "/gateway/raw/mlflow/invocations", {}),
        ("legacy", "/v1/embeddings", {"model": "raw-embeddings"}),
        ("legacy", "/endpoints/raw-embeddings/invocations", {}),
    ],
)
def test_these_routes_number_embeddings_anew_and_cannot_do_without_usage(request, upstream, gateway, path, named):
    gateway = request.getfixturevalue(gateway)
    upstream.says(http(200, VECTORS))
    got = gateway.ask("POST", path, {"input": ["a", "b"], **named}).json()
    # In the order in which they came, whatever index the provider had given them.
    assert [(entry["index"], entry["embedding"]) for entry in got["data"]] == [(0, [0.5, 1.0]), (1, [0.25, 2.0])]
    assert got["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    upstream.says(http(200, {name: value for name, value in VECTORS.items() if name != "usage"}))
    broken = gateway.ask("POST", path, {"input": ["a", "b"], **named})
    assert (broken.status_code, broken.text) == (500, "Internal Server Error")


def test_the_old_gateway_keeps_chat_and_embeddings_apart(legacy):
    for path, name, kind in (("/v1/embeddings", "raw", "an embeddings"), ("/v1/chat/completions", "raw-embeddings", "a chat")):
        body = {"model": name, "input": ["a"], "messages": [{"role": "user", "content": "hi"}]}
        refused = legacy.ask("POST", path, body)
        assert (refused.status_code, refused.json()) == (400, {"detail": f"Endpoint '{name}' is not {kind} endpoint."})


@pytest.mark.parametrize(
    ("reply", "status", "detail"),
    [
        (http(404, {"detail": "Not Found"}), 404, {"detail": "Not Found"}),
        (http(501, {"error": {"message": "no embeddings here"}}), 501, "no embeddings here"),
        (http(404, "<html>none</html>", kind="text/html"), 502, "The returned data type from the route service is not supported. "),
    ],
)
def test_an_upstream_without_embeddings_shows_through(tracking, legacy, upstream, reply, status, detail):
    for gateway, path, name in ((tracking, "/gateway/openai/v1/embeddings", "raw"), (legacy, "/v1/embeddings", "raw-embeddings")):
        upstream.says(reply)
        got = gateway.ask("POST", path, {"model": name, "input": ["a"]})
        said = got.json()["detail"]
        assert got.status_code == status
        assert said == detail or said.startswith(str(detail))
