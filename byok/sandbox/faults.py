"""Faults on demand: what tests make the sandbox do instead of answering."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with one chat request.

    Attributes:
        status: HTTP status; 200 with `text`, `refusal` or `usage` changes the answer instead.
        body: Body to send as it is; None makes an OpenAI error of `message` and `code`, or an answer for status 200.
        content_type: Of `body`.
        headers: More response headers.
        message: Of the OpenAI error.
        code: Of the OpenAI error.
        parameter: Of the OpenAI error.
        delay_ms: Wait before the answer.
        cut: Send half of the body and close the connection.
        text: Answer with this text ("" for an empty answer).
        refusal: Answer with this refusal and no text.
        finish_reason: Of the answer.
        usage: Replaces the usage of the answer; None leaves it.
    """

    status: int = 200
    body: bytes | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "simulated fault"
    code: str | None = None
    parameter: str | None = None
    delay_ms: float = 0
    cut: bool = False
    text: str | None = None
    refusal: str | None = None
    finish_reason: str | None = None
    usage: Mapping[str, object] | None = None


FaultHook = Callable[[int, str], Fault | int | None]
"""From the number of the chat request (from 1) and the last user message to a fault, a status, or None for none."""


def as_hook(faults: FaultHook | Sequence[Fault | int | None] | None) -> FaultHook | None:
    """A hook of a list: its first entry is for the first chat request, and so on; after its end nothing fails."""
    if faults is None or callable(faults):
        return faults
    entries = list(faults)
    return lambda number, _question: entries[number - 1] if number <= len(entries) else None
