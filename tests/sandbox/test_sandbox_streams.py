"""Streams: their events, and what can go wrong in them."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from byok.sandbox import Fault

ASKED = {"include_usage": True}
TOOL = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}},
}


def test_tokens_come_one_by_one_between_the_role_and_the_end(serve: Any) -> None:
    answer = serve().stream()
    assert (answer.status, answer.headers["content-type"], answer.done) == (200, "text/event-stream; charset=utf-8", True)
    first, *middle, last = answer.chunks
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["choices"][0]["delta"]["content"] for chunk in middle] == ["The", " answer", " is", " Paris"]
    assert last["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}
    assert answer.finishes == ["stop"]
    assert {chunk["object"] for chunk in answer.chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in answer.chunks}) == 1
    assert not any("usage" in chunk for chunk in answer.chunks)


def test_a_stream_says_what_an_answer_says(serve: Any) -> None:
    client = serve()
    for members in ({}, {"max_tokens": 2}, {"stop": " is"}, {"response_format": {"type": "json_object"}}):
        whole, streamed = client.chat(**members), client.stream(stream_options=ASKED, **members)
        assert (streamed.joined(), streamed.finishes) == (whole.text, [whole.choice["finish_reason"]])
        assert streamed.chunks[-1]["usage"] == whole.json["usage"]


def test_usage_comes_last_with_no_choices_and_is_null_before(serve: Any) -> None:
    *before, last = serve().stream(stream_options=ASKED).chunks
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 4
    assert all(chunk["usage"] is None for chunk in before)
    assert "usage" not in serve().stream(stream_options={"include_usage": False}).chunks[-1]
    assert all("usage" not in chunk for chunk in serve(usage=False).stream(stream_options=ASKED).chunks)


def test_stream_options_need_a_stream(serve: Any) -> None:
    answer = serve().chat(stream_options=ASKED)
    assert (answer.status, answer.error["param"]) == (400, "stream_options")
    assert serve().chat(stream="yes").error["param"] == "stream"


def test_tool_calls_stream_their_arguments(serve: Any) -> None:
    answer = serve().stream(tools=[TOOL], tool_choice="required")
    calls = [call for delta in answer.deltas for call in delta.get("tool_calls", ())]
    assert calls[0]["function"] == {"name": "look_up", "arguments": ""} and calls[0]["id"] and calls[0]["type"] == "function"
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"q": "x"}
    assert {call["index"] for call in calls} == {0}
    assert answer.finishes == ["tool_calls"]


def test_logprobs_and_reasoning_stream_with_their_tokens(serve: Any) -> None:
    client = serve(supports=frozenset({"streaming", "logprobs", "reasoning"}))
    streamed, whole = client.stream(logprobs=True, top_logprobs=2), client.chat(logprobs=True, top_logprobs=2)
    told = [choice["logprobs"] for chunk in streamed.chunks for choice in chunk["choices"] if choice["logprobs"]]
    assert [entry for part in told for entry in part["content"]] == whole.choice["logprobs"]["content"]
    assert streamed.joined("reasoning_content") == whole.choice["message"]["reasoning_content"] != ""


def test_streams_are_counted_and_their_tokens_too(serve: Any) -> None:
    client = serve(model_id="counted")
    client.stream()
    client.stream(model="other")
    client.chat()
    stats = client.sandbox.stats()
    assert (stats["chat_requests"], stats["stream_requests"], stats["answered"], stats["completion_tokens"]) == (3, 2, 2, 8)


def test_a_fault_with_a_status_comes_before_the_stream(serve: Any) -> None:
    client = serve(
        faults=[429, Fault(status=503, code="busy", headers={"retry-after": "3"}), Fault(body=b"<html>", content_type="text/html")]
    )
    assert client.stream().status == 429
    busy = client.stream()
    assert (busy.status, busy.error["code"], busy.headers["retry-after"]) == (503, "busy", "3")
    page = client.stream()
    assert (page.status, page.raw, page.headers["content-type"]) == (200, b"<html>", "text/html; charset=utf-8")
    assert client.sandbox.stats()["faults"] == 3


def test_a_stream_is_cut_after_some_chunks(serve: Any) -> None:
    client = serve(faults=[Fault(cut=True, after_chunks=2), Fault(cut=True), Fault(cut=True, after_chunks=0)])
    first, half, none = client.stream(), client.stream(), client.stream()
    assert (first.cut, len(first.chunks), first.joined(), first.finishes) == (True, 2, "The", [])
    assert (half.cut, len(half.chunks)) == (True, 3)
    assert (none.cut, none.chunks, none.status) == (True, [], 200)
    assert client.sandbox.stats()["faults"] == 3


def test_an_error_frame_comes_after_some_chunks(serve: Any) -> None:
    frame = b'event: error\ndata: {"error": "raw"}\n\n'
    client = serve(
        faults=[
            Fault(frame=frame, after_chunks=1),
            Fault(status=500, code="broken", after_chunks=2),
            Fault(frame=b"data: {", after_chunks=0),
        ]
    )
    raw, made, half = client.stream(), client.stream(), client.stream()
    assert raw.raw.endswith(frame) and len(raw.chunks) == 2 and not raw.cut
    assert (made.status, made.chunks[-1]["error"]["code"], made.joined(), made.done) == (200, "broken", "The", False)
    assert half.raw == b"data: {"


def test_a_stream_ends_in_order_but_unfinished(serve: Any) -> None:
    client = serve(faults=[Fault(after_chunks=3), Fault(no_done=True)])
    unfinished, quiet = client.stream(), client.stream()
    assert (unfinished.cut, unfinished.finishes, unfinished.done, unfinished.joined()) == (False, [], False, "The answer")
    assert (quiet.cut, quiet.finishes, quiet.done) == (False, ["stop"], False)


def test_comment_lines_keep_a_stream_alive(serve: Any) -> None:
    answer = serve(faults=[Fault(keepalive=True)]).stream()
    assert answer.events.count(": keep-alive") == len(answer.chunks) and answer.done


def test_answers_that_a_fault_changes_are_streamed_as_well(serve: Any) -> None:
    client = serve(
        faults=[Fault(text="other words"), Fault(refusal="I will not"), Fault(finish_reason="content_filter"), Fault(usage={"x": 1})]
    )
    assert client.stream().joined() == "other words"
    assert client.stream().joined("refusal") == "I will not"
    assert client.stream().finishes == ["content_filter"]
    assert client.stream(stream_options=ASKED).chunks[-1]["usage"] == {"x": 1}


def test_chunks_arrive_when_they_are_made(serve: Any) -> None:
    # The second chunk would come after half a minute: what is read at once cannot have waited for it.
    sandbox = serve(chunk_latency_ms=30_000).sandbox
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=25)
    body = {"model": sandbox.model_id, "messages": [{"role": "user", "content": "hello"}], "stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    first = connection.getresponse().read1(65536)
    connection.close()
    assert first.count(b"data: ") == 1


@pytest.mark.parametrize("way", ["without", "ignoring"])
def test_what_a_server_may_lack(serve: Any, way: str) -> None:
    for feature, members in {"streaming": {}, "stream_options": {"stream_options": ASKED}}.items():
        usual = frozenset({"streaming", "stream_options"})
        client = serve(ignores=frozenset({feature})) if way == "ignoring" else serve(supports=usual - {feature})
        answer = client.stream(**members)
        if way == "without":
            assert (answer.status, answer.error["param"]) == (400, "stream" if feature == "streaming" else feature)
        elif feature == "streaming":
            assert answer.text == "The answer is Paris"
        else:
            assert answer.done and all("usage" not in chunk for chunk in answer.chunks)
