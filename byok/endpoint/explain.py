"""Errors that are no answer of an API: a broken connection, or a 200 that is something else."""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import replace

import aiohttp

from byok.endpoint.bodies import read_error
from byok.endpoint.errors import (
    EndpointError,
    EndpointNotOpenAI,
    EndpointTls,
    EndpointUnreachable,
    ResponseInvalid,
    ResponseTruncated,
)
from byok.endpoint.place import Place
from byok.endpoint.policy import BaseUrl
from byok.endpoint.transport import CONNECT_TIMEOUT_S, AddressRefused
from byok.endpoint.wire import Redactor, Reply, excerpt, request_id


def address_hint(base: BaseUrl, route: str = "/chat/completions") -> str:
    """What the base URL probably should be, when it does not lead to a route."""
    path = base.url[len(base.origin) :]
    for ending in ("/chat/completions", "/completions", "/embeddings", "/models"):
        if path.endswith(ending):
            return f"the base URL ends before the route: {base.url.removesuffix(ending)}"
    if not re.search(r"/v\d+(?:beta\d*)?(?:/|\Z)", path):
        return f"the base URL probably should be {base.url}/v1"
    return f"check the base URL: {base.url} is used as given, and {route} is added to it"


def explain(cause: BaseException, base: BaseUrl, *, answered: bool) -> EndpointError:
    """The error that a broken exchange is.

    Args:
        cause: What aiohttp raised.
        base: The endpoint.
        answered: Whether the head of an answer had come.
    """
    where = base.origin
    refused = cause.os_error if isinstance(cause, aiohttp.ClientConnectorError) else cause.__cause__
    if isinstance(refused, AddressRefused):
        return refused.refused
    if answered:
        return ResponseTruncated(
            f"{where}: the answer was cut", hint="the server or a proxy closed the connection; it may still bill the tokens"
        )
    match cause:
        case aiohttp.ClientConnectorDNSError():
            return EndpointUnreachable(f"{where}: there is no such host", hint="check the spelling of the base URL and this machine's DNS")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            detail = refused if isinstance(refused, ssl.SSLError) else cause
            reason = getattr(detail, "verify_message", None) or getattr(detail, "reason", None) or "handshake failed"
            return EndpointTls(
                f"{where}: TLS failed: {str(reason)[:120]}",
                hint="the certificate must be valid for this host; of a private authority, give --ca-file; a plain http server needs http://",
            )
        case aiohttp.ServerTimeoutError() | asyncio.TimeoutError():
            return EndpointUnreachable(f"{where}: no connection within {CONNECT_TIMEOUT_S:.0f} s", hint="a firewall may drop the packets")
        case aiohttp.ClientConnectorError():
            reason = cause.os_error.strerror or "no connection"
            return EndpointUnreachable(f"{where}: {str(reason)[:120]}", hint="check that the server runs and that host and port are right")
        case aiohttp.ClientResponseError():
            return EndpointNotOpenAI(f"{where}: what answers does not speak HTTP/1.1", hint="check scheme and port of the base URL")
    return EndpointUnreachable(
        f"{where}: the connection was closed without an answer", hint="the server may be restarting, or expect https"
    )


def not_chat(reply: Reply, place: Place, what: str) -> EndpointNotOpenAI:
    """A 200 that is no answer of this route."""
    said = excerpt(read_error(replace(reply, body=place.redact.raw(reply.body))).message, place.redact)
    return EndpointNotOpenAI(f"{what}: {said}" if said else what, hint=address_hint(place.base, place.route), status=reply.status)


def invalid(reply: Reply, redact: Redactor, reason: str) -> ResponseInvalid:
    """A 200 whose answer cannot be used."""
    return ResponseInvalid(
        f"the endpoint's answer cannot be used: {reason}",
        hint="the server breaks the protocol; tell its operator",
        status=reply.status,
        request_id=request_id(reply, redact),
    )
