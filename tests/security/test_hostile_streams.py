"""Streams and embeddings of hostile endpoints: bounded memory and time, typed errors, no count that is not believed (35 to 37)."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Callable, Iterable, Iterator

import pytest

from byok_testing.asking import KEY, USAGE, chat, chunk, embed, refused
from byok_testing.hostile import LONGEST_S, MIB, MOST_MEMORY, ask_apart
from byok_testing.raw_server import events, http

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"


def frame(value: object) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def endless(part: bytes, *before: bytes) -> Callable[[], Iterable[bytes]]:
    def parts() -> Iterator[bytes]:
        yield from (HEAD, *before)
        while True:
            yield part

    return parts


CALL = {"function": {"name": "f", "arguments": "x" * 1000}}
LOGPROBS = {"content": [{"token": "x", "logprob": -1.0, "top_logprobs": [{"token": "y", "logprob": -2.0}] * 20}] * 20}

STREAMS: dict[str, Callable[[], Iterable[bytes]]] = {
    "comments": endless(b": keep-alive\n\n" * 4000),
    "blank lines": endless(b"\n" * 64_000),
    "one line": endless(b"a" * 64_000, b"data: "),
    "one event of many lines": endless(b"data: a\n" * 8000),
    "unknown fields": endless(b"x-field: a\n" * 6000),
    "pieces": endless(frame(chunk({"content": "x"})) * 300),
    "long pieces": endless(frame(chunk({"content": "x" * 60_000}))),
    "empty chunks": endless(frame({"choices": []}) * 3000),
    "usage": endless(frame(chunk(usage=USAGE)) * 300),
    "tool calls": endless(b"".join(frame(chunk({"tool_calls": [{"index": number} | CALL]})) for number in range(50))),
    "other choices": endless(frame({"choices": [{"index": 7, "delta": {"content": "x" * 1000}}]}) * 50),
    "logprobs": endless(frame({"choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": LOGPROBS}]}) * 4),
    "depth": endless(b"data: " + b"[" * 500_000 + b"\n\n"),
    "values": endless(b"data: [" + b"[]," * 300_000 + b"1]\n\n"),
}


def test_35_an_endless_stream_takes_little_memory_and_time(feed):
    told = ask_apart({what: feed(parts) for what, parts in STREAMS.items()}, timeout_s=1.0, key=KEY, what="stream")
    wrong = {what: one["code"] for what, one in told.items() if one["code"] not in ("endpoint_timeout", "response_invalid")}
    assert wrong == {}
    assert {what: one["grown"] for what, one in told.items() if one["grown"] > MOST_MEMORY} == {}
    assert {what: one["seconds"] for what, one in told.items() if one["seconds"] > LONGEST_S} == {}


def test_35_a_stream_that_drips_meets_the_total_deadline(feed):
    drips = {
        "bytes": endless(b"d"),
        "comments": endless(b": x\n\n"),
        "pieces": endless(frame(chunk({"content": "x"}))),
        "after the end": lambda: iter([HEAD, frame(chunk({"content": "x"}, finish="stop")), *(b": x\n\n" for _ in range(1000))]),
    }
    told = ask_apart(
        {what: feed(parts, pause_s=0.2) for what, parts in drips.items()}, timeout_s=1.0, key=KEY, together=True, what="stream"
    )
    assert {one["code"] for one in told.values()} == {"endpoint_timeout"}
    assert all(0.9 < one["seconds"] < LONGEST_S for one in told.values())


def test_35_who_goes_on_after_the_end_is_left(feed):
    end = frame(chunk({"content": "x"}, finish="stop")) + b"data: [DONE]\n\n"
    servers = {"flood": feed(endless(b" " * MIB, end)), "drip": feed(endless(b" ", end), pause_s=0.2), "silence": feed(lambda: [HEAD, end])}
    told = ask_apart(servers, timeout_s=LONGEST_S, key=KEY, what="stream")
    assert {one["code"] for one in told.values()} == {None}
    assert {what: one["seconds"] for what, one in told.items() if one["seconds"] > LONGEST_S / 2} == {}
    assert {what: one["grown"] for what, one in told.items() if one["grown"] > MOST_MEMORY} == {}


def test_35_a_compressed_stream_is_never_inflated(raw):
    bomb = gzip.compress(b": x\n\n" * (10 * MIB), 1)
    server = raw(http(200, bomb, kind="text/event-stream", content_encoding="gzip"))
    assert refused(lambda: chat(server, stream=True)).code == "response_invalid"


def test_35_embeddings_that_are_slow_to_read_take_little_memory_and_time(feed):
    size = 15 * MIB

    def body(start: bytes, filler: bytes, end: bytes) -> Callable[[], Iterable[bytes]]:
        whole = JSON + start + filler * (size // len(filler)) + end
        return lambda: [whole]

    bodies = {
        "numbers": body(b'{"data": [{"embedding": [', b"0,", b"0]}]}"),
        "entries": body(b'{"data": [', b'{"embedding": [1]},', b"0]}"),
        "base64": body(b'{"data": [{"embedding": "', b"AAAA", b'"}]}'),
        "digits": body(b'{"data": [{"embedding": [1', b"1", b"]}]}"),
        "spaces": body(b'{"data": [{"embedding": "', b" ", b'"}]}'),
    }
    servers = {what: feed(parts, half_close=True) for what, parts in bodies.items()}
    told = ask_apart(servers, timeout_s=LONGEST_S, key=KEY, what="embeddings")
    assert {what: one["code"] for what, one in told.items()} == dict.fromkeys(servers, "response_invalid")
    assert {what: one["grown"] for what, one in told.items() if one["grown"] > MOST_MEMORY} == {}
    assert {what: one["seconds"] for what, one in told.items() if one["seconds"] > LONGEST_S} == {}


ODD_FRAMES = [
    b'{"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": NaN}]}',
    b'{"choices": [], "usage": {"prompt_tokens": 1e999}}',
    b'{"choices": [], "choices": []}',
    b"[" * 100_000,
    b'{"choices": [], "n": ' + b"9" * 5000 + b"}",
    b'{"choices": {"index": 0}}',
    b'{"choices": [{"index": 0, "delta": "x"}]}',
    b'"x"',
    b"[1]",
    b"7",
    b"{",
    b'{"choices": [',
    b"\xff\xfe",
]


@pytest.mark.parametrize("odd", ODD_FRAMES, ids=lambda odd: odd[:40].decode("latin-1"))
def test_36_a_frame_that_is_no_chunk_is_a_typed_error(raw, odd):
    body = frame(chunk({"content": "x"})) + frame(odd) + frame(chunk({}, finish="stop")) + b"data: [DONE]\n\n"
    error = refused(lambda: chat(raw(http(200, body, kind="text/event-stream")), stream=True))
    assert error.code == "response_invalid" and len(error.message) < 500


def test_36_lone_surrogates_in_pieces_become_replacement_characters(raw):
    body = b"".join(
        frame(b'{"choices": [{"index": 0, "delta": {"content": "%s"}}]}' % text) for text in (rb"\ud83d", rb"\ude00", rb"\ud83d")
    )
    answer = chat(raw(http(200, body + frame(chunk({}, finish="stop")), kind="text/event-stream")), stream=True)
    assert answer.text.encode() and answer.text.endswith("\ufffd")


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [{"embedding": [NaN]}]}',
        b'{"data": [{"embedding": [1e999]}]}',
        b'{"data": 7}',
        b"[]",
        b'{"data": [{"embedding": [1e30]}]}',
    ],
)
def test_36_embeddings_that_are_none_are_a_typed_error(raw, body):
    assert refused(lambda: embed(raw(http(200, body)), ["a"])).code in ("response_invalid", "endpoint_not_openai")


LIES = [
    {"prompt_tokens": -1},
    {"prompt_tokens": 10**12},
    {"prompt_tokens": True},
    {"prompt_tokens": 1.5},
    {"prompt_tokens": 3, "total_tokens": 99},
]


@pytest.mark.parametrize("usage", LIES)
def test_37_usage_of_embeddings_and_streams_is_believed_as_little(raw, usage):
    vector = base64.b64encode(struct.pack("<2f", 1, 0)).decode()
    assert embed(raw(http(200, {"data": [{"embedding": vector}], "usage": usage})), ["a"]).usage.usage_class == "invalid"
    told = {"completion_tokens": 1} | usage
    answer = chat(raw(events(chunk({"content": "x"}), chunk({}, finish="stop", usage=told))), stream=True)
    assert answer.usage.usage_class == "invalid"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "total_tokens": None}, {"total_tokens": 5}, []])
def test_37_usage_that_is_missing_stays_unknown(raw, usage):
    found = embed(raw(http(200, {"data": [{"embedding": [1.0]}], "usage": usage})), ["a"]).usage
    assert (found.usage_class, found.prompt_tokens) == ("missing", None)
