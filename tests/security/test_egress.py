"""Requests leave for checked public addresses alone, follow nobody, and survive whatever comes back."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import struct
import time
import traceback
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import requests
import yarl
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import func, select, update

from byok.control.tables import model as model_table
from byok.control.tables import model_secret
from byok.datasets import Mapping
from byok.endpoint import (
    BadBaseUrl,
    ChatAnswer,
    ChatClient,
    EgressPolicy,
    EndpointAuth,
    EndpointError,
    EndpointNotOpenAI,
    EndpointOverloaded,
    EndpointRateLimited,
    EndpointRedirect,
    EndpointTimeout,
    EndpointTls,
    EndpointUnreachable,
    ForbiddenAddress,
    RemoteModelNotFound,
    ResponseInvalid,
    ResponseTruncated,
    check_resolved,
)
from byok.endpoint.transport import default_tls
from byok.engine.retry import RetryPolicy
from byok.errors import ByokError
from byok.ids import new_id
from byok.keystore import SecretIntegrity, VaultSettings
from byok.keystore.vault import Vault
from byok.registry import ModelChanges, RegisterRequest
from byok.reporting import run_summary
from byok.runs import EvaluationRequest, answer_shard, bill_run, finish_run, judge_shard, probe_models, start_run
from byok.sandbox import Fault, Sandbox
from byok_testing.hostile import FakeDns, Feeder, ask_apart, certificate, system_dns, watch
from byok_testing.installation import Byok, clean_environment
from byok_testing.leaks import hits, search_files
from byok_testing.raw_server import CLOSE

KEY = "sk-egress-7c1d9e2f4a5b6c8d0e1f2a3b4c5d6e7f"
PROMPT = "the prompt that nobody else may see"
MESSAGES = [{"role": "user", "content": PROMPT}]
GOOD = {
    "choices": [{"message": {"role": "assistant", "content": "OK"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
CLOSED = EgressPolicy()
Serve = Callable[..., Any]


@pytest.fixture
def outgoing() -> Iterator[list[tuple[str, Any]]]:
    """What this process dials and looks up during the test."""
    with watch() as seen:
        yield seen


@pytest.fixture
def feed() -> Iterator[Callable[..., Feeder]]:
    """Start feeders that are stopped after the test."""
    feeders: list[Feeder] = []

    def start(*arguments: Any, **options: Any) -> Feeder:
        feeders.append(Feeder(*arguments, **options))
        return feeders[-1]

    yield start
    for feeder in feeders:
        feeder.close()


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS settings of a server for llm.example and 127.0.0.1, and of a client that trusts it."""
    return certificate(tmp_path, "llm.example", "127.0.0.1")


def request(base_url: str, key: str = "m", **options: Any) -> RegisterRequest:
    return RegisterRequest(**{"key": key, "name": "M", "base_url": base_url, "remote_id": "org/remote#1"} | options)


def register(services: Any, base_url: str, **options: Any) -> Any:
    return asyncio.run(services.registry.register(services.actor, request(base_url, **options), SecretStr(KEY)))


def refusal(call: Callable[[], Any]) -> type[ByokError] | None:
    """The class of the error that a call ends with; nothing that hangs on the error knows the key."""
    try:
        call()
    except ByokError as error:
        assert not hits("".join(traceback.format_exception(error)) + repr((error.fields, error.hint)), [KEY])
        return type(error)
    return None


def refusals(urls: Iterable[str], services: Any, policy: EgressPolicy = CLOSED) -> dict[str, set[type[ByokError] | None]]:
    """How a base URL is refused: by the policy alone, and by a registration."""
    return {url: {refusal(lambda url=url: policy.check_base_url(url)), refusal(lambda url=url: register(services, url))} for url in urls}


def assert_nothing_stored(services: Any) -> None:
    with services.control.read() as connection:
        assert [connection.execute(select(func.count()).select_from(table)).scalar() for table in (model_table, model_secret)] == [0, 0]
    for view in ("models", "attempts", "charges"):
        assert services.warehouse.query(f"SELECT count(*) FROM v1.{view}").rows == [(0,)]
    assert search_files(services.home.root, [KEY]) == {}


def dialled(outgoing: list[tuple[str, Any]]) -> set[Any]:
    return {target for kind, target in outgoing if kind == "dial"}


def ask(base_url: str, policy: EgressPolicy | str, *, calls: int = 1, key: str | None = KEY, **options: Any) -> ChatAnswer:
    """The answer to the last of some chat calls through one client."""

    async def go() -> ChatAnswer:
        rules = EgressPolicy.parse(policy) if isinstance(policy, str) else policy
        async with ChatClient(base_url, "org/remote#1", key, policy=rules, **{"timeout_s": 10.0} | options) as chat:
            for _ in range(calls - 1):
                await chat.chat(MESSAGES)
            return await chat.chat(MESSAGES)

    return asyncio.run(go())


