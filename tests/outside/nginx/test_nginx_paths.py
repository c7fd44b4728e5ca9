"""A real nginx before an endpoint: prefixes, redirects, the private authority, pages and sizes (facts 10, 11, 13, 20, 21)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from byok.endpoint import ContextLength
from byok.sandbox import Sandbox
from byok_testing.egress import MESSAGES
from byok_testing.nginx import Nginx, ask, client_of, fails, location, make_certificates

Start = Callable[..., Nginx]
Shown = Callable[..., str]


def test_10_a_path_prefix_is_part_of_the_base_url(proxied: Start, sandbox: Sandbox, shown: Shown) -> None:
    nginx = proxied(location(sandbox.host_port))
    for base_url in (nginx.base_url, f"{nginx.base_url}/"):
        assert ask(nginx, shown(), base_url).text == "The answer is OK"
    assert {(one["method"], one["path"], one["status"]) for one in nginx.wait_seen(2)} == {("POST", "/serve/v1/chat/completions", 200)}

    async def models() -> list[str] | None:
        async with client_of(nginx, shown()) as client:
            return await client.models()

    assert sandbox.model_id in (asyncio.run(models()) or [])
    assert nginx.wait_seen(3)[-1]["path"] == "/serve/v1/models"


def test_10_20_a_page_that_is_not_found_says_what_the_base_url_should_be(proxied: Start, sandbox: Sandbox, shown: Shown) -> None:
    nginx = proxied(location(sandbox.host_port))
    error = fails(nginx, shown(), f"https://{nginx.host_port}")
    assert (error.code, error.status) == ("endpoint_not_openai", 404)
    assert "404 Not Found" in error.message
    assert error.hint.endswith(f"https://{nginx.host_port}/v1")
    assert sandbox.stats()["requests"] == 0


def test_11_a_redirect_to_the_slash_is_not_followed(proxied: Start, sandbox: Sandbox, shown: Shown) -> None:
    route = "/serve/v1/chat/completions/"
    nginx = proxied(location(sandbox.host_port, path=route, to="/v1/chat/completions"))
    error = fails(nginx, shown())
    assert (error.code, error.status) == ("endpoint_redirect", 301)
    assert error.fields["location"] == f"https://{nginx.host_port}{route}"
    assert [one["status"] for one in nginx.wait_seen(1)] == [301]
    assert sandbox.stats()["requests"] == 0


def test_11_a_redirect_from_http_to_https_is_not_followed(proxied: Start, sandbox: Sandbox, shown: Shown) -> None:
    nginx = proxied(location(sandbox.host_port))
    # The target is allowed, the authority is trusted and the route is there: nothing but our rule stops it.
    error = fails(nginx, shown(), f"http://127.0.0.1:{nginx.plain_port}/serve/v1")
    assert (error.code, error.status) == ("endpoint_redirect", 301)
    assert error.fields["location"] == f"{nginx.base_url}/chat/completions"
    assert "https" in error.hint
    assert [(one["method"], one["status"]) for one in nginx.wait_seen(1)] == [("POST", 301)]
    assert sandbox.stats()["requests"] == 0


def test_plain_http_to_the_https_port_is_told_to_use_https(proxied: Start, sandbox: Sandbox, shown: Shown) -> None:
    nginx = proxied(location(sandbox.host_port))
    error = fails(nginx, shown(), f"http://{nginx.host_port}/serve/v1")
    assert (error.code, error.status, error.stops_run) == ("endpoint_not_openai", 400, True)
    assert "https" in error.message
    assert "https://" in error.hint
    assert sandbox.stats()["requests"] == 0


def test_13_a_private_authority_is_trusted_where_it_is_given(proxied: Start, sandbox: Sandbox, shown: Shown, tmp_path: Path) -> None:
    nginx = proxied(location(sandbox.host_port))
    stranger = make_certificates(tmp_path).ca.read_text()
    for key in (shown(ca=None), shown(ca=stranger)):
        error = fails(nginx, key)
        assert (error.code, error.status, error.stops_run) == ("endpoint_tls", None, True)
        assert "certificate" in error.message
    assert nginx.seen() == []
    assert ask(nginx, shown()).text == "The answer is OK"


def test_20_a_server_that_is_down_is_a_page_with_502(proxied: Start, shown: Shown) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
    nginx = proxied(location(nobody))
    error = fails(nginx, shown())
    assert (error.code, error.status, error.retryable) == ("endpoint_overloaded", 502, True)
    assert "502 Bad Gateway" in error.message


def test_20_a_server_that_is_too_slow_is_a_page_with_504(proxied: Start, shown: Shown) -> None:
    # Connections wait in the queue of one who never takes them.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        nginx = proxied(location(f"127.0.0.1:{mute.getsockname()[1]}", "proxy_read_timeout 1s;"))
        error = fails(nginx, shown())
    assert (error.code, error.status, error.retryable) == ("endpoint_timeout", 504, True)
    assert "504 Gateway Time-out" in error.message


# aiohttp warns of every body beyond 1 MiB.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize("rules", ["", "client_max_body_size 100;"], ids=["its-own-limit", "a-small-limit"])
def test_20_a_body_beyond_the_proxys_limit_is_a_prompt_that_is_too_long(proxied: Start, sandbox: Sandbox, shown: Shown, rules: str) -> None:
    nginx = proxied(location(sandbox.host_port, rules))
    long: list[dict[str, Any]] = [*MESSAGES, {"role": "user", "content": "x" * (200 if rules else 2 * 2**20)}]

    async def go() -> None:
        async with client_of(nginx, shown()) as client:
            await client.chat(long)

    with pytest.raises(ContextLength) as caught:
        asyncio.run(go())
    assert caught.value.status == 413
    assert "413 Request Entity Too Large" in caught.value.message
    assert sandbox.stats()["requests"] == 0


def test_21_a_page_with_200_is_no_answer(proxied: Start, shown: Shown) -> None:
    nginx = proxied("location / { return 200 '<html><head><title>Sign in</title></head><body>...</body></html>'; }")
    error = fails(nginx, shown())
    assert (error.code, error.status, error.stops_run) == ("endpoint_not_openai", 200, True)
    assert "Sign in" in error.message
