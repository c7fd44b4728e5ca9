"""What may be called: base URLs, addresses, the operator's list."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.endpoint import BadAllowList, BadBaseUrl, EgressPolicy, ForbiddenAddress
from byok.endpoint.addresses import refusal

CLOSED = EgressPolicy()


@pytest.mark.parametrize(
    ("text", "url", "origin"),
    [
        ("https://api.together.ai/v1", "https://api.together.ai/v1", "https://api.together.ai"),
        ("https://API.Together.AI:443/v1/", "https://api.together.ai/v1", "https://api.together.ai"),
        ("https://api.fireworks.ai/inference/v1", "https://api.fireworks.ai/inference/v1", "https://api.fireworks.ai"),
        ("https://llm.example.org:8443", "https://llm.example.org:8443", "https://llm.example.org:8443"),
        ("https://8.8.8.8/v1", "https://8.8.8.8/v1", "https://8.8.8.8"),
        ("https://[2606:4700:0:0::1111]/v1", "https://[2606:4700::1111]/v1", "https://[2606:4700::1111]"),
    ],
)
def test_public_urls_are_taken_and_written_in_one_form(text: str, url: str, origin: str) -> None:
    base = CLOSED.check_base_url(text)
    assert (base.url, base.origin) == (url, origin)
    assert base.join("/chat/completions") == f"{url}/chat/completions"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "api.openai.com/v1",
        "ftp://host/v1",
        "file:///etc/passwd",
        "https:/host",
        "https://",
        "https://user:secret@host/v1",
        "https://user@host/v1",
        "https://good.example\\@evil.example/v1",
        "https://127.0.0.1\\@evil.example",
        "https://host/v1?api-key=abc",
        "https://host/v1#x",
        "https://host/v1?",
        "https://host:0/v1",
        "https://host:99999/v1",
        "https://host:/v1/../../x",
        "https://host/a/../b",
        "https://host/a/%2e%2e/b",
        "https://host/a%2fb",
        "https://host/a%5cb",
        "https://host/%zz",
        "https://host/a b",
        "https://host/a\nb",
        "https://host./v1",
        "https://ho_st.example.%31",
        "https://bücher.example/v1",
        "https://①②⑦.0.0.1/v1",
        "https://2130706433/v1",
        "https://0x7f000001/v1",
        "https://0177.0.0.1/v1",
        "https://127.1/v1",
        "https://1.2.3/v1",
        "https://0x7f.1/v1",
        "https://256.1.1.1/v1",
        "https://[fe80::1%25eth0]/v1",
        "https://[::1/v1",
        "https://-host.example/v1",
        "https://a..b/v1",
        "https://" + "a" * 3000,
    ],
)
def test_what_programs_read_differently_is_refused(text: str) -> None:
    with pytest.raises(BadBaseUrl) as caught:
        CLOSED.check_base_url(text)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:169.254.169.254]",
        "[::ffff:8.8.8.8]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "[2001:0:1::1]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "localhost",
        "x.localhost",
    ],
)
def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    with pytest.raises(ForbiddenAddress) as caught:
        CLOSED.check_base_url(f"https://{host}/v1")
    assert caught.value.code == "endpoint_forbidden_address"
    assert "BYOK_ENDPOINT_ALLOW" in caught.value.hint


def test_http_and_private_hosts_need_the_operators_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", " 127.0.0.1:8000, [::1]:9000 ,LLM.lan:80,169.254.169.254:80")
    policy = EgressPolicy.from_environment()
    assert policy.check_base_url("http://127.0.0.1:8000/v1").origin == "http://127.0.0.1:8000"
    assert policy.check_base_url("http://[::1]:9000/v1").host == "::1"
    assert policy.check_base_url("http://llm.lan/v1").port == 80
    for text in ("http://127.0.0.1:8001/v1", "http://127.0.0.2:8000/v1", "http://api.example.org/v1", "http://169.254.169.254/v1"):
        with pytest.raises(ForbiddenAddress):
            policy.check_base_url(text)
    monkeypatch.delenv("BYOK_ENDPOINT_ALLOW")
    assert EgressPolicy.from_environment() == CLOSED


@pytest.mark.parametrize("text", ["localhost", "host:", ":80", "host:x", "host:0", "127.1:80", "http://host:80", "::1:80"])
def test_a_list_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(BadAllowList, match="BYOK_ENDPOINT_ALLOW"):
        EgressPolicy.parse(text)


@given(st.ip_addresses(v=4))
def test_every_address_that_python_calls_private_is_refused(address: ipaddress.IPv4Address) -> None:
    # 3.11 knows fewer special ranges than our list; none that it knows may be missing from ours.
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast or address.is_reserved:
        assert refusal(address, listed=False)


@given(st.ip_addresses(v=4))
def test_an_address_wrapped_in_ipv6_is_never_dialled(address: ipaddress.IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::", "::"):
        wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) + int(address))
        if wrapped != ipaddress.IPv6Address("::1"):
            assert refusal(wrapped, listed=True)


@given(st.text(max_size=60))
def test_any_text_is_a_base_url_or_a_named_error(text: str) -> None:
    for candidate in (text, f"https://{text}", f"https://host/{text}"):
        try:
            base = CLOSED.check_base_url(candidate)
        except (BadBaseUrl, ForbiddenAddress):
            continue
        assert CLOSED.check_base_url(base.url) == base
