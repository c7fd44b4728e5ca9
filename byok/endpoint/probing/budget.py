"""What a full probe may cost: an upper bound is reckoned for each request before it is sent, and what does not fit is not asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

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

_SILENT_COSTS = frozenset({408, 499, 504})
"""Statuses by which somebody gave up waiting: the model may have worked on."""

_NEVER_SENT = frozenset({"endpoint_unreachable", "endpoint_tls", "endpoint_forbidden_address"})


class Budget:
    """Counts the tokens of a probe: those that are reported and, where none are, the upper bound.

    A chat template may put more around a text than is reckoned here. What the first answers report is learnt from: every later bound
    is raised by as much as the worst of them was above its own.

    Args:
        limit: Most tokens; None counts without limit.
    """

    def __init__(self, limit: int | None = LIMIT) -> None:
        self.limit = limit
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
        return prompt_bound(body) + self._prompt_above + most + self._answer_above

    def take(self, body: Mapping[str, Any], most: int, attempt: ProbeAttempt) -> None:
        """Count a request that has ended."""
        usage = attempt.usage
        if usage.usage_class == "reported":
            prompt, answer = usage.prompt_tokens or 0, usage.completion_tokens or 0
            self._prompt_above = max(self._prompt_above, prompt - prompt_bound(body))
            self._answer_above = max(self._answer_above, answer - most)
            self.spent += prompt + answer
        elif not _was_free(attempt):
            self.spent += self.bound(body, most)


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


def _of_text(text: str) -> int:
    return -(-len(text) // _CHARACTERS)


def _of_json(value: Any) -> int:
    return _of_text(json.dumps(value, separators=(",", ":")))


def _was_free(attempt: ProbeAttempt) -> bool:
    """Whether a request surely cost nothing: it never reached the model, or was refused."""
    if attempt.status != "error":
        return False
    if attempt.http_status is None:
        return attempt.error_code in _NEVER_SENT
    return attempt.http_status >= 400 and attempt.http_status not in _SILENT_COSTS