def fails(*arguments: Any, **options: Any) -> EndpointError:
    """The error that a chat call ends with; nothing that hangs on it knows the key."""
    with pytest.raises(EndpointError) as caught:
        ask(*arguments, **options)
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    assert not hits("".join(traceback.format_exception(error)) + repr((error.fields, error.hint)), [KEY])
    return error


# 1 to 4: what a base URL may be

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


METADATA_IN_DISGUISE = [
    *("[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[0:0:0:0:0:ffff:169.254.169.254]", "[::ffff:0:169.254.169.254]"),
    *("[::169.254.169.254]", "[::a9fe:a9fe]"),
    *("[64:ff9b::a9fe:a9fe]", "[64:ff9b::169.254.169.254]", "[64:ff9b:1::a9fe:a9fe]", "[64:ff9b:1:ffff::a9fe:a9fe]"),
    *("[2002:a9fe:a9fe::]", "[2002:a9fe:a9fe::1]", "[2002:7f00:1::]"),
    *("[2001:0:a9fe:a9fe::1]", "[2001:0:4136:e378:8000:63bf:5601:5601]", "[2001::1]"),
    *("192.0.0.192", "168.63.129.16", "100.100.100.200", "[fd00:ec2::254]", "[fd00:ec2::23]", "[fd20:ce::254]"),
    *("[fd00:c1::a9fe:a9fe]", "[fd00:42::42]", "[fd00:a9fe:a9fe::1]", "[fd00:100::100:200]", "[fe80::a9fe:a9fe]"),
]


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
        async with ChatClient(how["base_url"], "m", KEY, policy=policy, tls=how["tls"], resolver=dns) as chat:
            assert (await chat.chat(MESSAGES)).text == "OK"
            ahead[0] = 600.0
            with pytest.raises(ForbiddenAddress):
                await chat.chat(MESSAGES)

    asyncio.run(go())
    assert (len(server.requests), other.connections, len(dns.asked)) == (1, 0, 2)
    assert dialled(outgoing) == {("127.0.0.1", server.port)}


def test_05_many_connections_at_once_go_to_checked_addresses_alone(raw, reply, feed, tls, outgoing):
    server, other, how = rebinding(raw, feed, tls, reply(200, GOOD))
    dns = FakeDns(["127.0.0.1"], ["127.0.0.2"])

    async def go() -> list[Any]:
        policy = EgressPolicy.parse(how["policy"])
        async with ChatClient(how["base_url"], "m", KEY, policy=policy, tls=how["tls"], resolver=dns, connections=8) as chat:
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


# 35: answers without end

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
TEN_GB = b"content-length: 10737418240\r\n\r\n"
MIB = 2**20
MOST_MEMORY = 96 * MIB
"""Above this a client has grown with what it was sent: the largest answer, four times over, is less."""

LONGEST_S = 10.0
"""With a deadline of 1 s: room for a slow machine, and far from what the answers below would take."""

Parts = Callable[[], Iterable[bytes]]


def endless(head: bytes, part: bytes) -> Parts:
    def parts() -> Iterator[bytes]:
        yield head
        while True:
            yield part

    return parts


def once(answer: bytes) -> Parts:
    return lambda: [answer]


