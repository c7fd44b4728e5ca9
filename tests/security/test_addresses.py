"""A base URL leads to a public address by https, and everything on the way reads it alike (promises 1 to 4)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from byok.endpoint import BadBaseUrl, ForbiddenAddress
from byok.registry import ModelChanges
from byok_testing.egress import CLOSED, GOOD, KEY, METADATA_IN_DISGUISE, assert_nothing_stored, refusal, refusals, register, request
from byok_testing.hostile import dialled, system_dns
from byok_testing.installation import Byok, clean_environment
from byok_testing.leaks import hits

NOT_PUBLIC = [
    *("127.0.0.1", "127.0.0.2", "127.255.255.254", "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]"),
    *("10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255"),
    *("169.254.0.0", "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.255.255", "[fe80::1]", "[FEBF::1]"),
    *("100.64.0.0", "100.127.255.255"),
    *("[fc00::]", "[fd12:3456:789a::1]", "[fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]", "[fec0::1]"),
    *("0.0.0.0", "0.255.255.255", "[::]", "[0:0:0:0:0:0:0:0]"),
    *("192.0.0.1", "192.0.2.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "192.88.99.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "[ff02::1]"),
    *("[100::1]", "[2001:db8::1]", "[3fff::1]", "[5f00::1]", "[2001:2::1]"),
    *("localhost", "LOCALHOST", "LocalHost", "api.localhost", "x.y.localhost"),
]


def test_01_addresses_that_are_not_public_are_refused(services, outgoing):
    urls = [f"{scheme}://{host}{port}/v1" for host in NOT_PUBLIC for scheme, port in (("https", ""), ("https", ":8443"), ("http", ":80"))]
    assert refusals(urls, services) == {url: {ForbiddenAddress} for url in urls}
    assert_nothing_stored(services)
    assert outgoing == []


def test_01_their_public_neighbours_are_not():
    neighbours = (
        *("9.255.255.255", "11.0.0.0", "126.255.255.255", "128.0.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255"),
        *("192.169.0.0", "169.253.255.255", "169.255.0.0", "100.63.255.255", "100.128.0.0", "1.0.0.0", "223.255.255.255"),
        *("[2606:4700::1111]", "[2a00::1]", "[fbff::1]", "[2001:4860:4860::8888]"),
    )
    assert {host: CLOSED.check_base_url(f"https://{host}").host for host in neighbours} == {host: host.strip("[]") for host in neighbours}


def test_01_no_other_door_takes_a_private_address(services, raw, reply, monkeypatch, outgoing):
    server = raw(reply(200, GOOD))
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
    before = register(services, f"http://{server.host_port}/v1")
    asked, outgoing[:] = len(server.requests), []
    url = "https://10.0.0.1/v1"
    sealed = services.registry.seal(services.actor, "other", SecretStr(KEY), base_url="https://api.example/v1")
    doors: list[Callable[[], Any]] = [
        lambda: asyncio.run(services.registry.update(services.actor, "m", ModelChanges(base_url=url), SecretStr(KEY))),
        lambda: services.registry.seal(services.actor, "other", SecretStr(KEY), base_url=url),
        lambda: asyncio.run(services.registry.register_sealed(services.actor, request(url, "other"), sealed)),
    ]
    assert [refusal(door) for door in doors] == [ForbiddenAddress] * 3
    assert services.registry.list(services.actor) == [before]
    assert (len(server.requests), outgoing) == (asked, [])


def test_02_metadata_services_are_refused_in_every_form(services, outgoing):
    urls = [f"https://{host}/latest/meta-data" for host in METADATA_IN_DISGUISE]
    assert refusals(urls, services) == {url: {ForbiddenAddress} for url in urls}
    assert_nothing_stored(services)
    assert outgoing == []


ENCODED = [
    *("127.1", "127.0.1", "0", "0x0", "2130706433", "017700000001", "0x7f000001", "0X7F000001", "0x7f.1", "0x7f.0.0.1", "0177.0.0.1"),
    *("127.0.0.01", "127.0.0.0x1", "127.0.0.0X1", "127.0.0.1.0", "1.2.3", "256.0.0.1", "127.0.0.-1", "4294967297"),
    *("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "0xa9.0xfe.0xa9.0xfe"),
    *("①②⑦.⓪.⓪.①", "①②⑦.0.0.1", "１２７.０.０.１", "127。0。0。1", "127．0．0．1", "127\u30020.0.1", "१२७.0.0.1", "١٢٧.0.0.1"),
    *("127.0.0.1.", "127.0.0.1..", "localhost.", "LOCALHOST.", "api.example.", ".", ".localhost", "a..b"),
    *("127.0.0.1%00", "127%2e0.0.1", "%31%32%37.0.0.1", "127.0.0.%31", "localhost%2e", "loc%61lhost"),
    *("[::1%lo]", "[::1%25lo]", "[fe80::1%25eth0]", "[v1.127.0.0.1]", "[127.0.0.1]", "[::1", "::1", "[::1]x", "x[::1]", "[]"),
    *(
        "ⓛocalhost",
        "locaⅼhost",
        "ｌｏｃａｌｈｏｓｔ",
        "localhoſt",
        "loca\u200dlhost",
        "localhost\u200b",
        "\u202elocalhost",
        "local\u00adhost",
    ),
    *("аpi.openai.com", "api.οpenai.com", "bücher.example", "api\uff0eopenai.com", "\ud800.example"),
    *("xn--a.example", "xn--.example", "xn--localhost.example", "xn--ls8h.example"),
]


def test_03_an_address_or_name_in_another_spelling_is_refused(services, outgoing):
    urls = [f"https://{host}/v1" for host in ENCODED]
    assert refusals(urls, services) == {url: {BadBaseUrl} for url in urls}
    assert_nothing_stored(services)
    assert outgoing == []


def test_03_the_system_would_have_read_some_of_them_as_loopback():
    for text in ("127.1", "2130706433", "0x7f000001", "0177.0.0.1"):
        assert {found[4][0] for found in socket.getaddrinfo(text, 443)} == {"127.0.0.1"}


def test_03_a_harmless_name_is_resolved_and_then_refused(services, monkeypatch, outgoing):
    names = {
        "localtest.example": [["127.0.0.1"]],
        "127.0.0.1.nip.example": [["127.0.0.1"]],
        "0x7f000001.example": [["127.0.0.1"]],
        "metadata.google.internal": [["169.254.169.254"]],
        "xn--pi-6kc.example": [["10.0.0.7"]],
        "xn--bcher-kva.example": [["::1"]],
        "mapped.example": [["::ffff:8.8.8.8"]],
        "nat64.example": [["64:ff9b::a9fe:a9fe"]],
        "6to4.example": [["2002:7f00:1::"]],
        "any.example": [["0.0.0.0"]],
        "wire.example": [["168.63.129.16"]],
    }
    monkeypatch.setattr(socket, "getaddrinfo", system_dns(names))
    written = {name: name.title() if name.isalpha() else name.upper() for name in names}
    found = {name: refusal(lambda url=f"https://{text}/v1": register(services, url)) for name, text in written.items()}
    assert found == dict.fromkeys(names, ForbiddenAddress)
    assert_nothing_stored(services)
    assert dialled(outgoing) == set()


READ_DIFFERENTLY = [
    *("https://user:pa55word@api.example/v1", "https://user@api.example/v1", "https://@api.example/v1", "https://:@api.example/v1"),
    *("https://api.example@127.0.0.1/v1", "https://api.example:443@127.0.0.1/v1", "https://127.0.0.1@api.example/v1"),
    *("https://127.0.0.1\\@api.example/", "https://api.example\\@127.0.0.1/", "https:\\\\api.example/v1", "https://api.example\\.evil/"),
    *("https://api.example%40127.0.0.1/v1", "https://api.example%2f@127.0.0.1/v1", "https://api.example%2f127.0.0.1/"),
    *("https://api.example%5c@127.0.0.1/", "https://api.example%3a80/", "https://api.example%00.evil.example/", "https://api.example%/"),
    *("https://api.example/v1%2f..%2fx", "https://api.example/%2e%2e/x", "https://api.example/v1%0d%0aX-A:1", "https://api.example/%zz"),
    *("https://api.example/a/../b", "https://api.example/./v1", "https://api.example/v1%25252f", "https://api.example/v1%5c"),
    *("https://api.example/v1?x=1", "https://api.example/v1#@127.0.0.1", "https://api.example?@127.0.0.1/", "https://api.example#"),
    *("\nhttps://api.example/v1", "https://api.example\r\nHost: evil/", "https://api\t.example/", "https://api.example/\x7f"),
    *(
        " https://api.example/v1",
        "https://api.example /v1",
        "https://api.example/v1 ",
        "https://api.example/\x00",
        "https://api.example/\x1b[2J",
    ),
    *("https://api.example/\u2028", "https://api.example/v1\ud800", "https://api.example:0/", "https://api.example:65536/"),
    *("https://api.example:-1/", "https://api.example:+443/", "https://api.example:4_43/", "https://api.example:٤٤٣/", "https://a:b:443/"),
    *("https://api.example,127.0.0.1/", "https://api.example;127.0.0.1/", "https://api.example&127.0.0.1/", "https://api_.example!/v1"),
    *(
        "https://-a.example/",
        "https://a-.example/",
        "https://" + "a" * 64 + ".example/",
        "https://" + "a.a" * 100 + "/",
        "https://a/" + "b" * 2100,
    ),
]
OTHER_SCHEMES = [
    *("file:///etc/passwd", "file://localhost/etc/passwd", "file:/etc/passwd", "FILE:///etc/passwd"),
    *("unix:///run/docker.sock", "unix:/run/docker.sock", "http+unix://%2Frun%2Fdocker.sock/v1", "https+unix://%2Frun%2Fx/v1"),
    *(
        "ftp://api.example/",
        "gopher://127.0.0.1:6379/_x",
        "dict://127.0.0.1/",
        "ldap://api.example/",
        "ws://api.example/",
        "wss://api.example/",
    ),
    *("data:text/plain,x", "javascript:alert(1)", "jar:https://api.example!/", "view-source:https://api.example/"),
    *("", "/v1", "//api.example/v1", "api.example/v1", "api.example:443/v1", "127.0.0.1", ":443", "://api.example/"),
    *("https:", "https:/api.example/v1", "https:api.example", "https://", "https:///v1", "https://:443/v1", "https:////api.example"),
    *("http s://api.example/", "https ://api.example/", "httpſ://api.example/", "https：//api.example/", "$BASE_URL", "${BASE_URL}/v1"),
]


def test_04_what_programs_read_differently_is_refused(services, outgoing):
    urls = [*READ_DIFFERENTLY, *OTHER_SCHEMES]
    assert refusals(urls, services) == {url: {BadBaseUrl} for url in urls}
    assert_nothing_stored(services)
    assert outgoing == []


@given(st.from_regex(r"[a-zA-Z0-9_.:%~-]{0,30}(/[a-zA-Z0-9_.~%-]{0,8}){0,3}", fullmatch=True) | st.text(max_size=30))
def test_04_every_library_on_the_way_reads_the_host_that_was_checked(text):
    try:
        base = CLOSED.check_base_url(f"https://{text}")
    except (BadBaseUrl, ForbiddenAddress):
        return
    sent = httpx.Request("POST", base.join("/chat/completions"))
    dialled_by = yarl.URL(str(sent.url))
    assert sent.url.raw_host.decode() == base.host
    assert (dialled_by.raw_host, dialled_by.port) == (base.host, base.port)
    assert sent.headers["host"] == (base.host if base.port == 443 else f"{base.host}:{base.port}")


def test_04_plain_http_is_refused(services, outgoing):
    urls = ["http://api.example/v1", "HTTP://api.example/v1", "http://api.example:443/", "http://8.8.8.8/v1", "http://[2606:4700::1111]/v1"]
    assert refusals(urls, services) == {url: {ForbiddenAddress} for url in urls}
    assert_nothing_stored(services)
    assert outgoing == []


def test_04_a_unix_socket_hears_nothing(services, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        listener.listen()
        listener.setblocking(False)
        urls = ["unix://s", "unix:s", "http+unix://s/v1", "https://s:0/v1", f"http+unix://{str(tmp_path / 's').replace('/', '%2F')}/v1"]
        assert set().union(*refusals(urls, services).values()) == {BadBaseUrl}
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_04_the_command_line_repeats_no_password(services):
    byok = Byok(services.home.root, clean_environment(services.home.root))
    url = "https://user:pa55word-of-mine@api.example/v1"
    options = ("--name", "M", "--base-url", url, "--model-id", "x", "--api-key-stdin")
    done = byok.run("model", "register", "m", *options, given=KEY, code=2)
    assert "base URL" in done.stderr
    assert not hits(done.stdout + done.stderr, [KEY, "pa55word-of-mine"])
    assert_nothing_stored(services)
