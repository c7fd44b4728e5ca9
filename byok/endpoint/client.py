"""The client: one endpoint, one model, one set of credentials, for as long as one shard runs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import quote

from aiohttp.abc import AbstractResolver

from byok.endpoint.answers import ChatAnswer, read_json
from byok.endpoint.asking import Asking, ChatOptions
from byok.endpoint.catalogue import Catalogue, merge, read_catalogue
from byok.endpoint.classify import classify
from byok.endpoint.credentials import Credentials
from byok.endpoint.embeddings import Embeddings, joined, read_embeddings
from byok.endpoint.errors import BadRequest, EndpointError, EndpointNotOpenAI
from byok.endpoint.exchange import Exchange, Sink
from byok.endpoint.place import Place
from byok.endpoint.policy import EgressPolicy
from byok.endpoint.profiles import PLAIN, Profile
from byok.endpoint.streams import ChatStream, read_chat
from byok.endpoint.transport import open_http
from byok.endpoint.wire import Redactor, Reply

RenewKey = Callable[[int | None], Awaitable[tuple[str, int] | None]]
"""From the version that was refused to another key and its version."""

Answer = TypeVar("Answer")

_JSON = {"Content-Type": "application/json"}

_MOST_PAGES = 10


class EndpointClient:
    """Asks one model at one endpoint. An async context manager; for one event loop.

    The credentials live in the request headers and the TLS settings only, and are taken out of every text that comes back.

    Args:
        base_url: As registered; checked again here, and again at every connection.
        remote_id: What the endpoint calls the model. Sent as it is.
        credentials: A key, or the text of `Credentials`; None shows none.
        policy: Which addresses may be called.
        profile: How the provider differs from the plain protocol.
        extra_payload: Members that are merged last into every chat request, so that the owner's values win.
        connections: Most requests at a time.
        timeout_s: Deadline of one request, from the start to the last byte.
        token_parameter: What the endpoint calls the limit of the answer's tokens; the profile's name by default.
        key_version: Version of the credentials, for the record.
        renew_key: Asked for others when the endpoint refuses those of a version; None: there are none.
        tls: TLS settings, in place of those of the credentials.
        resolver: Who resolves names, before the guard.

    Raises:
        BadBaseUrl: The base URL cannot be used.
        ForbiddenAddress: The base URL may not be called.
        EndpointAuth, BadCredentials: The credentials cannot be sent.
        BadRequest: The extra payload sets a reserved member.
    """

    def __init__(
        self,
        base_url: str,
        remote_id: str,
        credentials: str | None,
        *,
        policy: EgressPolicy,
        profile: Profile = PLAIN,
        extra_payload: dict[str, Any] | None = None,
        connections: int = 64,
        timeout_s: float = 120.0,
        token_parameter: str | None = None,
        key_version: int | None = None,
        renew_key: RenewKey | None = None,
        tls: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self.base = policy.check_base_url(base_url)
        self.remote_id, self.profile = remote_id, profile
        self._asking = Asking(remote_id, profile, dict(extra_payload or {}), token_parameter)
        self.key_version, self._renew_key, self._renewing = key_version, renew_key, asyncio.Lock()
        shown = Credentials.parse(credentials)
        self._redact = Redactor()
        shown.hide_in(self._redact)
        self._policy, self._connections, self._timeout_s, self._tls, self._resolver = policy, connections, timeout_s, tls, resolver
        self._trust = (shown.ca, shown.certificate, shown.certificate_key)
        self._line = self._make_line(shown)
        self._old_lines: list[Exchange] = []
        self._place = Place(self.base, remote_id, self._redact, profile, profile.chat_path)

    def __repr__(self) -> str:
        return f"EndpointClient({self.base.url!r}, {self.remote_id!r})"

    async def __aenter__(self) -> Self:
        self._line.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for line in (self._line, *self._old_lines):
            await line.close()

    @property
    def token_parameter(self) -> str:
        """What the endpoint calls the limit of the answer's tokens, as far as is known."""
        return self._asking.token_parameter

    def most_tokens(self, max_tokens: int | None) -> int | None:
        """The limit of the answer's tokens that a request carries; None when it carries none."""
        return self._asking.limit(max_tokens)

    @property
    def extra_payload(self) -> Mapping[str, Any]:
        """Members that are merged last into every chat request."""
        return self._asking.extra

    @property
    def state(self) -> object:
        """How the endpoint is asked now; see `adapt`."""
        return self._asking.state()

    async def chat(self, messages: list[dict[str, Any]], **options: Unpack[ChatOptions]) -> ChatAnswer:
        """Ask once. A refusal that says how to ask instead is answered by asking so (see `adapt`).

        Args:
            messages: OpenAI chat messages.
            **options: See `ChatOptions`.

        Raises:
            EndpointError: One of its subclasses says what went wrong.
        """
        return await self._adapting(partial(self.attempt, messages, **options))

    async def attempt(self, messages: list[dict[str, Any]], **options: Unpack[ChatOptions]) -> ChatAnswer:
        """Send exactly one chat request (but for a stale pooled connection); otherwise like `chat`."""
        body, place = self._asking.chat(messages, options), self._place
        limit = self._asking.limit(options.get("max_tokens"))
        tools = [str(tool["function"]["name"]) for tool in options.get("tools") or []]
        stream = ChatStream(place, options.get("enough")) if options.get("stream") else None
        reply = await self._line.send("POST", place.route, body, stream)
        return read_chat(reply, stream, place, limit=limit, tools=tools)

    async def embed(self, texts: list[str], *, dimensions: int | None = None) -> Embeddings:
        """Embed texts, in as many requests as the provider's batches make of them, one after the other.

        A refusal that says how to ask instead is answered by asking so.

        Args:
            texts: One or more.
            dimensions: Length of the vectors, where the model can choose; None leaves it to the endpoint.

        Raises:
            EndpointError: One of its subclasses says what went wrong; what the batches before it brought is lost.
        """
        size = self.profile.embedding_batch
        batches = [texts[start : start + size] for start in range(0, len(texts), size)] or [[]]
        return joined([await self._adapting(partial(self.attempt_embedding, batch, dimensions=dimensions)) for batch in batches])

    async def attempt_embedding(self, texts: list[str], *, dimensions: int | None = None) -> Embeddings:
        """Send exactly one embeddings request (but for a stale pooled connection), with one batch; otherwise like `embed`."""
        place = replace(self._place, route=self.profile.embeddings_path)
        reply = await self._line.send("POST", place.route, self._asking.embeddings(texts, dimensions))
        if not 200 <= reply.status < 300:
            raise classify(reply, place)
        return read_embeddings(reply, place, len(texts))

    async def renew(self, sent_with: int | None) -> bool:
        """After a refusal of the credentials: use others, if there are any now; True when another try makes sense.

        Args:
            sent_with: Version of those that were refused.

        Raises:
            ByokError: The others do not open.
        """
        async with self._renewing:
            if self.key_version != sent_with:
                return True  # another request in flight has renewed them
            found = await self._renew_key(sent_with) if self._renew_key else None
            if found is None:
                return False
            shown = Credentials.parse(found[0])
            shown.hide_in(self._redact)
            trust = (shown.ca, shown.certificate, shown.certificate_key)
            if trust == self._trust:
                self._line.use_headers(shown.request_headers() | _JSON)
            else:
                # Connections trust what they were opened with; those in use end with their requests.
                line = self._make_line(shown)
                line.open()
                self._old_lines.append(self._line)
                self._trust, self._line = trust, line
            self.key_version = found[1]
            return True

    def adapt(self, error: EndpointError) -> bool:
        """Change how this client asks, if a refusal says how; True when another try makes sense."""
        return self._asking.adapt(error)

    async def models(self) -> list[str] | None:
        """The model ids that the endpoint lists; None when it does not offer a list.

        Raises:
            EndpointError: The route is there but fails or refuses.
        """
        found = await self.catalogue()
        return None if found is None else [model.id for model in found.models]

    async def catalogue(self) -> Catalogue | None:
        """What the endpoint lists; None when it does not offer a list.

        Raises:
            EndpointError: The route is there but fails or refuses.
        """
        if not self.profile.models_path:
            return None
        found: list[Catalogue] = []
        path = self.profile.models_path
        while len(found) < _MOST_PAGES:
            page = await self._page(path)
            if page is None:
                break
            found.append(page)
            if page.next_page is None:
                break
            joint = "&" if "?" in self.profile.models_path else "?"
            path = f"{self.profile.models_path}{joint}{page.next_parameter}={quote(page.next_page, safe='')}"
        return merge(found) if found else None

    async def send(self, method: str, route: str, body: bytes | None, sink: Sink | None = None) -> Reply:
        """Send a request as it is, and return the whole reply, whatever its status: for who checks an endpoint.

        Args:
            method: HTTP method.
            route: Path after the base URL.
            body: As it is to be sent.
            sink: Takes the body of an event stream, and the reply then has none.

        Raises:
            EndpointError: No whole reply came.
        """
        return await self._line.send(method, route, body, sink)

    def redact(self, text: str) -> str:
        """`text` without the credentials."""
        return self._redact(text)

    async def _page(self, path: str) -> Catalogue | None:
        place = replace(self._place, route=path)
        reply = await self._line.send("GET", path, None)
        if reply.status in (404, 405, 501):
            return None
        if not 200 <= reply.status < 300:
            raise classify(reply, place)
        try:
            value = read_json(reply, place)
        except EndpointNotOpenAI:
            return None
        if isinstance(value, dict) and value.get("error"):
            raise classify(reply, place)
        return read_catalogue(value, redact=self._redact)

    async def _adapting(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        for _ in range(3):
            sent_as = self.state
            try:
                return await ask()
            except BadRequest as error:
                refused = error
            # Another request in flight may have adapted the client meanwhile; then this one only has to be sent anew.
            if not self.adapt(refused) and self.state == sent_as:
                break
        raise refused

    def _make_line(self, shown: Credentials) -> Exchange:
        opener = partial(
            open_http,
            self.base,
            self._policy,
            connections=self._connections,
            tls=self._tls or shown.tls(),
            resolver=self._resolver,
        )
        return Exchange(self.base, opener, shown.request_headers() | _JSON, self._redact, self._timeout_s)
