"""One request and its whole reply, bounded in time and size."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Protocol

import aiohttp
from yarl import URL

from byok.endpoint.errors import EndpointError, EndpointTimeout, ResponseInvalid
from byok.endpoint.explain import explain
from byok.endpoint.policy import BaseUrl
from byok.endpoint.transport import Dial, dial
from byok.endpoint.wire import Redactor, Reply

MAX_BODY = 16 * 1024 * 1024
"""Bytes of an answer, at most: many times the longest answer of any model."""

MAX_STREAM = 64 * 1024 * 1024
"""Bytes of a stream, at most: each token comes with some 300 bytes around it. They are not kept."""

_AFTER_END_S = 0.25
_STALE_S = 1.0

MAX_ERROR_BODY = 64 * 1024
"""Bytes that are read of an error."""


class Sink(Protocol):
    """Takes a stream as it comes."""

    @property
    def whole(self) -> bool:
        """Whether the stream has said that it is over."""
        ...

    def feed(self, part: bytes, at_ms: float) -> bool:
        """Take what came.

        Args:
            part: Bytes, cut anywhere.
            at_ms: Milliseconds since the request was sent.

        Returns:
            Whether this is enough: the connection is then closed.
        """
        ...


class Opener(Protocol):
    """Makes an HTTP session, inside a running event loop."""

    def __call__(self, *, reuse: bool) -> aiohttp.ClientSession:
        """With or without a pool of kept connections."""
        ...


class Exchange:
    """Sends requests to one endpoint.

    Args:
        base: The endpoint.
        opener: Makes the HTTP clients.
        headers: Sent with every request.
        redact: Takes the key out of replies.
        timeout_s: Deadline of one request, from the start to the last byte.
    """

    def __init__(self, base: BaseUrl, opener: Opener, headers: Mapping[str, str], redact: Redactor, timeout_s: float) -> None:
        self._base, self._opener, self._redact, self._timeout_s = base, opener, redact, timeout_s
        self._headers, self._urls = dict(headers), dict[str, URL]()
        self._http: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Make the pool; needs a running event loop."""
        self._http = self._opener(reuse=True)

    async def close(self) -> None:
        """Close all connections."""
        for client in (self._http, self._fresh):
            if client is not None:
                await client.close()
        self._http = self._fresh = None

    def use_headers(self, headers: Mapping[str, str]) -> None:
        """Send these with every request from now on, in place of those before."""
        self._headers = dict(headers)

    async def send(self, method: str, path: str, content: bytes | None, sink: Sink | None = None) -> Reply:
        """Send a request, and read the whole reply.

        Errors are raised outside the `except` blocks: no library exception, whose request holds the key, hangs on them.

        Args:
            method: HTTP method.
            path: Route, joined to the base URL.
            content: Body, or None.
            sink: Takes the body of an event stream, and the reply then has none; any other body is in the reply.

        Raises:
            EndpointError: No whole reply came.
        """
        if self._http is None:
            raise RuntimeError("use the client as an async context manager")
        flight = _Flight()
        failure: EndpointError
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self._send(self._http, flight, method, path, content, sink)
                except (aiohttp.ClientError, OSError) as error:
                    if not flight.stale(error):
                        raise
                # The server had closed an idle connection; nothing of an answer was read.
                self._fresh = self._fresh or self._opener(reuse=False)
                return await self._send(self._fresh, flight, method, path, content, sink)
        except aiohttp.ClientError as error:  # first: that no connection came in time is a `TimeoutError` too
            failure = explain(error, self._base, answered=flight.answered)
        except TimeoutError:
            failure = EndpointTimeout(
                f"{self._base.origin}: no complete answer within {self._timeout_s:g} s", hint="the endpoint is slow or stuck"
            )
        except OSError as error:
            failure = explain(error, self._base, answered=flight.answered)
        except UnicodeError:
            # What a status line or a header says cannot even be read as text.
            failure = ResponseInvalid(f"{self._base.origin}: the head of the answer is not HTTP", hint="the server may be hostile")
        raise failure

    def _url(self, path: str) -> URL:
        """The URL of a route, as it was checked: not normalised anew."""
        found = self._urls.get(path)
        if found is None:
            found = self._urls[path] = URL(self._base.join(path), encoded=True)
        return found

    async def _send(
        self, client: aiohttp.ClientSession, flight: _Flight, method: str, path: str, content: bytes | None, sink: Sink | None
    ) -> Reply:
        started = flight.started = time.perf_counter()
        flight.dial = Dial()
        before = dial.set(flight.dial)
        try:
            response = await client.request(method, self._url(path), data=content, headers=self._headers, allow_redirects=False)
        finally:
            dial.reset(before)
        flight.answered = True
        ok = 200 <= response.status < 300
        encoding = response.headers.get("content-encoding", "identity").lower()
        encoded = encoding not in ("", "identity")
        try:
            if ok and encoded:
                raise ResponseInvalid(f"the answer is encoded ({encoding[:20]!r}), although that was not asked for", status=response.status)
            if ok and sink is not None and "event-stream" in response.headers.get("content-type", "").lower():
                await _pour(response, sink, started)
                body = b""
            elif ok:
                body = await _read(response, MAX_BODY)
            else:
                # The status of an error tells enough, when its body cannot be read.
                body = b"" if encoded else await _read_error(response)
            if ok and len(body) > MAX_BODY:
                raise ResponseInvalid(
                    f"the answer is larger than {MAX_BODY // 2**20} MiB", hint="the server may be hostile", status=response.status
                )
        finally:
            # A connection whose answer was not read to its end is closed by this, any other kept.
            response.release()
        # What is read out of an answer is redacted text by text; of an error, a cut could leave a part of a key.
        return Reply(response.status, _headers_of(response), body if ok else self._redact.raw(body), (time.perf_counter() - started) * 1000)


