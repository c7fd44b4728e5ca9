"""Servers between us and a real one: a relay that remembers what passes, and one whose answers do not end."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Exchange:
    """A request and its answer, as they went over the wire."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    answer: bytes

    @property
    def told(self) -> Any:
        """The JSON of the answer."""
        return json.loads(self.answer)


class Relay:
    """Passes every request on to a server over plain http and remembers it.

    Args:
        address: Address of the server.
        change: Gives another body for an answer, from its exchange; None leaves it.
    """

    def __init__(self, address: str, change: Callable[[Exchange], bytes | None] = lambda exchange: None) -> None:
        self.exchanges: list[Exchange] = []
        target = urlsplit(address).netloc
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                server = http.client.HTTPConnection(target, timeout=20)
                with contextlib.closing(server):
                    server.request(self.command, self.path, body or None, headers | {"host": target})
                    reply = server.getresponse()
                    answer = reply.read()
                told = Exchange(self.command, self.path.removeprefix("/v1/"), headers, body, reply.status, answer)
                relay.exchanges.append(told)
                answer = answer if (other := change(told)) is None else other
                self.send_response(reply.status)
                self.send_header("content-type", reply.headers.get("content-type", "application/json"))
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PUT = do_DELETE = pass_on

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # Closing waits for the threads: none may outlive its test.
        self._server.daemon_threads = False
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def seen(self) -> list[tuple[str, int]]:
        """The last part of each path and the status, since the last call."""
        found = [(one.path.rpartition("/")[2], one.status) for one in self.exchanges]
        self.exchanges.clear()
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


class SlowServer:
    """Takes connections and requests; sends some bytes and then one more every now and then, for 12 seconds.

    Args:
        first: What is sent at once.
        drip: What is sent again and again; nothing makes it hang.
    """

    def __init__(self, first: bytes = b"", drip: bytes = b"") -> None:
        self._first, self._drip = first, drip
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(self._first)
            # Ends some time: a client without a deadline is to fail its test, not to hang it.
            for _ in range(600):
                if self._ended.wait(0.02):
                    break
                connection.sendall(self._drip)

    def close(self) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)
