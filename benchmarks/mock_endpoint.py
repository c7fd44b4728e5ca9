"""A fast OpenAI-compatible endpoint on loopback, for benchmarks: it costs a core far less than any client that asks it.

    python benchmarks/mock_endpoint.py [--latency-ms 100] [--rate-429 0.1] [--rate-500 0.03] [--rate-reset 0.01]

POST /v1/chat/completions, GET /v1/models, GET /stats, POST /reset (sets the counts to zero). It answers `What is A + B?`, every tenth
prompt wrongly, so that each client must find the same number of right answers; anything else is a probe, answered with `ok`. Faults hang
on the seed, the prompt and the number of its attempt alone, so that each client meets the same ones. Prints its port, one line.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
import signal
import socket
import struct
import time
import zlib
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import orjson

MODEL = "mock-model"
WRONG_IN = 10
"""One prompt in so many is answered wrongly."""

_SUM = re.compile(r"What is (\d+) \+ (\d+)\?")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_REASONS = {200: b"OK", 400: b"Bad Request", 404: b"Not Found", 429: b"Too Many Requests", 500: b"Internal Server Error"}
_EARLY_S = 0.0005
"""The event loop waits in whole milliseconds, rounded up: starting half of one earlier, a reply comes in time on average."""

_RESET = b""
"""In place of a reply: the connection is reset."""


def sum_of(prompt: str) -> tuple[str, int] | None:
    """The question in a prompt and its right answer, or None."""
    found = _SUM.search(prompt)
    return (found[0], int(found[1]) + int(found[2])) if found else None


def answer_of(question: str, right: int) -> int:
    """What this endpoint answers: mostly what is right."""
    return right + (zlib.crc32(question.encode()) % WRONG_IN == 0)


@dataclass(frozen=True)
class Faults:
    """Shares of requests that go wrong; the first that applies does."""

    rate_429: float = 0.0
    rate_500: float = 0.0
    rate_reset: float = 0.0
    retry_after_s: int = 1
    seed: int = 7

    def of(self, question: str, attempt: int) -> int | None:
        """Status of the fault that attempt number `attempt` (from 1) meets, 0 for a reset; None for none."""
        digest = hashlib.blake2b(f"{self.seed}:{attempt}:{question}".encode(), digest_size=8).digest()
        dice = int.from_bytes(digest, "big") / 2**64
        for status, rate in ((429, self.rate_429), (500, self.rate_500), (0, self.rate_reset)):
            if dice < rate:
                return status
            dice -= rate
        return None

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return self.rate_429 + self.rate_500 + self.rate_reset > 0


@dataclass
class Counts:
    """What has happened since the start, or since the last reset."""

    requests: int = 0
    probes: int = 0
    faults: int = 0
    again: int = 0
    connections: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    waited: int = 0
    waited_s: float = 0.0
    first: float = 0.0
    last: float = 0.0
    cpu: float = field(default_factory=time.process_time)
    attempts: Counter[str] = field(default_factory=Counter)
    answered: set[str] = field(default_factory=set)

    def as_dict(self) -> dict[str, Any]:
        """The counts as `GET /stats` gives them.

        `requests` are those for rows, probes apart; `again` are those for a row that had been answered; the window is from the first
        request for a row to the last reply.
        """
        return {
            "requests": self.requests,
            "probes": self.probes,
            "faults": self.faults,
            "answered": len(self.answered),
            "again": self.again,
            "connections": self.connections,
            "most_in_flight": self.most_in_flight,
            "latency_ms": self.waited_s / self.waited * 1000 if self.waited else 0.0,
            "window_s": self.last - self.first,
            "cpu_s": time.process_time() - self.cpu,
        }


class Endpoint:
    """What all connections share."""

    def __init__(self, latency_ms: float, faults: Faults) -> None:
        self.latency_s, self.faults, self.counts = latency_ms / 1000, faults, Counts()
        self._waiting: deque[tuple[float, Connection, bytes, str | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def chat(self, connection: Connection, body: bytes) -> None:
        """Answer a chat request, after the latency."""
        try:
            prompt = orjson.loads(body)["messages"][-1]["content"]
            asked = sum_of(prompt)
        except (ValueError, LookupError, TypeError):
            connection.reply(_http(400, _problem("not a chat request")))
            return
        counts = self.counts
        if asked is None:
            counts.probes += 1
            self._later(connection, _http(200, _completion("ok", 8, 1)), None)
            return
        question, right = asked
        counts.requests += 1
        counts.attempts[question] += 1
        counts.again += question in counts.answered
        counts.in_flight += 1
        counts.most_in_flight = max(counts.most_in_flight, counts.in_flight)
        counts.first = counts.first or time.perf_counter()
        status = self.faults.of(question, counts.attempts[question]) if self.faults.any else None
        if status is None:
            text = str(answer_of(question, right))
            self._later(connection, _http(200, _completion(text, len(prompt) // 4 + 1, len(text) // 3 + 1)), question)
            return
        counts.faults += 1
        if status == 429:  # who is full says so at once
            self._send(connection, _http(429, _problem("slow down"), b"retry-after: %d\r\n" % self.faults.retry_after_s), "")
        else:
            self._later(connection, _http(500, _problem("failed")) if status else _RESET, "")

    def stats(self) -> bytes:
        """The counts, as an HTTP answer."""
        return _http(200, orjson.dumps(self.counts.as_dict()))

    def reset(self) -> None:
        """Count from zero."""
        self.counts = Counts()

    def _later(self, connection: Connection, reply: bytes, question: str | None) -> None:
        if not self.latency_s:
            self._send(connection, reply, question)
            return
        loop = asyncio.get_running_loop()
        # All wait equally long, so that one timer at the head of the line is enough for all.
        due = loop.time() + self.latency_s
        self._waiting.append((due, connection, reply, question))
        if self._timer is None:
            self._timer = loop.call_at(due - _EARLY_S, self._release)

    def _release(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0][0] - _EARLY_S <= (now := loop.time()):
            due, connection, reply, question = self._waiting.popleft()
            self.counts.waited += 1
            self.counts.waited_s += now - due + self.latency_s
            self._send(connection, reply, question)
        self._timer = loop.call_at(self._waiting[0][0] - _EARLY_S, self._release) if self._waiting else None

    def _send(self, connection: Connection, reply: bytes, question: str | None) -> None:
        """Send a reply; `question` is what it answers, empty for a fault, None for a probe."""
        if question is not None:
            self.counts.in_flight -= 1
            self.counts.last = time.perf_counter()
            if question:
                self.counts.answered.add(question)
        if reply is _RESET:
            connection.reset()
        else:
            connection.reply(reply)


class Connection(asyncio.Protocol):
    """One kept connection: requests with a Content-Length, one after the other."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint, self._received = endpoint, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._endpoint.counts.connections += 1

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._received, 0, end)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self._received) < whole:
                return
            method, path, _ = self._received.split(b" ", 2)
            body, self._received = self._received[end + 4 : whole], self._received[whole:]
            self._handle(method, path, body)

    def reply(self, data: bytes) -> None:
        """Send what has been made ready."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def reset(self) -> None:
        """Break the connection with an RST in place of a FIN."""
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _handle(self, method: bytes, path: bytes, body: bytes) -> None:
        endpoint = self._endpoint
        match method, path:
            case b"POST", b"/v1/chat/completions":
                endpoint.chat(self, body)
            case b"GET", b"/v1/models":
                model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "mock"}
                self.reply(_http(200, orjson.dumps({"object": "list", "data": [model]})))
            case b"GET", b"/stats":
                self.reply(endpoint.stats())
            case b"POST", b"/reset":
                endpoint.reset()
                self.reply(_http(200, b"{}"))
            case _:
                self.reply(_http(404, _problem("no such route")))


def _completion(text: str, prompt_tokens: int, completion_tokens: int) -> bytes:
    return orjson.dumps(
        {
            "id": "chatcmpl-mock",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": MODEL,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        }
    )


def _problem(message: str) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "mock_error", "param": None, "code": None}})


def _http(status: int, body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b" % (
        status,
        _REASONS[status],
        headers,
        len(body),
        body,
    )


async def serve(endpoint: Endpoint, port: int) -> None:
    """Serve until a signal comes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(endpoint), "127.0.0.1", port, backlog=1024)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop.wait()
    server.close()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="of each answer, and of each 500 and reset")
    parser.add_argument("--rate-429", type=float, default=0.0)
    parser.add_argument("--rate-500", type=float, default=0.0)
    parser.add_argument("--rate-reset", type=float, default=0.0)
    parser.add_argument("--retry-after", type=int, default=1, help="seconds, with each 429")
    parser.add_argument("--seed", type=int, default=7, help="decides which attempts meet a fault")
    options = parser.parse_args()
    faults = Faults(options.rate_429, options.rate_500, options.rate_reset, options.retry_after, options.seed)
    asyncio.run(serve(Endpoint(options.latency_ms, faults), options.port))


if __name__ == "__main__":
    main()
