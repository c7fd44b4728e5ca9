"""Debian's nginx as a TLS reverse proxy on loopback, in a folder of its own and without root's paths, and our client before it."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import pwd
import shutil
import socket
import subprocess
import time
import traceback
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from byok.endpoint import ChatAnswer, EgressPolicy, EndpointClient, EndpointError
from byok_testing.egress import KEY, MESSAGES
from byok_testing.leaks import hits

HOST = "127.0.0.1"
_PEM = serialization.Encoding.PEM

_CONFIGURATION = """\
{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log info;
events {{ worker_connections 256; }}
http {{
    log_format seen escape=json '{{"connection": "$connection", "method": "$request_method", "path": "$uri", "status": $status}}';
    access_log access.log seen;
    default_type text/html;
    client_body_temp_path temporary;
    proxy_temp_path temporary;
    fastcgi_temp_path temporary;
    uwsgi_temp_path temporary;
    scgi_temp_path temporary;
    {outside}
    server {{
        listen {host}:{port} ssl;
        ssl_certificate {certificates.server};
        ssl_certificate_key {certificates.server_key};
        {inside}
    }}
    server {{
        listen {host}:{plain_port};
        return 301 https://{host}:{port}$request_uri;
    }}
}}
"""


@dataclass(frozen=True)
class Certificates:
    """Files (PEM) of a private authority, and of what it signed.

    Attributes:
        ca: The authority's certificate.
        server: Certificate of the server at 127.0.0.1.
        server_key: Its key.
        client: Certificate of a client.
        client_key: Its key.
    """

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    """Make an authority of one's own with a server and a client, good for a day."""
    authority = ec.generate_private_key(ec.SECP256R1())
    signed = _certificate("authority", authority, authority, authority=True)
    (folder / "authority.pem").write_bytes(signed.public_bytes(_PEM))
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / f"{name}.pem").write_bytes(_certificate(name, key, authority).public_bytes(_PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        )
    return Certificates(*(folder / name for name in ("authority.pem", "server.pem", "server.key", "client.pem", "client.key")))


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, *, authority: bool = False
) -> x509.Certificate:
    now = datetime.now(UTC)
    subject, issuer = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in (name, "authority"))
    # Python 3.13 and later refuse an authority that does not say that it signs, and one signed by it that does not name its key.
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), now - timedelta(1), now + timedelta(1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False), critical=True)
        .sign(signer, hashes.SHA256())
    )


def location(upstream: str, rules: str = "", *, path: str = "/serve/v1/", to: str = "/v1/") -> str:
    """A `location` block that passes a path prefix on.

    Args:
        upstream: Host and port of the server behind.
        rules: More directives, inside the block.
        path: The prefix, as clients see it.
        to: What stands in its place upstream.
    """
    return f"location {path} {{ proxy_pass http://{upstream}{to}; {rules} }}\n"


