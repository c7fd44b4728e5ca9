"""Sends the requests of a check one after another, reads each with the client's own readers, and keeps count of their cost."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, Unpack

import orjson

from byok.endpoint.answers import read_json
from byok.endpoint.asking import Asking, ChatOptions
from byok.endpoint.bodies import read_error
from byok.endpoint.catalogue import read_catalogue
from byok.endpoint.checking.look import Frames, Look, Seen, Tap
from byok.endpoint.checking.plan import TEXTS, Ask
from byok.endpoint.classify import classify
from byok.endpoint.client import EndpointClient
from byok.endpoint.credentials import Credentials
from byok.endpoint.embeddings import read_embeddings
from byok.endpoint.errors import EndpointError
from byok.endpoint.place import Place
from byok.endpoint.policy import EgressPolicy
from byok.endpoint.profiles import Profile
from byok.endpoint.streams import ChatStream, read_chat
from byok.endpoint.wire import BadJson, Redactor, Reply, decode_json, excerpt, request_id

TIMEOUT_S = 60.0
"""Deadline of one request: the answers are short."""


@dataclass(frozen=True)
class Target:
    """What is checked.

    Attributes:
        url: Base URL.
        model_id: What the endpoint calls the model.
        credentials: A key, or the text of `Credentials`; None shows none.
        profile: How its provider is asked.
        policy: Which addresses may be called.
        embedding_model: A model that makes embeddings; None: the first that the list names as one, else the model itself is asked.
    """

    url: str
    model_id: str
    credentials: str | None = field(repr=False)
    profile: Profile
    policy: EgressPolicy
    embedding_model: str | None = None

    @property
    def shown(self) -> Credentials:
        """The credentials."""
        return Credentials.parse(self.credentials)

    @property
    def with_key(self) -> bool:
        """Whether a key was given."""
        return self.shown.scheme != "none"


class Session:
    """One check under way. An async context manager; for one event loop.

    Args:
        target: What is checked.
        budget: Tokens that it may cost.
    """

    def __init__(self, target: Target, budget: int) -> None:
        self.target, self.budget = target, budget
        shown = target.shown
        self.redact = Redactor()
        shown.hide_in(self.redact)
        self.client = self._client(shown)
        # Of everything that proves who asks, only the key is left out or replaced: what a proxy wants beside it stays.
        self._bare = self._client(replace(shown, scheme="none", key=None, header=None, user=None))
        # Random, so that nothing of the real key goes anywhere but where it belongs.
        self._wrong = self._client(replace(shown, key=f"byok-check-{secrets.token_hex(16)}") if target.with_key else shown)
        self.base = self.client.base
        self.asking = Asking(target.model_id, target.profile, {})
        self.seen = Seen()
        self._above = 0

    def _client(self, shown: Credentials) -> EndpointClient:
        target = self.target
        return EndpointClient(
            *(target.url, target.model_id, shown.text()), policy=target.policy, profile=target.profile, connections=1, timeout_s=TIMEOUT_S
        )

    async def __aenter__(self) -> Self:
        for client in (self.client, self._bare, self._wrong):
            await client.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        for client in (self.client, self._bare, self._wrong):
            await client.__aexit__(*error)

    @property
    def spent(self) -> int:
        """Tokens so far: those that were told, and the estimates of the others."""
        return sum(look.cost for look in self.seen.looks)

    def fits(self, bound: int) -> bool:
        """Whether a request stays within the budget; what templates have put around prompts so far is reckoned with."""
        return bound == 0 or self.spent + bound + self._above <= self.budget

    async def chat(self, ask: Ask, *, wrong_key: bool = False, **options: Unpack[ChatOptions]) -> Look:
        """Send a chat.

        Args:
            ask: What is asked.
            wrong_key: Show a random key.
            **options: Further `ChatOptions`, which win.
        """
        asked: ChatOptions = {"max_tokens": ask.limit}
        asked.update(ask.options)
        asked.update(options)
        body = self.asking.chat(ask.messages, asked)
        place = self._place(self.target.profile.chat_path)
        stream = ChatStream(place, asked.get("enough")) if asked.get("stream") else None
        tap = None if stream is None else Tap(stream)
        client = self._wrong if wrong_key else self.client
        tools = [str(tool["function"]["name"]) for tool in asked.get("tools") or []]

        def read(reply: Reply) -> dict[str, Any]:
            return {"answer": read_chat(reply, stream, place, limit=ask.limit, tools=tools, sink=tap)}

        look = await self._send(ask, client, "POST", place.route, body, read, tap)
        return self._keep(replace(look, limit=ask.limit))

    async def models(self, ask: Ask, *, bare: bool = False, page: str = "") -> Look:
        """Read the models list, or a further page of it."""
        place = self._place((self.target.profile.models_path or "/models") + page)

        def read(reply: Reply) -> dict[str, Any]:
            if not 200 <= reply.status < 300:
                raise classify(reply, place)
            return {"catalogue": read_catalogue(read_json(reply, place), redact=self.redact)}

        return self._keep(await self._send(ask, self._bare if bare else self.client, "GET", place.route, None, read, None))

    async def embed(self, ask: Ask, model: str, encoding: str | None) -> Look:
        """Ask for embeddings, with `encoding_format` where one is given."""
        place = replace(self._place(self.target.profile.embeddings_path), remote_id=model)
        body: dict[str, Any] = {"model": model, "input": list(TEXTS)} | ({"encoding_format": encoding} if encoding else {})

        def read(reply: Reply) -> dict[str, Any]:
            if not 200 <= reply.status < 300:
                raise classify(reply, place)
            return {"vectors": read_embeddings(reply, place, len(TEXTS))}

        return self._keep(await self._send(ask, self.client, "POST", place.route, orjson.dumps(body), read, None))

    async def get(self, ask: Ask, route: str) -> Look:
        """Ask for a route, whatever comes."""
        place = self._place(route)

        def read(reply: Reply) -> dict[str, Any]:
            if reply.status >= 300:
                raise classify(reply, place)
            return {}

        return self._keep(await self._send(ask, self.client, "GET", route, None, read, None))

    def _place(self, route: str) -> Place:
        return Place(self.base, self.target.model_id, self.redact, self.target.profile, route)

    async def _send(
        self,
        ask: Ask,
        client: EndpointClient,
        method: str,
        route: str,
        body: bytes | None,
        read: Callable[[Reply], Mapping[str, Any]],
        tap: Tap | None,
    ) -> Look:
        started = time.perf_counter()
        reply: Reply | None = None
        found: Mapping[str, Any] = {}
        error: EndpointError | None = None
        try:
            reply = await client.send(method, route, body, tap)
            if tap is not None and tap.stream.other is not None:
                # A body under the label of a stream is read, and looked at, as what it is.
                reply = replace(reply, body=tap.stream.other)
                tap.kept.clear()
            found = read(reply)
        except EndpointError as caught:
            error = caught
        return Look(
            number=len(self.seen.looks) + 1,
            ask=ask.name,
            what=ask.what,
            method=method,
            route=route,
            sent={} if body is None else orjson.loads(body),
            bound=ask.bound,
            ms=(time.perf_counter() - started) * 1000,
            status=reply.status if reply is not None else error.status if error is not None else None,
            request_id=self._id(reply, error, found),
            reply=reply,
            value=_value(reply),
            error=error,
            frames=Frames.of(bytes(tap.kept)) if tap is not None else None,
            **found,
        )

    def _id(self, reply: Reply | None, error: EndpointError | None, found: Mapping[str, Any]) -> str | None:
        named = request_id(reply, self.redact) if reply is not None else None
        answer, said = found.get("answer"), error.fields.get("request_id") if error is not None else None
        in_body = read_error(reply).request_id if error is not None and reply is not None and reply.status >= 400 else None
        known = named or (answer.request_id if answer is not None else None) or said or in_body
        return excerpt(str(known), self.redact, 120) if known else None

    def _keep(self, look: Look) -> Look:
        self.seen.looks.append(look)
        self._above = max(self._above, look.cost - look.bound)
        return look


def _value(reply: Reply | None) -> Any:
    try:
        return None if reply is None else decode_json(reply.body)
    except BadJson:
        return None