class _Flight:
    """How far a request has come."""

    def __init__(self) -> None:
        self.dial = Dial()
        self.answered = False
        self.started = 0.0

    def stale(self, cause: BaseException) -> bool:
        """Whether the request died on a pooled connection that the server had closed, before any byte of an answer."""
        if self.answered or self.dial.made or isinstance(cause, aiohttp.ClientConnectorError):
            return False
        if time.perf_counter() - self.started > _STALE_S:
            # A server that closed before fails at once; one that took its time had the request, and may have worked for it.
            return False
        # `message` is a parsed head when the connection broke after one.
        return isinstance(cause, aiohttp.ClientOSError) or (
            isinstance(cause, aiohttp.ServerDisconnectedError) and isinstance(cause.message, str)
        )


def _headers_of(response: aiohttp.ClientResponse) -> dict[str, str]:
    """The headers by their names in lower case; several of one name joined."""
    found: dict[str, str] = {}
    for raw_name, raw in response.raw_headers:
        name, value = raw_name.decode("latin-1").lower(), _text(raw)
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, or a little more than its first `limit` bytes."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > limit:
            break
    return b"".join(parts)


async def _pour(response: aiohttp.ClientResponse, sink: Sink, started: float) -> None:
    """Give a stream to its sink as it comes."""
    size = 0
    parts = response.content.iter_any()
    async for part in parts:
        size += len(part)
        if size > MAX_STREAM:
            raise ResponseInvalid(
                f"the stream is larger than {MAX_STREAM // 2**20} MiB", hint="the server may be hostile", status=response.status
            )
        if sink.feed(part, (time.perf_counter() - started) * 1000):
            break
    if sink.whole:
        # The body's own end, which follows at once, lets the connection be used again. Who goes on instead is left.
        rest = 0
        with contextlib.suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(_AFTER_END_S):
                async for part in parts:
                    rest += len(part)
                    if rest > MAX_ERROR_BODY:
                        break


async def _read_error(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await _read(response, MAX_ERROR_BODY)
    except aiohttp.ClientError:
        return b""
