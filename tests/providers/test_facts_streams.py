"""Wire facts 49 to 53: streams of events, errors among them, their end, and connections that were closed meanwhile."""

from __future__ import annotations

import json

import pytest

from byok.endpoint import EndpointAuth
from byok_testing.asking import KEY, MESSAGES, USAGE, chat, chunk, completion, refused, using
from byok_testing.raw_server import CLOSE, events, http

PIECES = [chunk({"role": "assistant", "content": ""}), chunk({"content": "O"}), chunk({"content": "K"})]
END = chunk({}, finish="stop", usage=USAGE)


def data(value, ending="\n\n"):
    return f"data: {json.dumps(value)}{ending}"


@pytest.mark.parametrize(
    "frames",
    [
        [": keep-alive\n\n", *PIECES, ": keep-alive\n", END],
        [data(one, "\r\n\r\n") for one in (*PIECES, END)],
        [data(one, "\r\r") for one in (*PIECES, END)],
        [json.dumps(one, indent=1).replace("\n", "\ndata: ").join(("data: ", "\n\n")) for one in (*PIECES, END)],
        ["event: message\nid: 1\nretry: 10\n" + data(PIECES[1]), *PIECES[2:], END],
        ["data:" + json.dumps(one) + "\n\n" for one in (*PIECES, END)],
    ],
    ids=["comments", "CRLF", "CR", "several lines", "other fields", "no space"],
)
@pytest.mark.parametrize("done", [True, False], ids=["DONE", "no DONE"])
def test_fact_49_every_form_of_an_event_stream(serve, frames, done):
    answer = chat(serve(events(*frames, done=done)), stream=True)
    assert (answer.text, answer.finish_reason, answer.usage.completion_tokens, answer.timing.done) == ("OK", "stop", 2, done)


def test_fact_49_no_newline_at_the_end(serve):
    answer = chat(serve(events(*PIECES, data(END, ""), done=False)), stream=True)
    assert (answer.text, answer.finish_reason, answer.usage.completion_tokens) == ("OK", "stop", 2)


def test_fact_49_frames_that_are_cut_anywhere(serve):
    body = "".join(map(data, (*PIECES, chunk({"content": " – naïve 🙂"}), END))).encode()
    head = http(200, b"", kind="text/event-stream", content_length=str(len(body)))
    for size in (1, 7, 64):
        parts = [part for start in range(0, len(body), size) for part in (body[start : start + size], 0.0)]
        assert chat(serve((head, *parts)), stream=True).text == "OK – naïve 🙂"


def test_fact_49_a_stream_under_another_label_and_a_whole_answer_where_a_stream_was_asked_for(serve):
    body = "".join(map(data, (*PIECES, END)))
    assert chat(serve(http(200, body, kind="text/plain")), stream=True).text == "OK"
    answer = chat(serve(http(200, completion())), stream=True)
    assert (answer.text, answer.streamed, answer.ttft_ms) == ("OK", False, None)


def test_fact_49_a_stream_that_has_ended_leaves_its_connection_for_the_next_request(serve):
    server = serve(events(*PIECES, END))
    assert using(server, _thrice_streamed) == ["OK"] * 3
    assert (len(server.requests), server.connections) == (3, 1)


async def _thrice_streamed(client):
    return [(await client.chat(MESSAGES, stream=True)).text for _ in range(3)]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"error": {"message": "429: slow down", "type": "HTTPException"}}, "endpoint_rate_limited"),
        ({"error": {"message": "boom", "type": "InternalServerError", "param": None, "code": 500}}, "endpoint_overloaded"),
        ({"error": {"message": "too long", "code": "context_length_exceeded"}}, "context_length"),
        ({"error": "Unauthorized"}, "endpoint_overloaded"),
        ({"object": "error", "message": "boom", "code": 400}, "bad_request"),
        ("event: error\ndata: it broke\n\n", "endpoint_overloaded"),
    ],
)
@pytest.mark.parametrize("before", [[], PIECES], ids=["first", "later"])
@pytest.mark.parametrize("done", [True, False], ids=["DONE", "no DONE"])
def test_fact_50_an_error_inside_a_stream(serve, frame, code, before, done):
    assert refused(lambda: chat(serve(events(*before, frame, done=done)), stream=True)).code == code


@pytest.mark.parametrize("how", ["length", "chunked", "clean"])
def test_fact_51_a_stream_that_is_cut_is_a_failed_attempt(serve, how):
    body = "".join(map(data, PIECES)).encode()
    if how == "length":
        answer = http(200, body, kind="text/event-stream", content_length="9999")
    elif how == "chunked":
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        answer = head + b"%x\r\n%s\r\n" % (len(body), body)
    else:
        answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + body
    error = refused(lambda: chat(serve(answer, after="close"), stream=True))
    assert (error.code, error.retryable) == ("response_truncated", True)
    assert "bill" in error.hint


