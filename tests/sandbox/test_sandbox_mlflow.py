"""The dialect of MLflow's AI gateway, one test for each deviation of its table: where it listens, whom it lets in, what it takes."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from byok.sandbox import PROFILES

PASSTHROUGH = "/gateway/openai/v1"


def basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


def is_missing(answer: Any) -> bool:
    return (answer.status, answer.headers["content-type"].partition(";")[0]) == (404, "text/html") and b"<!doctype html>" in answer.raw


@pytest.fixture
def client(serve: Any) -> Any:
    return serve(profile="mlflow")


def test_every_deviation_is_tested() -> None:
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_sandbox_mlflow*.py"))
    names = {one.name.replace("-", "_") for one in PROFILES["mlflow"].deviations}
    assert names <= set(re.findall(r"^def test_mlflow_(\w+)", source, re.MULTILINE))


def test_mlflow_two_bases(client: Any) -> None:
    assert client.base == "/gateway/mlflow/v1"
    assert client.chat().text == client.at(PASSTHROUGH).chat().text == "The answer is Paris"
    assert client.at("").get("/health").raw == b"OK"


def test_mlflow_models_unified_only(client: Any) -> None:
    models = client.get("/models").json["data"]
    assert [(model["id"], model["owned_by"]) for model in models] == [("sandbox-embedding", "mlflow"), ("sandbox-model", "mlflow")]
    assert models[0]["created"] > 1_600_000_000
    assert is_missing(client.at(PASSTHROUGH).get("/models"))


def test_mlflow_embeddings_passthrough_only(client: Any) -> None:
    assert is_missing(client.embed("a"))
    answer = client.at(PASSTHROUGH).embed("a").json
    assert (len(answer["data"]), answer["model"]) == (1, "upstream-sandbox-embedding")


def test_mlflow_missing_page(client: Any) -> None:
    for base in (client.base, PASSTHROUGH):
        assert is_missing(client.at(base).get("/chat/completions"))
        assert is_missing(client.at(base).post("/chat/completions/", {}))
    assert is_missing(client.at("").get("/v1/models"))


def test_mlflow_no_key(serve: Any) -> None:
    assert serve(key="sk-wrong", profile="mlflow", api_key="sk-right").chat().status == 200


def test_mlflow_basic_auth(serve: Any) -> None:
    client = serve(profile="mlflow", api_key="ann:secret")
    good, bad = basic("ann:secret"), basic("ann:guess")
    refused = client.chat()
    assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Basic realm="mlflow"')
    assert refused.headers["content-type"].startswith("text/plain")
    for headers, status in (
        ({"authorization": good}, 200),
        ({"authorization": good.removeprefix("Basic ")}, 401),
        ({"authorization": "Bearer ann:secret"}, 401),
        ({"x-mlflow-authorization": good}, 200),
        ({"x-mlflow-authorization": good, "authorization": bad}, 200),
        ({"x-mlflow-authorization": bad, "authorization": good}, 401),
    ):
        assert client.chat(headers=headers).status == status, headers


def test_mlflow_login_first(serve: Any) -> None:
    client = serve(profile="mlflow", api_key="ann:secret")
    good = basic("ann:secret")
    for path in ("/gateway/openai/v1/models", "/nothing"):
        assert client.at("").get(path).status == client.at("").get(path, {"x-mlflow-authorization": good}).status == 401
        assert is_missing(client.at("").get(path, {"authorization": good}))
    assert client.at("").get("/health").status == 200


def test_mlflow_foreign_host(client: Any) -> None:
    answer = client.chat(headers={"host": "gateway.example.org"})
    assert (answer.status, answer.raw) == (403, b"Invalid Host header - possible DNS rebinding attack detected")
    assert answer.headers["content-type"] == "text/plain"
    for host in ("localhost:99", "10.1.2.3", "172.20.0.1:80", "[::1]"):
        assert client.chat(headers={"host": host}).status == 200, host


def test_mlflow_upstream_model(client: Any) -> None:
    for base in (client.base, PASSTHROUGH):
        assert client.at(base).chat().json["model"] == "upstream-sandbox-model"
        assert client.at(base).stream().chunks[0]["model"] == "upstream-sandbox-model"
        refused = client.at(base).chat(model="sandbox-embedding").json
        assert refused == {"detail": "The model `upstream-sandbox-embedding` is not a chat model."}
    assert "`upstream-sandbox-model`" in client.at(PASSTHROUGH).embed("a", model="sandbox-model").json["detail"]


def test_mlflow_usage_unasked(client: Any) -> None:
    for base in (client.base, PASSTHROUGH):
        assert client.at(base).stream().chunks[-1]["usage"]["completion_tokens"] == 4
        assert client.at(base).stream(stream_options={"include_usage": False}).chunks[-1].get("usage") is None


def test_mlflow_detail_object(client: Any) -> None:
    answer = client.chat(model="other")
    assert (answer.status, answer.json["detail"]["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_mlflow_detail_400(client: Any) -> None:
    passed = client.at(PASSTHROUGH)
    for answer in (client.chat(model=...), client.stream(model=""), passed.chat(model=...), passed.post("/embeddings", {"input": "a"})):
        assert (answer.status, answer.json) == (400, {"detail": "Missing required 'model' parameter in request body"})
    for one in (client, passed):
        answer = one.post("/chat/completions", b"{")
        assert (answer.status, answer.json["detail"].partition(":")[0]) == (400, "Invalid JSON payload")
        assert one.post("/chat/completions", [1]).status == 500


@pytest.mark.parametrize(
    ("members", "place", "said"),
    [
        ({"stop": "text"}, "stop", "Input should be a valid list"),
        ({"temperature": 2.5, "stream": True}, "temperature", "Input should be less than or equal to 2"),
        ({"messages": []}, "messages", "List should have at least 1 item after validation, not 0"),
        ({"response_format": {"type": "grammar"}}, "response_format.type", "Input should be 'text', 'json_object' or 'json_schema'"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
            "Field required",
        ),
    ],
)
def test_mlflow_payload_400(client: Any, members: dict[str, Any], place: str, said: str) -> None:
    answer = client.chat(**members)
    told = f"Invalid chat payload: 1 validation error for RequestPayload\n{place}\n  {said} [type="
    assert (answer.status, answer.json["detail"].startswith(told)) == (400, True)
    both = client.chat(temperature=3, top_k=0).json["detail"]
    assert both.startswith("Invalid chat payload: 2 validation errors for RequestPayload\ntemperature\n") and "\ntop_k\n" in both
    part = client.chat(messages=[{"role": "user", "content": [{"type": "video"}]}])
    assert (part.status, "Input tag 'video' found" in part.json["detail"]) == (400, True)
    assert client.chat(stop=["text"]).status == client.at(PASSTHROUGH).chat(stop="text").status == 200


def test_mlflow_shallow_tools(client: Any) -> None:
    inner = {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": inner}, "required": ["a"]}}}
    unified, passed = (client.at(base).chat(tools=[tool], tool_choice="required") for base in (client.base, PASSTHROUGH))
    assert unified.choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"a":{}}'
    assert passed.choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"a":{"b":"x"}}'
    bare = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    answer = client.chat(tools=[bare])
    assert (answer.status, "\ntools.0.function.parameters.properties\n" in answer.json["detail"]) == (400, True)
