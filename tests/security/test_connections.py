"""What is dialled is the address that was checked, with no proxy and no credentials of the environment (promises 5, 6 and 9)."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from pydantic import SecretStr
from sqlalchemy import update

from byok.control.tables import model as model_table
from byok.endpoint import (
    ChatAnswer,
    EgressPolicy,
    EndpointClient,
    EndpointTimeout,
    EndpointTls,
    EndpointUnreachable,
    ForbiddenAddress,
    check_resolved,
)
from byok.endpoint.transport import default_tls
from byok.errors import ByokError
from byok.keystore import SecretIntegrity, VaultSettings
from byok.keystore.vault import Vault
from byok_testing.egress import CLOSED, GOOD, KEY, MESSAGES, ask, assert_nothing_stored, fails, refusal, register
from byok_testing.hostile import FakeDns, Feeder, dialled, system_dns
from byok_testing.raw_server import CLOSE

Serve = Callable[..., Any]


# 5 and 6: what a name resolves to

PRIVATE_LATER = ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "0.0.0.0", "fd00:ec2::254"]


@pytest.mark.parametrize("address", PRIVATE_LATER)
def test_05_a_name_that_turns_private_between_save_and_connect_is_refused(feed, outgoing, address):
    server = feed(None)
    url = f"https://llm.example:{server.port}/v1"
    dns = FakeDns(["8.8.8.8", "2606:4700::1111"], [address])
    asyncio.run(check_resolved(CLOSED.check_base_url(url), CLOSED, dns))
    assert isinstance(fails(url, CLOSED, resolver=dns), ForbiddenAddress)
    assert dns.asked == ["llm.example", "llm.example"]
    assert (server.connections, dialled(outgoing)) == (0, set())


def test_05_a_registration_whose_name_turns_private_stores_and_sends_nothing(services, feed, monkeypatch, outgoing):
    server = feed(None)
    monkeypatch.setattr(socket, "getaddrinfo", system_dns({"llm.example": [["8.8.8.8"], ["127.0.0.1"]]}))
    assert refusal(lambda: register(services, f"https://llm.example:{server.port}/v1")) is ForbiddenAddress
    # The first look-up passed: another one would have given the same error at once.
    assert [found[4][0] for found in socket.getaddrinfo("llm.example", 443)] == ["127.0.0.1"]
    assert (server.connections, dialled(outgoing)) == (0, set())
    assert_nothing_stored(services)


def test_05_a_registered_model_is_not_called_at_an_address_that_its_name_got_later(services, raw, reply, monkeypatch, outgoing):
    server = raw(reply(200, GOOD))
    names = {"llm.example": [["127.0.0.1"]]}
    monkeypatch.setattr(socket, "getaddrinfo", system_dns(names))
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", f"llm.example:{server.port}")
    register(services, f"http://llm.example:{server.port}/v1")
    asked, outgoing[:] = len(server.requests), []
    names["llm.example"] = [["169.254.169.254"]]
    assert refusal(lambda: asyncio.run(services.registry.probe(services.actor, "m"))) is ForbiddenAddress
    names["llm.example"] = [["127.0.0.1"]]
    monkeypatch.delenv("BYOK_ENDPOINT_ALLOW")
    assert refusal(lambda: asyncio.run(services.registry.probe(services.actor, "m"))) is ForbiddenAddress
    assert (len(server.requests), dialled(outgoing)) == (asked, set())


def test_05_a_base_url_that_was_edited_in_the_database_gets_neither_key_nor_prompt(services, raw, reply, monkeypatch):
    server, other = raw(reply(200, GOOD)), raw(reply(200, GOOD))
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", f"{server.host_port},{other.host_port}")
    register(services, f"http://{server.host_port}/v1")
    asked = len(server.requests)
    for url in (f"http://{other.host_port}/v1", f"http://{other.host_port}", f"http://{server.host_port}0/v1", "https://api.example/v1"):
        with services.control.write() as connection:
            connection.execute(update(model_table).values(base_url=url))
        ref = services.registry.get(services.actor, "m").ref()
        calls: list[Callable[[], Any]] = [
            lambda: asyncio.run(services.registry.probe(services.actor, "m")),
            lambda ref=ref: services.registry.open_key(ref, services.actor.org_id),
            # Nor does a new key go there.
            lambda: asyncio.run(services.registry.rotate(services.actor, "m", SecretStr(KEY.upper()))),
        ]
        assert [refusal(call) for call in calls] == [SecretIntegrity] * 3
    assert (len(server.requests), other.connections) == (asked, 0)
    events = [entry for entry in services.audit.entries(services.actor.org_id) if "secret_integrity" in entry.detail]
    assert {"key.open", "model.rotate"} <= {entry.action for entry in events}


def test_05_the_checked_address_is_dialled_with_the_name_in_tls_and_host(raw, reply, tls, outgoing):
    theirs, ours = tls
    told: list[str | None] = []
    theirs.sni_callback = lambda _socket, name, _context: told.append(name)
    server = raw(reply(200, GOOD), tls=theirs)
    dns = FakeDns(["127.0.0.1"])
    url = f"https://LLM.example:{server.port}/v1"
    assert ask(url, f"llm.example:{server.port}", tls=ours, resolver=dns).text == "OK"
    assert told == ["llm.example"]
    assert server.requests[0][1]["host"] == f"llm.example:{server.port}"
    assert dns.asked == ["llm.example"]
    assert outgoing == [("dial", ("127.0.0.1", server.port))]


def test_05_a_server_that_cannot_prove_the_name_gets_no_request(raw, reply, tls):
    theirs, ours = tls
    server = raw(reply(200, GOOD), tls=theirs)
    for tls_settings, name in ((ours, "other.example"), (None, "llm.example")):
        error = fails(f"https://{name}:{server.port}/v1", f"{name}:{server.port}", tls=tls_settings, resolver=FakeDns(["127.0.0.1"]))
        assert isinstance(error, EndpointTls)
    assert server.requests == []


@pytest.mark.parametrize("name", ["xn--bcher-kva.example", "a_b.example", "1.a", "a--b.example", "a.xn--a.b"])
def test_05_the_name_that_is_looked_up_is_the_one_that_was_checked(raw, reply, name):
    server = raw(reply(200, GOOD))
    dns = FakeDns(["127.0.0.1"])
    assert ask(f"http://{name}:{server.port}/v1", f"{name}:{server.port}", resolver=dns).text == "OK"
    assert dns.asked == [name]
    assert server.requests[0][1]["host"] == f"{name}:{server.port}"


def rebinding(raw: Serve, feed: Serve, tls: tuple[ssl.SSLContext, ssl.SSLContext], *script: bytes) -> tuple[Any, Feeder, dict[str, Any]]:
    """A server that is opened by its network, another one at the same port and outside of it, and how the first one is asked."""
    server = raw(*script, tls=tls[0])
    other = feed(None, host="127.0.0.2", port=server.port)
    return server, other, {"policy": f"127.0.0.1/32:{server.port}", "tls": tls[1], "base_url": f"https://llm.example:{server.port}/v1"}


def test_05_the_guard_holds_for_the_connection_that_replaces_a_stale_one(raw, reply, feed, tls, outgoing):
    server, other, how = rebinding(raw, feed, tls, reply(200, GOOD), CLOSE)
    dns = FakeDns(["127.0.0.1"], ["127.0.0.2"])
    assert isinstance(fails(**how, calls=2, resolver=dns), ForbiddenAddress)
    assert (len(server.requests), other.connections) == (2, 0)
    assert (len(dns.asked), outgoing) == (2, [("dial", ("127.0.0.1", server.port))])


def test_05_the_guard_holds_for_a_later_connection_of_the_pool(raw, reply, feed, tls, monkeypatch, outgoing):
    server, other, how = rebinding(raw, feed, tls, reply(200, GOOD))
    dns = FakeDns(["127.0.0.1"], ["127.0.0.2"])
    ahead = [0.0]
    # Minutes later the connection is too old to be used again, and so is what the name resolved to.
    monkeypatch.setattr("aiohttp.connector.monotonic", lambda: time.monotonic() + ahead[0])

    async def go() -> None:
        policy = EgressPolicy.parse(how["policy"])
        async with EndpointClient(how["base_url"], "m", KEY, policy=policy, tls=how["tls"], resolver=dns) as chat:
            assert (await chat.chat(MESSAGES)).text == "OK"
            ahead[0] = 600.0
            with pytest.raises(ForbiddenAddress):
                await chat.chat(MESSAGES)
        # The outdated TLS connection says goodbye to its server before the loop may end.
        await asyncio.sleep(0.3)

    asyncio.run(go())
    assert (len(server.requests), other.connections, len(dns.asked)) == (1, 0, 2)
    assert dialled(outgoing) == {("127.0.0.1", server.port)}


def test_05_many_connections_at_once_go_to_checked_addresses_alone(raw, reply, feed, tls, outgoing):
    server, other, how = rebinding(raw, feed, tls, reply(200, GOOD))
    dns = FakeDns(["127.0.0.1"], ["127.0.0.2"])

    async def go() -> list[Any]:
        policy = EgressPolicy.parse(how["policy"])
        async with EndpointClient(how["base_url"], "m", KEY, policy=policy, tls=how["tls"], resolver=dns, connections=8) as chat:
            return await asyncio.gather(*(chat.chat(MESSAGES) for _ in range(24)), return_exceptions=True)

    ends = asyncio.run(go())
    assert all(isinstance(end, ChatAnswer | ForbiddenAddress) for end in ends)
    assert any(isinstance(end, ChatAnswer) for end in ends)
    assert (other.connections, dialled(outgoing)) == (0, {("127.0.0.1", server.port)})


MIXED = [
    ["8.8.8.8", "127.0.0.1"],
    ["127.0.0.1", "8.8.8.8"],
    ["2606:4700::1111", "fd00::1"],
    ["8.8.8.8", "::1"],
    ["8.8.8.8", "1.1.1.1", "9.9.9.9", "169.254.169.254"],
    ["8.8.8.8", "::ffff:8.8.8.8"],
    ["64:ff9b::808:808", "8.8.8.8", "10.0.0.1"],
    ["64:ff9b::7f00:1", "127.0.0.1"],
]


def test_06_one_private_record_among_public_ones_refuses_them_all(services, feed, monkeypatch, outgoing):
    server = feed(None)
    url = f"https://llm.example:{server.port}/v1"
    base = CLOSED.check_base_url(url)
    for addresses in MIXED:
        monkeypatch.setattr(socket, "getaddrinfo", system_dns({"llm.example": [addresses]}))
        found = [
            refusal(lambda addresses=addresses: asyncio.run(check_resolved(base, CLOSED, FakeDns(addresses)))),
            type(fails(url, CLOSED, resolver=FakeDns(addresses))),
            refusal(lambda: register(services, url)),
        ]
        assert found == [ForbiddenAddress] * 3, addresses
    assert_nothing_stored(services)
    assert (server.connections, dialled(outgoing)) == (0, set())


def test_06_a_name_without_an_address_is_refused(services, monkeypatch, outgoing):
    url = "https://llm.example/v1"
    base = CLOSED.check_base_url(url)
    failures = [socket.gaierror(socket.EAI_NONAME, "none"), socket.gaierror(socket.EAI_AGAIN, "later"), OSError(), []]
    for failure in failures:
        monkeypatch.setattr(socket, "getaddrinfo", system_dns({} if failure else {"llm.example": [[]]}))
        found = [
            refusal(lambda failure=failure: asyncio.run(check_resolved(base, CLOSED, FakeDns(failure)))),
            type(fails(url, CLOSED, resolver=FakeDns(failure))),
            refusal(lambda: register(services, url)),
        ]
        assert found == [EndpointUnreachable] * 3, failure
    assert_nothing_stored(services)
    assert dialled(outgoing) == set()


def test_06_a_look_up_that_never_ends_meets_its_deadline(services, monkeypatch):
    class Stuck(FakeDns):
        async def resolve(self, *_arguments: Any, **_options: Any) -> Any:
            await asyncio.sleep(3600)

    monkeypatch.setattr("byok.endpoint.resolve.RESOLVE_TIMEOUT_S", 0.2)
    base = CLOSED.check_base_url("https://llm.example/v1")
    assert refusal(lambda: asyncio.run(check_resolved(base, CLOSED, Stuck([])))) is EndpointUnreachable
    assert isinstance(fails(base.url, CLOSED, resolver=Stuck([]), timeout_s=0.2), EndpointTimeout)


def test_06_what_dns64_adds_to_a_good_record_is_dropped_and_alone_it_is_refused(raw, reply, outgoing):
    server = raw(reply(200, GOOD))
    allowed = f"llm.example:{server.port}"
    url = f"http://{allowed}/v1"
    for addresses in (["64:ff9b::7f00:1", "127.0.0.1"], ["127.0.0.1", "64:ff9b::808:808"]):
        asyncio.run(check_resolved(EgressPolicy.parse(allowed).check_base_url(url), EgressPolicy.parse(allowed), FakeDns(addresses)))
        assert ask(url, allowed, resolver=FakeDns(addresses)).text == "OK"
    for addresses in (["64:ff9b::7f00:1"], ["64:ff9b::808:808", "64:ff9b::7f00:1"]):
        assert isinstance(fails(url, allowed, resolver=FakeDns(addresses)), ForbiddenAddress)
    asyncio.run(check_resolved(CLOSED.check_base_url("https://llm.example/v1"), CLOSED, FakeDns(["64:ff9b::808:808", "8.8.8.8"])))
    assert dialled(outgoing) == {("127.0.0.1", server.port)}


# 9: proxies and credentials of the environment


@pytest.fixture
def proxies(raw: Serve, reply: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A proxy that the environment names in all ways, and a .netrc with a password for 127.0.0.1."""
    proxy = raw(reply(200, GOOD))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY"):
        for spelling in (name, name.lower()):
            monkeypatch.setenv(spelling, f"http://{proxy.host_port}")
    for name in ("NO_PROXY", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login proxy-user password netrc-pa55word\ndefault login any password netrc-pa55word\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    # They would be used by who asks for them.
    assert set(urllib.request.getproxies().values()) == {f"http://{proxy.host_port}"}
    assert requests.utils.get_netrc_auth("http://127.0.0.1/") == ("proxy-user", "netrc-pa55word")
    return proxy


@pytest.mark.parametrize("key", [KEY, None])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_09_the_endpoint_client_uses_no_proxy_and_no_netrc(proxies, raw, reply, tls, outgoing, scheme, key):
    theirs, ours = tls
    server = raw(reply(200, GOOD), tls=theirs if scheme == "https" else None)
    assert ask(f"{scheme}://{server.host_port}/v1", server.host_port, key=key, tls=ours).text == "OK"
    assert (proxies.connections, dialled(outgoing)) == (0, {("127.0.0.1", server.port)})
    headers = server.requests[0][1]
    assert headers.get("authorization") == (f"Bearer {KEY}" if key else None)
    assert "proxy-authorization" not in headers
    # Nor for a host that nobody listens at.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert isinstance(fails(f"{scheme}://127.0.0.1:{port}/v1", f"127.0.0.1:{port}", key=key, tls=ours), EndpointUnreachable)
    assert proxies.connections == 0


def test_09_a_registration_uses_no_proxy(services, proxies, raw, reply, monkeypatch, outgoing):
    server = raw(reply(200, GOOD))
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
    register(services, f"http://{server.host_port}/v1")
    assert (proxies.connections, dialled(outgoing)) == (0, {("127.0.0.1", server.port)})


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_09_the_vault_client_uses_no_proxy_and_no_netrc(proxies, raw, reply, tls, tmp_path, outgoing, scheme):
    server = raw(reply(200, {"data": {"ttl": 0}}), tls=tls[0] if scheme == "https" else None)
    settings = VaultSettings(
        f"{scheme}://{server.host_port}", token="s.token", deadline_s=5, ca_file=tmp_path / "server.pem" if scheme == "https" else None
    )
    vault = Vault(settings)
    assert vault.health()["status"] == 200
    assert vault.ask("worker", "post", "transit/decrypt/acme", {"ciphertext": "x"}) == {"ttl": 0}
    vault.close()
    assert (proxies.connections, dialled(outgoing)) == (0, {("127.0.0.1", server.port)})
    assert len(server.requests) == 3
    for _, headers, _ in server.requests:
        assert "authorization" not in headers
        assert "proxy-authorization" not in headers


def test_09_no_certificate_authority_of_the_environment_is_trusted(raw, reply, tls, tmp_path, monkeypatch):
    server = raw(reply(200, GOOD), tls=tls[0])
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(tmp_path / "server.pem"))
    default_tls.cache_clear()
    try:
        assert isinstance(fails(f"https://{server.host_port}/v1", server.host_port), EndpointTls)
    finally:
        default_tls.cache_clear()
    vault = Vault(VaultSettings(f"https://{server.host_port}", token="s.token", deadline_s=0.5))
    with pytest.raises(ByokError) as caught:
        vault.health()
    vault.close()
    assert caught.value.code == "key_store_unreachable"
    assert server.requests == []
