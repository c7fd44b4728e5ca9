"""One installation with a real server, a real worker and a real Dask cluster, for all tests of scaled runs."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from byok.app import Services, open_services
from byok.cli.init import initialise
from byok.home import Home, write_private
from byok.registry import RegisterRequest
from byok.runs import ask_run, run_id_for
from byok.sandbox import Sandbox
from byok_testing.bench import KEY, Bench
from byok_testing.dask_cluster import DaskCluster
from byok_testing.installation import clean_environment
from byok_testing.stack import Stack, started, wait_up

QUESTIONS = [(f"What is {number} plus {number + 1}?", str(2 * number + 1)) for number in range(300)]

LIMITED = 600
"""Requests per minute that are declared for the model `limited`."""


class World:
    """What the tests work with.

    Attributes:
        services: The installation, opened as its owner.
        bench: Its sandboxes: `model`, `slow` (300 ms for an answer) and `unlimited`, which is also the model `limited`.
        stack: The server and its worker.
        cluster: The Dask cluster.
    """

    def __init__(self, services: Services, bench: Bench, stack: Stack, cluster: DaskCluster) -> None:
        self.services, self.bench, self.stack, self.cluster = services, bench, stack, cluster

    def start(self, deployment: str, **parameters: Any) -> tuple[str, str]:
        """Start a flow; return its flow run's id and its run's."""
        if "scaled" in deployment:
            parameters.setdefault("scheduler", self.cluster.address)
        flow_run = self.stack.start(deployment, parameters)
        return flow_run, parameters.get("run_id") or run_id_for(flow_run)

    def run(self, deployment: str, **parameters: Any) -> tuple[str, dict[str, Any]]:
        """Start a flow and wait for its end; return its run's id and the flow's state."""
        flow_run, run_id = self.start(deployment, **parameters)
        return run_id, self.stack.end(flow_run)

    def evaluate(self, model: str = "model", *, scaled: bool = True, **options: Any) -> tuple[str, dict[str, Any]]:
        """A run over all questions; see `run`."""
        return self.run("evaluate-scaled/scaled" if scaled else "evaluate/ad-hoc", request=self.request(model, **options))

    def request(self, model: str, **options: Any) -> dict[str, Any]:
        """What a flow takes to evaluate a model."""
        return {"model": model, "dataset": "questions", "graders": ["numeric"], "shard_size": 30, **options}

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query on the snapshot."""
        return self.bench.query(sql, *parameters)

    def ask(self, run_id: str, wish: Any) -> None:
        """Tell a run that is under way what is wanted of it."""
        ask_run(self.services, run_id, wish)

    def wait(self, true: Callable[[], Any], patience_s: float = 90) -> Any:
        """Wait until something is true; return what it is."""
        end = time.monotonic() + patience_s
        while not (found := true()):
            assert time.monotonic() < end
            time.sleep(0.02)
        return found

    def count(self, key: str) -> int:
        """Chat requests that a sandbox has had."""
        return self.bench.sandboxes[key].stats()["chat_requests"]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Services, Bench]]:
    """The installation, its sandboxes and its data set."""
    folder = tmp_path_factory.mktemp("scaled")
    # Other tests of the session are to find the environment as it was.
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("BYOK_", "PREFECT_"))]:
            patch.delenv(name)
        patch.setenv("BYOK_HOME", str(folder / "home"))
        home = Home.from_environment()
        initialise(home, "acme", "owner@acme.example")
        services = open_services()
        bench = Bench(services, patch, folder, QUESTIONS)
        bench.serve("model", accuracy=0.7, latency_ms=20)
        bench.serve("slow", latency_ms=300)
        _register(services, bench.serve("unlimited", latency_ms=5), "limited", requests_per_minute=LIMITED)
        _register(services, bench.sandboxes["model"], "emb", tags=["embeddings"], remote_id="sandbox-embedding")
        services.judges.create(services.actor, "fair", "slow", "binary", "Is {{output}} right?")
    with bench:
        yield services, bench
    services.control.close()


def _register(services: Services, server: Sandbox, key: str, **options: Any) -> None:
    told = {"remote_id": server.model_id, "price_input": 1, "price_output": 1} | options
    request = RegisterRequest(key=key, name=key, base_url=server.base_url, **told)
    asyncio.run(services.registry.register(services.actor, request, SecretStr(KEY)))


@pytest.fixture(scope="session")
def environment(installed: tuple[Services, Bench]) -> dict[str, str]:
    """That of every process: where the installation is, and which endpoints on loopback may be asked."""
    services, bench = installed
    allowed = ",".join(server.host_port for server in bench.sandboxes.values())
    return clean_environment(services.home.root) | {"BYOK_ENDPOINT_ALLOW": allowed}


@pytest.fixture(scope="session")
def stack(installed: tuple[Services, Bench], environment: dict[str, str]) -> Iterator[Stack]:
    """What `byok up` starts."""
    with started([sys.executable, "-m", "byok.cli.main"], environment) as child:
        yield wait_up(child, installed[0].home.root / "logs")
    assert child.returncode == 0


@pytest.fixture(scope="session")
def dask_environment(installed: tuple[Services, Bench], environment: dict[str, str], stack: Stack) -> dict[str, str]:
    """What Dask workers need to know, as docs/scaling.md says."""
    home = installed[0].home
    # A file of their own, as on a machine of their own.
    token = home.root.parent / "dask.token"
    write_private(token, home.worker_token_file.read_text())
    return environment | {
        "BYOK_TOKEN_FILE": str(token),
        "PREFECT_API_URL": stack.api_url,
        "PREFECT_API_AUTH_STRING": stack.login,
        "PREFECT_HOME": str(home.prefect),
    }


@pytest.fixture(scope="session")
def cluster(dask_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A scheduler and two workers of one thread each."""
    with DaskCluster(tmp_path_factory.mktemp("dask"), dask_environment) as made:
        yield made


@pytest.fixture
def world(installed: tuple[Services, Bench], stack: Stack, cluster: DaskCluster) -> World:
    """All of it, with both workers there and no faults."""
    services, bench = installed
    cluster.fill()
    for key in bench.faults:
        bench.faults[key] = lambda number, question: None
    return World(services, bench, stack, cluster)
