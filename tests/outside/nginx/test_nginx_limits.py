"""A real nginx that limits the rate or closes idle connections (facts 30 and 53)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from byok.sandbox import Sandbox
from byok_testing.egress import MESSAGES
from byok_testing.nginx import Nginx, client_of, fails, location

Start = Callable[..., Nginx]
Shown = Callable[..., str]


@pytest.mark.parametrize(
    ("rules", "code", "status"),
    [("", "endpoint_overloaded", 503), ("limit_req_status 429;", "endpoint_rate_limited", 429)],
    ids=["by-default", "with-429"],
)
def test_30_a_rate_limit_may_look_like_an_overload(
    proxied: Start, sandbox: Sandbox, shown: Shown, rules: str, code: str, status: int
) -> None:
    nginx = proxied(
        location(sandbox.host_port, f"limit_req zone=one; {rules}"), "limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;"
    )
    error = fails(nginx, shown(), calls=2)
    assert (error.code, error.status) == (code, status)
    # It may succeed later, nobody says when, and the advice is the one that helps.
    assert (error.retryable, error.stops_run, error.retry_after_s) == (True, False, None)
    assert "--concurrency" in error.hint
    assert sandbox.stats()["answered"] == 1


def test_53_a_connection_that_the_proxy_closed_costs_no_request(proxied: Start, sandbox: Sandbox, shown: Shown) -> None:
    nginx = proxied(f"keepalive_timeout 2s; {location(sandbox.host_port)}")

    async def go() -> list[str | None]:
        async with client_of(nginx, shown()) as client:
            answers = [await client.chat(MESSAGES), await client.chat(MESSAGES)]
            # The event loop is held, so that it does not see the end of the connection before it uses it again.
            time.sleep(3)
            answers.append(await client.chat(MESSAGES))
        return [answer.text for answer in answers]

    assert asyncio.run(go()) == ["The answer is OK"] * 3
    assert sandbox.stats()["requests"] == 3
    seen = nginx.wait_seen(3)
    assert [one["status"] for one in seen] == [200, 200, 200]
    first, second, third = (one["connection"] for one in seen)
    assert first == second != third
