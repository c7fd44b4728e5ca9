"""A real OpenBao for all tests of the session, installations of both key stores, and servers that end with their test."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from byok.app import Services, open_services
from byok.cli.init import initialise
from byok.home import Home
from byok.keystore import KeyStore, VaultSettings
from byok.keystore.openbao import LocalOpenBao
from byok.keystore.setup import VaultSetup
from byok.keystore.transit import TransitKeyStore
from byok.sandbox import Sandbox
from byok_testing.hostile import Feeder, certificate, feeding, watch
from byok_testing.keys import serving, store_not_used
from byok_testing.raw_server import RawServer, http, starting
from byok_testing.relay import Relay
from byok_testing.vault_cases import key_stores_at, relays, tenants
from byok_testing.vault_tenant import Tenant

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
def other_store(vaulted: Services, openbao: LocalOpenBao, set_up: Callable[..., VaultSettings]) -> KeyStore:
    """The key store that the installation does not use, ready to be used."""
    return store_not_used(vaulted, openbao, set_up)


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """What is closed with the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def tenant(openbao: LocalOpenBao, set_up: Callable[..., VaultSettings], tmp_path: Path, closing: ExitStack) -> Callable[..., Tenant]:
    """Make an organisation, on the shared server unless told otherwise."""
    return tenants(openbao, set_up, tmp_path, closing)


@pytest.fixture
def relay(closing: ExitStack) -> Callable[..., Relay]:
    """Put a relay before a server."""
    return relays(closing)


@pytest.fixture
def at(closing: ExitStack) -> Callable[..., TransitKeyStore]:
    """A key store at an address that needs no setup."""
    return key_stores_at(closing)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Sandbox]]:
    """Start sandboxes that may be called, and take the keys of `byok_testing.keys`."""
    with serving(monkeypatch) as start:
        yield start


@pytest.fixture
def server(serve: Callable[..., Sandbox]) -> Sandbox:
    """One such sandbox; modules whose server takes any key have a `server` of their own."""
    return serve()


@pytest.fixture
def raw() -> Iterator[Callable[..., RawServer]]:
    """Start servers that answer with scripted bytes."""
    yield from starting()


@pytest.fixture
def reply() -> Callable[..., bytes]:
    """Make a raw HTTP answer."""
    return http


@pytest.fixture
def feed() -> Iterator[Callable[..., Feeder]]:
    """Start feeders that are stopped after the test."""
    yield from feeding()


@pytest.fixture
def outgoing() -> Iterator[list[tuple[str, Any]]]:
    """What this process dials and looks up during the test."""
    with watch() as seen:
        yield seen


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS settings of a server for llm.example and 127.0.0.1, and of a client that trusts it."""
    return certificate(tmp_path, "llm.example", "127.0.0.1")
