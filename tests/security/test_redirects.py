"""No redirect is followed, and the operator's list opens what it names alone (promises 7 and 8)."""

from __future__ import annotations

import json

import pytest

from byok.endpoint import EgressPolicy, EndpointRedirect, ForbiddenAddress
from byok_testing.egress import CLOSED, GOOD, KEY, METADATA_IN_DISGUISE, ask, assert_nothing_stored, fails, refusal, refusals, register
from byok_testing.hostile import FakeDns, Feeder, dialled
from byok_testing.raw_server import CLOSE

# 7: redirects


def places(port: int, other: Feeder) -> list[str]:
    """Where a redirect may want to lead: another port, host, scheme, path; each with the key, as some providers echo it."""
    return [
        f"http://127.0.0.1:{other.port}/v1/chat/completions?key={KEY}",
        f"http://127.0.0.2:{port}/v1",
        f"https://127.0.0.1:{other.port}/{KEY}",
        f"https://127.0.0.1:{port}/v1",
        f"//127.0.0.1:{other.port}/v1",
        f"http://user:{KEY}@127.0.0.1:{other.port}/",
        f"http://localhost:{other.port}/",
        f"http://127.0.0.1:{port}/v2",
        "/v2/chat/completions",
        "file:///etc/passwd",
        "http://[",
        "\u00e9",
        "",
    ]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308, 399])
def test_07_no_redirect_is_followed(raw, reply, feed, outgoing, status):
    other = feed(None)
    first = raw(CLOSE)
    away = feed(None, host="127.0.0.2", port=first.port)
    targets = places(first.port, other)
    first.script = [reply(status, b"", location=target) for target in targets]
    # All of them are listed: that they are not called is no work of the address guard.
    allowed = f"127.0.0.0/8:{first.port},127.0.0.0/8:{other.port},localhost:{other.port}"
    for _ in targets:
        error = fails(f"http://{first.host_port}/v1", allowed)
        assert (type(error), error.status) == (EndpointRedirect, status)
    assert len(first.requests) == len(targets)
    assert (other.connections, away.connections, dialled(outgoing)) == (0, 0, {("127.0.0.1", first.port)})


def test_07_https_is_not_redirected_to_http(raw, reply, tls):
    theirs, ours = tls
    plain = raw(reply(200, GOOD))
    server = raw(reply(307, b"", location=f"http://{plain.host_port}/v1"), tls=theirs)
    assert isinstance(fails(f"https://{server.host_port}/v1", f"{server.host_port},{plain.host_port}", tls=ours), EndpointRedirect)
    assert (len(server.requests), plain.connections) == (1, 0)


def test_07_a_redirecting_endpoint_is_not_registered(services, raw, reply, monkeypatch, outgoing):
    other = raw(reply(200, GOOD))
    for status in (301, 302, 303, 307, 308):
        # First the list of models alone redirects, then chat alone.
        there = reply(status, b"", location=f"http://{other.host_port}/v1")
        for script in ((there, reply(200, GOOD)), (reply(404, {}), there)):
            server = raw(*script)
            monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", f"{server.host_port},{other.host_port}")
            found = refusal(lambda server=server: register(services, f"http://{server.host_port}/v1"))
            assert (found, other.connections) == (EndpointRedirect, 0)
    assert ("127.0.0.1", other.port) not in dialled(outgoing)
    assert_nothing_stored(services)


# 8: what the operator opens


@pytest.mark.parametrize(
    ("host", "entry"),
    [
        ("127.0.0.1", "127.0.0.1:{port}"),
        ("127.0.0.1", "127.0.0.1/32:{port}"),
        ("127.0.0.1", "127.0.0.0/31:{port}"),
        ("::1", "[::1]:{port}"),
        ("::1", "[0:0:0:0:0:0:0:1]:{port}"),
        ("::1", "[::1/128]:{port}"),
        ("llm.lan", "LLM.lan:{port}"),
    ],
)
def test_08_a_listed_host_works_and_only_that_host_and_port(feed, monkeypatch, outgoing, host, entry):
    address = "127.0.0.1" if host == "llm.lan" else host
    shown = f"[{host}]" if ":" in host else host
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    body = json.dumps(GOOD).encode()
    server = feed(lambda: [head % len(body) + body], host=address)
    beside = feed(None, host=address)
    away = feed(None, host="127.0.0.2", port=server.port)
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", entry.format(port=server.port))
    policy = EgressPolicy.from_environment()
    assert ask(f"http://{shown}:{server.port}/v1", policy, resolver=FakeDns([address])).text == "OK"
    assert dialled(outgoing) == {(address, server.port)}
    others = [f"{shown}:{beside.port}", f"127.0.0.2:{server.port}", f"127.0.0.2:{beside.port}", f"localhost:{server.port}", shown]
    for other in others:
        for scheme in ("http", "https"):
            assert isinstance(fails(f"{scheme}://{other}/v1", policy, resolver=FakeDns(["127.0.0.2"])), ForbiddenAddress)
    # What one host may, another one at the same address may not.
    assert isinstance(fails(f"http://other.lan:{server.port}/v1", policy, resolver=FakeDns([address])), ForbiddenAddress)
    if "/" not in entry:
        assert isinstance(fails(f"https://other.lan:{server.port}/v1", policy, resolver=FakeDns([address])), ForbiddenAddress)
    assert (beside.connections, away.connections) == (0, 0)
    assert dialled(outgoing) == {(address, server.port)}


