"""Real MLflow gateways before a simulated provider: the tracking server's, the same with logins, a closed one, and the old one.

They run from a virtual environment of their own, which `BYOK_MLFLOW_VENV` names; it holds what requirements-mlflow.lock says.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from byok.endpoint import EgressPolicy, EndpointClient, profile_for
from byok.sandbox import Sandbox
from byok_testing.raw_server import RawServer, http

UPSTREAM_KEY = "sk-upstream-Wq7nX2bV9cL4kJ6hG1fD"
LOGIN = ("admin", "Fj4-mlflow-Lk9-pass")
ANSWERS = [(f"How much is {number} plus {number}? Answer with a number.", str(2 * number)) for number in range(1, 41)]
DATABASE = "mlflow.db"
SERVER = ("server", "--backend-store-uri", f"sqlite:///{DATABASE}")
ALWAYS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # No job runners: nothing here uses them, and each is a process of 200 MB.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "for these tests only",
    "MLFLOW_AUTH_ADMIN_USERNAME": LOGIN[0],
    "MLFLOW_AUTH_ADMIN_PASSWORD": LOGIN[1],
}
OPEN = {
    # The upstreams are on loopback and speak http; by default both are refused.
    "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http,https",
}
BASES = {"unified": ("tracking", "/gateway/mlflow/v1"), "passthrough": ("tracking", "/gateway/openai/v1"), "legacy": ("legacy", "/v1")}


@dataclass(frozen=True)
class Gateway:
    """A running gateway.

    Attributes:
        host_port: Where it listens.
        folder: Its files.
        login: Name and password that requests carry, unless they say otherwise.
    """

    host_port: str
    folder: Path
    login: tuple[str, str] | None = None

    @property
    def origin(self) -> str:
        return f"http://{self.host_port}"

    @property
    def policy(self) -> EgressPolicy:
        """Lets our client call it."""
        return EgressPolicy.parse(self.host_port)

    def client(self, path: str, model: str, credentials: str | None = None, **options: Any) -> EndpointClient:
        """Our client for a base URL below it, with the profile that the URL tells."""
        url = self.origin + path
        return EndpointClient(url, model, credentials, policy=self.policy, profile=profile_for(url), **options)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """One request, without our client; names of headers are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        login = None if named.keys() & {"authorization", "x-mlflow-authorization"} else self.login
        with httpx.Client(trust_env=False, timeout=60, auth=login) as client:
            return client.request(method, self.origin + path, json=body, headers=named)

    def add(self, name: str, upstream: str, model: str) -> None:
        """Make an endpoint of a tracking server."""
        key = {"api_key": UPSTREAM_KEY}
        made = self._create("secrets", secret_name=name, provider="openai", secret_value=key, auth_config={"api_base": upstream})
        secret = made["secret"]["secret_id"]
        made = self._create("model-definitions", name=name, provider="openai", model_name=model, secret_id=secret)
        used = {"model_definition_id": made["model_definition"]["model_definition_id"], "linkage_type": "PRIMARY", "weight": 1}
        self._create("endpoints", name=name, model_configs=[used], usage_tracking=False)

    def _create(self, kind: str, **body: Any) -> Any:
        done = self.ask("POST", f"/api/3.0/mlflow/gateway/{kind}/create", body)
        assert done.status_code == 200, done.text
        return done.json()


class Upstream(RawServer):
    """A provider whose replies a test writes byte by byte; a gateway opens a connection for each request."""

    def __init__(self) -> None:
        super().__init__([], after="close")

    def says(self, *replies: bytes) -> None:
        """Answer the next requests with these, the last one for ever."""
        self.requests.clear()
        self.script[:] = replies

    def streams(self, *frames: dict[str, Any], done: bool = True, cut: bool = False) -> None:
        """Answer with a stream of server-sent events; with `cut`, the connection breaks after them."""
        text = "".join(f"data: {json.dumps(frame)}\n\n" for frame in frames) + ("data: [DONE]\n\n" if done else "")
        self.says(http(200, text, kind="text/event-stream", **({"content_length": "99999"} if cut else {})))

    @property
    def asked(self) -> dict[str, Any]:
        """The body of the last request."""
        return json.loads(self.requests[-1][2])


