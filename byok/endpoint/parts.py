"""Parts of a chat message: texts, reasoning, tool calls, log probabilities, in the forms that servers give them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from byok.endpoint.wire import BadJson, decode_json, whole

MOST_TOOL_CALLS = 128
MOST_LOGPROBS = 200_000

_LONGEST_CALL = 100_000
_AROUND_CALLS = (("```json", "```"), ("```", "```"), ("<tool_call>", "</tool_call>"), ("<|python_tag|>", ""))
_THINK = re.compile(r"\s*<think>(.*?)(?:</think>|\Z)", re.DOTALL)


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool that the model asks for.

    Attributes:
        name: The tool.
        arguments: Its arguments: JSON as the model wrote it, which need not be valid.
        id: The endpoint's id of the call.
        in_content: It stood in the answer's text instead of its own member (Fireworks, some open models).
    """

    name: str
    arguments: str
    id: str | None = None
    in_content: bool = False


@dataclass(frozen=True)
class TokenLogprob:
    """A token of the answer and the natural logarithm of its probability."""

    token: str
    logprob: float


def read_content(value: Any) -> tuple[str | None, str | None]:
    """Text and refusal of a message's content: a string, null, or a list of parts."""
    if isinstance(value, str):
        return whole(value), None
    if not isinstance(value, list):
        return None, None
    texts: list[str] = []
    refusals: list[str] = []
    for part in value:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            if isinstance(part.get("text"), str):
                texts.append(part["text"])
            elif isinstance(part.get("refusal"), str):
                refusals.append(part["refusal"])
    return whole("".join(texts)) if texts else None, whole("".join(refusals)) or None


def split_thinking(text: str) -> tuple[str, str | None]:
    """Text and reasoning of an answer that carries its reasoning in `<think>`.

    The opening tag may be missing (some chat templates end with it), and so may the closing one (the budget ran out).
    """
    opened = _THINK.match(text)
    if opened:
        return text[opened.end() :].lstrip(), opened[1].strip() or None
    before, tag, after = text.partition("</think>")
    # An answer that speaks of the tags has none.
    return (after.lstrip(), before.strip() or None) if tag and "<think>" not in before else (text, None)


def read_tool_calls(message: dict[str, Any]) -> tuple[ToolCall, ...]:
    """Calls in `tool_calls`, or in the older `function_call`."""
    given = message.get("tool_calls")
    entries: list[Any] = given[:MOST_TOOL_CALLS] if isinstance(given, list) else []
    if not entries and isinstance(message.get("function_call"), dict):
        entries = [{"function": message["function_call"]}]
    found = []
    for entry in entries:
        function = entry.get("function") if isinstance(entry, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            continue
        name, ident = whole(function["name"]), entry.get("id")
        found.append(ToolCall(name, _arguments(function.get("arguments")), whole(ident) if isinstance(ident, str) else None))
    return tuple(found)


def tool_calls_in(text: str | None, names: Iterable[str]) -> tuple[ToolCall, ...]:
    """Calls that a model wrote as JSON into its answer: `{"name": …, "arguments" or "parameters": …}`, alone or in a list.

    Args:
        text: The answer.
        names: The tools that were offered; a call of any other one is just text.
    """
    offered = set(names)
    if not offered or text is None or len(text) > _LONGEST_CALL:
        return ()
    cleaned = text.strip()
    for opening, closing in _AROUND_CALLS:
        if cleaned.startswith(opening):
            cleaned = cleaned.removeprefix(opening).removesuffix(closing).strip()
    if not cleaned.startswith(("{", "[")):
        return ()
    try:
        value = decode_json(cleaned.encode())
    except (BadJson, UnicodeEncodeError):
        return ()
    found = []
    for entry in (value if isinstance(value, list) else [value])[:MOST_TOOL_CALLS]:
        call = entry.get("function", entry) if isinstance(entry, dict) else None
        if not isinstance(call, dict) or not isinstance(call.get("name"), str) or call["name"] not in offered:
            return ()
        found.append(ToolCall(call["name"], _arguments(call.get("arguments", call.get("parameters"))), in_content=True))
    return tuple(found)


def _arguments(value: Any) -> str:
    if isinstance(value, str):
        return whole(value)
    return "" if value is None else whole(json.dumps(value))


def read_logprobs(value: Any) -> tuple[TokenLogprob, ...] | None:
    """Log probabilities: OpenAI's list of tokens, the older parallel arrays, an object in place of the list, numbers, or several of these.

    None when there are none, also where they were asked for.
    """
    found: list[TokenLogprob] = []
    _gather(value, found, 0)
    return tuple(found) or None


def _gather(value: Any, found: list[TokenLogprob], depth: int) -> None:
    if len(found) >= MOST_LOGPROBS or depth > 4:
        return
    if isinstance(value, list):
        for one in value:
            _gather(one, found, depth + 1)
    elif isinstance(value, dict):
        tokens, numbers = value.get("tokens"), value.get("token_logprobs")
        if isinstance(numbers, list):
            names = tokens if isinstance(tokens, list) and len(tokens) == len(numbers) else [""] * len(numbers)
            for name, number in zip(names[:MOST_LOGPROBS], numbers, strict=False):
                _take(name, number, found)
        elif "content" in value:
            _gather(value["content"], found, depth + 1)
        else:
            _take(value.get("token"), value.get("logprob"), found)
    else:
        _take("", value, found)


def _take(token: Any, number: Any, found: list[TokenLogprob]) -> None:
    if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < 1e6 and math.isfinite(number):
        found.append(TokenLogprob(whole(token) if isinstance(token, str) else "", float(number)))
