"""An endpoint in this process whose behaviour a test sets for each model; it remembers which keys came."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True)
class Asked:
    """One chat request: for which model, with which key, with which texts; `probe` when it asks for one token."""

    model: str
    key: str
    texts: str
    probe: bool


@dataclass(frozen=True)
class Answer:
    """An answer; with `cut`, the connection breaks in the middle of its body."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json"
    cut: bool = False


Behaviour = Callable[[Asked], Answer]


def says(text: str, **message: Any) -> Answer:
    """A chat completion."""
    told = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "any",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }
    return Answer(body=json.dumps(told).encode())


def says_pass(_: Asked) -> Answer:
    """The behaviour of a judge that passes everything."""
    return says(json.dumps({"reasoning": "It is right.", "verdict": "pass"}))


class Provider:
    """Serves on loopback; a context manager.

    A model that `keys` names answers to that key alone (or to any of them), as its behaviour says; a probe is answered well unless the
    behaviour is also in `even_probes`.
    """

    def __init__(self) -> None:
        self.keys: dict[str, set[str]] = {}
        self.behaviours: dict[str, Behaviour] = {}
        self.even_probes: set[str] = set()
        self.asked: list[Asked] = []
        self.released = threading.Event()
        """What a behaviour that hangs waits for; set at the end."""
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def host_port(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def base_url(self) -> str:
        return f"http://{self.host_port}/v1"

    def serve(self, model: str, *keys: str, behaviour: Behaviour = lambda asked: says("4"), even_probes: bool = False) -> None:
        """Serve a model."""
        self.keys[model] = set(keys)
        self.behaviours[model] = behaviour
        if even_probes:
            self.even_probes.add(model)

    def rows_asked(self, model: str) -> int:
        """How many requests, probes apart, have come for a model."""
        return sum(one.model == model and not one.probe for one in self.asked)

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        if asked.key not in self.keys.get(asked.model, set()):
            return echo(401)(asked)
        if asked.probe and asked.model not in self.even_probes:
            return says("OK")
        return self.behaviours[asked.model](asked)

    def __enter__(self) -> Provider:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def echo(status: int, **headers: str) -> Behaviour:
    """Answer an error that repeats the key, as it is and encoded: in the message, in code and parameter, in headers."""

    def behave(asked: Asked) -> Answer:
        key = asked.key
        escaped = "".join(f"\\u{ord(char):04x}" for char in key)
        encoded = f"{quote(key, safe='')} {base64.b64encode(b':' + key.encode()).decode()} {key.encode().hex()}"
        error = {"message": f"Wrong key: {key}. It came as {encoded}", "type": key, "code": key, "param": key}
        body = json.dumps({"error": error, "request_id": key}).replace("Wrong key: ", f"Wrong key: {escaped} and ")
        told = {"x-request-id": key, "www-authenticate": f'Bearer realm="{key}"', "set-cookie": f"key={key}", "x-echo": f"Bearer {key}"}
        return Answer(status, body.encode(), told | headers)

    return behave


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in the middle is no news."""


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            listed = {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "x"} for name in provider.keys]}
            self._send(Answer(body=json.dumps(listed).encode()))

        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["content-length"])))
            limit = told.get("max_tokens", told.get("max_completion_tokens"))
            texts = "\n".join(str(message["content"]) for message in told["messages"])
            key = self.headers.get("authorization", "").removeprefix("Bearer ")
            self._send(provider.answer(Asked(told["model"], key, texts, limit == 1)))

        def _send(self, answer: Answer) -> None:
            self.close_connection = True
            with contextlib.suppress(ConnectionError):
                self.send_response(answer.status)
                for name, value in {"content-type": answer.kind, "connection": "close", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)

        def log_message(self, *_: object) -> None:
            """Silence."""

    return Handler