def sized(body: bytes, head: bytes = HEAD) -> bytes:
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def filled(start: bytes, filler: bytes, end: bytes, size: int) -> bytes:
    """A body of about `size` bytes, of fillers between a start and an end."""
    return start + filler * ((size - len(start) - len(end)) // len(filler)) + end


ENDLESS: dict[str, tuple[Parts, *tuple[type[EndpointError], ...]]] = {
    "10 GB": (endless(HEAD + TEN_GB + b"{", b" " * MIB), ResponseInvalid),
    "chunks": (endless(CHUNKED, b"100000\r\n" + b" " * MIB + b"\r\n"), ResponseInvalid),
    "until it closes": (endless(HEAD + b"\r\n{", b" " * MIB), ResponseInvalid),
    "10 GB of an error": (endless(b"HTTP/1.1 500 X\r\n" + TEN_GB, b" " * MIB), EndpointOverloaded),
    "10 GB of a refusal": (endless(b"HTTP/1.1 401 X\r\n" + TEN_GB, b"<html>" * 10_000), EndpointAuth),
    "10 GB of a redirect": (endless(b"HTTP/1.1 307 X\r\nlocation: /x\r\n" + TEN_GB, b" " * MIB), EndpointRedirect),
    "tiny chunks": (endless(CHUNKED, b"1\r\n \r\n" * 20_000), EndpointTimeout),
    "chunk extension": (endless(CHUNKED + b"1;a=", b"a" * 65_536), EndpointTimeout),
    "trailers": (endless(CHUNKED + b"2\r\n{}\r\n0\r\n", b"x-a: b\r\n" * 1000), EndpointNotOpenAI, ResponseTruncated),
    "headers": (endless(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n" * 1000), EndpointNotOpenAI),
    "header line": (endless(b"HTTP/1.1 200 OK\r\nx-a: ", b"a" * 65_536), EndpointNotOpenAI),
    "header name": (endless(b"HTTP/1.1 200 OK\r\n", b"a" * 65_536), EndpointNotOpenAI),
    "status line": (endless(b"HTTP/1.1 200 ", b"a" * 65_536), EndpointNotOpenAI),
    "empty lines": (endless(b"", b"\r\n" * 30_000), EndpointTimeout),
    "interim answers": (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), EndpointTimeout),
    "early hints": (endless(b"", b"HTTP/1.1 103 X\r\nlink: x\r\n\r\n" * 1000), EndpointTimeout),
}


def test_35_an_endless_answer_takes_little_memory_and_time(feed):
    servers = {what: feed(parts) for what, (parts, *_) in ENDLESS.items()}
    told = ask_apart(servers, timeout_s=1.0, key=KEY)
    codes = {what: {kind.code for kind in kinds} for what, (_, *kinds) in ENDLESS.items()}
    assert {what: one["code"] for what, one in told.items() if one["code"] not in codes[what]} == {}
    assert {what: one["grown"] for what, one in told.items() if one["grown"] > MOST_MEMORY} == {}
    assert {what: one["seconds"] for what, one in told.items() if one["seconds"] > LONGEST_S} == {}
    assert {server.connections for server in servers.values()} == {1}


def test_35_an_endless_list_of_models_ends(services, feed, monkeypatch):
    server = feed(endless(HEAD + TEN_GB + b"{", b" " * MIB))
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
    assert refusal(lambda: register(services, f"http://{server.host_port}/v1")) is ResponseInvalid
    assert server.sent < 100 * MIB
    assert_nothing_stored(services)


def zstd_bomb(size: int) -> bytes:
    """Blocks that each stand for 128 KiB of one byte (RFC 8878)."""
    block = 128 * 1024
    return b"\x28\xb5\x2f\xfd\x00\x58" + (struct.pack("<I", block << 3 | 1 << 1)[:3] + b" ") * (size // block)


def gzip_bomb(size: int) -> bytes:
    return gzip.compress(b" " * size, compresslevel=1)


BOMBS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip_bomb(100 * MIB),
    "x-gzip": lambda: gzip_bomb(MIB),
    "GZIP": lambda: gzip_bomb(MIB),
    "gzip, gzip": lambda: gzip.compress(gzip_bomb(64 * MIB)),
    "identity, gzip": lambda: gzip_bomb(MIB),
    "deflate": lambda: zlib.compress(b" " * (100 * MIB), 1),
    "br": lambda: b"\xcb\xff\xff\x3f\x00\x00" * 1000,
    "zstd": lambda: zstd_bomb(1024 * MIB),
    "compress": lambda: b"\x1f\x9d\x90" + b"\x00" * 1000,
    "no such thing": lambda: b"x",
}


def test_35_a_compressed_answer_is_never_inflated(feed):
    heads = {encoding: f"content-type: application/json\r\ncontent-encoding: {encoding}\r\n".encode() for encoding in BOMBS}
    bombs = {encoding: made() for encoding, made in BOMBS.items()}
    servers = {encoding: feed(once(sized(bomb, b"HTTP/1.1 200 OK\r\n" + heads[encoding]))) for encoding, bomb in bombs.items()}
    told = ask_apart(servers, timeout_s=LONGEST_S, key=KEY)
    assert {encoding: one["code"] for encoding, one in told.items()} == dict.fromkeys(BOMBS, ResponseInvalid.code)
    assert {encoding: one["grown"] for encoding, one in told.items() if one["grown"] > 16 * MIB} == {}
    for encoding, bomb in bombs.items():
        # An error is known by its status, and its body is left alone.
        server = feed(once(sized(bomb, b"HTTP/1.1 401 X\r\n" + heads[encoding])))
        assert isinstance(fails(f"http://{server.host_port}/v1", server.host_port), EndpointAuth)


def test_35_a_compressed_answer_without_a_label_is_no_answer(feed):
    server = feed(once(sized(gzip_bomb(MIB))))
    assert isinstance(fails(f"http://{server.host_port}/v1", server.host_port), EndpointNotOpenAI)


DRIPS: dict[str, Parts] = {
    "body": endless(HEAD + TEN_GB + b"{", b" "),
    "chunks": endless(CHUNKED, b"1\r\n \r\n"),
    "error body": endless(b"HTTP/1.1 500 X\r\n" + TEN_GB, b" "),
    "headers": endless(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
    "header line": endless(b"HTTP/1.1 200 OK\r\na: ", b"a"),
    "interim answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "nothing": lambda: (),
}


def test_35_a_slow_drip_meets_the_total_deadline(feed):
    servers = {what: feed(parts, pause_s=0.2) for what, parts in DRIPS.items()}
    told = ask_apart(servers, timeout_s=1.0, key=KEY, together=True)
    assert {what: one["code"] for what, one in told.items()} == dict.fromkeys(DRIPS, EndpointTimeout.code)
    assert all(0.9 < one["seconds"] < LONGEST_S for one in told.values())
    assert {server.connections for server in servers.values()} == {1}


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_35_a_server_that_reads_nothing_meets_the_total_deadline_and_keeps_no_connection(feed, monkeypatch, scheme):
    server = feed(None)
    monkeypatch.setattr("byok.endpoint.transport.UNREAD_S", 1.0)

    def connections() -> int:
        return sum(bool(one.raddr) and one.raddr.port == server.port for one in psutil.Process().net_connections("tcp"))

    async def go() -> None:
        policy = EgressPolicy.parse(server.host_port)
        async with ChatClient(f"{scheme}://{server.host_port}/v1", "m", KEY, policy=policy, timeout_s=0.5) as chat:
            with pytest.raises(EndpointTimeout):
                # More than fits into the buffers of a connection.
                await chat.chat([{"role": "user", "content": "x" * 20_000_000}])
            async with asyncio.timeout(2 * LONGEST_S):
                while connections():
                    await asyncio.sleep(0.05)

    asyncio.run(go())
    assert server.connections == 1


HALF_CLOSED: dict[str, tuple[list[bytes], type[EndpointError]]] = {
    "at once": ([], EndpointUnreachable),
    "in the status line": ([b"HTTP/1.1 2"], EndpointUnreachable),
    "in the headers": ([b"HTTP/1.1 200 OK\r\ncontent-le"], EndpointUnreachable),
    "after the headers": ([HEAD + b"content-length: 9\r\n\r\n"], ResponseTruncated),
    "in the body": ([HEAD + b"content-length: 99\r\n\r\n{"], ResponseTruncated),
    "in a chunk": ([CHUNKED + b"9\r\n{"], ResponseTruncated),
    "between chunks": ([CHUNKED + b"1\r\n{\r\n"], ResponseTruncated),
    "in a body without a length": ([HEAD + b'\r\n{"choices": [{"mess'], ResponseTruncated),
    "in an error": ([b"HTTP/1.1 429 X\r\ncontent-length: 99\r\n\r\n{"], EndpointRateLimited),
}


@pytest.mark.parametrize("what", HALF_CLOSED)
def test_35_a_half_closed_connection_is_a_named_error(feed, what):
    parts, kind = HALF_CLOSED[what]
    server = feed(lambda: parts, half_close=True)
    error = fails(f"http://{server.host_port}/v1", server.host_port, timeout_s=LONGEST_S)
    assert type(error) is kind
    # What may have reached a model is not sent a second time.
    assert server.connections == 1


def test_35_thousands_of_headers_are_refused(feed):
    lines = {str(many): b"".join(b"x-%d: b\r\n" % number for number in range(many)) for many in (200, 5000, 100_000)}
    servers = {many: feed(once(sized(b"{}", b"HTTP/1.1 200 OK\r\n" + headers))) for many, headers in lines.items()}
    told = ask_apart(servers, timeout_s=LONGEST_S, key=KEY)
    assert {many: one["code"] for many, one in told.items()} == dict.fromkeys(lines, EndpointNotOpenAI.code)
    assert {many: one["grown"] for many, one in told.items() if one["grown"] > 16 * MIB} == {}


@pytest.mark.parametrize("line", [b"x-a: %s", b"%s: a", b"retry-after: %s", b"location: %s", b"content-type: %s"])
def test_35_an_oversized_header_line_is_refused(feed, line):
    server = feed(once(sized(json.dumps(GOOD).encode(), b"HTTP/1.1 200 OK\r\n" + line % (b"a" * 100_000) + b"\r\n")))
    error = fails(f"http://{server.host_port}/v1", server.host_port)
    assert isinstance(error, EndpointNotOpenAI)
    assert len(error.message) < 500


def test_35_what_follows_an_answer_is_not_kept(feed):
    answer = sized(json.dumps(GOOD).encode())
    floods = {"answers": b"HTTP/1.1 204 X\r\n\r\n" * 1000, "anything": b" " * MIB, "the same again": answer * 1000}
    told = ask_apart({what: feed(endless(answer, flood)) for what, flood in floods.items()}, timeout_s=LONGEST_S, key=KEY, idle_s=0.5)
    # What comes in one piece with the answer may spoil it.
    assert {one["code"] for one in told.values()} <= {None, EndpointNotOpenAI.code}
    assert told["answers"]["code"] is None
    assert {what: one["grown"] for what, one in told.items() if one["grown"] > MOST_MEMORY} == {}


ALMOST_16_MB = 15 * MIB

SLOW_TO_READ: dict[str, tuple[bytes, str | None]] = {
    "lists": (sized(filled(b"[", b"[],", b"1]", ALMOST_16_MB)), "response_invalid"),
    "objects": (sized(filled(b'{"choices": [', b"{},", b"1]}", ALMOST_16_MB)), "response_invalid"),
    "members": (sized(b'{"a": 1, ' + b",".join(b'"%x": 0' % number for number in range(1_200_000)) + b"}"), "response_invalid"),
    "depth": (sized(filled(b"", b"[", b"", ALMOST_16_MB)), "response_invalid"),
    "depth of objects": (sized(filled(b"", b'{"":', b"", ALMOST_16_MB)), "response_invalid"),
    "numbers": (sized(filled(b"[", b"1" * 4000 + b",", b"1]", ALMOST_16_MB)), "endpoint_not_openai"),
    "digits": (sized(filled(b'{"choices": 1.', b"1", b"}", ALMOST_16_MB)), "response_invalid"),
    "thinking": (sized(filled(b'{"choices": [{"message": {"content": "<think>', b"<", b'"}}]}', ALMOST_16_MB)), None),
    "spaces": (sized(filled(b'{"choices": [{"message": {"content": "', b" ", b'"}}]}', ALMOST_16_MB)), None),
    "page": (sized(filled(b"<html>", b"<title>", b"", ALMOST_16_MB)), "endpoint_not_openai"),
    "error of spaces": (sized(filled(b'{"error": {"code": 400, "message": "field', b" ", b'"}}', ALMOST_16_MB)), "bad_request"),
    "error of words": (sized(filled(b'{"error": {"code": 400, "message": "', b"fields use ", b'"}}', ALMOST_16_MB)), "bad_request"),
    "refusal of spaces": (sized(b"field" + b" " * 65_000, b"HTTP/1.1 400 X\r\n"), "bad_request"),
}


def test_35_an_answer_that_is_slow_to_read_takes_little_memory_and_time(feed):
    servers = {what: feed(once(answer)) for what, (answer, _) in SLOW_TO_READ.items()}
    told = ask_apart(servers, timeout_s=LONGEST_S, key=KEY)
    assert {what: one["code"] for what, one in told.items()} == {what: code for what, (_, code) in SLOW_TO_READ.items()}
    assert {what: one["grown"] for what, one in told.items() if one["grown"] > MOST_MEMORY} == {}
    # What blocks the process is not stopped by its deadline.
    assert {what: one["seconds"] for what, one in told.items() if one["seconds"] > LONGEST_S} == {}


def test_35_a_list_of_models_that_is_slow_to_compare_takes_little_time(services, raw, reply, monkeypatch):
    remote_id = "ab" * 50
    names = [{"id": f"{'aab' * 33}{number}"} for number in range(100_000)]
    missing = reply(404, {"error": {"message": "no such model", "code": "model_not_found"}})
    server = raw(reply(200, {"data": names}), missing)
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)

    async def go() -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(RemoteModelNotFound) as caught:
            await services.registry.register(services.actor, request(f"http://{server.host_port}/v1", remote_id=remote_id), SecretStr(KEY))
        assert loop.time() - started < LONGEST_S
        assert len(caught.value.hint) < 500

    asyncio.run(go())
    assert_nothing_stored(services)


# 36: answers that are no answers


def like_good(**members: str) -> bytes:
    """The good answer with some members written as they are given, as JSON or not."""
    parts = {name: json.dumps(value) for name, value in GOOD.items()} | members
    return ("{" + ", ".join(f'"{name}": {text}' for name, text in parts.items()) + "}").encode("utf-8", "surrogatepass")


def content(text: str) -> str:
    """Choices with the content as it is given."""
    return f'[{{"message": {{"role": "assistant", "content": {text}}}, "finish_reason": "stop"}}]'


INVALID: dict[str, bytes] = {
    "NaN": like_good(usage='{"prompt_tokens": NaN, "completion_tokens": 2}'),
    "Infinity": like_good(created="Infinity"),
    "-Infinity": like_good(choices=content("-Infinity")),
    "1e999": like_good(usage='{"prompt_tokens": 1e999, "completion_tokens": 2}'),
    "-1e999": like_good(created="-1e999"),
    "usage twice": like_good(usage='{"prompt_tokens": 5, "completion_tokens": 2}, "usage": {"prompt_tokens": 0, "completion_tokens": 0}'),
    "choices twice": like_good(choices=content('"OK"') + ', "choices": []'),
    "a count twice": like_good(usage='{"prompt_tokens": 5, "prompt_tokens": 0, "completion_tokens": 2}'),
    "a member twice by escape": like_good(usage='{"prompt_tokens": 5, "prompt_token\\u0073": 0, "completion_tokens": 2}'),
    "lists 100k deep": like_good(extra="[" * 100_000 + "]" * 100_000),
    "objects 100k deep": like_good(extra='{"a":' * 100_000 + "1" + "}" * 100_000),
    "content 100k deep": like_good(choices=content("[" * 100_000 + "]" * 100_000)),
    "100 deep": like_good(extra="[" * 100 + "]" * 100),
    "5,000 digits": like_good(usage='{"prompt_tokens": ' + "9" * 5000 + ', "completion_tokens": 2}'),
    "-5,000 digits": like_good(created="-" + "9" * 5000),
    "choices null": like_good(choices="null"),
    "choices number": like_good(choices="5"),
    "choices text": like_good(choices='"OK"'),
    "choices object": like_good(choices='{"0": {"message": {"content": "OK"}}}'),
    "choices empty": like_good(choices="[]"),
    "choice null": like_good(choices="[null]"),
    "choice text": like_good(choices='["OK"]'),
    "choice list": like_good(choices="[[]]"),
    "choice empty": like_good(choices="[{}]"),
    "choice of text": like_good(choices='[{"text": "OK"}]'),
    "message null": like_good(choices='[{"message": null}]'),
    "message text": like_good(choices='[{"message": "OK"}]'),
    "message list": like_good(choices='[{"message": [{"content": "OK"}]}]'),
    "raw surrogate": like_good(choices=content('"\ud83d"')),
    "raw surrogate pair": like_good(choices=content('"\ud83d\ude00"')),
    "invalid UTF-8": like_good(choices=content('"OK"')).replace(b"OK", b"O\xffK"),
    "overlong UTF-8": like_good(choices=content('"OK"')).replace(b"OK", b"\xc0\xaf"),
    "control character": like_good(choices=content('"O\nK"')),
    "NUL": like_good(choices=content('"O\x00K"')),
    "bad escape": like_good(choices=content('"\\x4f"')),
    "rest": json.dumps(GOOD).encode() + b" x",
    "two answers": json.dumps(GOOD).encode() * 2,
    "single quotes": str(GOOD).encode(),
    "comma too many": like_good(extra="[1,]"),
    "leading zero": like_good(created="01"),
    "hexadecimal": like_good(created="0x10"),
    "True": like_good(extra="True"),
    "empty": b"",
    "blank": b" \r\n\t ",
}
TRUNCATED: dict[str, bytes] = {
    "in a text": json.dumps(GOOD).encode()[:60],
    "in usage": json.dumps(GOOD).encode()[:-20],
    "before the last brace": json.dumps(GOOD).encode()[:-1],
    "after the first brace": b"{",
}
NOT_CHAT: dict[str, bytes] = {
    "no choices": json.dumps({"usage": GOOD["usage"]}).encode(),
    "object": b"{}",
    "list": b"[]",
    "list of answers": json.dumps([GOOD]).encode(),
    "text": b'"OK"',
    "number": b"5",
    "null": b"null",
    "true": b"true",
    "plain": b"OK",
    "bare NaN": b"NaN",
    "stream": b'data: {"choices": []}\n\ndata: [DONE]\n\n',
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "page": b"<html>OK</html>",
}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(body, kind, id=name)
        for bodies, kind in ((INVALID, ResponseInvalid), (TRUNCATED, ResponseTruncated), (NOT_CHAT, EndpointNotOpenAI))
        for name, body in bodies.items()
    ],
)
def test_36_what_is_no_answer_is_a_typed_error(raw, reply, body, kind):
    server = raw(reply(200, body))
    error = fails(f"http://{server.host_port}/v1", server.host_port)
    assert (type(error), error.status) == (kind, 200)
    assert len(error.message) < 500
    assert len(server.requests) == 1