@contextlib.contextmanager
def running(folder: Path, *arguments: str, login: tuple[str, str] | None = None, settings: dict[str, str] = OPEN) -> Iterator[Gateway]:
    """An MLflow server in a process group of its own, which is ended as a whole: workers would outlive the one that started them."""
    given = os.environ.get("BYOK_MLFLOW_VENV", "")
    program = Path(given).absolute() / "bin" / "mlflow"
    assert given and program.exists(), "BYOK_MLFLOW_VENV must name a virtual environment with requirements-mlflow.lock installed"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    gateway, log = Gateway(f"127.0.0.1:{port}", folder, login), folder / "log.txt"
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(folder), **ALWAYS, **settings}
    command = [str(program), *arguments, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with log.open("wb") as output:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while not _healthy(gateway):
            assert child.poll() is None and time.monotonic() < until, log.read_text(errors="replace")[-4000:]
            time.sleep(0.2)
        yield gateway
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(10)


def _healthy(gateway: Gateway) -> bool:
    try:
        return gateway.ask("GET", "/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="session")
def questions() -> dict[str, str]:
    """The questions that the provider knows, with the expected answers."""
    return dict(ANSWERS)


@pytest.fixture(scope="session")
def upstream_key() -> str:
    """The provider's key, which the gateways hold."""
    return UPSTREAM_KEY


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """A provider that knows 40 questions and answers 30 of them rightly."""
    with Sandbox(ANSWERS, accuracy=0.75, api_key=UPSTREAM_KEY, model_id="sandbox/candidate#1") as served:
        yield served


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, sandbox: Sandbox) -> Iterator[Gateway]:
    """The tracking server's gateway, without logins."""
    with running(tmp_path_factory.mktemp("tracking"), *SERVER) as gateway:
        gateway.add("raw", f"http://{upstream.host_port}/v1", "upstream-model")
        gateway.add("candidate", sandbox.base_url, sandbox.model_id)
        gateway.add("embedder", sandbox.base_url, sandbox.embedding_model_id)
        yield gateway


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Iterator[Gateway]:
    """The tracking server's gateway with MLflow's own logins."""
    with running(tmp_path_factory.mktemp("guarded"), *SERVER, "--app-name", "basic-auth", login=LOGIN) as gateway:
        gateway.add("candidate", sandbox.base_url, sandbox.model_id)
        yield gateway


@pytest.fixture(scope="session")
def closed(tmp_path_factory: pytest.TempPathFactory, tracking: Gateway) -> Iterator[Gateway]:
    """A tracking server with the same endpoints, and the settings that MLflow has by itself but for one more host name."""
    folder = tmp_path_factory.mktemp("closed")
    with (
        contextlib.closing(sqlite3.connect(tracking.folder / DATABASE)) as source,
        contextlib.closing(sqlite3.connect(folder / DATABASE)) as copy,
    ):
        source.backup(copy)
    with running(folder, *SERVER, "--allowed-hosts", "gateway.example,127.0.0.1:*", settings={}) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def legacy(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, sandbox: Sandbox) -> Iterator[Gateway]:
    """The old gateway, which reads its endpoints from a file."""
    raw = f"http://{upstream.host_port}/v1"
    endpoints = [
        _entry("raw", "chat", raw, "upstream-model"),
        _entry("limited", "chat", raw, "upstream-model") | {"limit": {"calls": 2, "renewal_period": "hour"}},
        _entry("raw-embeddings", "embeddings", raw, "upstream-model"),
        _entry("candidate", "chat", sandbox.base_url, sandbox.model_id),
        _entry("embedder", "embeddings", sandbox.base_url, sandbox.embedding_model_id),
    ]
    folder = tmp_path_factory.mktemp("legacy")
    # JSON is YAML.
    (folder / "gateway.yaml").write_text(json.dumps({"endpoints": endpoints}))
    with running(folder, "gateway", "start", "--config-path", "gateway.yaml") as gateway:
        yield gateway


def _entry(name: str, kind: str, base: str, model: str) -> dict[str, Any]:
    config = {"openai_api_base": base, "openai_api_key": UPSTREAM_KEY}
    return {"name": name, "endpoint_type": f"llm/v1/{kind}", "model": {"provider": "openai", "name": model, "config": config}}


@pytest.fixture(params=BASES)
def base(request: pytest.FixtureRequest) -> tuple[str, Callable[..., EndpointClient]]:
    """A base URL that people register: its name, and a maker of clients for it (model, credentials, options)."""
    gateway, path = BASES[request.param]
    return request.param, partial(request.getfixturevalue(gateway).client, path)
