"""Fixtures for tests that need an installation but no Prefect."""

import os
import shutil

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


@pytest.fixture(scope="session")
def acme_home(tmp_path_factory):
    """The folder of an installation of the organisation acme, as `byok init` leaves it; never to be opened itself."""
    from byok.cli.init import initialise
    from byok.home import Home

    root = tmp_path_factory.mktemp("acme") / "home"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("BYOK_")]:
            patch.delenv(name)
        initialise(Home(root), "acme", "owner@acme.example")
    return root


@pytest.fixture
def services(home, acme_home):
    """An installation of the organisation acme, opened as its owner: a copy, since making one takes half a second."""
    from byok.app import open_services

    shutil.copytree(acme_home, home.root)
    opened = open_services()
    yield opened
    opened.control.close()
