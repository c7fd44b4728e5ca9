"""A server that answers each request with the raw bytes that a test scripts."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

CLOSE = b""
"""As a script entry: close the connection without an answer."""


def http(status: int, body: bytes | str | dict[str, Any] | list[Any] = b"", *, kind: str = "application/json", **headers: str) -> bytes:
    """A complete HTTP/1.1 answer; header names are written with underscores."""
    if isinstance(body, dict | list):
        body = json.dumps(body)
    raw = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    if "content_length" not in headers:
        lines.append(f"content-length: {len(raw)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def events(*frames: Any, done: bool = True, **headers: str) -> bytes:
    """A complete answer that is a stream of events: dictionaries become JSON data, texts are sent as they are."""
    texts = [frame if isinstance(frame, str) else f"data: {json.dumps(frame)}\n\n" for frame in frames]
    return http(200, "".join(texts) + ("data: [DONE]\n\n" if done else ""), kind="text/event-stream", **headers)


Scripted = bytes | tuple[bytes | float, ...]
"""An answer, or its parts with pauses between them, in seconds."""


class RawServer:
    """Serves scripted answers, one per request, the last one for ever; remembers the requests."""

    def __init__(self, script: list[Scripted], *, tls: ssl.SSLContext | None = None, after: str = "keep") -> None:
        self.script, self.tls, self.after = script, tls, after
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._workers: list[threading.Thread] = []
        self._thread.start()

    @property
    def host_port(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            worker = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._workers.append(worker)
            worker.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            with connection:
                while self._one(connection):
                    pass
        except OSError:
            connection.close()

    def _one(self, connection: socket.socket) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return False
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += connection.recv(65536)
        number = len(self.requests)
        self.requests.append((first, headers, body))
        answer = self.script[min(number, len(self.script) - 1)]
        for part in answer if isinstance(answer, tuple) else (answer,):
            if isinstance(part, float):
                time.sleep(part)
            else:
                connection.sendall(part)
        # Nothing at the end means: close.
        return bool(answer[-1] if isinstance(answer, tuple) else answer) and self.after == "keep"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in (self._thread, *self._workers):
            thread.join(5)


def starting() -> Iterator[Callable[..., RawServer]]:
    """For a fixture to yield from: starts servers, each with the answers of its script, and stops them all at the end."""
    servers: list[RawServer] = []

    def start(*script: Scripted, **options: Any) -> RawServer:
        servers.append(RawServer(list(script), **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
