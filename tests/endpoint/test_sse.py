"""The decoder of event streams: any bytes, cut anywhere."""

from __future__ import annotations

import json
import re
import traceback
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from byok.endpoint.sse import BadStream, Decoder, Event

LINES = st.sampled_from(
    [
        *("", "data", "data:", "data: ", "data:  two spaces", "data: a", 'data: {"x": "é😀"}', "data: [DONE]", "data : not a field"),
        *("event: error", "event:", "event", "id: 7", "id", "retry: 10", "retry: soon", "DATA: upper", "\ufeffdata: late mark"),
        *(":", ": keep-alive", ":data: no", "unknown: x", " data: x", "\ufeff", " ", "a\u2028b: \x0b\x0c\x1c\x85", "data: nul \0"),
        '{"choices": []}',
    ]
)
PIECES = st.lists(LINES | st.sampled_from(["\n", "\r", "\r\n"]) | st.text(max_size=5))
STREAMS = (
    st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r", "\r\n", "\n\n", "\r\n\r\n"])), max_size=12).map(
        lambda lines: "".join(map("".join, lines)).encode()
    )
    | PIECES.map(lambda pieces: "".join(pieces).encode("utf-8", "surrogatepass"))
    | st.binary(max_size=40)
)


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """A body in pieces; some may be empty."""
    return [body[start:end] for start, end in pairwise([0, *sorted(place % (len(body) + 1) for place in places), len(body)])]


def decode(parts: list[bytes], **limits: int) -> tuple[list[Event], str | Event | None, int, bool | None]:
    """Events of a whole stream, its end or its problem, the count of comments, and what it looks like."""
    decoder = Decoder(**limits)
    events: list[Event] = []
    end: str | Event | None
    try:
        for part in parts:
            events += decoder.feed(part)
        end = decoder.end()
    except BadStream as error:
        end = str(error)
    return events, end, decoder.comments, decoder.looks_like_sse


def reference(text: str) -> tuple[list[Event], Event | None]:
    """The events of a whole stream, read line by line as the standard says, and the one that its end completes."""
    *lines, rest = re.split("\r\n|\r|\n", text.removeprefix("\ufeff"))
    events: list[Event] = []
    data: list[str] = []
    name = ""
    # None stands for the end of the body.
    for line in [*lines, None, rest, ""]:
        if line is None:
            closed = len(events)
        elif line == "":
            events += [Event("\n".join(data), name)] if data else []
            data, name = [], ""
        else:
            field, _, value = line.partition(":")
            value = value[1:] if value[:1] == " " else value
            if field == "data":
                data.append(value)
            elif field == "event":
                name = value
    return events[:closed], next(iter(events[closed:]), None)


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from([9, 12, 1024]))
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [8, 10, 19], 1024)
@example(b"\xef\xbb\xbfdata: \xf0\x9f\x98\x80\n\n", [1, 2, 10, 11], 1024)
@example(b"data: a\n\ndata: \xff\n\ndata: b\n\n", [3], 1024)
def test_no_cut_changes_what_a_stream_says(body: bytes, places: list[int], most: int) -> None:
    whole = decode([body], most_bytes=most)
    assert decode(cut(body, places), most_bytes=most) == whole
    assert decode([body[place : place + 1] for place in range(len(body))], most_bytes=most) == whole


@given(STREAMS)
def test_events_are_those_of_the_standard(body: bytes) -> None:
    events, end, _, _ = decode([body])
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return
    assert (events, end) == reference(text)


@given(STREAMS)
def test_what_is_not_utf8_is_refused_and_events_before_it_are_given(body: bytes) -> None:
    events, end, _, _ = decode([b"data: first\n\n", body, b"\ndata: \xff\n\n"])
    assert events[0] == Event("first")
    assert end == "it is not UTF-8"


