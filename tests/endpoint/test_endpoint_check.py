"""The check of an endpoint: a clean server passes, and so does what differs at no cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from byok.cli.output import to_json
from byok.endpoint import Credentials, profile
from byok.endpoint.checking import FACTS, LIMIT, announced, planned
from byok.endpoint.profiles import FACTS as FACTS_OF_PROFILES
from byok.sandbox import Sandbox
from byok_testing.checking import ANSWERS, found, look_at, run, whole
from byok_testing.clean_endpoint import (
    CALL,
    CHUNKS,
    CLEAN,
    KEY,
    LAST,
    LIST,
    LISTED,
    MODEL,
    USAGE,
    Clean,
    answer,
    asked,
    chunk,
    completion,
    embedded,
    ok,
    refusal,
    sse,
)
from byok_testing.raw_server import Scripted, http

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


def test_two_checks_find_the_same(server: Clean) -> None:
    first, second = ([one for one in look_at(server, {}).findings if one.number != 52] for _ in range(2))
    assert first == second


# --- deviations that cost nothing


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
