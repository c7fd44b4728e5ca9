"""The check of an endpoint: each planted defect is found as what it is."""

from __future__ import annotations

from typing import Any

import pytest

from byok.sandbox import Sandbox
from byok_testing.checking import ANSWERS, found, look_at, run
from byok_testing.clean_endpoint import (
    CALL,
    CHUNKS,
    LAST,
    LIST,
    LISTED,
    USAGE,
    Clean,
    answer,
    chunk,
    completion,
    embedded,
    ok,
    refusal,
    sse,
)
from byok_testing.raw_server import http

PAGE = http(502, "<html><title>502 Bad Gateway</title></html>", kind="text/html", x_request_id="r")
LONG = completion("1, 2, 3", usage={"prompt_tokens": 9, "completion_tokens": 90, "total_tokens": 99})
MOVED = http(301, "", location="https://elsewhere.example/v1/models")

DEFECTS: list[tuple[int, dict[str, Any], str]] = [
    (1, {"models": ok({"object": "list", "data": "none"})}, "no list of models"),
    (2, {"models": ok([LISTED, {"object": "model"}])}, "1 entries have no id"),
    (3, {"models": refusal(404, "no")}, "there is no models route"),
    (4, {"wrong_key": ok(completion())}, "answers a random key"),
    (4, {"models": refusal(401, "no")}, "the key opens chat, but not the list"),
    (5, {"models": ok([LISTED | {"context_length": 2048}])}, "contradicts itself"),
    (5, {"models": ok([LISTED | {"max_model_len": 9000}])}, "a refusal says 4096"),
    (6, {"models": ok([LISTED | {"pricing": {"input": "3 dollars"}}])}, "cannot be read"),
    (7, {"models": ok([LISTED | {"type": "chat", "kind": "EMBEDDING_MODEL"}])}, "contradict"),
    (7, {"models": ok([LISTED | {"type": "embedding"}])}, "but it chats"),
    (8, {"models": ok({"models": [LISTED], "nextPageToken": "t"}), "page": ok({"models": [LISTED]})}, "the same page again"),
    (9, {"models": ok([{"id": "org/model"}])}, "in another case"),
    (10, {"chat": refusal(404, "Invalid URL")}, "/v1/chat/completions"),
    (11, {"models": MOVED}, "elsewhere.example"),
    (11, {"chat": http(307, "", location="/v2/chat")}, "/v2/chat"),
    (12, {"chat": http(401, "no", kind="text/plain", www_authenticate="Basic realm=x")}, "is refused"),
    (14, {"temperature": ok({"error": {"code": "bad"}}, 400)}, "without a message"),
    (15, {"temperature": ok({"error": "bad request"}, 400)}, "which parameter"),
    (16, {"temperature": ok({"detail": "bad request"}, 400)}, "which parameter"),
    (19, {"temperature": ok({"message": "bad request"}, 400)}, "which parameter"),
    (20, {"unknown_model": PAGE}, "a web page"),
    (20, {"unknown_model": ok(b"", 404)}, "an empty body"),
    (21, {"chat": http(200, "<html>hello</html>", kind="text/html")}, "a web page came"),
    (21, {"schema": ok({"error": {"message": "boom"}})}, "an error came inside a success"),
    (21, {"no_route": ok({"status": "fine"})}, "a route that does not exist is answered"),
    (22, {"chat": http(200, completion())}, "1 of 14 replies have none"),
    (22, {"temperature": http(400, {"error": {"message": "m", "param": "temperature"}})}, "1 of 14 replies have none"),
    (23, {"huge": refusal(500, "boom")}, "HTTP 500"),
    (24, {"huge": refusal(403, "inputs tokens + max_new_tokens must be <= 4096")}, "HTTP 403"),
    (24, {"wrong_key": refusal(403, "no")}, "unknown or missing"),
    (25, {"chat": refusal(402, "pay")}, "HTTP 402"),
    (26, {"unknown_model": ok(completion())}, "stands in for it"),
    (26, {"unknown_model": refusal(400, "no")}, "cannot be told"),
    (29, {"json": http(503, "<html></html>", kind="text/html")}, "HTTP 503"),
    (30, {"json": http(503, "<html></html>", kind="text/html")}, "a web page"),
    (31, {"json": http(429, {"error": {"message": "slow"}})}, "without Retry-After"),
    (31, {"json": refusal(429, "slow", retry_after="soon")}, "cannot be believed"),
    (32, {"models": http(200, LIST, x_ratelimit_limit_requests="9", x_ratelimit_reset_requests="later")}, "later"),
    (33, {"models": http(200, LIST, x_ratelimit_limit_requests="many")}, "many"),
    (36, {"chat": ok({**completion(), "usage": None})}, "plain chat: no usage"),
    (36, {"chat": ok(completion(usage=dict.fromkeys(USAGE)))}, "plain chat: no usage"),
    (36, {"embeddings": ok(embedded(False, usage=None))}, "embeddings: no usage"),
    (37, {"stream": sse(*CHUNKS)}, "tells no usage"),
    (40, {"chat": ok(completion(usage=USAGE | {"total_tokens": 99}))}, "99"),
    (43, {"chat": ok(completion(""))}, "empty, with finish reason stop"),
    (44, {"chat": ok(completion(finish=None))}, "no finish reason"),
    (45, {"stream": sse(chunk({"content": "1"}), {"choices": "none"}, LAST)}, "a chunk cannot be read"),
    (46, {"named": ok(completion("Hello."))}, "the tool is not called"),
    (46, {"named": answer(tool_calls=[CALL | {"function": {"name": "note_number", "arguments": "n is 7"}}])}, "no JSON"),
    (47, {"stream": sse(chunk({"content": "1"}), chunk({}, "stop"), LAST)}, "none came"),
    (49, {"stream": sse(*CHUNKS, LAST, done=False)}, "no [DONE]"),
    (50, {"huge": sse({"error": {"message": "429: slow", "type": "HTTPException"}}, done=False)}, "nothing but an error"),
    (51, {"stream": sse(*CHUNKS[:2], done=False)}, "cut off"),
    (51, {"chat": http(200, '{"choices": [{"mess', x_request_id="r")}, "cut off"),
    (55, {"other_limit": ok(LONG)}, "goes beyond it"),
    (55, {"other_limit": refusal(400, "bad request")}, "without being named"),
    (56, {"temperature": ok(completion())}, "temperature 9"),
    (56, {"other_limit": ok(LONG)}, "max_completion_tokens"),
    (56, {"stream": ok(completion("1, 2"))}, "stream"),
    (56, {"named": ok(completion("Hello."))}, "tool_choice"),
    (56, {"unknown_parameter": refusal(500, "boom")}, "HTTP 500"),
    (57, {"schema": ok(completion('{"color": "blue"}'))}, "not followed"),
    (57, {"schema": ok(completion("Blue."))}, "not followed"),
    (58, {"json": ok(completion("\n" * 32, "length"))}, "white space"),
    (58, {"json": ok(completion("ok is true"))}, "no JSON object"),
    (59, {"base64": ok(embedded(True, byte_order=">"))}, "are others"),
    (60, {"embeddings": http(404, "<html></html>", kind="text/html", x_request_id="r")}, "a web page"),
    (60, {"embeddings": http(500, "Internal Server Error", kind="text/plain", x_request_id="r")}, "another failure"),
]