def test_36_the_model_that_these_are_made_of_is_an_answer(raw, reply):
    for body in (like_good(), b"\xef\xbb\xbf" + like_good(), like_good(extra="[" * 50 + "]" * 50), like_good(created="9" * 4000)):
        server = raw(reply(200, body))
        answer = ask(f"http://{server.host_port}/v1", server.host_port)
        assert (answer.text, answer.usage.prompt_tokens, answer.usage.usage_class) == ("OK", 5, "reported")


def test_36_no_beginning_of_an_answer_is_an_answer(raw, reply):
    whole = json.dumps(GOOD).encode()
    server = raw(*(reply(200, whole[:size]) for size in range(len(whole))))

    async def go() -> set[type[EndpointError]]:
        found: set[type[EndpointError]] = set()
        async with ChatClient(f"http://{server.host_port}/v1", "m", KEY, policy=EgressPolicy.parse(server.host_port)) as chat:
            for _ in range(len(whole)):
                with pytest.raises(EndpointError) as caught:
                    await chat.attempt(MESSAGES)
                found.add(type(caught.value))
        return found

    # Nothing at all is not a beginning.
    assert asyncio.run(go()) == {ResponseInvalid, ResponseTruncated}
    assert len(server.requests) == len(whole)


def test_36_escaped_lone_surrogates_become_replacement_characters(raw, reply):
    body = like_good(choices=content('"\\ud83d and \\ude00"').replace('"stop"', '"\\ud83d"'), request_id='"\\udfff"')
    server = raw(reply(200, body))
    answer = ask(f"http://{server.host_port}/v1", server.host_port)
    assert (answer.text, answer.finish_reason, answer.request_id) == ("\ufffd and \ufffd", "\ufffd", "\ufffd")


