"""Resolve a base URL's host and check what it resolves to, before anything is sent there."""

from __future__ import annotations

import asyncio

from aiohttp.abc import AbstractResolver

from byok.endpoint.addresses import as_address
from byok.endpoint.errors import EndpointError, EndpointUnreachable
from byok.endpoint.policy import BaseUrl, EgressPolicy
from byok.endpoint.transport import AddressRefused, GuardedResolver

RESOLVE_TIMEOUT_S = 5.0


async def check_resolved(base: BaseUrl, policy: EgressPolicy, resolver: AbstractResolver | None = None) -> None:
    """Check every address of a host at the time when its URL is saved; the same check comes again at each connection.

    Args:
        base: A checked base URL.
        policy: The rules.
        resolver: Who resolves; the system's resolver by default.

    Raises:
        ForbiddenAddress: One of the addresses may not be called.
        EndpointUnreachable: The name has no address, or none came in 5 s.
    """
    address = as_address(base.host)
    if address is not None:
        policy.check_address(base.host, base.port, address)
        return
    failure: EndpointError
    guard = GuardedResolver(policy, base, resolver)
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            await guard.resolve(base.host, base.port)
        return
    except AddressRefused as error:
        failure = error.refused
    except (OSError, TimeoutError):
        failure = EndpointUnreachable(
            f"{base.origin}: there is no such host", hint="check the spelling of the base URL and this machine's DNS"
        )
    finally:
        if resolver is None:
            await guard.close()
    raise failure
