"""Fixtures for tests that need an installation but no Prefect."""

import os

import pytest


def pytest_collection_modifyitems(items):
    """What waits for a server or for other processes comes first: at the end, the other workers would have nothing left to do."""
    items.sort(key=lambda item: item.get_closest_marker("prefect") is None)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder for an installation that is not there yet; the environment names it."""
    from byok.home import Home

    for name in [name for name in os.environ if name.startswith("BYOK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BYOK_HOME", str(tmp_path / "home"))
    return Home.from_environment()


@pytest.fixture
def services(home):
    """An installation of the organisation acme, opened as its owner."""
    from byok.app import open_services
    from byok.cli.init import initialise

    initialise(home, "acme", "owner@acme.example")
    opened = open_services()
    yield opened
    opened.control.close()
