"""One request of a check, with all that was seen of its reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from byok.costs import never_billed
from byok.endpoint.answers import ChatAnswer
from byok.endpoint.catalogue import Catalogue
from byok.endpoint.checking.plan import CUT_OFF
from byok.endpoint.embeddings import Embeddings
from byok.endpoint.errors import EndpointError
from byok.endpoint.probing.budget import sent_tokens
from byok.endpoint.sse import BadStream, Decoder
from byok.endpoint.streams import ChatStream
from byok.endpoint.usage import Usage
from byok.endpoint.wire import BadJson, Reply, decode_json

_MOST_KEPT = 256 * 1024
"""Bytes that are kept of a stream; those of a check have some thousand."""

_HELD_BACK_MS = 300.0
"""A stream that is over sooner may have come at once because it was made at once."""


class Tap:
    """Keeps a stream's bytes on their way to who reads them; see `exchange.Sink`."""

    def __init__(self, stream: ChatStream) -> None:
        self.stream = stream
        self.kept = bytearray()

    @property
    def whole(self) -> bool:
        """Whether the stream has said that it is over."""
        return self.stream.whole

    def feed(self, part: bytes, at_ms: float) -> bool:
        """Take what came."""
        if len(self.kept) < _MOST_KEPT:
            self.kept += part
        return self.stream.feed(part, at_ms)


@dataclass(frozen=True)
class Frames:
    """What a stream was made of.

    Attributes:
        chunks: Its JSON objects, in order.
        done: Whether `[DONE]` came.
        crlf: Whether lines ended with carriage return and line feed.
        comments: Comment lines.
        closed: Whether the last event had its blank line.
    """

    chunks: tuple[dict[str, Any], ...]
    done: bool
    crlf: bool
    comments: int
    closed: bool

    @classmethod
    def of(cls, raw: bytes) -> Frames | None:
        """The frames of a stream's bytes; None when there are none."""
        decoder = Decoder()
        try:
            events = decoder.feed(raw)
            last = decoder.end()
        except BadStream:
            last = None
        else:
            events += [last] if last is not None else []
        if not raw.strip():
            return None
        chunks: list[dict[str, Any]] = []
        for event in events:
            try:
                value = decode_json(event.data.encode("utf-8", "replace"))
            except BadJson:
                continue
            if isinstance(value, dict):
                chunks.append(value)
        done = any(event.data.strip() == "[DONE]" for event in events)
        return cls(tuple(chunks), done, b"\r\n" in raw, decoder.comments, last is None)


@dataclass(frozen=True, eq=False)
class Look:
    """One request, and what came of it; equal to itself alone.

    Attributes:
        number: From 1, in the order of sending.
        ask: Name of what was asked.
        what: The same for people.
        method: HTTP method.
        route: Path after the base URL.
        sent: Members of the request.
        bound: Most tokens that it may cost.
        ms: Until the last byte, or until it failed.
        status: HTTP status; None when there was no HTTP answer.
        request_id: The provider's id of the request.
        reply: The whole reply; a stream's has no body. None when no whole one came.
        value: The body's JSON value, of an error too; None when there is none.
        error: Why there is no answer.
        answer: The chat's answer.
        vectors: The embeddings.
        catalogue: The models list.
        frames: What the stream was made of, when one came.
        limit: Most tokens of the answer that were asked for.
    """

    number: int
    ask: str
    what: str
    method: str
    route: str
    sent: Mapping[str, Any]
    bound: int
    ms: float
    status: int | None
    request_id: str | None = None
    reply: Reply | None = None
    value: Any = None
    error: EndpointError | None = None
    answer: ChatAnswer | None = None
    vectors: Embeddings | None = None
    catalogue: Catalogue | None = None
    frames: Frames | None = None
    limit: int | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the reply."""
        return self.reply.headers if self.reply is not None else {}

    @property
    def good(self) -> bool:
        """Whether its status says success."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def usage(self) -> Usage | None:
        """Tokens, when something was answered."""
        return self.answer.usage if self.answer is not None else self.vectors.usage if self.vectors is not None else None

    @property
    def tokens(self) -> int | None:
        """Tokens that the endpoint reported; None when it did not."""
        usage = self.usage
        if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
            return None
        return usage.prompt_tokens + usage.completion_tokens

    @property
    def estimate(self) -> int:
        """Tokens that are counted beside those that were told: none, where these add up; else what is missing to the upper bound.

        That is the announced one, or what the length of the answer makes, if it is more; 0 for what surely cost nothing.
        """
        usage = self.usage
        if usage is not None and usage.usage_class == "reported":
            return 0
        if self.error is not None and never_billed(self.error.code, self.status):
            return 0
        beyond = sent_tokens(self.answer, self.error) - min(self.limit or 0, CUT_OFF)
        half = sum(count or 0 for count in (usage.prompt_tokens, usage.completion_tokens)) if usage is not None else 0
        return max(0, max(self.bound + max(0, beyond), half) - (self.tokens or 0))

    @property
    def cost(self) -> int:
        """Tokens that are counted in all."""
        return (self.tokens or 0) + self.estimate

    @property
    def usages(self) -> list[dict[str, Any]]:
        """The usage objects as they came, null ones left out."""
        holders = self.frames.chunks if self.frames is not None else (self.value,)
        return [holder["usage"] for holder in holders if isinstance(holder, dict) and isinstance(holder.get("usage"), dict)]

    @property
    def choices(self) -> list[dict[str, Any]]:
        """The choices as they came: of the answer, or of each chunk."""
        holders = self.frames.chunks if self.frames is not None else (self.value,)
        listed = [holder["choices"] for holder in holders if isinstance(holder, dict) and isinstance(holder.get("choices"), list)]
        return [choice for choices in listed for choice in choices if isinstance(choice, dict)]

    @property
    def held_back(self) -> bool | None:
        """Whether a stream came all at once at its end; None when that cannot be told."""
        timing = self.answer.timing if self.answer is not None else None
        if timing is None or timing.reliable is None:
            return None
        return False if timing.reliable else True if self.ms >= _HELD_BACK_MS else None

    @property
    def lost(self) -> bool:
        """Whether the endpoint did not answer at all."""
        return self.status is None and self.error is not None and self.error.code not in ("response_truncated", "response_invalid")


@dataclass
class Seen:
    """All that a check has seen.

    Attributes:
        looks: The requests, in order.
        left_out: Why something was not asked, by its name.
    """

    looks: list[Look] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def all(self, *asks: str) -> list[Look]:
        """The requests for these, in order."""
        return [look for look in self.looks if look.ask in asks]

    def last(self, ask: str) -> Look | None:
        """The last request for this: those before it were refused for how they asked."""
        return next(iter(reversed(self.all(ask))), None)

    def why(self, ask: str) -> str:
        """Why something was not asked."""
        return self.left_out.get(ask, "not asked")

    @property
    def answered(self) -> list[Look]:
        """The chats that were answered."""
        return [look for look in self.looks if look.answer is not None]

    @property
    def errors(self) -> list[Look]:
        """The replies with an error's status."""
        return [look for look in self.looks if look.reply is not None and look.status is not None and look.status >= 400]
