"""Tokens that an endpoint says it used, as far as it can be believed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

UsageClass = Literal["reported", "missing", "invalid"]

MOST_TOKENS = 100_000_000
"""A count above this is a lie or a bug, not a count."""

MOST_COST_USD = 1000
"""A cost of one request above this is a lie or a bug, not a cost."""

_COST_PLACES = Decimal("0.000000000001")

_COST_TEXT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?")


@dataclass(frozen=True)
class Usage:
    """Tokens that the endpoint says it used. Unknown is None, never 0.

    Attributes:
        prompt_tokens: All tokens of the prompt, cached ones included.
        completion_tokens: All tokens of the answer, reasoning included.
        cached_tokens: Part of `prompt_tokens` that came from a cache.
        reasoning_tokens: Part of `completion_tokens` that was reasoning.
        usage_class: `reported`; `missing` (no usage, or one of the two sums is absent); `invalid` (disputed: negative, absurd,
            more than was asked for, or the parts do not add up: kept for the record where they can be, not to be billed as true).
        cost_usd: What it says that the request cost, in US dollars, to 12 places; None when it says nothing, or nothing that can be.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_class: UsageClass = "missing"
    cost_usd: Decimal | None = None


def read_usage(value: Any, headers: Mapping[str, str]) -> Usage:
    """Usage as far as it can be believed.

    Some servers count reasoning on top of the completion instead of inside it; the total tells which, and the completion is
    then given with its reasoning. Timings and other members are ignored.
    """
    if not isinstance(value, dict):
        return Usage()
    prompt, completion, total = (_count(value.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    cached = _first(
        _member(value.get("prompt_tokens_details"), "cached_tokens"),
        value.get("cached_tokens"),
        headers.get("fireworks-cached-prompt-tokens"),
    )
    reasoning = _first(_member(value.get("completion_tokens_details"), "reasoning_tokens"), value.get("reasoning_tokens"))
    counts = (prompt, completion, total, cached, reasoning)
    sound = -1 not in counts
    prompt, completion, total, cached, reasoning = (None if count == -1 else count for count in counts)
    if sound and prompt is not None and completion is not None:
        if total is not None and total != prompt + completion:
            if reasoning and total == prompt + completion + reasoning:
                completion += reasoning
            else:
                sound = False
        sound = sound and (cached or 0) <= prompt and (reasoning or 0) <= completion
    known = prompt is not None and completion is not None
    usage_class: UsageClass = "invalid" if not sound else "reported" if known else "missing"
    return Usage(prompt, completion, cached, reasoning, usage_class, _cost_of(value))


def _cost_of(usage: dict[str, Any]) -> Decimal | None:
    cost = read_cost(usage.get("cost"))
    if cost is None or usage.get("is_byok") is not True:
        return cost
    # A router that used the owner's own key charges its fee, and what the model cost is on another account of the owner's.
    upstream = read_cost(_member(usage.get("cost_details"), "upstream_inference_cost"))
    return None if upstream is None else cost + upstream


def read_cost(value: Any) -> Decimal | None:
    """The cost that an endpoint tells, exactly as it wrote it; None when it is no non-negative amount that a request can come to."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = repr(value)  # of a float, the shortest text that means it
    if not isinstance(value, str) or _COST_TEXT.fullmatch(value) is None:
        return None
    told = Decimal(value)
    return told.quantize(_COST_PLACES) if told <= MOST_COST_USD else None


def read_embedding_usage(value: Any, headers: Mapping[str, str]) -> Usage:
    """Usage of embeddings: there is no completion, so that a prompt alone is the whole of it (OpenAI sends no `completion_tokens`)."""
    if not isinstance(value, dict):
        return Usage()
    told = dict(value)
    if told.get("completion_tokens") is None and told.get("prompt_tokens") is not None:
        told["completion_tokens"] = 0
    return read_usage(told, headers)


def add_usage(parts: Iterable[Usage]) -> Usage:
    """Usage of several requests together: a count that one of them does not tell is not known."""
    told = list(parts)

    def total(name: str) -> Any:
        counts = [getattr(part, name) for part in told]
        return None if any(count is None for count in counts) else sum(counts)

    classes = {part.usage_class for part in told}
    usage_class: UsageClass = "invalid" if "invalid" in classes else "missing" if "missing" in classes else "reported"
    counts = (total("prompt_tokens"), total("completion_tokens"), total("cached_tokens"), total("reasoning_tokens"))
    return Usage(*counts, usage_class, total("cost_usd"))


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _first(*values: Any) -> int | None:
    return next((count for value in values if (count := _count(value)) is not None), None)


def _count(value: Any) -> int | None:
    """A token count; None when absent; -1 when it is there but cannot be one."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 12:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else -1