@pytest.mark.parametrize(
    ("body", "events", "end"),
    [
        ("data: a\n\n", [Event("a")], None),
        ("data:a\r\rdata: b\r\r", [Event("a"), Event("b")], None),
        ("data: a\ndata\ndata:b\n\n", [Event("a\n\nb")], None),
        ("data\n\n", [Event("")], None),
        ("data:  a \n\n", [Event(" a ")], None),
        ("event: error\ndata: a\n\ndata: b\n\n", [Event("a", "error"), Event("b")], None),
        ("event: gone\n\ndata: a\n\n", [Event("a")], None),
        ("id: 1\nretry: 5\nfoo: bar\n:x\ndata: a\n\n", [Event("a")], None),
        ("\ufeffdata: a\n\n", [Event("a")], None),
        ("\ufeff\ufeffdata: a\n\n", [], None),
        ("data: a\n", [], Event("a")),
        ("event: error\ndata: a", [], Event("a", "error")),
        ("data: a\n\ndata: [DONE]", [Event("a")], Event("[DONE]")),
        ("event: a", [], None),
        (": only a comment", [], None),
        ("\n\n\n", [], None),
        ("", [], None),
    ],
)
def test_lines_and_fields(body: str, events: list[Event], end: Event | None) -> None:
    assert decode([body.encode()])[:2] == (events, end)


def test_an_event_does_not_wait_for_what_may_follow() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\r\n\r") == [Event("a")]
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\ndata: b\r\n") == []
    assert decoder.feed(b"\r\n") == [Event("b")]
    # Nothing between a CR and its LF leaves them one line end.
    assert [decoder.feed(part) for part in (b"data: c\r", b"", b"\ndata: d\n\n")] == [[], [], [Event("c\nd")]]
    assert decoder.end() is None


def test_keep_alive_comments_are_counted() -> None:
    assert decode([b": keep-alive\n\n:\n\nid: 1\nx\ndata: :\n\n: a", b"\n\n"]) == ([Event(":")], None, 3, True)


@pytest.mark.parametrize("text", ['data: {"content": "caf\u00e9', 'data: {"content": "\U0001f600', "data: [DONE]\u00e9"])
def test_a_character_cut_at_the_end_shows(text: str) -> None:
    expected = Event(text[len("data: ") : -1] + "\ufffd")
    for missing in range(1, len(text[-1].encode())):
        assert decode([text.encode()[:-missing]])[:2] == ([], expected)


@pytest.mark.parametrize("body", [b"data: \xff", b"data: \xc3(", b"data: \xed\xa0\x80\n\n", b": \xff\n", b"\xff: a\n", b"event: \xfe\n"])
def test_bytes_that_are_no_text(body: bytes) -> None:
    assert decode([body])[:2] == ([], "it is not UTF-8")


def test_after_a_problem_every_call_raises_and_nothing_shows_the_bytes() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\n\ndata: secret \xff\n\ndata: b\n\n") == [Event("a")]
    for call in (lambda: decoder.feed(b"data: c\n\n"), lambda: decoder.feed(b""), decoder.end):
        with pytest.raises(BadStream) as caught:
            call()
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert "secret" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(BadStream) as caught:
        Decoder().feed(b"data: secret \xff\n\n")
    assert caught.value.__context__ is None


def test_lines_and_events_have_a_limit() -> None:
    # A line without its end, and the data of an event.
    assert decode([b"data: 4567\n\n"], most_bytes=10)[0] == [Event("4567")]
    assert decode([b"data: 45678\n\n"], most_bytes=10)[1] == "a line is larger than 10 bytes"
    assert decode([b"data:1234\ndata:67890\n\n"], most_bytes=10)[0] == [Event("1234\n67890")]
    assert decode([b"data:1234\ndata:67890\ndata\n\n"], most_bytes=10)[1] == "an event is larger than 10 bytes"
    assert decode([b"data\n" * 12], most_bytes=10)[1] == "an event is larger than 10 bytes"
    assert decode([b": comment!\n: comment!\n"], most_bytes=10)[2] == 2
    # An open line is refused as soon as it is too long, not at its end.
    decoder = Decoder(most_bytes=10)
    assert decoder.feed(b"data: 4567") == []
    with pytest.raises(BadStream):
        decoder.feed(b"8")


