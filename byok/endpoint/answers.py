"""A chat completion as we believe it: the text, the reasoning apart from it, and usage that adds up or says that it does not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from byok.endpoint.bodies import is_html
from byok.endpoint.classify import classify
from byok.endpoint.errors import EndpointError, ResponseTruncated
from byok.endpoint.explain import invalid, not_chat
from byok.endpoint.policy import BaseUrl
from byok.endpoint.wire import BadJson, Redactor, Reply, decode_json, excerpt, request_id, text_or_none, whole

UsageClass = Literal["reported", "missing", "invalid"]

MOST_TOKENS = 100_000_000
"""A count above this is a lie or a bug, not a count."""

_SLACK = 16
"""Tokens that servers count beyond a limit: end markers and the like."""

_THINK = re.compile(r"\s*<think>(.*?)(?:</think>|\Z)", re.DOTALL)


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
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_class: UsageClass = "missing"


@dataclass(frozen=True)
class ChatAnswer:
    """One answer of a model.

    Attributes:
        text: The answer, without reasoning; None when the endpoint sent null.
        reasoning: Reasoning that came in a field of its own or inside `<think>`.
        refusal: The model's own refusal, when it has a field for it.
        finish_reason: As given (`stop`, `length`, `eos`, ...); None when absent.
        usage: Tokens.
        latency_ms: From the sending of the request to the last byte of the answer.
        request_id: The provider's id of the request.
        http_status: HTTP status.
    """

    text: str | None
    reasoning: str | None
    refusal: str | None
    finish_reason: str | None
    usage: Usage
    latency_ms: float
    request_id: str | None
    http_status: int


def read_answer(reply: Reply, base: BaseUrl, remote_id: str, redact: Redactor, *, limit: int | None = None) -> ChatAnswer:
    """The answer in a reply with status 2xx.

    Args:
        reply: The reply.
        base: The endpoint.
        remote_id: The model that was asked.
        redact: Takes the key out.
        limit: Most tokens of the answer that were asked for, which bounds what its usage can truly say.

    Raises:
        EndpointError: It is an error in disguise, no chat completion, cut, or invalid.
    """
    value = read_object(reply, base, redact)
    choices = value.get("choices")
    if not choices and (value.get("error") or value.get("detail") or value.get("object") == "error"):
        raise classify(reply, base, remote_id, redact)
    if "choices" not in value:
        raise not_chat(reply, base, redact, "the endpoint answers JSON, but no chat completion")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict) or not isinstance(choices[0].get("message"), dict):
        raise invalid(reply, redact, "it has no choice with a message")
    choice, message = choices[0], choices[0]["message"]
    text, refusal = _content(message.get("content"))
    reasoning = next((found for name in ("reasoning", "reasoning_content") if (found := _joined(message.get(name)))), None)
    if text is not None and reasoning is None:
        text, reasoning = split_thinking(text)
    finish = text_or_none(choice.get("finish_reason"))
    refusal = refusal or _joined(message.get("refusal"))
    usage = read_usage(value.get("usage"), reply.headers)
    # Some servers let reasoning go beyond the limit, and some of those do not count it apart.
    thought = usage.reasoning_tokens if usage.reasoning_tokens is not None or not reasoning else usage.completion_tokens
    if limit is not None and (usage.completion_tokens or 0) - (thought or 0) > limit + _SLACK:
        usage = replace(usage, usage_class="invalid")
    return ChatAnswer(
        # A hostile endpoint may answer with the key; it goes to the warehouse no more than to a log.
        text=None if text is None else redact(text),
        reasoning=reasoning and redact(reasoning),
        refusal=refusal and redact(refusal),
        finish_reason=finish and excerpt(finish, redact, 80),
        usage=usage,
        latency_ms=reply.latency_ms,
        request_id=request_id(reply, redact) or _id_in_body(value, redact),
        http_status=reply.status,
    )


def read_object(reply: Reply, base: BaseUrl, redact: Redactor) -> dict[str, Any]:
    """The JSON object of a reply with status 2xx.

    Raises:
        EndpointNotOpenAI: A page, plain text, or JSON that is no object.
        ResponseTruncated: It ends in the middle.
        ResponseInvalid: Broken JSON.
    """
    value = read_json(reply, base, redact)
    if not isinstance(value, dict):
        raise not_chat(reply, base, redact, "the endpoint answers JSON, but no chat completion")
    return value


def read_json(reply: Reply, base: BaseUrl, redact: Redactor) -> Any:
    """The JSON value of a reply with status 2xx.

    Raises:
        EndpointNotOpenAI: A page or plain text.
        ResponseTruncated: It ends in the middle.
        ResponseInvalid: Empty, or broken JSON.
    """
    if is_html(reply):
        raise not_chat(reply, base, redact, "a web page came instead of an answer")
    try:
        return decode_json(reply.body)
    except BadJson as error:
        if not reply.body.strip():
            found: EndpointError = invalid(reply, redact, "it is empty")
        elif error.truncated:
            found = ResponseTruncated("the answer ends in the middle", hint="the server or a proxy cut it", status=reply.status)
        elif reply.body.lstrip()[:1] in (b"{", b"["):
            found = invalid(reply, redact, str(error))
        else:
            found = not_chat(reply, base, redact, "plain text came instead of an answer")
    raise found


def _id_in_body(value: dict[str, Any], redact: Redactor) -> str | None:
    found = text_or_none(value.get("request_id"))
    return found and excerpt(found, redact, 200)


def _joined(value: Any) -> str | None:
    return whole(value) or None if isinstance(value, str) else None


def _content(value: Any) -> tuple[str | None, str | None]:
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
    return (after.lstrip(), before.strip() or None) if tag else (text, None)


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
    return Usage(prompt, completion, cached, reasoning, usage_class)


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
