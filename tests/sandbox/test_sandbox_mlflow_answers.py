"""The dialect of MLflow's AI gateway, one test for each deviation of its table: what it makes of its upstream's answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from byok.sandbox import PROFILES, Fault

PASSTHROUGH = "/gateway/openai/v1"
TYPED = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}


@pytest.fixture
def client(serve: Any) -> Any:
    return serve(profile="mlflow")


@pytest.fixture
def failing(serve: Any) -> Any:
    """Both bases of a sandbox whose every request has the same fault."""

    def start(**fault: Any) -> tuple[Any, Any]:
        client = serve(profile="mlflow", faults=[Fault(**fault)] * 9)
        return client, client.at(PASSTHROUGH)

    return start


def test_mlflow_drops(serve: Any) -> None:
    client = serve(profile="mlflow", supports=PROFILES["mlflow"].supports | {"reasoning"})
    asked = {"logprobs": True, "top_logprobs": 1}
    unified, passed = client.chat(**asked), client.at(PASSTHROUGH).chat(**asked)
    assert "logprobs" not in unified.choice and "reasoning_content" not in unified.choice["message"]
    assert unified.json["provider"] == "openai" and "provider" not in passed.json
    assert passed.choice["logprobs"] and passed.choice["message"]["reasoning_content"]
    streamed = client.stream(**asked)
    assert streamed.joined("reasoning_content") == "" and "logprobs" not in streamed.chunks[2]["choices"][0]
    assert client.at(PASSTHROUGH).stream().joined("reasoning_content")


def test_mlflow_null_members(client: Any, failing: Any) -> None:
    assert client.chat().choice["message"] == {"role": "assistant", "content": "The answer is Paris", "tool_calls": None, "refusal": None}
    unified, passed = failing(refusal="no")
    assert (unified.chat().choice["message"]["refusal"], passed.chat().choice["message"]["refusal"]) == (None, "no")


def test_mlflow_null_deltas(client: Any) -> None:
    chunks = client.stream().chunks
    assert chunks[1]["choices"] == [{"index": 0, "finish_reason": None, "delta": {"role": None, "content": "The", "tool_calls": None}}]
    assert [chunk["usage"] is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    called = client.stream(tools=[TYPED], tool_choice="required").chunks[2]["choices"][0]["delta"]["tool_calls"]
    assert called == [{"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": "{}"}}]
    assert client.at(PASSTHROUGH).stream().chunks[1]["choices"][0]["delta"] == {"content": "The"}


def test_mlflow_null_usage(serve: Any, failing: Any) -> None:
    client = serve(profile="mlflow", usage=False)
    assert client.chat().json["usage"] == {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}
    assert "usage" not in client.at(PASSTHROUGH).chat().json
    assert serve(profile="mlflow").chat().json["usage"]["completion_tokens"] == 4
    unified, passed = failing(usage={"prompt_tokens": 3, "cached_tokens": 1})
    told = {"prompt_tokens": 3, "completion_tokens": None, "total_tokens": None, "cached_tokens": 1}
    assert unified.chat().json["usage"] == unified.stream().chunks[-1]["usage"] == told
    assert passed.chat().json["usage"] == {"prompt_tokens": 3, "cached_tokens": 1}


def test_mlflow_no_upstream_headers(failing: Any) -> None:
    for fault in ({"status": 429, "headers": {"retry-after": "9"}}, {"text": "a", "headers": {"retry-after": "9"}}):
        for client in failing(**fault):
            for answer in (client.chat(), client.stream()):
                assert "x-mlflow-gateway-duration-ms" in answer.headers
                assert not set(answer.headers) & {"x-request-id", "retry-after", "x-ratelimit-limit-requests", "cache-control"}
            assert "x-mlflow-gateway-overhead-duration-ms" in client.chat().headers


@pytest.mark.parametrize(
    ("status", "body", "kind", "detail"),
    [
        (503, b'{"error": {"message": "down"}}', "application/json", "down"),
        (400, b'{"error": {"message": null}}', "application/json", "Bad Request"),
        (529, b'{"error": {}}', "application/json", ""),
        (422, b'{"detail": [{"msg": "m"}]}', "application/json", {"detail": [{"msg": "m"}]}),
        (503, b"busy", "text/plain", {"message": "busy"}),
    ],
)
def test_mlflow_detail_error(failing: Any, status: int, body: bytes, kind: str, detail: Any) -> None:
    for client in failing(status=status, body=body, content_type=kind):
        answer = client.chat()
        assert (answer.status, answer.json) == (status, {"detail": detail})


def test_mlflow_detail_error_of_embeddings(serve: Any) -> None:
    client = serve(profile="mlflow", embedding_faults=[Fault(status=503, body=b"busy", content_type="text/plain"), Fault(status=429)])
    told = [client.at(PASSTHROUGH).embed("a") for _ in range(2)]
    assert [(one.status, one.json["detail"]) for one in told] == [(503, {"message": "busy"}), (429, "simulated fault")]


def test_mlflow_unsupported_502(failing: Any) -> None:
    for status in (200, 503):
        for client in failing(status=status, body=b"<html>", content_type="text/html"):
            answer = client.chat()
            assert (answer.status, answer.json["detail"].endswith("Received content type: text/html; charset=utf-8")) == (502, True)


def test_mlflow_hidden_500(failing: Any) -> None:
    shown = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": []}
    for fault in ({"status": 401, "body": b'{"error":"Unauthorized"}'}, {"cut": True}, {"body": b"{"}, {"status": 500, "body": b""}):
        for client in failing(**fault):
            answer = client.chat()
            assert (answer.status, answer.raw) == (500, b"Internal Server Error")
    for changes in ({"usage": None}, {"created": 1.5}, {"id": 7}, {"choices": [{}]}):
        unified, passed = failing(body=json.dumps(shown | changes).encode())
        assert (unified.chat().raw, passed.chat().json) == (b"Internal Server Error", shown | changes)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 429, "message": "slow down"}, "429: slow down"),
        ({"status": 503, "body": b"busy", "content_type": "text/plain"}, "503: busy"),
        ({"status": 401, "body": b'{"error":"Unauthorized"}'}, "401: {'error': 'Unauthorized'}"),
        ({"status": 400, "body": b'{"message":"flat"}'}, "400: flat"),
        ({"status": 500, "body": b""}, "500: Internal Server Error"),
    ],
)
def test_mlflow_stream_200_error(client: Any, failing: Any, fault: dict[str, Any], said: str) -> None:
    for one in failing(**fault):
        answer = one.stream()
        assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
        assert (answer.chunks, answer.done) == ([{"error": {"message": said, "type": "HTTPException"}}], False)
    assert client.stream(max_tokens=10**6).chunks[0]["error"]["message"].startswith("400: This model's maximum context length")
    assert client.stream(model="other").status == 404


def test_mlflow_key_error(failing: Any) -> None:
    for fault in ({"status": 500, "after_chunks": 2}, {"after_chunks": 2, "frame": b'data: {"error": {"type": "server_error"}}\n\n'}):
        unified, passed = failing(**fault)
        assert unified.stream().chunks[-1] == {"error": {"message": "'id'", "type": "KeyError"}}
        answer = passed.stream()
        assert (answer.chunks[-1]["error"]["type"], answer.done) == ("server_error", False)
    unified, _ = failing(body=b'data: {"id": "c", "object": "o", "created": 1.5, "model": "m", "choices": []}\n\n')
    assert unified.stream().chunks[0]["error"]["type"] == "ValidationError"


def test_mlflow_cut_error(failing: Any) -> None:
    unified, passed = failing(cut=True, after_chunks=2)
    for answer in (unified.stream(), passed.stream()):
        assert (len(answer.chunks), answer.cut, answer.done) == (3, False, False)
        assert answer.chunks[-1]["error"]["type"] == "ClientPayloadError"
    # The passthrough's frame stands right below the line that the upstream did not come to end.
    assert (unified.stream().raw.count(b"\n\n"), passed.stream().raw.count(b"\n\n")) == (3, 2)


def test_mlflow_no_done(client: Any) -> None:
    answer = client.stream()
    assert (answer.finishes, answer.done, answer.cut) == (["stop"], False, False)
    assert client.at(PASSTHROUGH).stream().done


def test_mlflow_no_comments(failing: Any) -> None:
    unified, passed = failing(keepalive=True)
    assert (b": keep-alive" in unified.stream().raw, b": keep-alive" in passed.stream().raw) == (False, True)
