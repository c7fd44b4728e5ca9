"""Hostile networks: names that change their address, servers that never end, and what this process dials."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

MIB = 2**20
MOST_MEMORY = 96 * MIB
"""Above this a client has grown with what it was sent: the largest answer, four times over, is less."""

LONGEST_S = 10.0
"""With a deadline of 1 s: room for a slow machine, and far from what answers without end would take."""

_seen: list[tuple[str, Any]] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event == "socket.connect":
        target = arguments[1]
        _seen.append(("dial", target[:2] if isinstance(target, tuple) else target))
    elif event == "socket.getaddrinfo":
        _seen.append(("look up", arguments[0]))


# Hooks cannot be taken away again: there is one, and it does nothing outside `watch`.
sys.addaudithook(_note)


@contextlib.contextmanager
def watch() -> Iterator[list[tuple[str, Any]]]:
    """Every address that any code of this process dials, and every name that it looks up, by whichever library."""
    global _seen
    _seen = seen = []
    try:
        yield seen
    finally:
        _seen = None


def dialled(outgoing: list[tuple[str, Any]]) -> set[Any]:
    """The addresses that `watch` saw dialled."""
    return {target for kind, target in outgoing if kind == "dial"}


class FakeDns(AbstractResolver):
    """Resolves every name to the addresses of its script, one entry per look-up, the last one for ever; an exception is raised."""

    def __init__(self, *script: list[str] | OSError) -> None:
        self.script = list(script)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        found = self.script[min(len(self.asked), len(self.script) - 1)]
        self.asked.append(host)
        if isinstance(found, OSError):
            raise found
        return [ResolveResult(hostname=host, host=one, port=port, family=_family(one), proto=0, flags=0) for one in found]

    async def close(self) -> None:
        pass


def system_dns(names: dict[str, list[list[str]]]) -> Callable[..., list[Any]]:
    """In place of `socket.getaddrinfo`: for each name one list of addresses per look-up, the last one for ever; other names fail."""
    asked: dict[str, int] = {}

    def getaddrinfo(host: str | bytes, port: Any, *_arguments: Any, **_options: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        number = asked[name] = asked.get(name, 0) + 1
        found = names[name][min(number, len(names[name])) - 1]
        return [
            (_family(one), socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (one, port, 0, 0) if ":" in one else (one, port)) for one in found
        ]

    return getaddrinfo


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def certificate(folder: Path, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS settings of a server with a certificate of its own for these names and addresses, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = folder / "server.pem"
    path.write_bytes(
        made.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=str(path))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Feeder:
    """Accepts connections, and sends each of them what `parts` yields: for ever, slowly, or not at all.

    Args:
        parts: Called for each connection, once its request has come; None reads nothing and sends nothing.
        pause_s: Wait before each part but the first.
        half_close: Whether the server's side is shut when the parts end; else the connection stays open.
        host: Loopback address to listen at.
        port: 0 takes a free one.
    """

    def __init__(
        self,
        parts: Callable[[], Iterable[bytes]] | None,
        *,
        pause_s: float = 0,
        half_close: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._parts, self._pause_s, self._half_close = parts, pause_s, half_close
        self.sent = self.connections = 0
        self._ended = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server((host, port), family=_family(host))
        self.port: int = self._listener.getsockname()[1]
        self.host_port = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            if self._parts is not None:
                self._threads.append(threading.Thread(target=self._feed, args=(connection, self._parts), daemon=True))
                self._threads[-1].start()

    def _feed(self, connection: socket.socket, parts: Callable[[], Iterable[bytes]]) -> None:
        with contextlib.suppress(OSError):
            connection.recv(65536)
            for number, part in enumerate(parts()):
                if number and self._pause_s:
                    self._ended.wait(self._pause_s)
                if self._ended.is_set():
                    return
                connection.sendall(part)
                self.sent += len(part)
            if self._half_close:
                connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join(5)


def feeding() -> Iterator[Callable[..., Feeder]]:
    """For a fixture to yield from: starts feeders, and stops them all at the end."""
    feeders: list[Feeder] = []

    def start(*arguments: Any, **options: Any) -> Feeder:
        feeders.append(Feeder(*arguments, **options))
        return feeders[-1]

    yield start
    for feeder in feeders:
        feeder.close()


_CHILD = """
import asyncio, json, sys, time
from pathlib import Path
from byok.endpoint import EndpointClient, EgressPolicy
from byok.endpoint.transport import default_tls
from byok.errors import ByokError

given = json.loads(sys.argv[1])

def memory(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024

async def ask(host_port):
    started, code = time.perf_counter(), None
    policy = EgressPolicy.parse(host_port)
    try:
        async with EndpointClient(f"http://{host_port}/v1", "m", given["key"], policy=policy, timeout_s=given["timeout_s"]) as chat:
            if given["what"] == "embeddings":
                await chat.embed(["a", "b"])
            else:
                await chat.chat([{"role": "user", "content": "hi"}], max_tokens=5, stream=given["what"] == "stream")
            await asyncio.sleep(given["idle_s"])
    except ByokError as error:
        code = error.code
    return {"code": code, "seconds": time.perf_counter() - started}

async def ask_all():
    return await asyncio.gather(*map(ask, given["host_ports"]))

default_tls()
if given["together"]:
    told = asyncio.run(ask_all())
else:
    told = []
    for host_port in given["host_ports"]:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        before = memory("VmRSS")
        told.append(asyncio.run(ask(host_port)))
        told[-1]["grown"] = memory("VmHWM") - before
print(json.dumps(told))
"""


def ask_apart(
    feeders: dict[str, Feeder], *, timeout_s: float, key: str, idle_s: float = 0, together: bool = False, what: str = "chat"
) -> dict[str, dict[str, Any]]:
    """Ask endpoints from a process of its own, one after the other or together, for a `chat`, a `stream` or `embeddings`.

    Tells for each the code of the error that it ends with, the seconds, and (one after the other) the bytes by which the process
    grew meanwhile. The peak is the kernel's own (VmHWM): unlike the one of `getrusage`, a child does not inherit it.
    """
    host_ports = [feeder.host_port for feeder in feeders.values()]
    given = {"host_ports": host_ports, "timeout_s": timeout_s, "key": key, "idle_s": idle_s, "together": together, "what": what}
    done = subprocess.run([sys.executable, "-c", _CHILD, json.dumps(given)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(feeders, json.loads(done.stdout), strict=True))
