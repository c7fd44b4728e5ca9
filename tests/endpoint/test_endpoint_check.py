"""The check of an endpoint: a clean server passes, and each planted defect is found as what it is."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
import struct
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from byok.cli.output import to_json
from byok.endpoint import Credentials, EgressPolicy, EndpointError, EndpointUnreachable, profile
from byok.endpoint.checking import FACTS, LIMIT, Report, Target, announced, check, planned
from byok.endpoint.profiles import FACTS as FACTS_OF_PROFILES
from byok.sandbox import Sandbox
from byok_testing.raw_server import CLOSE, RawServer, Scripted, events, http

KEY = "sk-proof-7f3a9c51e2d84b60aa17c0de"
MODEL = "org/Model"
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
ANSWERS = [("What is 2+2?", "4")]
CALL = {"id": "call_1", "type": "function", "function": {"name": "note_number", "arguments": '{"n": 7}'}}


# --- a server that does all as the reference says


def completion(content: Any = "OK", finish: Any = "stop", **members: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content} | members.pop("message", {})
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice], "usage": USAGE} | members


def chunk(delta: dict[str, Any] | None = None, finish: Any = None, choice: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, **(choice or {})}]
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices, "usage": None} | members


def refusal(status: int, message: str, code: Any = None, param: str | None = None, **headers: str) -> bytes:
    kind = "invalid_request_error"
    return ok({"error": {"message": message, "type": kind, "param": param, "code": code}}, status=status, **headers)


def ok(value: Any, status: int = 200, **headers: str) -> bytes:
    return http(status, value, x_request_id="req-1", x_ratelimit_limit_requests="60", x_ratelimit_reset_requests="1s", **headers)


def lp(token: str) -> dict[str, Any]:
    return {"logprobs": {"content": [{"token": token, "logprob": -0.1, "bytes": None, "top_logprobs": []}]}}


CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    *(chunk({"content": text}, choice=lp(text)) for text in ("1", ",", " 2")),
    chunk({}, "stop"),
]
LAST = chunk(usage=USAGE)
STREAM = events(*CHUNKS, LAST, x_request_id="req-1")
CALL_CHUNKS = [chunk({"role": "assistant", "tool_calls": [{"index": 0, **CALL}]}), chunk({}, "tool_calls")]
LIST = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "o", "max_model_len": 4096}]}
LISTED = LIST["data"][0]
VECTORS = ((0.5, -0.25, 1.0), (0.25, 0.5, 0.0))


def embedded(coded: bool, order: tuple[int, ...] = (0, 1), byte_order: str = "<", **members: Any) -> dict[str, Any]:
    def written(vector: tuple[float, ...]) -> Any:
        return b64encode(struct.pack(f"{byte_order}3f", *vector)).decode() if coded else list(vector)

    data = [{"object": "embedding", "index": number, "embedding": written(VECTORS[number])} for number in order]
    return {"object": "list", "model": "e", "data": data, "usage": {"prompt_tokens": 2, "total_tokens": 2}} | members


CLEAN: dict[str, Scripted] = {
    "models": ok(LIST),
    "models_open": refusal(401, "No key.", "invalid_api_key"),
    "chat": ok(completion()),
    "stream": (STREAM[:-400], 0.02, STREAM[-400:]),
    "schema": ok(completion('{"tone": "dark"}')),
    "json": ok(completion('{"ok": true}')),
    "named": ok(completion(None, message={"tool_calls": [CALL]})),
    "required": events(*CALL_CHUNKS, LAST, x_request_id="req-1"),
    "unknown_parameter": refusal(400, "Unknown parameter: 'byok_check_unknown'.", "unknown_parameter", "byok_check_unknown"),
    "temperature": refusal(400, "Above 2.", "decimal_above_max_value", "temperature"),
    "other_limit": ok(completion("1, 2, 3", "length")),
    "unknown_model": refusal(404, "The model does not exist.", "model_not_found", "model"),
    "wrong_key": refusal(401, "Incorrect key.", "invalid_api_key"),
    "no_route": refusal(404, "Invalid URL."),
    "embeddings": ok(embedded(coded=False)),
    "base64": ok(embedded(coded=True)),
    "huge": refusal(400, "This model's maximum context length is 4096 tokens.", "context_length_exceeded", "max_tokens"),
}


def asked(first: str, headers: dict[str, str], body: bytes) -> str:
    """What of the check's plan a request asks."""
    path = first.split()[1].removeprefix("/v1")
    if path.startswith("/models"):
        return "page" if "pageToken" in path else "models" if "authorization" in headers else "models_open"
    if not path.startswith(("/chat", "/embeddings")):
        return "no_route"
    sent = json.loads(body)
    if path == "/embeddings":
        return "base64" if sent.get("encoding_format") == "base64" else "embeddings"
    if sent["model"] != MODEL:
        return "unknown_model"
    if headers.get("authorization") != f"Bearer {KEY}":
        return "wrong_key"
    form = (sent.get("response_format") or {}).get("type")
    limit = sent.get("max_tokens") or sent.get("max_completion_tokens")
    return next(
        name
        for name, true in (
            ("huge", limit > 10**6),
            ("temperature", "temperature" in sent),
            ("unknown_parameter", "byok_check_unknown" in sent),
            ("schema", form == "json_schema"),
            ("json", form == "json_object"),
            ("named", isinstance(sent.get("tool_choice"), dict)),
            ("required", sent.get("tool_choice") == "required"),
            ("stream", "stream" in sent),
            ("other_limit", "max_completion_tokens" in sent),
            ("chat", True),
        )
        if true
    )


