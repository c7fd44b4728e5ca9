"""A streamed chat completion: events as they come, errors among them, and whether it came to its end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from byok.endpoint.answers import ChatAnswer, Timing, answer_of, read_answer
from byok.endpoint.assembly import Assembly, BadChunk
from byok.endpoint.classify import classify
from byok.endpoint.errors import EndpointError, ResponseTruncated
from byok.endpoint.exchange import Sink
from byok.endpoint.explain import invalid
from byok.endpoint.place import Place
from byok.endpoint.sse import BadStream, Decoder, Event
from byok.endpoint.wire import BadJson, Reply, decode_json

_BUFFERED_SHARE = 0.05
_BUFFERED_MS = 0.5
"""Pieces that come closer together than this, in the last part of the time, came out of a buffer and not out of a model."""


class ChatStream:
    """Takes a stream piece by piece.

    Args:
        place: Where it comes from.
        enough: Stop after so many pieces of answer or reasoning; None takes all.
    """

    def __init__(self, place: Place, enough: int | None = None) -> None:
        self._place, self._enough = place, enough
        self._decoder, self._assembly = Decoder(), Assembly()
        self._first_ms: float | None = None
        self._last_ms = 0.0
        self._error: bytes | None = None
        self._bad: str | None = None
        self._over = False
        self._other: list[bytes] = []
        self.stopped = False
        """Whether it was enough before the end."""

    @property
    def whole(self) -> bool:
        """Whether the stream has said that it is over (`[DONE]`)."""
        return self._over

    def feed(self, part: bytes, at_ms: float) -> bool:
        """Take what came; see `exchange.Sink`."""
        if self._over or self._error or self._bad:
            return True
        if self._decoder.looks_like_sse is not True:
            self._other.append(part)
        try:
            events = self._decoder.feed(part)
        except BadStream as problem:
            self._bad = str(problem)
            return True
        if self._decoder.looks_like_sse:
            self._other.clear()
        return any(self._take(event, at_ms) for event in events)

    @property
    def other(self) -> bytes | None:
        """What came instead of a stream of events, under its label: the whole of it (at most 1 MiB a line); None when events came."""
        return None if self._decoder.looks_like_sse is not False else b"".join(self._other)

    def value(self, reply: Reply) -> dict[str, Any]:
        """The completion that the stream was.

        Args:
            reply: Status, headers and time of the stream.

        Raises:
            EndpointError: An error came inside it, it is no stream of chat completions, or it was cut.
        """
        if not (self._over or self.stopped or self._error or self._bad):
            self._end(reply.latency_ms)
        if self._error is not None:
            raise classify(Reply(reply.status, reply.headers, self._place.redact.raw(self._error), reply.latency_ms), self._place)
        if self._bad is not None:
            raise invalid(reply, self._place.redact, self._bad)
        if not (self._assembly.complete or self.stopped):
            # Also after [DONE]: a gateway may add that behind an upstream that was cut.
            raise self._cut(reply)
        return self._assembly.completion()

    def timing(self, reply: Reply) -> Timing:
        """When the pieces came."""
        return Timing(self._first_ms, self._reliable(reply.latency_ms), self._assembly.usage_place, self._over, self._decoder.comments)

    def _end(self, at_ms: float) -> None:
        try:
            last = self._decoder.end()
        except BadStream as problem:
            self._bad = str(problem)
            return
        if last is not None:
            self._take(last, at_ms)
            # A last frame that cannot be read was cut, and so was the stream, unless its answer had ended before.
            self._bad = None

    def _take(self, event: Event, at_ms: float) -> bool:
        """Take one event; whether it is the last that is wanted."""
        if event.data.strip() == "[DONE]":
            self._over = True
            return True
        if not event.data.strip():
            return False
        raw = event.data.encode("utf-8", "replace")
        try:
            chunk = decode_json(raw)
        except BadJson as problem:
            self._bad = f"a frame of the stream cannot be read: {problem}"
            # A gateway may put its error behind a frame that was cut, without the blank line between them (MLflow, run for real).
            raw = raw.rpartition(b"\n")[2]
            chunk = _error_or_none(raw)
        if event.name == "error" or (isinstance(chunk, dict) and _is_error(chunk)):
            self._error, self._bad = raw, None
            return True
        if self._bad is not None:
            return True
        try:
            piece = self._assembly.add(chunk)
        except BadChunk as problem:
            self._bad = f"a frame of the stream cannot be read: {problem}"
            return True
        if piece:
            self._first_ms, self._last_ms = at_ms if self._first_ms is None else self._first_ms, at_ms
            self.stopped = self._enough is not None and self._assembly.pieces >= self._enough
        return self.stopped

    def _cut(self, reply: Reply) -> EndpointError:
        return ResponseTruncated(
            "the stream ended before the answer did",
            hint="the server or a proxy closed the connection; it may still bill the tokens",
            status=reply.status,
            pieces=self._assembly.pieces,
        )

    def _reliable(self, latency_ms: float) -> bool | None:
        if self._first_ms is None or self._assembly.pieces < 2:
            return None
        span = self._last_ms - self._first_ms
        return not (span <= latency_ms * _BUFFERED_SHARE and span <= _BUFFERED_MS * self._assembly.pieces)


def read_chat(
    reply: Reply, stream: ChatStream | None, place: Place, *, limit: int | None = None, tools: Iterable[str] = (), sink: Sink | None = None
) -> ChatAnswer:
    """The answer in a reply, whether it came whole or as a stream: some servers know no stream, and some gateways label what they pass on.

    Args:
        reply: The reply; that of a stream has no body.
        stream: Has taken the stream, where one was asked for.
        place: Where it came from.
        limit: Most tokens of the answer that were asked for.
        tools: Names of the tools that were offered.
        sink: Takes a stream that came under another label, and gives it to `stream`; that takes it itself by default.

    Raises:
        EndpointError: It is an error, no chat completion, cut, or invalid.
    """
    if not 200 <= reply.status < 300:
        raise classify(reply, place)
    if stream is not None and stream.other is not None:
        reply = replace(reply, body=stream.other)
    if stream is None or (reply.body and not _looks_like_events(reply)):
        return read_answer(reply, place, limit=limit, tools=tools)
    if reply.body:
        (sink or stream).feed(reply.body, reply.latency_ms)
    value = stream.value(reply)
    if stream.stopped:
        value.pop("usage", None)  # what had been counted so far is not what will be billed
    return answer_of(value, reply, place, limit=None if stream.stopped else limit, tools=tools, timing=stream.timing(reply))


def _looks_like_events(reply: Reply) -> bool:
    """Whether a body is a stream of events under another label."""
    return reply.body.lstrip()[:6].startswith((b"data:", b"event:", b": "))


def _error_or_none(raw: bytes) -> dict[str, Any] | None:
    try:
        value = decode_json(raw)
    except BadJson:
        return None
    return value if isinstance(value, dict) and _is_error(value) else None


def _is_error(chunk: dict[str, Any]) -> bool:
    return bool(chunk.get("error")) or chunk.get("object") == "error" or (bool(chunk.get("detail")) and "choices" not in chunk)