@pytest.mark.parametrize(
    ("body", "looks"),
    [
        (b"", None),
        (b"\r\n\n", None),
        (b"data: a", True),
        (b"data:", True),
        (b"dat", None),
        (b"data", None),
        (b"data\n", True),
        (b":", True),
        (b"\n\n: hi", True),
        (b"retry:", True),
        (b"id\n", True),
        (b"event: x\n", True),
        (b"\xef\xbb\xbf", None),
        (b"\xef\xbb\xbfdata:", True),
        (b"\xef\xbb\xbf{", False),
        (b"{", False),
        (b"\n\n<html>", False),
        (b"datum", False),
        (b"identity: x\n", False),
        (b"  \n", None),
        (b"  \n{", False),
        (b"  data: a\n", False),
        (b"ok\n", False),
        (b"{}\ndata: a\n\n", False),
        (b": a\n{}\n", True),
    ],
)
def test_what_a_body_looks_like_is_known_early(body: bytes, looks: bool | None) -> None:
    for parts in ([body], [body[place : place + 1] for place in range(len(body))]):
        decoder = Decoder()
        for part in parts:
            decoder.feed(part)
        assert decoder.looks_like_sse is looks


def test_a_long_body_that_is_no_stream_is_known_as_such_when_it_is_refused() -> None:
    decoder = Decoder(most_bytes=100)
    with pytest.raises(BadStream):
        decoder.feed(json.dumps({"choices": ["x" * 200]}).encode())
    assert decoder.looks_like_sse is False


def test_the_end_decides_about_a_short_line() -> None:
    decoder = Decoder()
    decoder.feed(b"dat")
    assert decoder.looks_like_sse is None
    assert decoder.end() is None
    assert decoder.looks_like_sse is False


def test_vllm_with_comments_and_crlf_and_mlflow_without_done() -> None:
    chunk = json.dumps({"choices": [{"delta": {"content": "é"}}]}, ensure_ascii=False)
    vllm = f": keep-alive\r\n\r\ndata: {chunk}\r\n\r\n: keep-alive\r\n\r\ndata: [DONE]\r\n\r\n".encode()
    assert decode([vllm[place : place + 7] for place in range(0, len(vllm), 7)]) == ([Event(chunk), Event("[DONE]")], None, 2, True)
    assert decode([f"data: {chunk}\n\ndata: {chunk}".encode()]) == ([Event(chunk)], Event(chunk), 0, True)
    # A server that writes JSON over several lines.
    spread = json.dumps({"error": {"message": "m", "code": 500}}, indent=1)
    body = "".join(f"data: {line}\n" for line in spread.splitlines()) + "\n"
    (event,) = decode([body.encode()])[0]
    assert json.loads(event.data) == json.loads(spread)


def test_two_megabytes_byte_by_byte() -> None:
    # Copying what is there for each byte would move some 2 TB and never end in time.
    decoder = Decoder(most_bytes=3 * 2**20)
    decoder.feed(b"data: ")
    feed, one = decoder.feed, b"x"
    assert not any(feed(one) for _ in range(2 * 2**20))
    assert decoder.feed(b"\n\n") == [Event("x" * (2 * 2**20))]


def _peak(body: bytes, times: int, **limits: int) -> int:
    """Most bytes that a decoder held while it was fed `body` some times."""
    decoder = Decoder(**limits)
    tracemalloc.start()
    try:
        for _ in range(times):
            try:
                decoder.feed(body)
            except BadStream:
                continue
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body", [b": keep-alive\n\n", b":\n", b"\r\n", b"id: 1\n", b"event: x\n", b"unknown\n", b"data: a\n\n", b"\n", b"data: a\ndata", b"x"]
)
def test_nothing_grows_with_the_stream(body: bytes) -> None:
    assert _peak(body, 20_000, most_bytes=4096) < 64 * 1024
