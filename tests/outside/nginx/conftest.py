"""Debian's nginx before a sandbox, or before a server that sends raw bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from byok.endpoint import Credentials
from byok.sandbox import Sandbox
from byok_testing.egress import KEY, PROMPT
from byok_testing.nginx import Certificates, Nginx, make_certificates
from byok_testing.raw_server import RawServer, starting

MODEL = "org/remote#1"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A private authority, with a server and a client that it signed."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def proxied(tmp_path: Path, certificates: Certificates) -> Iterator[Callable[..., Nginx]]:
    """Starts nginx with directives for its TLS server, and more for its `http` block; stopped after the test."""
    with ExitStack() as running:
        started: list[Nginx] = []

        def start(inside: str, outside: str = "") -> Nginx:
            nginx = Nginx(tmp_path / f"nginx-{len(started)}", certificates, inside, outside)
            started.append(running.enter_context(nginx))
            return nginx

        yield start


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """An endpoint that knows the question of `byok_testing.egress`, and wants its key."""
    with Sandbox([(PROMPT, "OK")], api_key=KEY, model_id=MODEL) as running:
        yield running


@pytest.fixture
def open_sandbox() -> Iterator[Sandbox]:
    """The same, for who needs no key: whoever stands before it must ask for one."""
    with Sandbox([(PROMPT, "OK")], model_id=MODEL) as running:
        yield running


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    """Starts raw servers that are stopped after the test."""
    yield from starting()


@pytest.fixture
def shown(certificates: Certificates) -> Callable[..., str]:
    """Makes the text of credentials that trust the private authority; a bearer key unless told otherwise."""

    def make(**options: Any) -> str:
        if options.get("scheme") != "none":
            options.setdefault("key", KEY)
        text = Credentials(**({"ca": certificates.ca.read_text()} | options)).text()
        assert text is not None
        return text

    return make