QUESTIONS = [(f"What is {number} times 7?", str(7 * number)) for number in range(80)]


@pytest.fixture
def evaluate(services, tmp_path, monkeypatch) -> Iterator[Callable[..., Any]]:
    """Run an evaluation stage by stage, of rows that are answered with the given bodies; gives its plan and how it ended."""
    data = tmp_path / "sevens.jsonl"
    data.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in QUESTIONS))
    services.datasets.add(services.actor, "sevens", data, Mapping())
    servers: list[Sandbox] = []
    monkeypatch.setattr("byok.runs.answer.RetryPolicy", partial(RetryPolicy, base_s=0.01))

    def serve(key: str, faults: Callable[[str], Fault | None], public: bool) -> None:
        server = Sandbox(QUESTIONS, api_key=KEY, model_id="org/remote#1", faults=lambda _number, question: faults(question))
        servers.append(server.__enter__())
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", ",".join(one.host_port for one in servers))
        register(services, server.base_url, key=key, public=public, price_input="1", price_output="1")

    def run(
        faults: Callable[[str], Fault | None] = lambda question: None,
        judge_faults: Callable[[str], Fault | None] | None = None,
        *,
        public: bool = False,
        **options: Any,
    ) -> tuple[Any, Any]:
        serve("m", faults, public)
        judges = []
        if judge_faults is not None:
            serve("judge", judge_faults, False)
            services.judges.create(services.actor, "right", "judge", "binary", "Is {{output}} right?")
            judges = ["right"]
        asked = EvaluationRequest(model="m", dataset="sevens", graders=["numeric"], judges=judges, max_failure_rate=1, **options)
        plan = start_run(services, asked, new_id())

        async def stages() -> str | None:
            await probe_models(services, plan.run_id)
            reports = [await answer_shard(services, plan.run_id, shard) for shard in range(plan.shards)]
            for judge in plan.judges:
                reports += [await judge_shard(services, plan.run_id, judge.name, shard) for shard in range(plan.shards)]
            return next((report.stopped_by for report in reports if report.stopped_by), None)

        stopped = asyncio.run(stages())
        bill_run(services, plan.run_id)
        return plan, finish_run(services, plan.run_id, stopped_by=stopped)

    yield run
    for server in servers:
        server.close()


