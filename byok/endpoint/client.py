"""The chat client: one endpoint, one model, one key, for as long as one shard runs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp.abc import AbstractResolver

from byok.endpoint.answers import ChatAnswer, read_answer, read_json
from byok.endpoint.classify import TOKEN_PARAMETERS, classify
from byok.endpoint.errors import (
    BadRequest,
    EndpointAuth,
    EndpointError,
    EndpointNotOpenAI,
)
from byok.endpoint.exchange import Exchange
from byok.endpoint.policy import EgressPolicy
from byok.endpoint.transport import open_http
from byok.endpoint.wire import Redactor, whole

RESERVED = frozenset({"messages", "model", "stream"})
"""Members of a request that the owner's extra payload may not set."""


RenewKey = Callable[[int | None], Awaitable[tuple[str, int] | None]]
"""From the version that was refused to another key and its version."""


def check_key(key: str | None) -> None:
    """Refuse a key that no HTTP header can carry.

    Raises:
        EndpointAuth: It is empty, or has characters other than printable ASCII without spaces. The key is not repeated.
    """
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise EndpointAuth(
            "the key is empty or has characters that no HTTP header can carry", hint="give the key alone, without spaces or quotes"
        )


class EndpointClient:
    """Asks one model at one endpoint. An async context manager; for one event loop.

    The key lives in the request headers only and is taken out of every text that comes back.

    Args:
        base_url: As registered; checked again here, and again at every connection.
        remote_id: What the endpoint calls the model. Sent as it is.
        api_key: Sent as `Authorization: Bearer`; None sends no such header.
        policy: Which addresses may be called.
        extra_payload: Members that are merged last into every chat request, so that the owner's values win.
        connections: Most requests at a time.
        timeout_s: Deadline of one request, from the start to the last byte.
        token_parameter: What the endpoint calls the limit of the answer's tokens.
        key_version: Version of the key, for the record.
        renew_key: Asked for another key when the endpoint refuses the one of a version; None: there is none.
        tls: TLS settings, for a private authority.
        resolver: Who resolves names, before the guard.

    Raises:
        BadBaseUrl: The base URL cannot be used.
        ForbiddenAddress: The base URL may not be called.
        EndpointAuth: The key has characters that no header can carry.
        BadRequest: The extra payload sets a reserved member.
    """

    def __init__(
        self,
        base_url: str,
        remote_id: str,
        api_key: str | None,
        *,
        policy: EgressPolicy,
        extra_payload: dict[str, Any] | None = None,
        connections: int = 64,
        timeout_s: float = 120.0,
        token_parameter: str = TOKEN_PARAMETERS[0],
        key_version: int | None = None,
        renew_key: RenewKey | None = None,
        tls: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self.base = policy.check_base_url(base_url)
        self.remote_id = remote_id
        self.token_parameter = token_parameter
        self._extra = dict(extra_payload or {})
        taken = sorted(RESERVED & self._extra.keys())
        if taken:
            raise BadRequest(f"the extra payload may not set {', '.join(taken)}", hint="remove it from --extra-payload", parameter=taken[0])
        check_key(api_key)
        self.key_version, self._renew_key, self._renewing = key_version, renew_key, asyncio.Lock()
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        self._redact = Redactor(api_key)
        open_client = partial(open_http, self.base, policy, self._headers, connections=connections, tls=tls, resolver=resolver)
        self._line = Exchange(self.base, open_client, self._redact, timeout_s)

    def __repr__(self) -> str:
        return f"EndpointClient({self.base.url!r}, {self.remote_id!r})"

    async def __aenter__(self) -> Self:
        self._line.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._line.close()

    async def chat(
        self,
        messages: list[dict[str, Any]],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        response_format: dict[str, Any] | None = None,
        seed: int | None = None,
    ) -> ChatAnswer:
        """Ask once. A refusal of the name of a parameter, for which there is another, is answered with that (see `adapt`).

        Args:
            messages: OpenAI chat messages.
            max_tokens: Most tokens of the answer; None leaves it to the endpoint.
            temperature: None leaves it to the endpoint.
            response_format: OpenAI `response_format`.
            seed: Sampling seed, where the endpoint knows one.

        Raises:
            EndpointError: One of its subclasses says what went wrong.
        """
        ask = partial(self.attempt, messages, max_tokens=max_tokens, temperature=temperature, response_format=response_format, seed=seed)
        sent_as = self.token_parameter
        try:
            return await ask()
        except BadRequest as error:
            refused = error
        # Another request in flight may have adapted the client meanwhile; then this one only has to be sent anew.
        if max_tokens is not None and (self.adapt(refused) or self.token_parameter != sent_as):
            return await ask()
        raise refused

    async def renew(self, sent_with: int | None) -> bool:
        """After a refusal of the key: use another one, if there is one now; True when another try makes sense.

        Args:
            sent_with: Version of the key that was refused.

        Raises:
            ByokError: The other key does not open.
        """
        async with self._renewing:
            if self.key_version != sent_with:
                return True  # another request in flight has renewed it
            found = await self._renew_key(sent_with) if self._renew_key else None
            if found is None:
                return False
            key, version = found
            check_key(key)
            self._headers["Authorization"] = f"Bearer {key}"
            self._redact.add(key)
            self._line.use_headers(self._headers)
            self.key_version = version
            return True

    def adapt(self, error: EndpointError) -> bool:
        """Change how this client asks, if a refusal says how; True when another try makes sense."""
        wanted = error.fields.get("instead")
        if not isinstance(wanted, str) or wanted == self.token_parameter or self._extra.keys() & set(TOKEN_PARAMETERS):
            return False
        self.token_parameter = wanted
        return True

    async def attempt(
        self,
        messages: list[dict[str, Any]],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        response_format: dict[str, Any] | None = None,
        seed: int | None = None,
    ) -> ChatAnswer:
        """Send exactly one chat request (but for a stale pooled connection); otherwise like `chat`."""
        reply = await self._line.send("POST", "/chat/completions", self._payload(messages, max_tokens, temperature, response_format, seed))
        if not 200 <= reply.status < 300:
            raise classify(reply, self.base, self.remote_id, self._redact)
        return read_answer(reply, self.base, self.remote_id, self._redact, limit=self._limit(max_tokens))

    async def models(self) -> list[str] | None:
        """The model ids that the endpoint lists; None when it does not offer a list.

        Raises:
            EndpointError: The route is there but fails or refuses.
        """
        reply = await self._line.send("GET", "/models", None)
        if reply.status in (404, 405, 501):
            return None
        if not 200 <= reply.status < 300:
            raise classify(reply, self.base, self.remote_id, self._redact)
        try:
            value = read_json(reply, self.base, self._redact)
        except EndpointNotOpenAI:
            return None
        if isinstance(value, dict) and value.get("error"):
            raise classify(reply, self.base, self.remote_id, self._redact)
        entries = value.get("data") if isinstance(value, dict) else value
        if not isinstance(entries, list):
            return None
        found = [entry.get("id") if isinstance(entry, dict) else entry for entry in entries]
        return [self._redact(whole(name)) for name in found if isinstance(name, str)]

    def _limit(self, max_tokens: int | None) -> int | None:
        """The limit of the answer's tokens that a request carries: the owner's own, where there is one, stands alone."""
        owners = [value for name in TOKEN_PARAMETERS if isinstance(value := self._extra.get(name), int)]
        return max(owners) if owners else max_tokens

    def _payload(
        self,
        messages: list[dict[str, Any]],
        max_tokens: int | None,
        temperature: float | None,
        response_format: dict[str, Any] | None,
        seed: int | None,
    ) -> bytes:
        options = {"temperature": temperature, "response_format": response_format, "seed": seed}
        # Two limits in one request are refused by some and read differently by others: the owner's stands alone.
        if not self._extra.keys() & set(TOKEN_PARAMETERS):
            options[self.token_parameter] = max_tokens
        body = {"model": self.remote_id, "messages": messages} | {name: value for name, value in options.items() if value is not None}
        try:
            return orjson.dumps(body | self._extra)
        except (orjson.JSONEncodeError, TypeError):
            problem = BadRequest(
                "the request cannot be written as JSON", hint="a text has broken characters, or the extra payload odd values"
            )
        raise problem
