"""What a full probe may cost: an upper bound is reckoned for each request before it is sent, and what does not fit is not asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from byok.costs import never_billed
from byok.endpoint.answers import ChatAnswer
from byok.endpoint.errors import EndpointError
from byok.endpoint.probing.record import ProbeAttempt

LIMIT = 300
"""Tokens of a full probe, prompts and answers together, at most."""

PER_MESSAGE = 8
"""Tokens for the role of a message and what templates put around it."""

PER_IMAGE = 100
"""Tokens for an image of one pixel at low detail: OpenAI counts 85, open models count one tile or less."""

FOR_TOOLS = 60
"""Tokens of the instructions that chat templates put before a list of tools."""

_CHARACTERS = 3
"""Of a token, at least: the probe's own texts are short English words and JSON, which have about four."""

_CHARACTERS_SENT = 4
"""Of a token of an answer, on average: for English text."""

_NOT_IN_PROMPTS = frozenset({"logit_bias", "metadata", "provider", "stop", "stream_options"})
"""Members that no server writes into a prompt, however long they are."""

_SHORT = 64
"""Characters of a text that is a setting, such as the name of a tier, and no part of a prompt."""


class Budget:
    """Counts the tokens of a probe: those that are reported and, where none are, the upper bound.

    A chat template may put more around a text than is reckoned here, and a server may answer beyond the limit. What the first answers
    tell is learnt from, whether it adds up or not: every later bound is raised by as much as the worst of them was above its own.

    Args:
        limit: Most tokens; None counts without limit.
        extra: Tokens that the owner's extra payload may add to each chat.
    """

    def __init__(self, limit: int | None = LIMIT, extra: int = 0) -> None:
        self.limit, self.extra = limit, extra
        self.spent = 0
        self._prompt_above = 0
        self._answer_above = 0

    def fits(self, body: Mapping[str, Any], most: int) -> bool:
        """Whether a request stays within the limit, however much of what it may cost it costs.

        Args:
            body: Its messages, tools and the like.
            most: Tokens of the answer, at most.
        """
        return self.limit is None or self.spent + self.bound(body, most) <= self.limit

    def bound(self, body: Mapping[str, Any], most: int) -> int:
        """Most tokens that a request may cost, as far as is known."""
        return self._prompt(body) + self._prompt_above + most + (0 if "input" in body else self._answer_above)

    def take(self, body: Mapping[str, Any], most: int, attempt: ProbeAttempt, sent: int = 0) -> None:
        """Count a request that has ended.

        What is counted is what the endpoint reported; where it reported nothing that adds up, the bound, or what it told or sent if
        that is more.

        Args:
            body: Its messages, tools and the like.
            most: Tokens of the answer, at most.
            attempt: How it ended.
            sent: Tokens that came, by the length of the answer; see `sent_tokens`.
        """
        usage = attempt.usage
        prompt = self._prompt(body) if usage.prompt_tokens is None else usage.prompt_tokens
        reported = usage.usage_class == "reported"
        answer = (usage.completion_tokens or 0) if reported else max(usage.completion_tokens or 0, sent)
        bound = self.bound(body, most)
        self._prompt_above = max(self._prompt_above, prompt - self._prompt(body))
        self._answer_above = max(self._answer_above, answer - most)
        if reported:
            self.spent += prompt + answer
        elif attempt.status == "ok" or not never_billed(attempt.error_code, attempt.http_status):
            self.spent += max(bound, prompt + answer)

    def _prompt(self, body: Mapping[str, Any]) -> int:
        return prompt_bound(body) + (0 if "input" in body else self.extra)


def prompt_bound(body: Mapping[str, Any]) -> int:
    """Most tokens of a prompt, by its characters; images and tools count what is allowed for them."""
    tokens = 0
    for message in body.get("messages") or []:
        parts = message["content"] if isinstance(message["content"], list) else [{"text": message["content"]}]
        tokens += PER_MESSAGE + sum(_of_text(part["text"]) if "text" in part else PER_IMAGE for part in parts)
    if body.get("tools"):
        tokens += FOR_TOOLS + _of_json(body["tools"])
    if body.get("response_format"):
        # Some servers write the schema into the prompt.
        tokens += _of_json(body["response_format"])
    return tokens + sum(PER_MESSAGE + _of_text(text) for text in body.get("input") or [])


def sent_tokens(answer: ChatAnswer | None, error: EndpointError | None) -> int:
    """Tokens that came, by the length of an answer, or by the pieces of a stream that was cut: for where nothing is told."""
    if answer is not None:
        calls = sum(len(call.name) + len(call.arguments) for call in answer.tool_calls)
        return (len(answer.text or "") + len(answer.reasoning or "") + len(answer.refusal or "") + calls) // _CHARACTERS_SENT
    pieces = error.fields.get("pieces") if error is not None else None
    return pieces if isinstance(pieces, int) else 0


def extra_bounds(extra: Mapping[str, Any]) -> dict[str, int]:
    """Most tokens that each member of an owner's extra payload may add to a prompt, such as tools; settings add none."""
    return {name: _of_json(value) for name, value in extra.items() if name not in _NOT_IN_PROMPTS and _may_be_prompt(value)}


def _may_be_prompt(value: Any) -> bool:
    return len(value) > _SHORT if isinstance(value, str) else isinstance(value, dict | list) and bool(value)


def _of_text(text: str) -> int:
    return -(-len(text) // _CHARACTERS)


def _of_json(value: Any) -> int:
    return _of_text(json.dumps(value, separators=(",", ":")))