@pytest.mark.parametrize("public", [False, True])
def test_36_a_run_pays_for_no_answer_that_is_none(services, evaluate, public):
    bad = dict(zip((question for question, _ in QUESTIONS), [*INVALID.values(), TRUNCATED["in usage"]], strict=False))
    plan, finished = evaluate(
        lambda question: Fault(body=bad[question]) if question in bad else None, public=public, concurrency=8, temperature=0
    )
    assert finished.status == "completed"
    told = run_summary(services.warehouse, services.actor.org_id, plan.run_id)
    good = len(QUESTIONS) - len(bad)
    assert (told.planned, told.answered, told.failed, told.empty) == (len(QUESTIONS), good, len(bad), 0)
    query = services.warehouse.query
    codes = query("SELECT error_code, count(*) FROM v1.samples WHERE status = 'failed' GROUP BY 1 ORDER BY 1").rows
    assert codes == [("response_invalid", len(INVALID)), ("response_truncated", 1)]
    assert query("SELECT count(output), count(prompt_tokens), count(completion_tokens) FROM v1.samples WHERE status = 'failed'").rows == [
        (0, 0, 0)
    ]
    # The five attempts at the cut answer may each have been billed by the provider; what is not known is not written as 0.
    of_attempts = "FROM v1.charges c JOIN v1.attempts a USING (attempt_id) WHERE c.run_id = ? AND a.role = 'candidate' AND a.status"
    unknown = query(
        f"SELECT evidence, count(*), count(c.quantity), count(amount_usd), count(amount_micro_ecu) {of_attempts} = 'error' GROUP BY 1",
        [plan.run_id],
    ).rows
    assert unknown == [("unknown", 2 * (len(INVALID) + 5), 0, 0, 0)]
    amount = "amount_micro_ecu" if public else "amount_usd"
    known = query(
        f"SELECT c.evidence, count(*), count(c.{amount}), min(c.{amount}) > 0 {of_attempts} = 'ok' GROUP BY 1", [plan.run_id]
    ).rows
    assert known == [("computed", 2 * good, 2 * good, True)]
    assert query("SELECT count(*) FROM v1.charges WHERE quantity = 0 OR amount_usd = 0 OR amount_micro_ecu = 0").rows == [(0,)]


