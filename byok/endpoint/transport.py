"""The way out: aiohttp, with every dialled address checked.

None of its own redirects, proxies, cookies or decompression are used. It sends a GET again by itself when a kept connection turns out to be
closed; nothing that costs anything is a GET.
"""

from __future__ import annotations

import contextvars
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from functools import cache
from typing import Any

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from byok import __version__
from byok.endpoint.addresses import from_dns64
from byok.endpoint.errors import ForbiddenAddress
from byok.endpoint.policy import BaseUrl, EgressPolicy

CONNECT_TIMEOUT_S = 10.0
"""Longest wait for a connection, TLS included."""

KEEPALIVE_S = 4.0
"""Idle connections are given up before the 5 s after which uvicorn, and so vLLM, closes them."""


UNREAD_S = 30.0
"""A server that takes in nothing for so long is gone. Without it, a request that was given up would stay with its connection."""


class AddressRefused(OSError):
    """What the guard raises inside aiohttp, which expects an `OSError` there."""

    def __init__(self, refused: ForbiddenAddress) -> None:
        super().__init__(refused.message)
        self.refused = refused


class GuardedResolver(AbstractResolver):
    """Gives the addresses of a name, when all of them may be dialled.

    Args:
        policy: The rules.
        base: The endpoint.
        inner: Who resolves; the system's resolver by default.
    """

    def __init__(self, policy: EgressPolicy, base: BaseUrl, inner: AbstractResolver | None = None) -> None:
        self._policy, self._base = policy, base
        self._inner = inner or ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """The addresses of `host`.

        A name with a public and a private address is a trick or a mistake: it is refused whole, not used by halves.

        Raises:
            AddressRefused: One of its addresses may not be dialled.
            OSError: It has none.
        """
        found = await self._inner.resolve(host, port, family)
        if not found:
            raise OSError(f"{host} has no address")
        addresses = [ipaddress.ip_address(result["host"]) for result in found]
        if not all(map(from_dns64, addresses)):
            pairs = [(result, address) for result, address in zip(found, addresses, strict=True) if not from_dns64(address)]
            found, addresses = [result for result, _ in pairs], [address for _, address in pairs]
        for address in addresses:
            try:
                self._policy.check_address(self._base.host, self._base.port, address)
            except ForbiddenAddress as error:
                refused = AddressRefused(error)
                break
        else:
            return found
        raise refused

    async def close(self) -> None:
        await self._inner.close()


@dataclass
class Dial:
    """What is known about the connection of the request under way."""

    made: bool = False
    """Whether a connection was opened for it; otherwise one that was kept carries it."""


dial: contextvars.ContextVar[Dial] = contextvars.ContextVar("byok_endpoint_dial")
"""Set by who sends a request; the opening of a connection for it, which runs in the same context, fills it in."""


@cache
def default_tls() -> ssl.SSLContext:
    """TLS with the usual certificate authorities; loading them costs some 20 ms, so it is done once."""
    return httpx.create_ssl_context(trust_env=False)


def open_http(
    base: BaseUrl,
    policy: EgressPolicy,
    *,
    connections: int,
    reuse: bool = True,
    tls: ssl.SSLContext | None = None,
    resolver: AbstractResolver | None = None,
) -> aiohttp.ClientSession:
    """HTTP towards one endpoint; needs a running event loop.

    Args:
        base: The endpoint; the guard holds for its host and port.
        policy: The rules.
        connections: Most connections at a time.
        reuse: Whether connections are kept for later requests.
        tls: TLS settings, for a private authority.
        resolver: Who resolves names, before the guard.
    """

    def make_socket(address: tuple[Any, ...]) -> socket.socket:
        # The last word: called for each address that is dialled, also for one that stands in the URL and is never resolved.
        family, kind, protocol, _, target = address
        try:
            policy.check_address(base.host, base.port, ipaddress.ip_address(target[0]))
        except ForbiddenAddress as error:
            refused = AddressRefused(error)
        else:
            dial.get().made = True
            made = socket.socket(family=family, type=kind, proto=protocol)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_S * 1000))
            return made
        raise refused

    connector = aiohttp.TCPConnector(
        limit=connections,
        ssl=tls or default_tls(),
        resolver=GuardedResolver(policy, base, resolver),
        socket_factory=make_socket,
        **({"keepalive_timeout": KEEPALIVE_S} if reuse else {"force_close": True}),
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": f"byok/{__version__}"},
        trust_env=False,
        # None is kept: each could be set by a hostile endpoint, and would come back to it with every request.
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        # The total deadline is the caller's; per-read timeouts let a slow drip through.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
    )
