"""Faults on demand: what tests make the sandbox do instead of answering."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

DEFAULT_MESSAGE = "simulated fault"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with one chat request (or, as an embedding fault, with one request for embeddings).

    Attributes:
        status: HTTP status; 200 with `text`, `refusal` or `usage` changes the answer instead. A stream fails before it starts,
            unless `after_chunks` says otherwise.
        body: Body to send as it is; None makes the provider's error of `message` and `code`, or an answer for status 200.
        content_type: Of `body`.
        headers: More response headers.
        message: Of the error.
        code: Of the error.
        parameter: Of the error.
        delay_ms: Wait before the answer.
        cut: Send half of the body and close the connection; of a stream, half of its chunks or `after_chunks` of them.
        text: Answer with this text ("" for an empty answer).
        refusal: Answer with this refusal and no text.
        finish_reason: Of the answer.
        usage: Replaces the usage of the answer; None leaves it.
        after_chunks: Of a stream, send this many chunks (the one with the role is the first) and then break the connection
            (`cut`), send `frame`, send the provider's error of `status` as a frame, or else end in order, unfinished.
        frame: Bytes that a stream sends after `after_chunks` chunks (half of them when None), after which it ends.
        no_done: End the stream without `data: [DONE]`.
        keepalive: Send a comment line before each chunk of a stream.
    """

    status: int = 200
    body: bytes | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = DEFAULT_MESSAGE
    code: str | None = None
    parameter: str | None = None
    delay_ms: float = 0
    cut: bool = False
    text: str | None = None
    refusal: str | None = None
    finish_reason: str | None = None
    usage: Mapping[str, object] | None = None
    after_chunks: int | None = None
    frame: bytes | None = None
    no_done: bool = False
    keepalive: bool = False

    def replaces(self, *, stream: bool) -> bool:
        """Whether it stands in the place of the answer, instead of changing it or ending it early."""
        return self.body is not None or (self.status != 200 and not (stream and self.after_chunks is not None))


FaultHook = Callable[[int, str], Fault | int | None]
"""From the number of the chat request (from 1) and the last user message to a fault, a status, or None for none."""


def as_hook(faults: FaultHook | Sequence[Fault | int | None] | None) -> FaultHook | None:
    """A hook of a list: its first entry is for the first chat request, and so on; after its end nothing fails."""
    if faults is None or callable(faults):
        return faults
    entries = list(faults)
    return lambda number, _question: entries[number - 1] if number <= len(entries) else None


def found_by(hook: FaultHook | None, number: int, question: str) -> Fault | None:
    """The fault for a request, None for none; a bare status is a fault with it."""
    found = hook(number, question) if hook is not None else None
    if not found:
        return None
    return Fault(status=found) if isinstance(found, int) else found