@pytest.mark.parametrize("what", ["no choices", "UTF-16", "page"])
def test_36_a_run_stops_at_an_endpoint_that_is_none_and_pays_nothing(services, evaluate, what):
    body = NOT_CHAT[what]
    plan, finished = evaluate(lambda question: Fault(body=body) if "times" in question else None, concurrency=1)
    assert (finished.status, finished.passed) == ("failed", False)
    told = run_summary(services.warehouse, services.actor.org_id, plan.run_id)
    assert (told.error_code, told.answered, told.not_asked) == ("endpoint_not_openai", 0, len(QUESTIONS))
    charged = services.warehouse.query(
        "SELECT evidence, count(*), count(quantity), count(amount_usd) FROM v1.charges WHERE run_id = ? AND role = 'candidate' GROUP BY 1",
        [plan.run_id],
    ).rows
    assert charged == [("unknown", 2, 0, 0)]


def test_36_usage_of_wrong_types_is_an_unknown_cost_and_never_zero(services, evaluate):
    wrong = ['"many"', "[]", "5", "true", "null", "{}", '{"prompt_tokens": "five", "completion_tokens": 2}', '{"prompt_tokens": true}']
    wrong += ['{"prompt_tokens": [5], "completion_tokens": {}}', '{"prompt_tokens": 1.5, "completion_tokens": 2}']
    bodies = dict(zip((question for question, _ in QUESTIONS), (like_good(usage=text) for text in wrong), strict=False))
    rows = len(QUESTIONS) - len(wrong)
    plan, _ = evaluate(lambda question: Fault(body=bodies[question]) if question in bodies else None)
    query = services.warehouse.query
    found = query(
        "SELECT c.evidence, count(*), count(c.amount_usd) FROM v1.charges c WHERE run_id = ? AND role = 'candidate' GROUP BY 1 ORDER BY 1",
        [plan.run_id],
    ).rows
    assert found == [("computed", 2 * rows, 2 * rows), ("unknown", 2 * len(wrong), 0)]
    assert query("SELECT count(*) FROM v1.charges WHERE quantity = 0 OR amount_usd = 0").rows == [(0,)]
    told = run_summary(services.warehouse, services.actor.org_id, plan.run_id)
    assert told.unpriced_charges == 2 * len(wrong)


