"""What the real gateways make of a stream: frames without an end mark, errors inside a success, and cut connections."""

from __future__ import annotations

import json

import pytest

from byok_testing.raw_server import http

UNIFIED = ["unified", "invocations"]
LEGACY = ["legacy", "legacy-endpoint"]
REWRITING = [*UNIFIED, *LEGACY]
VERBATIM = ["passthrough", "proxy"]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def chunk(delta: dict, finish: str | None = None, **more) -> dict:
    told = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "upstream-name"}
    return {**told, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}], **more}


FIRST = chunk({"role": "assistant", "content": ""})
WORD = chunk({"content": "yes", "reasoning": "why", "reasoning_content": "because"})
LAST = chunk({}, "stop")
COUNTS = {**chunk({}), "choices": [], "usage": USAGE}


def rewritten(delta: dict, finish: str | None = None, usage: dict | None = None) -> dict:
    told = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "upstream-name"}
    choice = {"index": 0, "finish_reason": finish, "delta": {"role": None, "content": None, "tool_calls": None, **delta}}
    return {**told, "choices": [choice], "usage": usage, "provider": "openai"}


def read(stream) -> list[dict]:
    assert (stream.status, stream.kind) == (200, "text/event-stream; charset=utf-8")
    return [json.loads(frame) for frame in stream.frames]


@pytest.mark.parametrize("route", REWRITING, indirect=True)
def test_frames_are_written_anew_and_no_end_mark_comes(route, upstream):
    upstream.streams(FIRST, WORD, LAST, COUNTS)
    stream = route.stream(logprobs=True)
    assert read(stream) == [
        rewritten({"role": "assistant", "content": ""}),
        rewritten({"content": "yes"}),
        rewritten({}, "stop"),
        {**rewritten({}), "choices": [], "usage": USAGE},
    ]
    assert stream.whole


@pytest.mark.parametrize("route", VERBATIM, indirect=True)
@pytest.mark.parametrize("done", [True, False])
def test_frames_are_handed_on_with_the_end_mark_if_there_is_one(route, upstream, done):
    upstream.streams(FIRST, WORD, LAST, COUNTS, done=done)
    stream = route.stream()
    assert stream.frames == [json.dumps(frame) for frame in (FIRST, WORD, LAST, COUNTS)] + ["[DONE]"] * done
    assert stream.whole


@pytest.mark.parametrize("route", [*REWRITING, "passthrough", "proxy"], indirect=True)
def test_usage_is_asked_for_unasked_but_by_the_raw_proxy(route, upstream):
    upstream.streams(FIRST, LAST)
    route.stream()
    assert upstream.asked.get("stream_options") == (None if route.name == "proxy" else {"include_usage": True})
    route.stream(stream_options={"include_usage": False})
    assert upstream.asked["stream_options"] == {"include_usage": False}


@pytest.mark.parametrize("route", REWRITING, indirect=True)
def test_usage_stays_on_the_frame_where_it_came(route, upstream):
    upstream.streams(FIRST, chunk({"content": "yes"}, "stop", usage={**USAGE, "cached_tokens": 1}))
    assert read(route.stream())[-1] == rewritten({"content": "yes"}, "stop", {**USAGE, "cached_tokens": 1})


@pytest.mark.parametrize("route", REWRITING, indirect=True)
def test_pieces_of_a_tool_call_come_with_nulls(route, upstream):
    start = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "add", "arguments": ""}}
    upstream.streams(chunk({"tool_calls": [start]}), chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}))
    more = {"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": "{}"}}
    assert read(route.stream()) == [rewritten({"tool_calls": [start]}), rewritten({"tool_calls": [more]})]


@pytest.mark.parametrize("route", REWRITING, indirect=True)
def test_comments_and_carriage_returns_do_no_harm(route, upstream):
    text = "".join(f": keep-alive\r\n\r\ndata: {json.dumps(frame)}\r\n\r\n" for frame in (FIRST, LAST))
    upstream.says(http(200, text, kind="text/event-stream"))
    stream = route.stream()
    assert read(stream) == [rewritten({"role": "assistant", "content": ""}), rewritten({}, "stop")]
    assert "keep-alive" not in stream.text


