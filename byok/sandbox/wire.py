"""Bodies and streams on the wire, whole and broken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from byok.sandbox.faults import Fault

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


class Cut(ConnectionAbortedError):
    """The connection is broken as asked; the server answers an unfinished response by closing it."""


class CutResponse(Response):
    """Announces its whole body, sends half of it, and breaks the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2], "more_body": True})
        raise Cut("cut as asked")


def dumps(value: Any) -> bytes:
    """JSON; whole numbers of any size are kept."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def as_json(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer with a JSON body."""
    return Response(dumps(value), status_code=status, headers=dict(headers or {}), media_type="application/json")


def as_fault(fault: Fault) -> Response:
    """The answer of a fault that brings its own body."""
    kind = CutResponse if fault.cut else Response
    return kind(fault.body, status_code=fault.status, headers=dict(fault.headers), media_type=fault.content_type)


def frames(chunks: Iterable[Mapping[str, Any]], fault: Fault | None, *, error: bytes | None, done: bool, done_failed: bool) -> list[bytes]:
    """The events of a stream, as a fault changes them; a broken connection shows as an empty last one.

    Args:
        chunks: The chunks.
        fault: What goes wrong, or None.
        error: Event that tells of the fault's status.
        done: Whether a stream ends with `[DONE]`.
        done_failed: Whether one does that ended with an error.
    """
    made = [b"data: " + dumps(chunk) + b"\n\n" for chunk in chunks]
    end = [DONE] if done else []
    if fault is not None:
        stops = fault.after_chunks is not None or fault.cut or fault.frame is not None
        if stops:
            made = made[: len(made) // 2 if fault.after_chunks is None else fault.after_chunks]
            end = [DONE] if done_failed else []
        if fault.keepalive:
            made = [part for event in made for part in (KEEP_ALIVE, event)]
        if fault.cut:
            return [*made, b""]
        if fault.frame is not None:
            made += [fault.frame] if fault.frame else []
        elif fault.status != 200 and error is not None:
            made.append(error)
        elif stops:
            end = []
        if fault.no_done:
            end = []
    return [*made, *end]


async def _paced(events: list[bytes], wait: float) -> AsyncIterator[bytes]:
    for number, event in enumerate(events):
        if number and wait:
            await asyncio.sleep(wait)
        if not event:
            raise Cut("cut as asked")
        yield event


async def _held_back(events: list[bytes], wait: float) -> AsyncIterator[bytes]:
    await asyncio.sleep(wait * max(0, len(events) - 1))
    whole = b"".join(events)
    if whole:
        yield whole
    if events and not events[-1]:
        raise Cut("cut as asked")


def as_stream(events: list[bytes], *, wait: float, held_back: bool, headers: Mapping[str, str]) -> Response:
    """A stream of events.

    Args:
        events: See `frames`.
        wait: Seconds before each event but the first.
        held_back: Whether all of them leave at the end, together.
        headers: Besides the one of its content type.
    """
    sent = (_held_back if held_back else _paced)(events, wait)
    return StreamingResponse(sent, headers=headers, media_type="text/event-stream")
