"""One real installation with a real server and worker for all end-to-end tests, driven through the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from byok_testing.installation import Byok, clean_environment, served
from byok_testing.stack import Stack, started, wait_up

ROOT = Path(__file__).resolve().parents[2]
GSM8K = ROOT.parent / "shared" / "data" / "gsm8k" / "test.jsonl"


@pytest.fixture(scope="session")
def byok(tmp_path_factory: pytest.TempPathFactory) -> Byok:
    """An installation with the organisation acme."""
    home = tmp_path_factory.mktemp("installation") / "home"
    command = Byok(home, clean_environment(home))
    command.run("init", "--org", "acme", "--owner", "owner@acme.example")
    return command


@pytest.fixture(scope="session")
def gsm8k() -> Path:
    assert GSM8K.exists(), "the shared data folder must stand beside the checkout"
    return GSM8K


@pytest.fixture(scope="session")
def up(byok: Byok, sandboxes: dict[str, dict[str, Any]]) -> Iterator[Stack]:
    """Server, work pool, worker and deployments of `byok up`, for all tests of the session."""
    with started([sys.executable, "-m", "byok.cli.main"], byok.environment) as child:
        yield wait_up(child, byok.home / "logs")
    assert child.returncode == 0


ANSWER_KEY = "sk-sandbox-Zq3xV7mN2pL9wR4tY8uK1sD6fG5hJ0aB"
JUDGE_KEY = "sk-sandbox-Bq8nM2vC7xZ4lK9jH3gF6dS1aP5oI0uY"


@pytest.fixture(scope="session")
def sandboxes(byok: Byok, gsm8k: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """A candidate that is right on an exactly known 70 % of GSM8K, and a judge that is always right."""
    with (
        served(
            byok, gsm8k, ANSWER_KEY, "--accuracy", "0.7", "--seed", "1", "--latency-ms", "2", "--model-id", "sandbox/candidate#1"
        ) as candidate,
        served(byok, gsm8k, JUDGE_KEY, "--accuracy", "1.0", "--latency-ms", "2", "--model-id", "sandbox-judge") as judge,
    ):
        byok.allow(candidate["host_port"])
        byok.allow(judge["host_port"])
        yield {"candidate": candidate, "judge": judge}


@pytest.fixture(scope="session")
def keys() -> dict[str, str]:
    """The provider keys of the two sandboxes."""
    return {"candidate": ANSWER_KEY, "judge": JUDGE_KEY}


@pytest.fixture(scope="session")
def serve(byok: Byok) -> Callable[..., AbstractContextManager[dict[str, Any]]]:
    """Serve a further sandbox: `with serve(answers, key, *options) as told`."""
    return partial(served, byok)


@pytest.fixture(scope="session")
def new_installation(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Byok]:
    """Make an installation of one's own (not initialised)."""

    def make() -> Byok:
        home = tmp_path_factory.mktemp("another") / "home"
        return Byok(home, clean_environment(home))

    return make