class Nginx:
    """A running nginx; a context manager. One TLS server, and one of plain http that redirects every request to it.

    Args:
        folder: Where its configuration, logs and temporary files lie; made if it is not there.
        certificates: What its TLS server shows.
        inside: Directives of the TLS server (see `location`).
        outside: Directives of the `http` block.
    """

    def __init__(self, folder: Path, certificates: Certificates, inside: str, outside: str = "") -> None:
        self._folder, self._certificates, self._inside, self._outside = folder, certificates, inside, outside
        self._process: subprocess.Popen[bytes] | None = None
        self.port, self.plain_port = _free_ports()

    @property
    def host_port(self) -> str:
        """Host and port of the TLS server."""
        return f"{HOST}:{self.port}"

    @property
    def base_url(self) -> str:
        """The base URL to register."""
        return f"https://{self.host_port}/serve/v1"

    @property
    def allowed(self) -> str:
        """Both of its ports, as `BYOK_ENDPOINT_ALLOW` wants them."""
        return f"{self.host_port},{HOST}:{self.plain_port}"

    def seen(self) -> list[dict[str, Any]]:
        """The requests that it has logged as complete: connection, method, path, status."""
        return [json.loads(line) for line in (self._folder / "access.log").read_text().splitlines()]

    def wait_seen(self, count: int) -> list[dict[str, Any]]:
        """The requests, once there are so many: nginx logs a request after its client has the answer."""
        until = time.monotonic() + 10
        while len(found := self.seen()) < count and time.monotonic() < until:
            time.sleep(0.01)
        return found

    def errors(self) -> str:
        """What it logged about itself."""
        path = self._folder / "error.log"
        return path.read_text() if path.exists() else ""

    def __enter__(self) -> Self:
        binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if binary is None:
            raise AssertionError("there is no nginx: apt-get install --no-install-recommends nginx-light")
        self._folder.mkdir(parents=True, exist_ok=True)
        # Somebody else may take a port between our look and nginx's.
        for attempt in range(5):
            if attempt:
                self.port, self.plain_port = _free_ports()
            if self._start(binary):
                return self
        raise AssertionError(f"nginx does not start: {self.errors()}")

    def _start(self, binary: str) -> bool:
        configuration = self._folder / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                # Root's workers would become nobody, who cannot read a test's folder; others may not choose.
                user=f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else "",
                host=HOST,
                port=self.port,
                plain_port=self.plain_port,
                certificates=self._certificates,
                inside=self._inside,
                outside=self._outside,
            )
        )
        command = [binary, "-p", f"{self._folder}/", "-c", str(configuration), "-e", str(self._folder / "error.log")]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while self._process.poll() is None and time.monotonic() < until:
            # Written when all ports are open.
            if (self._folder / "nginx.pid").exists():
                return True
            time.sleep(0.02)
        self.close()
        return False

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop it and its worker; more than once does no harm."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
        self._process = None


def _free_ports() -> tuple[int, int]:
    with socket.create_server((HOST, 0)) as one, socket.create_server((HOST, 0)) as two:
        return one.getsockname()[1], two.getsockname()[1]


@asynccontextmanager
async def client_of(nginx: Nginx, key: str | None, base_url: str | None = None) -> AsyncIterator[EndpointClient]:
    """Our client, with the text of its credentials, before a proxy; by its base URL unless another is given."""
    policy = EgressPolicy.parse(nginx.allowed)
    try:
        async with EndpointClient(base_url or nginx.base_url, "org/remote#1", key, policy=policy, timeout_s=20.0) as client:
            yield client
    finally:
        # TLS connections that were closed say goodbye to the proxy before the loop may end.
        until = time.monotonic() + 5
        while _open(nginx.port) and time.monotonic() < until:
            await asyncio.sleep(0.01)


def _open(port: int) -> bool:
    return any(one.raddr and one.raddr.port == port for one in psutil.Process().net_connections("tcp"))


def ask(nginx: Nginx, key: str | None, base_url: str | None = None, *, calls: int = 1, **options: Any) -> ChatAnswer:
    """The answer to the last of some requests by one client; options are those of `EndpointClient.attempt`."""

    async def go() -> ChatAnswer:
        async with client_of(nginx, key, base_url) as client:
            for _ in range(calls - 1):
                await client.attempt(MESSAGES, **options)
            return await client.attempt(MESSAGES, **options)

    return asyncio.run(go())


def fails(nginx: Nginx, key: str | None, base_url: str | None = None, *, secrets: Iterable[str] = (KEY,), **options: Any) -> EndpointError:
    """The error that the last of some requests ends with; nothing that hangs on it knows the secrets or shows a page's tags."""
    with pytest.raises(EndpointError) as caught:
        ask(nginx, key, base_url, **options)
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    assert not hits("".join(traceback.format_exception(error)) + repr((error.fields, error.hint)), secrets)
    assert "<" not in error.message
    return error