def test_fact_51_a_cut_in_the_middle_of_the_last_frame(serve):
    for cut in ('data: {"choices": [{"ind', 'data: {"a": tru', "dat"):
        error = refused(lambda cut=cut: chat(serve(events(*PIECES, cut, done=False)), stream=True))
        assert error.code == "response_truncated"
        # What had come to its end before is whole all the same.
        assert chat(serve(events(*PIECES, END, cut, done=False)), stream=True).text == "OK"


def test_fact_51_a_page_that_calls_itself_a_stream(serve):
    error = refused(lambda: chat(serve(http(200, "<html>Sign in</html>", kind="text/event-stream")), stream=True))
    assert error.code == "endpoint_not_openai"


def test_fact_52_the_time_to_the_first_token_is_doubted_when_all_came_at_once(serve):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    frames = [data(chunk({"content": "x"})).encode() for _ in range(8)]
    end = data(END).encode()
    buffered = chat(serve((0.5, head, b"".join(frames), end), after="close"), stream=True)
    flowing = chat(serve((head, *(part for frame in frames for part in (0.05, frame)), end), after="close"), stream=True)
    assert (buffered.ttft_reliable, flowing.ttft_reliable) == (False, True)
    assert buffered.ttft_ms >= 450
    assert flowing.ttft_ms < flowing.latency_ms - 200
    alone = chat(serve(events(chunk({"content": "x"}), END)), stream=True)
    assert alone.ttft_reliable is None


@pytest.mark.parametrize("stream", [False, True])
def test_fact_53_a_stale_connection_costs_one_more_try_and_no_second_request(serve, stream):
    answer = events(*PIECES, END) if stream else http(200, completion())
    server = serve(answer, CLOSE, answer)

    async def twice(client):
        return [(await client.chat(MESSAGES, stream=stream)).text for _ in range(2)]

    assert using(server, twice) == ["OK", "OK"]
    # The second went out twice: once on the connection that had been closed, and was not answered; then on a new one.
    assert (len(server.requests), server.connections) == (3, 2)


def test_fact_53_a_server_that_took_its_time_is_not_asked_again(serve):
    answer = http(200, completion())
    server = serve(answer, (1.2, b""), answer)
    error = refused(lambda: using(server, _twice))
    assert error.code == "endpoint_unreachable"
    assert len(server.requests) == 2


def test_fact_53_the_new_connection_carries_the_new_key(serve):
    """A key that was renewed counts for every connection that is opened later."""
    answer = http(200, completion())
    server = serve(http(401, {"error": "Unauthorized"}), answer, CLOSE, answer)

    async def renew(version):
        return "sk-new-0123456789abcdef", 2

    async def go(client):
        with pytest.raises(EndpointAuth):
            await client.attempt(MESSAGES)
        assert await client.renew(1)
        return [(await client.attempt(MESSAGES)).text for _ in range(2)]

    assert using(server, go, key_version=1, renew_key=renew) == ["OK", "OK"]
    assert [headers["authorization"] for _, headers, _ in server.requests] == [f"Bearer {KEY}", *["Bearer sk-new-0123456789abcdef"] * 3]


def test_fact_53_a_connection_that_breaks_after_the_first_byte_is_not_tried_again(serve):
    answer = http(200, completion())
    server = serve(answer, b"HTTP/1.1 200 OK\r\ncontent-le", answer, after="close")
    error = refused(lambda: using(server, _twice))
    assert error.code in ("endpoint_not_openai", "endpoint_unreachable", "response_truncated")
    assert len(server.requests) == 2


async def _twice(client):
    for _ in range(2):
        await client.chat(MESSAGES)


def test_a_stream_can_be_left_after_its_first_piece(serve):
    server = serve(events(*(chunk({"content": "x"}) for _ in range(100)), END))
    answer = chat(server, stream=True, enough=1)
    assert answer.text == "x" and answer.finish_reason is None
    # What had been counted so far is not what will be billed.
    running = chat(serve(events(*(chunk({"content": "x"}, usage=USAGE) for _ in range(3)))), stream=True, enough=1)
    assert running.usage.usage_class == "missing"


def test_fact_50_an_error_behind_a_frame_that_was_cut_without_a_line_between(serve):
    glued = 'data: {"choices": [{"ind\ndata: {"error": {"message": "upstream cut", "type": "ClientPayloadError"}}\n\n'
    error = refused(lambda: chat(serve(events(*PIECES, glued, done=False)), stream=True))
    assert (error.code, error.retryable) == ("response_truncated", True)


def test_fact_49_a_whole_answer_under_the_label_of_a_stream(serve):
    answer = chat(serve(http(200, json.dumps(completion(), indent=1), kind="text/event-stream")), stream=True)
    assert (answer.text, answer.streamed) == ("OK", False)
    error = refused(lambda: chat(serve(http(200, {"error": {"message": "no", "code": 429}}, kind="text/event-stream")), stream=True))
    assert error.code == "endpoint_rate_limited"