@pytest.mark.parametrize(("number", "defect", "said"), DEFECTS, ids=[f"{number}-{said[:20]}" for number, _, said in DEFECTS])
def test_a_planted_defect_is_found(server: Clean, number: int, defect: dict[str, Any], said: str) -> None:
    report = look_at(server, defect)
    outcome, seen = found(report, number)
    assert outcome == "fail", seen
    assert said in seen
    assert report.exit_code == 1


def test_a_stream_that_is_held_back(server: Clean) -> None:
    whole_stream = sse(*CHUNKS, LAST)
    report = look_at(server, {"stream": (0.4, whole_stream)})
    assert found(report, 52)[0] == "fail"
    assert "huge" not in server.asked


def test_a_stream_that_comes_as_it_is_made() -> None:
    with Sandbox(ANSWERS, chunk_latency_ms=80) as sandbox:
        report = run(sandbox, key=None, model=sandbox.model_id)
    assert found(report, 52)[0] == "pass"


def test_a_refusal_by_the_tools_is_no_failure(server: Clean) -> None:
    no = refusal(400, "Unsupported parameter: 'tools'.", "unsupported_parameter", "tools")
    form = refusal(400, "'response_format' of this type is not supported.", None, "response_format")
    report = look_at(server, {"named": no, "required": no, "schema": form, "json": form})
    assert [found(report, number)[0] for number in (46, 57, 58)] == ["n/a", "n/a", "n/a"]
    assert report.exit_code == 0


def test_a_sandbox_that_ignores_what_it_is_asked() -> None:
    with Sandbox(ANSWERS, ignores=frozenset({"json_schema", "json_object", "tools", "logprobs", "streaming"})) as sandbox:
        report = run(sandbox, key=None, model=sandbox.model_id)
    failed = {one.number for one in report.findings if one.outcome == "fail"}
    assert failed >= {46, 56, 57, 58}
    assert all(name in found(report, 56)[1] for name in ("json_schema", "json_object", "tool_choice", "stream"))
