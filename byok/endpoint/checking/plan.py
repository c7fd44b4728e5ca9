"""What a check asks, in which order, and what that may cost at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from byok.endpoint.asking import ChatOptions
from byok.endpoint.probing.budget import prompt_bound
from byok.endpoint.probing.context import HUGE

LIMIT: Final = 2000
"""Tokens that no check goes beyond, prompts and answers together."""

AROUND = 64
"""Tokens that a chat template may put around a prompt; the longest in use (gpt-oss) has some 70 with its date."""

CUT_OFF = 32
"""Tokens that are reckoned with until a server notices that nobody listens any more."""

SCHEMA_MEMBER, SCHEMA_VALUES = "tone", ("dark", "light")
TOOL = "note_number"
UNKNOWN_PARAMETER = "byok_check_unknown"
UNKNOWN_MODEL = "byok-check-no-such-model"
UNKNOWN_ROUTE = "/byok-check-no-such-route"
HOT = 9
"""A temperature that no provider documents: all stop at 2 or below."""

TEXTS = ("a", "b")
"""What is embedded."""

_OK, _COUNT, _HELLO = "Reply with OK.", "Count from 1 to 12, in digits.", "Say hello."
_TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": TOOL,
            "description": "Notes a number.",
            "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        },
    }
]
_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "colour",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {SCHEMA_MEMBER: {"type": "string", "enum": list(SCHEMA_VALUES)}},
            "required": [SCHEMA_MEMBER],
            "additionalProperties": False,
        },
    },
}


@dataclass(frozen=True)
class Ask:
    """One thing that is asked.

    Attributes:
        name: What the code calls it.
        what: What a report calls it.
        prompt: The user's text; empty for what is no chat.
        limit: Most tokens of the answer.
        options: What else is asked of a chat.
        embeds: Whether `TEXTS` are embedded.
        needs_key: Whether it is asked only where a key was given.
    """

    name: str
    what: str
    prompt: str = ""
    limit: int = 0
    options: ChatOptions = field(default_factory=ChatOptions)
    embeds: bool = False
    needs_key: bool = False

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The chat's messages."""
        return [{"role": "user", "content": self.prompt}]

    @property
    def bound(self) -> int:
        """Most tokens that it may cost; 0 for what costs none."""
        if self.embeds:
            return prompt_bound({"input": TEXTS})
        if not self.prompt:
            return 0
        body: Mapping[str, Any] = {"messages": self.messages} | {name: self.options.get(name) for name in ("tools", "response_format")}
        return prompt_bound(body) + AROUND + min(self.limit, CUT_OFF)


ASKS: Final = (
    Ask("models", "models list"),
    Ask("models_open", "models list without the key", needs_key=True),
    Ask("chat", "plain chat", _OK, 32),
    Ask("stream", "streamed chat", _COUNT, 32, {"stream": True}),
    Ask("schema", "JSON schema", "Name a colour in JSON.", 24, {"response_format": _SCHEMA}),
    Ask(
        *("json", "JSON mode", "Reply with a JSON object whose one member, ok, is true.", 32),
        {"response_format": {"type": "json_object"}},
    ),
    Ask(
        *("named", "named tool", _HELLO, 32),
        {"tools": _TOOLS, "tool_choice": {"type": "function", "function": {"name": TOOL}}},
    ),
    Ask("required", "required tool, streamed", _HELLO, 32, {"tools": _TOOLS, "tool_choice": "required", "stream": True}),
    Ask("unknown_parameter", "unknown parameter", _OK, 16, {"more": {UNKNOWN_PARAMETER: 1}}),
    Ask("temperature", f"temperature {HOT}", _OK, 16, {"temperature": HOT}),
    Ask("other_limit", "other name of the token limit", _COUNT, 16),
    Ask("unknown_model", "unknown model", _OK, 16, {"more": {"model": UNKNOWN_MODEL}}),
    Ask("wrong_key", "random key", _OK, 16, needs_key=True),
    Ask("no_route", "unknown route"),
    Ask("embeddings", "embeddings", embeds=True),
    Ask("base64", "embeddings in base64", embeds=True),
    Ask("huge", "huge token limit, cut off", _OK, HUGE, {"stream": True, "enough": 1}),
)
"""In this order: what the others rest on comes first, what could be dear comes last."""


def planned(*, with_key: bool) -> tuple[Ask, ...]:
    """What is asked of an endpoint, with a key or without one. A refusal may add a request, which costs nothing."""
    return tuple(ask for ask in ASKS if with_key or not ask.needs_key)


def announced(*, with_key: bool) -> int:
    """Most tokens that a check may cost."""
    return sum(ask.bound for ask in planned(with_key=with_key))
