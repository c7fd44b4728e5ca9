"""A real OpenBao for all tests of the session, and installations of both key stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from byok.app import Services, open_services
from byok.cli.init import initialise
from byok.home import Home
from byok.keystore import VaultSettings
from byok.keystore.openbao import LocalOpenBao
from byok.keystore.setup import VaultSetup
from byok_testing.raw_server import RawServer, http, starting

STORES = ("local", "transit")


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalOpenBao]:
    """A real server; a test that seals it, or changes what others need, starts one of its own (`new_openbao`)."""
    folder = tmp_path_factory.mktemp("openbao")
    server = LocalOpenBao(folder / "data", folder / "keys.json")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def new_openbao(tmp_path: Path) -> Iterator[Callable[..., LocalOpenBao]]:
    """Start a server of one's own."""
    servers: list[LocalOpenBao] = []

    def start(**options: Any) -> LocalOpenBao:
        number = len(servers)
        servers.append(LocalOpenBao(tmp_path / f"bao-{number}", tmp_path / f"bao-{number}.json", **options))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def set_up() -> Callable[..., VaultSettings]:
    """Prepare a server for an organisation; gives the settings of a process that has the credentials of all issued roles."""

    def prepare(server: LocalOpenBao, credentials: Path, org_id: str, org_slug: str = "acme", **options: Any) -> VaultSettings:
        operator = VaultSettings(address=server.address, credentials=credentials, token=server.root_token, **options)
        list(VaultSetup(operator).run(org_id, org_slug, also=("key-admin",)))
        return VaultSettings(address=server.address, credentials=credentials, **options)

    return prepare


@pytest.fixture
def installation(
    home: Home, openbao: LocalOpenBao, set_up: Callable[..., VaultSettings], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Services]]:
    """Make an installation with a key store; `installation("transit")` is the organisation acme on Vault.

    A second one with another organisation shares the control plane of the first: `installation("local", "rival")`.
    """
    opened: list[Services] = []

    def make(store: str, org: str = "acme") -> Services:
        place = home if not opened else Home(home.root.parent / org)
        if opened:
            monkeypatch.setenv("BYOK_DATABASE_URL", opened[0].home.database_url)
        initialise(place, org, f"owner@{org}.example")
        services = open_services(place)
        if store == "transit":
            # One server serves all tests of the session: each organisation has a name of its own there.
            settings = set_up(openbao, place.vault_credentials, services.actor.org_id, f"{org}-{services.actor.org_id[-12:]}")
            services.control.close()
            services = open_services(place, settings)
            monkeypatch.setenv("BYOK_VAULT_ADDR", openbao.address)
        assert services.keystore.name == store
        opened.append(services)
        return services

    yield make
    for services in opened:
        services.control.close()


@pytest.fixture(params=STORES)
def vaulted(request: pytest.FixtureRequest, installation: Callable[..., Services]) -> Services:
    """An installation of the organisation acme, once with each key store."""
    return installation(request.param)


@pytest.fixture
def raw() -> Iterator[Callable[..., RawServer]]:
    """Start servers that answer with scripted bytes."""
    yield from starting()


@pytest.fixture
def reply() -> Callable[..., bytes]:
    """Make a raw HTTP answer."""
    return http