def test_36_a_judge_whose_answers_are_none_is_not_paid_and_passes_nobody(services, evaluate):
    bodies = list(INVALID.values())[:20]
    seen: list[str] = []

    def hostile(question: str) -> Fault | None:
        if "OUTPUT" not in question:
            return None
        seen.append(question)
        return Fault(body=bodies[len(seen) % len(bodies)])

    plan, _ = evaluate(judge_faults=hostile, limit=20)
    assert len(seen) == 20
    query = services.warehouse.query
    assert query("SELECT count(*), count(passed), count(score) FROM v1.verdicts WHERE kind = 'judge'").rows == [(20, 0, 0)]
    assert query("SELECT count(*) FROM v1.charges WHERE plane = 'ecu'").rows == [(0,)]
    judged = query("SELECT count(*), count(amount_usd), count(quantity) FROM v1.charges WHERE run_id = ? AND role = 'judge'", [plan.run_id])
    assert judged.rows == [(2 * 20, 0, 0)]


def test_36_a_lone_surrogate_reaches_the_warehouse_as_a_replacement_character(services, evaluate):
    body = like_good(choices=content('"\\ud83d 7"'))
    plan, finished = evaluate(lambda question: Fault(body=body) if question == QUESTIONS[1][0] else None)
    assert finished.status == "completed"
    rows = services.warehouse.query("SELECT output FROM v1.samples WHERE run_id = ? AND input = ?", [plan.run_id, QUESTIONS[1][0]]).rows
    assert rows == [("\ufffd 7",)]
