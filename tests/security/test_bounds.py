"""Answers without end, and answers that explode, take little memory and time (promise 35)."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator

import psutil
import pytest
from pydantic import SecretStr

from byok.endpoint import (
    EgressPolicy,
    EndpointAuth,
    EndpointClient,
    EndpointError,
    EndpointNotOpenAI,
    EndpointOverloaded,
    EndpointRateLimited,
    EndpointRedirect,
    EndpointTimeout,
    EndpointUnreachable,
    RemoteModelNotFound,
    ResponseInvalid,
    ResponseTruncated,
)
from byok_testing.egress import GOOD, KEY, assert_nothing_stored, fails, refusal, register, request
from byok_testing.hostile import LONGEST_S, MIB, MOST_MEMORY, ask_apart

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
TEN_GB = b"content-length: 10737418240\r\n\r\n"

Parts = Callable[[], Iterable[bytes]]


def endless(head: bytes, part: bytes) -> Parts:
    def parts() -> Iterator[bytes]:
        yield head
        while True:
            yield part

    return parts


def once(answer: bytes) -> Parts:
    return lambda: [answer]


def sized(body: bytes, head: bytes = HEAD) -> bytes:
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def filled(start: bytes, filler: bytes, end: bytes, size: int) -> bytes:
    """A body of about `size` bytes, of fillers between a start and an end."""
    return start + filler * ((size - len(start) - len(end)) // len(filler)) + end


ENDLESS: dict[str, tuple[Parts, *tuple[type[EndpointError], ...]]] = {
    "10 GB": (endless(HEAD + TEN_GB + b"{", b" " * MIB), ResponseInvalid),
    "chunks": (endless(CHUNKED, b"100000\r\n" + b" " * MIB + b"\r\n"), ResponseInvalid),
    "until it closes": (endless(HEAD + b"\r\n{", b" " * MIB), ResponseInvalid),
    "10 GB of an error": (endless(b"HTTP/1.1 500 X\r\n" + TEN_GB, b" " * MIB), EndpointOverloaded),
    "10 GB of a refusal": (endless(b"HTTP/1.1 401 X\r\n" + TEN_GB, b"<html>" * 10_000), EndpointAuth),
    "10 GB of a redirect": (endless(b"HTTP/1.1 307 X\r\nlocation: /x\r\n" + TEN_GB, b" " * MIB), EndpointRedirect),
    "tiny chunks": (endless(CHUNKED, b"1\r\n \r\n" * 20_000), EndpointTimeout),
    "chunk extension": (endless(CHUNKED + b"1;a=", b"a" * 65_536), EndpointTimeout),
    "trailers": (endless(CHUNKED + b"2\r\n{}\r\n0\r\n", b"x-a: b\r\n" * 1000), EndpointNotOpenAI, ResponseTruncated),
    "headers": (endless(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n" * 1000), EndpointNotOpenAI),
    "header line": (endless(b"HTTP/1.1 200 OK\r\nx-a: ", b"a" * 65_536), EndpointNotOpenAI),
    "header name": (endless(b"HTTP/1.1 200 OK\r\n", b"a" * 65_536), EndpointNotOpenAI),
    "status line": (endless(b"HTTP/1.1 200 ", b"a" * 65_536), EndpointNotOpenAI),
    "empty lines": (endless(b"", b"\r\n" * 30_000), EndpointTimeout),
    "interim answers": (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), EndpointTimeout),
    "early hints": (endless(b"", b"HTTP/1.1 103 X\r\nlink: x\r\n\r\n" * 1000), EndpointTimeout),
}


def test_35_an_endless_answer_takes_little_memory_and_time(feed):
    servers = {what: feed(parts) for what, (parts, *_) in ENDLESS.items()}
    told = ask_apart(servers, timeout_s=1.0, key=KEY)
    codes = {what: {kind.code for kind in kinds} for what, (_, *kinds) in ENDLESS.items()}
    assert {what: one["code"] for what, one in told.items() if one["code"] not in codes[what]} == {}
    assert {what: one["grown"] for what, one in told.items() if one["grown"] > MOST_MEMORY} == {}
    assert {what: one["seconds"] for what, one in told.items() if one["seconds"] > LONGEST_S} == {}
    assert {server.connections for server in servers.values()} == {1}


def test_35_an_endless_list_of_models_ends(services, feed, monkeypatch):
    server = feed(endless(HEAD + TEN_GB + b"{", b" " * MIB))
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
    assert refusal(lambda: register(services, f"http://{server.host_port}/v1")) is ResponseInvalid
    assert server.sent < 100 * MIB
    assert_nothing_stored(services)


def zstd_bomb(size: int) -> bytes:
    """Blocks that each stand for 128 KiB of one byte (RFC 8878)."""
    block = 128 * 1024
    return b"\x28\xb5\x2f\xfd\x00\x58" + (struct.pack("<I", block << 3 | 1 << 1)[:3] + b" ") * (size // block)


def gzip_bomb(size: int) -> bytes:
    return gzip.compress(b" " * size, compresslevel=1)


BOMBS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip_bomb(100 * MIB),
    "x-gzip": lambda: gzip_bomb(MIB),
    "GZIP": lambda: gzip_bomb(MIB),
    "gzip, gzip": lambda: gzip.compress(gzip_bomb(64 * MIB)),
    "identity, gzip": lambda: gzip_bomb(MIB),
    "deflate": lambda: zlib.compress(b" " * (100 * MIB), 1),
    "br": lambda: b"\xcb\xff\xff\x3f\x00\x00" * 1000,
    "zstd": lambda: zstd_bomb(1024 * MIB),
    "compress": lambda: b"\x1f\x9d\x90" + b"\x00" * 1000,
    "no such thing": lambda: b"x",
}


def test_35_a_compressed_answer_is_never_inflated(feed):
    heads = {encoding: f"content-type: application/json\r\ncontent-encoding: {encoding}\r\n".encode() for encoding in BOMBS}
    bombs = {encoding: made() for encoding, made in BOMBS.items()}
    servers = {encoding: feed(once(sized(bomb, b"HTTP/1.1 200 OK\r\n" + heads[encoding]))) for encoding, bomb in bombs.items()}
    told = ask_apart(servers, timeout_s=LONGEST_S, key=KEY)
    assert {encoding: one["code"] for encoding, one in told.items()} == dict.fromkeys(BOMBS, ResponseInvalid.code)
    assert {encoding: one["grown"] for encoding, one in told.items() if one["grown"] > 16 * MIB} == {}
    for encoding, bomb in bombs.items():
        # An error is known by its status, and its body is left alone.
        server = feed(once(sized(bomb, b"HTTP/1.1 401 X\r\n" + heads[encoding])))
        assert isinstance(fails(f"http://{server.host_port}/v1", server.host_port), EndpointAuth)


def test_35_a_compressed_answer_without_a_label_is_no_answer(feed):
    server = feed(once(sized(gzip_bomb(MIB))))
    assert isinstance(fails(f"http://{server.host_port}/v1", server.host_port), EndpointNotOpenAI)


DRIPS: dict[str, Parts] = {
    "body": endless(HEAD + TEN_GB + b"{", b" "),
    "chunks": endless(CHUNKED, b"1\r\n \r\n"),
    "error body": endless(b"HTTP/1.1 500 X\r\n" + TEN_GB, b" "),
    "headers": endless(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
    "header line": endless(b"HTTP/1.1 200 OK\r\na: ", b"a"),
    "interim answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "nothing": lambda: (),
}


def test_35_a_slow_drip_meets_the_total_deadline(feed):
    servers = {what: feed(parts, pause_s=0.2) for what, parts in DRIPS.items()}
    told = ask_apart(servers, timeout_s=1.0, key=KEY, together=True)
    assert {what: one["code"] for what, one in told.items()} == dict.fromkeys(DRIPS, EndpointTimeout.code)
    assert all(0.9 < one["seconds"] < LONGEST_S for one in told.values())
    assert {server.connections for server in servers.values()} == {1}


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_35_a_server_that_reads_nothing_meets_the_total_deadline_and_keeps_no_connection(feed, monkeypatch, scheme):
    server = feed(None)
    monkeypatch.setattr("byok.endpoint.transport.UNREAD_S", 1.0)

    def connections() -> int:
        return sum(bool(one.raddr) and one.raddr.port == server.port for one in psutil.Process().net_connections("tcp"))

    async def go() -> None:
        policy = EgressPolicy.parse(server.host_port)
        async with EndpointClient(f"{scheme}://{server.host_port}/v1", "m", KEY, policy=policy, timeout_s=0.5) as chat:
            with pytest.raises(EndpointTimeout):
                # More than fits into the buffers of a connection.
                await chat.chat([{"role": "user", "content": "x" * 20_000_000}])
            async with asyncio.timeout(2 * LONGEST_S):
                while connections():
                    await asyncio.sleep(0.05)

    asyncio.run(go())
    assert server.connections == 1


HALF_CLOSED: dict[str, tuple[list[bytes], type[EndpointError]]] = {
    "at once": ([], EndpointUnreachable),
    "in the status line": ([b"HTTP/1.1 2"], EndpointUnreachable),
    "in the headers": ([b"HTTP/1.1 200 OK\r\ncontent-le"], EndpointUnreachable),
    "after the headers": ([HEAD + b"content-length: 9\r\n\r\n"], ResponseTruncated),
    "in the body": ([HEAD + b"content-length: 99\r\n\r\n{"], ResponseTruncated),
    "in a chunk": ([CHUNKED + b"9\r\n{"], ResponseTruncated),
    "between chunks": ([CHUNKED + b"1\r\n{\r\n"], ResponseTruncated),
    "in a body without a length": ([HEAD + b'\r\n{"choices": [{"mess'], ResponseTruncated),
    "in an error": ([b"HTTP/1.1 429 X\r\ncontent-length: 99\r\n\r\n{"], EndpointRateLimited),
}


@pytest.mark.parametrize("what", HALF_CLOSED)
def test_35_a_half_closed_connection_is_a_named_error(feed, what):
    parts, kind = HALF_CLOSED[what]
    server = feed(lambda: parts, half_close=True)
    error = fails(f"http://{server.host_port}/v1", server.host_port, timeout_s=LONGEST_S)
    assert type(error) is kind
    # What may have reached a model is not sent a second time.
    assert server.connections == 1


def test_35_thousands_of_headers_are_refused(feed):
    lines = {str(many): b"".join(b"x-%d: b\r\n" % number for number in range(many)) for many in (200, 5000, 100_000)}
    servers = {many: feed(once(sized(b"{}", b"HTTP/1.1 200 OK\r\n" + headers))) for many, headers in lines.items()}
    told = ask_apart(servers, timeout_s=LONGEST_S, key=KEY)
    assert {many: one["code"] for many, one in told.items()} == dict.fromkeys(lines, EndpointNotOpenAI.code)
    assert {many: one["grown"] for many, one in told.items() if one["grown"] > 16 * MIB} == {}


@pytest.mark.parametrize("line", [b"x-a: %s", b"%s: a", b"retry-after: %s", b"location: %s", b"content-type: %s"])
def test_35_an_oversized_header_line_is_refused(feed, line):
    server = feed(once(sized(json.dumps(GOOD).encode(), b"HTTP/1.1 200 OK\r\n" + line % (b"a" * 100_000) + b"\r\n")))
    error = fails(f"http://{server.host_port}/v1", server.host_port)
    assert isinstance(error, EndpointNotOpenAI)
    assert len(error.message) < 500


def test_35_what_follows_an_answer_is_not_kept(feed):
    answer = sized(json.dumps(GOOD).encode())
    floods = {"answers": b"HTTP/1.1 204 X\r\n\r\n" * 1000, "anything": b" " * MIB, "the same again": answer * 1000}
    told = ask_apart({what: feed(endless(answer, flood)) for what, flood in floods.items()}, timeout_s=LONGEST_S, key=KEY, idle_s=0.5)
    # What comes in one piece with the answer may spoil it.
    assert {one["code"] for one in told.values()} <= {None, EndpointNotOpenAI.code}
    assert told["answers"]["code"] is None
    assert {what: one["grown"] for what, one in told.items() if one["grown"] > MOST_MEMORY} == {}


ALMOST_16_MB = 15 * MIB

SLOW_TO_READ: dict[str, tuple[bytes, str | None]] = {
    "lists": (sized(filled(b"[", b"[],", b"1]", ALMOST_16_MB)), "response_invalid"),
    "objects": (sized(filled(b'{"choices": [', b"{},", b"1]}", ALMOST_16_MB)), "response_invalid"),
    "members": (sized(b'{"a": 1, ' + b",".join(b'"%x": 0' % number for number in range(1_200_000)) + b"}"), "response_invalid"),
    "depth": (sized(filled(b"", b"[", b"", ALMOST_16_MB)), "response_invalid"),
    "depth of objects": (sized(filled(b"", b'{"":', b"", ALMOST_16_MB)), "response_invalid"),
    "numbers": (sized(filled(b"[", b"1" * 4000 + b",", b"1]", ALMOST_16_MB)), "endpoint_not_openai"),
    "digits": (sized(filled(b'{"choices": 1.', b"1", b"}", ALMOST_16_MB)), "response_invalid"),
    "thinking": (sized(filled(b'{"choices": [{"message": {"content": "<think>', b"<", b'"}}]}', ALMOST_16_MB)), None),
    "spaces": (sized(filled(b'{"choices": [{"message": {"content": "', b" ", b'"}}]}', ALMOST_16_MB)), None),
    "page": (sized(filled(b"<html>", b"<title>", b"", ALMOST_16_MB)), "endpoint_not_openai"),
    "error of spaces": (sized(filled(b'{"error": {"code": 400, "message": "field', b" ", b'"}}', ALMOST_16_MB)), "bad_request"),
    "error of words": (sized(filled(b'{"error": {"code": 400, "message": "', b"fields use ", b'"}}', ALMOST_16_MB)), "bad_request"),
    "refusal of spaces": (sized(b"field" + b" " * 65_000, b"HTTP/1.1 400 X\r\n"), "bad_request"),
}


def test_35_an_answer_that_is_slow_to_read_takes_little_memory_and_time(feed):
    servers = {what: feed(once(answer)) for what, (answer, _) in SLOW_TO_READ.items()}
    told = ask_apart(servers, timeout_s=LONGEST_S, key=KEY)
    assert {what: one["code"] for what, one in told.items()} == {what: code for what, (_, code) in SLOW_TO_READ.items()}
    assert {what: one["grown"] for what, one in told.items() if one["grown"] > MOST_MEMORY} == {}
    # What blocks the process is not stopped by its deadline.
    assert {what: one["seconds"] for what, one in told.items() if one["seconds"] > LONGEST_S} == {}


def test_35_a_list_of_models_that_is_slow_to_compare_takes_little_time(services, raw, reply, monkeypatch):
    remote_id = "ab" * 50
    names = [{"id": f"{'aab' * 33}{number}"} for number in range(100_000)]
    missing = reply(404, {"error": {"message": "no such model", "code": "model_not_found"}})
    server = raw(reply(200, {"data": names}), missing)
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)

    async def go() -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(RemoteModelNotFound) as caught:
            await services.registry.register(services.actor, request(f"http://{server.host_port}/v1", remote_id=remote_id), SecretStr(KEY))
        assert loop.time() - started < LONGEST_S
        assert len(caught.value.hint) < 500

    asyncio.run(go())
    assert_nothing_stored(services)
