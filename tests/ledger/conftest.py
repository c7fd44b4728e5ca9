"""Installations on both kinds of control plane, and processes that write into their ledgers."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from byok.app import Services, open_services
from byok.cli.init import initialise
from byok.home import Home
from byok_testing.ledgers import unsynced
from byok_testing.postgresql import new_database, serving_postgresql


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The SQLAlchemy URL of an empty server on loopback; each test makes a database of its own."""
    with serving_postgresql() as url:
        yield url


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """One installation for all tests of a module, which each take an organisation of their own or put back what they changed.

    Its owner's organisation has no credit; nothing waits for the disk.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("BYOK_")]:
            patch.delenv(name)
        home = Home(tmp_path_factory.mktemp("installed") / "home")
        initialise(home, "acme", "owner@acme.example", credit="0")
        services = open_services(home)
        unsynced(services, patch)
        yield services
        services.control.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """An installation that processes share, once on each kind of control plane; they find it by the environment."""
    if request.param == "postgresql":
        monkeypatch.setenv("BYOK_DATABASE_URL", new_database(request.getfixturevalue("postgresql")))
    initialise(home, "acme", "owner@acme.example", credit="0")
    services = open_services()
    assert services.control.engine.dialect.name == request.param
    yield services
    services.control.close()
