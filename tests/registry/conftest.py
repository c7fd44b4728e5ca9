"""Sandboxes to register models at, and what goes wrong with them."""

import pytest

from byok.sandbox import Sandbox
from byok_testing.registered import KEY


@pytest.fixture
def wrong():
    """What goes wrong with a sandbox's chat requests from now on: `wrong[0]` is a fault or None."""
    return [None]


@pytest.fixture
def serve(monkeypatch, wrong):
    """Start sandboxes that may be called."""
    started = []

    def start(**options):
        server = Sandbox([("Hi", "kiwi")], **({"api_key": KEY, "faults": lambda number, question: wrong[0]} | options))
        started.append(server.__enter__())
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", ",".join(one.host_port for one in started))
        return server

    yield start
    for server in started:
        server.close()