def test_08_a_network_opens_names_by_https_alone(raw, reply, tls, outgoing):
    theirs, ours = tls
    server, plain = raw(reply(200, GOOD), tls=theirs), raw(reply(200, GOOD))
    how = {"policy": f"127.0.0.0/8:{server.port},127.0.0.0/8:{plain.port}", "resolver": FakeDns(["127.0.0.1"])}
    assert ask(f"https://llm.example:{server.port}/v1", tls=ours, **how).text == "OK"
    assert isinstance(fails(f"http://llm.example:{plain.port}/v1", **how), ForbiddenAddress)
    assert ask(f"http://127.0.0.1:{plain.port}/v1", **how).text == "OK"
    assert {headers["host"] for _, headers, _ in plain.requests} == {f"127.0.0.1:{plain.port}"}


def test_08_networks_open_their_own_addresses_and_port_alone():
    policy = EgressPolicy.parse("10.8.0.0/16:8000, [fd12:3456::/32]:8443, 192.168.7.9/32:8000")
    for url in ("http://10.8.0.0:8000", "https://10.8.255.255:8000", "http://[fd12:3456::7]:8443", "http://192.168.7.9:8000"):
        assert policy.check_base_url(url).url == url
    urls = ["http://10.9.0.0:8000", "http://10.7.255.255:8000", "http://10.8.0.1:8001", "https://10.8.0.1", "http://[fd12:3457::1]:8443"]
    urls += ["http://[fd12:3456::7]:8000", "http://192.168.7.8:8000", "http://[::ffff:10.8.0.1]:8000", "http://10.8.0.1:8443"]
    assert {url: refusal(lambda url=url: policy.check_base_url(url)) for url in urls} == dict.fromkeys(urls, ForbiddenAddress)


def test_08_an_empty_list_opens_nothing(services, feed, monkeypatch, outgoing):
    server = feed(None)
    urls = [f"{scheme}://{host}:{server.port}/v1" for scheme in ("http", "https") for host in ("127.0.0.1", "localhost", "[::1]")]
    for text in (None, "", " ", ",", " , ,, "):
        if text is not None:
            monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", text)
        assert EgressPolicy.from_environment() == CLOSED
        assert refusals(urls, services, EgressPolicy.from_environment()) == {url: {ForbiddenAddress} for url in urls}
    assert (server.connections, outgoing) == (0, [])
    assert_nothing_stored(services)


def test_08_metadata_services_stay_closed_even_when_listed(services, monkeypatch, outgoing):
    hosts = [*METADATA_IN_DISGUISE, "169.254.169.254", "169.254.170.2", "169.254.42.42", "169.254.0.23", "0.0.0.0", "[::]"]
    assert len(hosts) == len(set(hosts))
    listed = ",".join([*(f"{host}:{port}" for host in hosts for port in (80, 443)), "0.0.0.0/0:80,0.0.0.0/0:443,[::/0]:80,[::/0]:443"])
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", listed)
    policy = EgressPolicy.from_environment()
    urls = [f"{scheme}://{host}/latest" for host in hosts for scheme in ("http", "https")]
    assert refusals(urls, services, policy) == {url: {ForbiddenAddress} for url in urls}
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", f"{listed},llm.lan:80")
    for host in hosts:
        error = fails("http://llm.lan/v1", EgressPolicy.from_environment(), resolver=FakeDns([host.strip("[]")]))
        assert isinstance(error, ForbiddenAddress)
    assert outgoing == []
    assert_nothing_stored(services)
    # The list itself works: what lies beside them is open.
    assert policy.check_base_url("http://100.100.100.201").host == "100.100.100.201"
    assert policy.check_base_url("http://[fd00:ec3::254]").host == "fd00:ec3::254"