@pytest.mark.parametrize("route", [*UNIFIED, "passthrough"], indirect=True)
@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (http(429, {"error": {"message": "slow down"}}, retry_after="7"), "429: slow down"),
        (http(503, "busy", kind="text/plain"), "503: busy"),
        (http(502, "<html>bad</html>", kind="text/html"), "502: <html>bad</html>"),
        (http(401, {"error": "Unauthorized"}), "401: {'error': 'Unauthorized'}"),
    ],
    ids=["429", "503", "502", "401"],
)
def test_an_error_before_the_first_token_is_one_frame_of_a_success(route, upstream, reply, said):
    upstream.says(reply)
    stream = route.stream()
    assert read(stream) == [{"error": {"message": said, "type": "HTTPException"}}]
    assert stream.whole


@pytest.mark.parametrize("route", LEGACY, indirect=True)
def test_an_error_before_the_first_token_is_a_cut_success_of_the_old_gateway(route, upstream):
    upstream.says(http(429, {"error": {"message": "slow down"}}))
    stream = route.stream()
    assert (stream.status, stream.text, stream.whole) == (200, "", False)


@pytest.mark.parametrize("route", ["proxy"], indirect=True)
def test_an_error_before_the_first_token_keeps_its_status_through_the_raw_proxy(route, upstream):
    upstream.says(http(429, {"error": {"message": "slow down"}}))
    stream = route.stream()
    assert (stream.status, json.loads(stream.text)) == (429, {"detail": "slow down"})


@pytest.mark.parametrize("route", [*UNIFIED, "passthrough", *LEGACY], indirect=True)
def test_a_request_that_is_refused_before_the_upstream_is_asked_keeps_its_status(route):
    stream = route.stream(**({"model": None} if route.name == "passthrough" else {"temperature": 3}))
    assert stream.status == (422 if route.name in LEGACY else 400)
    assert "detail" in json.loads(stream.text)


@pytest.mark.parametrize("route", [*REWRITING, *VERBATIM], indirect=True)
def test_an_error_frame_in_the_middle(route, upstream):
    broken = {"error": {"message": "the engine died", "type": "EngineError", "code": 500}}
    upstream.streams(FIRST, broken)
    stream = route.stream()
    start = [json.loads(frame) for frame in stream.frames[:1]]
    if route.name in VERBATIM:
        assert (start, stream.frames[1:], stream.whole) == ([FIRST], [json.dumps(broken), "[DONE]"], True)
    elif route.name in UNIFIED:
        # What the upstream had said is lost: the gateway misses the id of a chunk.
        assert [json.loads(frame) for frame in stream.frames[1:]] == [{"error": {"message": "'id'", "type": "KeyError"}}]
        assert stream.whole
    else:
        assert (stream.frames[1:], stream.whole) == ([], False)


@pytest.mark.parametrize("route", [*REWRITING, *VERBATIM], indirect=True)
def test_a_stream_that_the_upstream_cuts_ends_with_an_error_frame_or_is_cut_too(route, upstream):
    upstream.streams(FIRST, WORD, done=False, cut=True)
    stream = route.stream()
    if route.name in LEGACY:
        assert not stream.whole
        return
    assert stream.whole
    # How many of the frames before it get through depends on how fast the cut is seen.
    error = json.loads(stream.frames[-1])["error"]
    assert error["type"] == "ClientPayloadError"
    assert error["message"].startswith("Response payload is not completed")
    assert "[DONE]" not in stream.frames


@pytest.mark.parametrize("route", [*REWRITING, *VERBATIM], indirect=True)
def test_a_stream_that_ends_without_a_finish_reason_looks_whole(route, upstream):
    upstream.streams(FIRST, WORD, done=False)
    stream = route.stream()
    assert (len(read(stream)), stream.whole) == (2, True)
    assert "[DONE]" not in stream.text


@pytest.mark.parametrize("route", [*REWRITING, *VERBATIM], indirect=True)
def test_an_upstream_that_does_not_stream(route, upstream):
    told = {"id": "c-1", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE}
    told["choices"] = [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]
    upstream.says(http(200, told))
    stream = route.stream()
    if route.name in UNIFIED:
        assert stream.kind.startswith("text/event-stream")
        assert json.loads(stream.frames[0]) == {"error": {"message": "'delta'", "type": "KeyError"}}
    elif route.name in LEGACY:
        assert (stream.text, stream.whole) == ("", False)
    else:
        # The passthrough calls it a stream, although it is one JSON object; the raw proxy does not.
        assert json.loads(stream.text) == told
        assert stream.kind.startswith("text/event-stream" if route.name == "passthrough" else "application/json")
