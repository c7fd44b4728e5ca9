"""Servers that answer a full probe as a test says, and what it found of them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from byok.endpoint import EgressPolicy, EndpointClient, ProbeResult, profile
from byok.endpoint.capabilities import Capability
from byok.endpoint.probing.full import full_probe
from byok.endpoint.probing.record import ProbeLog
from byok_testing.raw_server import RawServer, http

KEY = "sk-test-0123456789abcdef"

Answer = tuple[int, Any]
"""Status, and a JSON value or a text."""


class Scripted:
    """An endpoint that answers each request by a function of its route and its body; it remembers both."""

    def __init__(self, answer: Callable[[str, dict[str, Any]], Answer]) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.reply({})

            def do_POST(self) -> None:
                self.reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def reply(self, body: dict[str, Any]) -> None:
                route = self.path.removeprefix("/v1")
                outer.asked.append((route, body))
                status, value = answer(route, body)
                raw = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "text/plain" if isinstance(value, str) else "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                """Silence."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def host_port(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def chats(self) -> list[dict[str, Any]]:
        """The bodies of all chat requests."""
        return [body for route, body in self.asked if route == "/chat/completions"]

    def probe(
        self, *, provider: str = "openai", key: str | None = None, payload: dict[str, Any] | None = None, **options: Any
    ) -> ProbeResult:
        """What a full probe of this server finds; `payload` is the owner's."""
        host_port = self.host_port
        more: dict[str, Any] = {"policy": EgressPolicy.parse(host_port), "profile": profile(provider), "extra_payload": payload}

        async def go() -> ProbeResult:
            async with EndpointClient(f"http://{host_port}/v1", "m", key, timeout_s=10, **more) as client:
                return await full_probe(client, **options)

        return asyncio.run(go())


def says(text: str | None, *, prompt: int = 6, answer: int = 2, finish: str = "stop", **message: Any) -> Answer:
    """A chat completion; `message` members can be added."""
    usage = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return 200, {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}


def wrong(message: str, parameter: str | None = None, status: int = 400) -> Answer:
    """A refusal, with the parameter that it names."""
    return status, {"error": {"message": message, "type": "invalid_request_error", "param": parameter, "code": None}}


def piece(text: str, finish: str | None = None) -> dict[str, Any]:
    """A chunk of a streamed completion."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "choices": [choice]}


def streamed(answer: Any, log: ProbeLog | None = None) -> ProbeResult:
    """What is found where the first answer is this stream, and all others come whole."""
    with closing(RawServer([http(404, {}), answer, http(200, says("kiwi")[1])])) as server:

        async def go() -> ProbeResult:
            policy = EgressPolicy.parse(server.host_port)
            async with EndpointClient(f"http://{server.host_port}/v1", "m", None, policy=policy, timeout_s=10) as client:
                return await full_probe(client, log=log)

        return asyncio.run(go())


def by_name(found: ProbeResult) -> dict[str, Capability]:
    """The capabilities that were found."""
    return {one.name: one for one in found.capabilities or ()}


def reported(found: ProbeResult) -> int:
    """The tokens that all answers together told of."""
    return sum((one.usage.prompt_tokens or 0) + (one.usage.completion_tokens or 0) for one in found.attempts)