class Clean(RawServer):
    """Answers each request by what it asks, as the reference says unless `answers` are changed."""

    def __init__(self, **options: Any) -> None:
        self.answers: dict[str, Any] = dict(CLEAN)
        self.asked: list[str] = []
        super().__init__([b""], **options)
        self.script = _ByRequest(self)


class _ByRequest(list[Scripted]):
    """In the place of a list of answers: one for each request."""

    def __init__(self, server: Clean) -> None:
        super().__init__([b""])
        self.server = server

    def __getitem__(self, _number: Any) -> Any:
        request = self.server.requests[-1]
        self.server.asked.append(asked(*request))
        answer = self.server.answers[self.server.asked[-1]]
        return answer(request) if callable(answer) else answer


@pytest.fixture(scope="module")
def server() -> Iterator[Clean]:
    made = Clean()
    yield made
    made.close()


def run(server: Any, *, key: str | None = KEY, model: str = MODEL, url: str | None = None, provider: str = "openai", **more: Any) -> Report:
    policy = EgressPolicy.parse(server.host_port)
    return asyncio.run(check(Target(url or f"http://{server.host_port}/v1", model, key, profile(provider), policy, **more)))


def look_at(server: Clean, defects: dict[str, Any], **options: Any) -> Report:
    """The report of a clean server with some answers changed; in full, whatever was found."""
    server.answers = {**CLEAN, **defects}
    server.asked = []
    report = run(server, **options)
    whole(report)
    return report


def whole(report: Report) -> None:
    """What holds of every report."""
    assert [one.number for one in report.findings] == list(range(1, 61))
    assert all(one.seen and len(one.seen) < 500 and "\n" not in one.seen for one in report.findings)
    assert all(bool(one.hint) == (one.outcome == "fail") for one in report.findings)
    assert {number for one in report.findings for number in one.requests} <= {look.number for look in report.looks}
    assert sum(report.counts.values()) == 60
    assert [look.number for look in report.looks] == list(range(1, len(report.looks) + 1))
    told = json.loads(to_json({"check": report.as_dict()}))["check"]
    assert told.keys() == {"url", "model", "provider", "at", "version", "requests", "tokens", "facts", "counts"}
    assert len(told["facts"]) == 60 and len(told["requests"]) == len(report.looks)
    tables(report.markdown())


