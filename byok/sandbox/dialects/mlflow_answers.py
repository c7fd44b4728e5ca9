"""Good answers of an upstream as MLflow's unified route writes them anew.

It keeps what it knows, adds `provider` and nulls, and fails at what it does not foresee (seen with MLflow 3.17.2, section 7 of the
provider wire facts).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)
"""How it fails: at a text in an object's place, a missing member, a value of a wrong type."""


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _Call(BaseModel):
    id: str
    type: str = "function"
    function: _Function


class _CallPiece(BaseModel):
    index: int
    id: str | None = None
    type: str | None = None
    function: _Function


class _Message(BaseModel):
    role: str
    content: str | list[dict[str, Any]] | None
    tool_calls: list[_Call] | None
    refusal: None = None


class _Choice(BaseModel):
    index: int
    message: _Message
    finish_reason: str | None


class _Delta(BaseModel):
    role: str | None
    content: str | None
    tool_calls: list[_CallPiece] | None


class _ChunkChoice(BaseModel):
    index: int
    finish_reason: str | None
    delta: _Delta


class _Details(BaseModel):
    model_config = ConfigDict(extra="allow")

    cached_tokens: int | None = None


class _Usage(BaseModel):
    model_config = ConfigDict(extra="allow")

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


class _Answer(BaseModel):
    id: str | None
    object: str
    created: int
    model: str


class _Whole(_Answer):
    choices: list[_Choice]
    usage: _Usage
    provider: str = "openai"


class _Chunk(_Answer):
    model_config = ConfigDict(title="StreamResponsePayload")

    choices: list[_ChunkChoice]
    usage: _Usage | None
    provider: str = "openai"


def error_frame(message: str, kind: str) -> bytes:
    """The event with which the gateway tells that a stream failed."""
    return f"data: {json.dumps({'error': {'message': message, 'type': kind}})}\n\n".encode()


def _usage(given: dict[str, Any]) -> dict[str, Any]:
    told = dict(given)
    details = told.pop("prompt_tokens_details", None)
    return told | ({"prompt_tokens_details": _Details(**details).model_dump()} if details else {})


def _named(value: Any, *names: str) -> dict[str, Any]:
    return {name: value[name] for name in names}


def completion(value: Any) -> dict[str, Any]:
    """A whole answer anew.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: It is not as the gateway wants it.
    """
    choices = [
        {
            "index": number,
            "message": {"role": choice["message"]["role"]} | {name: choice["message"].get(name) for name in ("content", "tool_calls")},
            "finish_reason": choice.get("finish_reason"),
        }
        for number, choice in enumerate(value["choices"])
    ]
    told = _named(value, "id", "object", "created", "model") | {"choices": choices, "usage": _usage(value.get("usage", {}))}
    return _Whole.model_validate(told).model_dump()


def _chunk(value: Any) -> dict[str, Any]:
    usage = value.get("usage")
    told = _named(value, "id", "object", "created", "model")
    told["choices"] = [
        _named(choice, "index")
        | {"finish_reason": choice.get("finish_reason")}
        | {"delta": {name: choice["delta"].get(name) for name in ("role", "content", "tool_calls")}}
        for choice in value["choices"]
    ]
    return _Chunk.model_validate({**told, "usage": _usage(usage) if usage else None}).model_dump()


def rewritten(events: Sequence[bytes], *, cut: bool) -> tuple[list[bytes], bool]:
    """The events of a stream anew, and whether one could not be read: then an error frame in its place is the last one.

    Args:
        events: As the upstream sends them.
        cut: Whether the connection breaks after them; a line that is not complete is lost then.
    """
    told: list[bytes] = []
    rest = b""
    for number, event in enumerate(events, 1):
        *lines, rest = (rest + event).split(b"\n")
        if number == len(events) and not cut:
            lines.append(rest)
        made = b""
        for line in lines:
            try:
                made += _anew(line)
            except UNREADABLE as error:
                return [*told, made + error_frame(str(error), type(error).__name__)], True
        told += [made] if made else []
    return told, False


def _anew(line: bytes) -> bytes:
    """The event of a line, nothing for a comment, a blank line or the end mark."""
    text = line.strip().decode().removeprefix("data:")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return b""
    return f"data: {json.dumps(_chunk(value), ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
