"""A server that somebody runs, named by the environment, and an installation that may call it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from byok_testing.installation import Byok, clean_environment
from byok_testing.stack import started, wait_up

VARIABLES = {
    "BYOK_LIVE_BASE_URL": "the base URL, such as http://127.0.0.1:8000/v1",
    "BYOK_LIVE_MODEL": "what the server calls the model",
    "BYOK_LIVE_KEY": "its key; set it to nothing for a server that wants none",
}


@dataclass(frozen=True)
class Live:
    """The server under test."""

    base_url: str
    model: str
    key: str = field(repr=False)

    @property
    def host_port(self) -> str:
        """As `BYOK_ENDPOINT_ALLOW` wants it: it may lie on this machine or in a private network."""
        parts = urlsplit(self.base_url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"

    @property
    def key_options(self) -> tuple[str, ...]:
        """Options of a command that needs the key."""
        return ("--api-key-env", "LIVE_KEY") if self.key else ()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that go with them."""
        return {"LIVE_KEY": self.key} if self.key else {}


@pytest.fixture(scope="session")
def live() -> Live:
    """The server that the environment names; without it these tests fail: whoever runs them wants to know."""
    missing = [f"{name} ({meaning})" for name, meaning in VARIABLES.items() if name not in os.environ]
    missing += [f"{name} (it is empty)" for name in ("BYOK_LIVE_BASE_URL", "BYOK_LIVE_MODEL") if os.environ.get(name) == ""]
    if missing:
        pytest.fail("these tests need a live server; set " + ", ".join(missing), pytrace=False)
    return Live(*(os.environ[name] for name in VARIABLES))


@pytest.fixture(scope="session")
def byok(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Byok]:
    """An installation of the organisation acme that is up, and may call the server."""
    home = tmp_path_factory.mktemp("installation") / "home"
    command = Byok(home, clean_environment(home))
    command.run("init", "--org", "acme", "--owner", "owner@acme.example")
    command.allow(live.host_port)
    with started([sys.executable, "-m", "byok.cli.main"], command.environment) as child:
        wait_up(child, home / "logs")
        yield command