def tables(page: str) -> list[list[str]]:
    """The rows of a page of Markdown, which is well formed and holds no markup but its own."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(page)
    kinds = [token.type for token in tokens]
    assert not [kind for kind in kinds if kind.startswith(("html", "code", "fence", "ordered", "blockquote", "hr"))]
    inner = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in inner} <= {"text", "softbreak"}
    rows: list[list[str]] = []
    for at, kind in enumerate(kinds):
        if kind == "tr_open":
            rows.append([])
        if kind == "inline" and kinds[at - 1] in ("td_open", "th_open"):
            rows[-1].append("".join(child.content for child in tokens[at].children or ()))
    facts = [row for row in rows if row[0].isdecimal() and len(row) in (4, 5)]
    assert sorted(int(row[0]) for row in facts) == list(range(1, 61))
    return rows


def found(report: Report, number: int) -> tuple[str, str]:
    one = report.findings[number - 1]
    return one.outcome, one.seen


# --- what is planned


def test_the_table_of_facts() -> None:
    assert [fact.number for fact in FACTS] == list(range(1, FACTS_OF_PROFILES + 1))
    assert len({fact.title for fact in FACTS}) == 60
    assert all(fact.title and fact.how for fact in FACTS)


def test_what_is_announced() -> None:
    assert announced(with_key=False) < announced(with_key=True) < LIMIT
    names = [ask.name for ask in planned(with_key=True)]
    assert len(names) == 17 and names[-1] == "huge"
    assert [name for name in names if name not in {ask.name for ask in planned(with_key=False)}] == ["models_open", "wrong_key"]


# --- a clean server


def test_a_clean_server(server: Clean) -> None:
    report = look_at(server, {})
    assert [one.number for one in report.findings if one.outcome == "fail"] == []
    seen = {1, 2, 3, 4, 5, 9, 10, 11, 12, 14, 20, 21, 22, 23, 26, 32, 33, 35, 36, 37, 38, 40, 41}
    seen |= {43, 44, 45, 46, 47, 48, 49, 51, 54, 55, 56, 57, 58, 59}
    # Whether pieces came one after another is not told when the machine stood still between them.
    assert {one.number for one in report.findings if one.outcome == "pass"} - {52} == seen
    assert report.exit_code == 0
    assert server.asked == [name for name in CLEAN]
    assert (report.reported, report.estimated) == (7 * 12 + 2 * 2, 0)
    assert report.reported <= report.bound


def test_the_requests_are_small_and_say_nothing_of_the_key_that_is_not_theirs(server: Clean) -> None:
    before = len(server.requests)
    look_at(server, {})
    for first, headers, body in server.requests[before:]:
        kind = asked(first, headers, body)
        shown = headers.get("authorization")
        assert (shown == f"Bearer {KEY}") == (kind not in ("models_open", "wrong_key"))
        if kind == "wrong_key":
            wrong = str(shown).removeprefix("Bearer ")
            assert len(wrong) > 30 and not any(KEY[at : at + 6] in wrong for at in range(3, len(KEY) - 6))
        sent = json.loads(body) if body else {}
        limit = sent.get("max_tokens") or sent.get("max_completion_tokens")
        assert not kind.startswith("chat") or 8 <= limit <= 32


def test_without_a_key_nothing_is_asked_about_keys(server: Clean) -> None:
    bare = {name: (lambda request, name=name: CLEAN[name]) for name in CLEAN}

    def open_to_all(request: tuple[str, dict[str, str], bytes]) -> Scripted:
        return CLEAN[asked(request[0], {**request[1], "authorization": f"Bearer {KEY}"}, request[2])]

    report = look_at(server, bare | {"models_open": CLEAN["models"], "wrong_key": open_to_all}, key=None)
    assert found(report, 4) == ("n/a", "no key was given")
    assert found(report, 12) == ("n/a", "no key was given, and none is needed")
    assert len(report.looks) == 15 and report.exit_code == 0


# --- deviations that cost nothing


def sse(*frames: Any, done: bool = True) -> bytes:
    return events(*frames, done=done, x_request_id="req-1")


def answer(**message: Any) -> bytes:
    return ok(completion(message=message))


NO_COST: list[tuple[int, dict[str, Any], str]] = [
    (1, {"models": ok([LISTED])}, "a bare array"),
    (2, {"models": ok({"data": [{"id": MODEL}]})}, "lacks object, created, owned_by"),
    (4, {"models_open": ok(LIST)}, "open without a key"),
    (5, {"models": ok([{"id": MODEL, "contextLength": "4096"}])}, "as a text"),
    (6, {"models": ok([{"id": MODEL, "pricing": {"prompt": "0.0000002", "completion": "0.0000008"}}])}, "texts for a token"),
    (7, {"models": ok([{"id": MODEL, "type": "chat"}])}, "listed as chat"),
    (
        8,
        {"models": ok({"models": [{"id": MODEL}], "nextPageToken": "t"}), "page": ok({"models": [{"id": "b"}]})},
        "1 model(s) on the second",
    ),
    (14, {"temperature": ok({"error": {"message": "no", "param": "temperature", "code": 400}}, 400)}, "a number"),
    (15, {"wrong_key": ok({"error": "Unauthorized"}, 401)}, "error is a text"),
    (16, {"wrong_key": ok({"detail": "no"}, 401)}, "detail is a text"),
    (17, {"temperature": ok({"detail": [{"loc": ["body", "temperature"], "msg": "no", "type": "t"}]}, 422)}, "a list of problems"),
    (18, {"wrong_key": ok({"detail": {"message": "no"}}, 401)}, "an object"),
    (19, {"wrong_key": ok({"message": "no"}, 401)}, "a message stands alone"),
    (19, {"wrong_key": http(401, {"error": {"message": "no"}}, kind="text/plain", x_request_id="r")}, "labelled text/plain"),
    (20, {"no_route": http(404, "Not Found", kind="text/plain")}, "plain text"),
    (23, {"huge": ok({"error": {"message": "maximum context length is 4096 tokens"}}, 422)}, "HTTP 422"),
    (23, {"huge": sse(*CHUNKS, LAST)}, "lowered in silence"),
    (26, {"unknown_model": refusal(400, "no such", "model_not_found")}, "where the reference has 404"),
    (31, {"temperature": refusal(429, "slow", None, None, retry_after="2")}, "read as 2 s"),
    (34, {"chat": ok(completion(), x_ratelimit_over_limit="yes")}, "beyond the limit"),
    (37, {"stream": sse(*CHUNKS[:-1], chunk({}, "stop", usage=USAGE))}, "on the chunk with the finish reason"),
    (39, {"chat": ok(completion(usage=USAGE | {"prompt_tokens_details": {"cached_tokens": 4}}))}, "as in the reference"),
    (39, {"chat": ok(completion(usage=USAGE | {"cached_tokens": 4}))}, "usage.cached_tokens"),
    (40, {"chat": ok(completion(usage=USAGE | {"reasoning_tokens": 5, "total_tokens": 17}))}, "on top"),
    (41, {"chat": ok(completion(usage=USAGE | {"total_latency": 0.5}))}, "total_latency"),
    (42, {"chat": answer(reasoning_content="hm")}, "in reasoning_content"),
    (42, {"chat": ok(completion("<think>hm</think>OK"))}, "<think>"),
    (43, {"chat": ok(completion([{"type": "text", "text": "OK"}]))}, "a list of parts"),
    (43, {"chat": ok(completion(None, "length", message={"reasoning": "hm"}))}, "reasoning used up"),
    (44, {"chat": ok(completion(finish="eos"))}, "eos"),
    (45, {"required": sse(chunk({"role": "assistant", "tool_calls": [{"index": 0, **CALL}]}, "tool_calls"), LAST)}, "arguments on a chunk"),
    (45, {"named": ok(completion('{"name": "note_number", "arguments": {"n": 7}}'))}, "as JSON in the text"),
    (46, {"named": ok(completion(None, "tool_calls", message={"tool_calls": [CALL]}))}, "finish reason tool_calls"),
    (47, {"stream": sse(chunk({"content": "1"}, choice={"logprobs": -0.5}), chunk({}, "stop"), LAST)}, "a number"),
    (49, {"stream": sse(": keep-alive\n\n", *CHUNKS, LAST)}, "comment lines"),
    (54, {"chat": ok(completion(seed=2**64, created=1.5, service_tier="over-limit"))}, "seed exceeds 64 bits"),
    (55, {"other_limit": refusal(400, "Use 'max_tokens'.", None, "max_completion_tokens")}, "takes max_tokens alone"),
    (56, {"unknown_parameter": ok(completion())}, "ignored, where the reference refuses it"),
    (59, {"embeddings": ok(embedded(False, (1, 0)))}, "put in order by index"),
    (60, {"embeddings": ok({"detail": "Not Found"}, 404)}, "HTTP 404, taken for not supported"),
]


@pytest.mark.parametrize(("number", "changed", "said"), NO_COST, ids=[f"{number}-{said[:20]}" for number, _, said in NO_COST])
def test_what_differs_at_no_cost_passes_and_is_told(server: Clean, number: int, changed: dict[str, Any], said: str) -> None:
    outcome, seen = found(look_at(server, changed), number)
    assert outcome == "pass"
    assert said in seen


def test_log_probabilities_that_are_asked_for_with_a_number(server: Clean) -> None:
    def numbered(request: tuple[str, dict[str, str], bytes]) -> Scripted:
        if json.loads(request[2])["logprobs"] is True:
            return refusal(400, "'logprobs' must be an integer.", "invalid_type", "logprobs")
        return CLEAN["stream"]

    report = look_at(server, {"stream": numbered})
    assert [found(report, number)[0] for number in (47, 48)] == ["pass", "pass"]
    assert "as a number" in found(report, 48)[1]


def test_stream_options_that_are_refused(server: Clean) -> None:
    def without(usage: bool) -> Callable[[Any], Scripted]:
        def told(request: tuple[str, dict[str, str], bytes]) -> Scripted:
            if "stream_options" in json.loads(request[2]):
                return refusal(400, "Unknown parameter: 'stream_options'.", None, "stream_options")
            return sse(*CHUNKS, *([LAST] if usage else []))

        return told

    assert [found(look_at(server, {"stream": without(True)}), number)[0] for number in (37, 38)] == ["pass", "pass"]
    assert [found(look_at(server, {"stream": without(False)}), number)[0] for number in (37, 38)] == ["fail", "fail"]


def test_a_limit_that_has_the_other_name(server: Clean) -> None:
    def other(request: tuple[str, dict[str, str], bytes]) -> Scripted:
        if "max_tokens" in json.loads(request[2]):
            return refusal(400, "Use 'max_completion_tokens' instead.", "unsupported_parameter", "max_tokens")
        return ok(completion())

    report = look_at(server, {"chat": other, "other_limit": other} | {})
    assert report.looks[3].answer is not None
    assert found(report, 55)[0] == "pass"


# --- planted defects

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


# --- when little or nothing is answered


def test_nothing_is_there() -> None:
    made = RawServer([CLOSE])
    made.close()
    with pytest.raises(EndpointUnreachable) as caught:
        run(made)
    assert caught.value.exit_code == 4


def test_an_endpoint_that_goes_away_leaves_a_report(server: Clean) -> None:
    gone = dict.fromkeys(("schema", "json", "named", "required", "embeddings", "no_route", "huge"), CLOSE)
    report = look_at(server, dict.fromkeys(list(CLEAN)[4:], CLOSE) | gone)
    assert report.exit_code == 4 and report.lost
    assert server.asked[:4] == ["models", "models_open", "chat", "stream"]
    assert [look.status for look in report.looks] == [200, 401, 200, 200, None, None]
    assert found(report, 36)[0] == "pass" and found(report, 53)[0] == "fail"
    assert found(report, 59) == ("n/a", "left out: the endpoint did not answer any more")


def test_no_tls_is_a_fact_of_its_own() -> None:
    with Sandbox(ANSWERS) as sandbox:
        report = run(sandbox, url=f"https://{sandbox.host_port}/v1")
    whole(report)
    assert found(report, 13)[0] == "fail"
    assert (report.counts["fail"], report.exit_code, len(report.looks)) == (1, 4, 1)


def test_a_private_authority(tmp_path: Path) -> None:
    own, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, own.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(own, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    authority = made.public_bytes(form).decode()
    secret = own.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    (tmp_path / "server.pem").write_text(authority + secret)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(tmp_path / "server.pem")
    server = Clean(tls=theirs)
    try:
        url = f"https://{server.host_port}/v1"
        report = run(server, key=Credentials(key=KEY, ca=authority).text(), url=url)
        assert found(report, 13) == ("pass", "trusted by the private authority that was given")
        assert report.exit_code == 0
        assert found(run(server, url=url), 13)[0] == "fail"
    finally:
        server.close()


def test_a_refused_key_stops_the_chats(server: Clean) -> None:
    report = look_at(server, {"chat": refusal(401, "no")})
    assert server.asked == ["models", "models_open", "chat", "no_route", "embeddings", "base64"]
    assert "was refused (endpoint_auth)" in found(report, 57)[1]


def test_what_would_go_over_the_budget_is_left_out(server: Clean) -> None:
    dear = ok(completion(usage={"prompt_tokens": announced(with_key=True) - 300, "completion_tokens": 1, "total_tokens": 0}))
    report = look_at(server, {"chat": dear})
    assert report.reported + report.estimated <= report.bound
    assert "left out" in found(report, 57)[1] and "might go over" in found(report, 57)[1]


def test_refusals_that_come_as_a_success_are_paid_for(server: Clean) -> None:
    report = look_at(server, {"stream": sse({"error": {"message": "400: no", "type": "HTTPException"}}, done=False)})
    assert server.asked.count("stream") == 3, "in one form of log probabilities, in the other, and without"
    assert report.estimated >= 3 * report.looks[3].bound
    assert report.reported + report.estimated <= report.bound
    assert found(report, 50)[0] == "fail"


def test_one_request_without_an_answer_is_no_lost_endpoint(server: Clean) -> None:
    report = look_at(server, {"huge": CLOSE})
    assert not report.lost and found(report, 53)[0] == "fail" and report.exit_code == 1


def test_answers_without_usage_are_counted_at_their_bound(server: Clean) -> None:
    report = look_at(server, {"chat": ok({**completion(), "usage": None})})
    assert report.looks[2].tokens is None
    assert report.estimated == report.looks[2].bound > 32
    assert report.reported + report.estimated <= report.bound


def test_a_long_answer_without_usage_is_counted_by_its_length(server: Clean) -> None:
    report = look_at(server, {"chat": ok({**completion("words " * 3000), "usage": None})})
    assert report.looks[2].estimate >= 4500 and report.reported == 0
    assert server.asked == ["models", "models_open", "chat", "no_route"], "nothing that costs is asked after that"
    assert "might go over" in found(report, 57)[1]


def test_what_does_not_add_up_is_counted_at_its_bound(server: Clean) -> None:
    report = look_at(server, {"chat": ok(completion(usage=USAGE | {"total_tokens": 99}))})
    look = report.looks[2]
    assert look.tokens == 12 and look.cost == look.bound and report.estimated == look.bound - 12
    dear = look_at(server, {"chat": ok(completion(usage={"prompt_tokens": 900, "completion_tokens": 1, "total_tokens": 0}))})
    assert dear.looks[2].cost == dear.looks[2].tokens == 901
    assert "might go over" in found(dear, 57)[1], "another one may cost as much"


def test_a_stream_that_was_stopped_has_reported_nothing(server: Clean) -> None:
    """What had been counted up to the piece at which it was cut off is not what will be billed."""
    counted = [chunk({"content": "w "}, usage=USAGE | {"completion_tokens": n, "total_tokens": 9 + n}) for n in range(1, 40)]
    report = look_at(server, {"huge": sse(*counted, chunk({}, "length", usage=USAGE))})
    huge = report.looks[-1]
    assert huge.ask == "huge" and huge.answer is not None
    assert huge.tokens is None and huge.estimate == huge.bound
    assert report.reported == 7 * 12 + 2 * 2


def test_json_under_the_label_of_a_stream_is_read_whole(server: Clean) -> None:
    labelled = {
        "stream": http(200, completion("1, 2"), kind="text/event-stream", x_request_id="req-1"),
        "required": http(200, completion(None, message={"tool_calls": [CALL]}), kind="text/event-stream", x_request_id="req-1"),
    }
    report = look_at(server, labelled)
    looks = [look for look in report.looks if look.ask in labelled]
    assert [(look.error, look.tokens, look.frames) for look in looks] == [(None, 12, None)] * 2
    assert looks[0].value == completion("1, 2")
    assert found(report, 46)[0] == found(report, 51)[0] == "pass"
    assert "stream" in found(report, 56)[1] and found(report, 56)[0] == "fail"


def test_a_stream_under_the_label_of_json_is_read_as_one(server: Clean) -> None:
    frames = STREAM.partition(b"\r\n\r\n")[2]
    report = look_at(server, {"stream": http(200, frames, x_request_id="req-1")})
    look = report.looks[3]
    assert look.answer is not None and look.answer.text == "1, 2" and look.tokens == 12
    assert look.frames is not None and look.frames.done and len(look.frames.chunks) == len(CHUNKS) + 1


# --- the key


ESCAPED = "".join(f"\\u{ord(char):04x}" for char in KEY)


@pytest.mark.parametrize(
    "form", [KEY, b64encode(KEY.encode()).decode(), KEY.encode().hex(), ESCAPED], ids=["plain", "base64", "hex", "escaped"]
)
def test_the_key_is_in_no_report_wherever_the_endpoint_writes_it(server: Clean, form: str) -> None:
    def with_key(plain: bytes, *, status: int = 200, kind: str = "application/json") -> bytes:
        return http(status, plain.replace(b"KEY", form.encode()), kind=kind, x_request_id=f"r-{form if form.isalnum() else KEY}")

    error = json.dumps({"error": {"message": "x" * 150 + " KEY bad KEY", "type": "KEY", "param": "KEY", "code": "KEY"}}).encode()
    usage = USAGE | {"KEY": 1}
    told = completion("KEY", "KEY", usage=usage, service_tier="KEY", message={"reasoning": "KEY"})
    listed = [{"id": "KEY", "type": "KEY", "pricing": {"input": "KEY"}}, LISTED | {"pricing": {"input": "KEY is"}, "context_length": "KEY"}]
    defects = {name: with_key(error, status=400) for name in ("temperature", "unknown_parameter", "unknown_model", "no_route", "huge")}
    defects |= {name: with_key(json.dumps(told).encode()) for name in ("chat", "schema", "json", "named", "other_limit")}
    defects |= {
        "models": with_key(json.dumps(listed).encode()),
        "stream": with_key(b'data: {"error": {"message": "KEY"}}\n\n', kind="text/event-stream"),
        "embeddings": with_key(b"<html><title>KEY</title></html>", status=404, kind="text/html"),
        "required": http(302, "", location=f"https://x.example/{KEY}?key={KEY}"),
    }
    report = look_at(server, defects)
    written = to_json({"check": report.as_dict()}) + report.markdown() + repr(report.findings) + repr(report.head())
    assert report.counts["fail"] > 5
    for secret in (KEY, b64encode(KEY.encode()).decode()[:-4], KEY.encode().hex()):
        assert secret not in written
    assert KEY not in repr(Target("https://x.example", MODEL, KEY, profile("openai"), EgressPolicy()))


def test_other_credentials_go_where_they_belong(server: Clean) -> None:
    shown = Credentials(scheme="header", key=KEY, header="X-API-Key", headers={"X-Tenant": "tenant-secret-01"})
    before = len(server.requests)
    server.answers = {**CLEAN, **dict.fromkeys(("models_open", "wrong_key"), refusal(401, f"no tenant-secret-01 {KEY}"))}
    report = run(server, key=shown.text())
    assert "tenant-secret-01" not in report.markdown() and KEY not in report.markdown()
    requests = server.requests[before:]
    assert {headers["x-tenant"] for _, headers, _ in requests} == {"tenant-secret-01"}
    assert [headers.get("x-api-key") for _, headers, _ in requests[:3]] == [KEY, None, KEY]
    assert "X-API-Key" in found(report, 12)[1]


# --- texts of others


def test_what_an_endpoint_writes_is_only_text(server: Clean) -> None:
    hostile = (
        "a | b \\| `code` **bold** ~~x~~ <script>alert(1)</script> <!-- --> ![p](https://evil.example/p) [l](javascript:x) "
        "https://evil.example www.evil.example @someone a@evil.example #12 \x1b[2J \u202e $x$ &lt;"
    )
    error = {"error": {"message": hostile, "type": hostile, "param": hostile, "code": hostile}}
    defects = dict.fromkeys(("temperature", "unknown_model", "no_route", "huge"), ok(error, 500))
    defects |= {"chat": ok(completion(hostile, hostile, usage=USAGE | {hostile: 1})), "schema": ok(completion(hostile))}
    defects |= {"models": ok([LISTED | {"pricing": {"input": hostile}}])}
    page = look_at(server, defects).markdown()
    rows = tables(page)
    assert any("<script>" in cell for row in rows for cell in row), "it is shown as what it is"
    assert not [sign for sign in ("<script", "<!--", "\x1b", "\u202e", "@someone", "a@evil", "#12") if sign in page]
    assert "https://evil" not in page and "www.evil" not in page


JUNK: list[Any] = [None, True, -1, 2**70, 1.5, "", "x", [], {}, [[]], [None], {"a": None}, {"message": []}, [{"text": None}], "\ud800"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, name))


def changed(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    made = dict(value) if isinstance(value, dict) else list(value)
    made[path[0]] = changed(value[path[0]], path[1:], junk)
    return made


BODIES = {
    "models": [
        LIST,
        [LISTED | {"pricing": {"input": 1}, "type": "chat", "capabilities": ["chat"]}],
        {"models": [LISTED], "nextPageToken": "t"},
    ],
    "chat": [completion(message={"reasoning": "hm"}, usage=USAGE | {"prompt_tokens_details": {"cached_tokens": 1}})],
    "named": [completion(None, message={"tool_calls": [CALL]})],
    "temperature": [
        {"error": {"message": "m", "param": "p", "code": "c"}},
        {"detail": [{"loc": ["body"], "msg": "m"}]},
        {"detail": {"message": "m"}},
    ],
    "embeddings": [embedded(False)],
}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_reply_breaks_a_check(server: Clean, data: st.DataObject) -> None:
    def odd(value: Any) -> Any:
        for _ in range(data.draw(st.integers(1, 2))):
            value = changed(value, data.draw(st.sampled_from(list(places(value)))), data.draw(st.sampled_from(JUNK)))
        return json.dumps(value)

    defects: dict[str, Any] = {
        name: ok(odd(data.draw(st.sampled_from(values)))) for name, values in BODIES.items() if name != "temperature"
    }
    defects["temperature"] = ok(
        odd(data.draw(st.sampled_from(BODIES["temperature"]))), data.draw(st.sampled_from([400, 403, 422, 429, 503]))
    )
    frames = [odd(one) for one in (*CHUNKS, LAST)]
    defects["stream"] = sse(*(f"data: {one}\n\n" for one in frames), done=data.draw(st.booleans()))
    defects["page"] = ok(odd(LIST))
    look_at(server, defects)


# --- the sandbox


KNOWN = {
    "fireworks": {22},
    "mlflow": {4, 16, 20, 21, 22, 47, 49, 50, 56, 60},
    "nebius": {22},
    "openai": {22},
    "proxy": {20, 22},
    "sambanova": set(),
    "together": {22, 24, 36},
    "vllm": {22},
}
"""Facts that the simulated providers may fail, because the real ones do; how their pieces arrive depends on the machine."""


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_simulated_provider(name: str) -> None:
    form = profile(name)
    key = f"user:{KEY}" if name == "mlflow" else KEY
    shown = Credentials(key=KEY)
    if name == "mlflow":
        shown = Credentials(scheme="basic", user="user", key=KEY)
    elif form.auth == "header":
        shown = Credentials(scheme="header", key=KEY, header=form.auth_header)
    with Sandbox(ANSWERS, api_key=key, profile=name) as sandbox:
        report = run(sandbox, key=shown.text(), model=sandbox.model_id, url=sandbox.base_url, provider=name)
        stats = sandbox.stats()
    whole(report)
    used = stats["prompt_tokens"] + stats["completion_tokens"] + stats["embedding_tokens"]
    assert used <= report.reported + report.estimated <= report.bound < LIMIT
    assert 12 <= len(report.looks) <= 18
    assert {one.number for one in report.findings if one.outcome == "pass"} >= {4, 10, 11, 12, 26, 43, 44, 51, 55}
    assert {one.number for one in report.findings if one.outcome == "fail"} - {52} <= KNOWN[name]
    assert stats["wrong_keys"] >= 1
    assert KEY not in report.markdown() + to_json(report.as_dict())


def test_a_sandbox_that_ignores_what_it_is_asked() -> None:
    with Sandbox(ANSWERS, ignores=frozenset({"json_schema", "json_object", "tools", "logprobs", "streaming"})) as sandbox:
        report = run(sandbox, key=None, model=sandbox.model_id)
    failed = {one.number for one in report.findings if one.outcome == "fail"}
    assert failed >= {46, 56, 57, 58}
    assert all(name in found(report, 56)[1] for name in ("json_schema", "json_object", "tool_choice", "stream"))


def test_two_checks_find_the_same(server: Clean) -> None:
    first, second = ([one for one in look_at(server, {}).findings if one.number != 52] for _ in range(2))
    assert first == second


def test_an_address_that_may_not_be_called() -> None:
    target = Target("http://127.0.0.1:9/v1", MODEL, KEY, profile("openai"), EgressPolicy())
    with pytest.raises(EndpointError) as caught:
        asyncio.run(check(target))
    assert caught.value.exit_code == 3


def test_progress_is_told(server: Clean) -> None:
    server.answers = dict(CLEAN)
    told: list[tuple[int, int, str]] = []
    target = Target(f"http://{server.host_port}/v1", MODEL, KEY, profile("openai"), EgressPolicy.parse(server.host_port))
    asyncio.run(check(target, lambda done, of, what: told.append((done, of, what))))
    assert [(done, of) for done, of, _ in told] == [(number, 17) for number in range(17)]
