"""Installations on both kinds of control plane, and processes that write into their ledgers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from byok.app import Services, open_services
from byok.cli.init import initialise
from byok.home import Home
from byok_testing.postgresql import new_database, serving_postgresql


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The SQLAlchemy URL of an empty server on loopback; each test makes a database of its own."""
    with serving_postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """An installation that processes share, once on each kind of control plane; they find it by the environment."""
    if request.param == "postgresql":
        monkeypatch.setenv("BYOK_DATABASE_URL", new_database(request.getfixturevalue("postgresql")))
    initialise(home, "acme", "owner@acme.example")
    services = open_services()
    assert services.control.engine.dialect.name == request.param
    yield services
    services.control.close()
