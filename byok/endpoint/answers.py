"""A chat completion as we believe it: the text, the reasoning apart from it, and usage that adds up or says that it does not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from byok.clock import utcnow
from byok.endpoint.bodies import is_html
from byok.endpoint.classify import classify
from byok.endpoint.errors import EndpointError, ResponseTruncated
from byok.endpoint.explain import invalid, not_chat
from byok.endpoint.limits import Limits, read_limits
from byok.endpoint.parts import TokenLogprob, ToolCall, read_content, read_logprobs, read_tool_calls, split_thinking, tool_calls_in
from byok.endpoint.place import Place
from byok.endpoint.usage import Usage, read_usage
from byok.endpoint.wire import BadJson, Redactor, Reply, decode_json, excerpt, request_id, text_or_none, whole

_SLACK = 16
"""Tokens that servers count beyond a limit: end markers and the like."""


@dataclass(frozen=True)
class Timing:
    """When a stream came.

    Attributes:
        first_ms: From the sending of the request to the first piece of answer or reasoning; None when there was none.
        reliable: False when all pieces came at once at the end, as a proxy that buffers sends them; None when one piece cannot tell.
        usage_place: Where usage stood: `missing`, `empty_choices`, `finish`, `every` or `other`.
        done: Whether the stream said that it was over (`[DONE]`).
        comments: Comment lines that kept the connection alive.
    """

    first_ms: float | None
    reliable: bool | None
    usage_place: str
    done: bool
    comments: int


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
        tool_calls: Calls of tools that the model asks for.
        logprobs: Log probabilities of the answer's tokens; None when there are none, also where they were asked for.
        timing: When the pieces of a stream came; None when the answer came whole.
        limits: What the provider says is left of its limits.
        low_priority: The provider served it beyond the limits, at a low priority: its latency is no measure.
    """

    text: str | None
    reasoning: str | None
    refusal: str | None
    finish_reason: str | None
    usage: Usage
    latency_ms: float
    request_id: str | None
    http_status: int
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    timing: Timing | None = None
    limits: Limits | None = None

    @property
    def low_priority(self) -> bool:
        """Whether it was served beyond the limits (`x-ratelimit-over-limit`)."""
        return self.limits is not None and self.limits.over_limit

    @property
    def streamed(self) -> bool:
        """Whether it came as a stream."""
        return self.timing is not None

    @property
    def ttft_ms(self) -> float | None:
        """Time to the first piece, in milliseconds; None when it did not come as a stream."""
        return self.timing.first_ms if self.timing else None

    @property
    def ttft_reliable(self) -> bool | None:
        """Whether `ttft_ms` measures the model rather than a proxy; None when that cannot be told."""
        return self.timing.reliable if self.timing else None


def read_answer(reply: Reply, place: Place, *, limit: int | None = None, tools: Iterable[str] = ()) -> ChatAnswer:
    """The answer in a whole reply with status 2xx.

    Args:
        reply: The reply.
        place: Where it came from.
        limit: Most tokens of the answer that were asked for, which bounds what its usage can truly say.
        tools: Names of the tools that were offered.

    Raises:
        EndpointError: It is an error in disguise, no chat completion, cut, or invalid.
    """
    value = read_object(reply, place)
    choices = value.get("choices")
    if not choices and (value.get("error") or value.get("detail") or value.get("object") == "error"):
        raise classify(reply, place)
    if "choices" not in value:
        raise not_chat(reply, place, "the endpoint answers JSON, but no chat completion")
    return answer_of(value, reply, place, limit=limit, tools=tools)


def answer_of(
    value: dict[str, Any], reply: Reply, place: Place, *, limit: int | None = None, tools: Iterable[str] = (), timing: Timing | None = None
) -> ChatAnswer:
    """The answer that a chat completion is, whether it came whole or was put together from a stream.

    Raises:
        ResponseInvalid: It has no choice with a message.
    """
    choices, redact = value.get("choices"), place.redact
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict) or not isinstance(choices[0].get("message"), dict):
        raise invalid(reply, redact, "it has no choice with a message")
    choice, message = choices[0], choices[0]["message"]
    text, refusal = read_content(message.get("content"))
    reasoning = next((found for name in _reasoning_fields(place) if (found := _joined(message.get(name)))), None)
    if text is not None and reasoning is None:
        text, reasoning = split_thinking(text)
    calls = read_tool_calls(message) or tool_calls_in(text, tools)
    finish = text_or_none(choice.get("finish_reason"))
    refusal = refusal or _joined(message.get("refusal"))
    usage = read_usage(value.get("usage"), reply.headers)
    # Some servers let reasoning go beyond the limit, and some of those do not count it apart: a token has a byte at least.
    thought = usage.reasoning_tokens if usage.reasoning_tokens is not None or not reasoning else len(reasoning.encode())
    if limit is not None and (usage.completion_tokens or 0) - (thought or 0) > limit + _SLACK:
        usage = replace(usage, usage_class="invalid")
    logprobs = read_logprobs(choice.get("logprobs"))
    return ChatAnswer(
        # A hostile endpoint may answer with the key; it goes to the warehouse no more than to a log.
        text=None if text is None else redact.answer(text),
        reasoning=reasoning and redact.answer(reasoning),
        refusal=refusal and redact.answer(refusal),
        finish_reason=finish and excerpt(finish, redact.answer, 80),
        usage=usage,
        latency_ms=reply.latency_ms,
        request_id=request_id(reply, redact, place.profile.request_id_headers) or _id_in_body(value, redact),
        http_status=reply.status,
        tool_calls=tuple(_cleaned(call, redact) for call in calls),
        logprobs=logprobs and tuple(replace(one, token=redact.answer(one.token)) for one in logprobs),
        timing=timing,
        limits=read_limits(reply.headers, utcnow(), place.profile.limit_windows, redact=place.redact),
    )


def read_object(reply: Reply, place: Place) -> dict[str, Any]:
    """The JSON object of a reply with status 2xx.

    Raises:
        EndpointNotOpenAI: A page, plain text, or JSON that is no object.
        ResponseTruncated: It ends in the middle.
        ResponseInvalid: Broken JSON.
    """
    value = read_json(reply, place)
    if not isinstance(value, dict):
        raise not_chat(reply, place, f"the endpoint answers JSON, but no {'chat completion' if place.what == 'chat' else place.what}")
    return value


def read_json(reply: Reply, place: Place) -> Any:
    """The JSON value of a reply with status 2xx.

    Raises:
        EndpointNotOpenAI: A page or plain text.
        ResponseTruncated: It ends in the middle.
        ResponseInvalid: Empty, or broken JSON.
    """
    if is_html(reply):
        raise not_chat(reply, place, "a web page came instead of an answer")
    try:
        return decode_json(reply.body)
    except BadJson as error:
        if not reply.body.strip():
            found: EndpointError = invalid(reply, place.redact, "it is empty")
        elif error.truncated:
            found = ResponseTruncated("the answer ends in the middle", hint="the server or a proxy cut it", status=reply.status)
        elif reply.body.lstrip()[:1] in (b"{", b"["):
            found = invalid(reply, place.redact, str(error))
        else:
            found = not_chat(reply, place, "plain text came instead of an answer")
    raise found


def _reasoning_fields(place: Place) -> Iterable[str]:
    return dict.fromkeys((*place.profile.reasoning_fields, "reasoning", "reasoning_content"))


def _cleaned(call: ToolCall, redact: Redactor) -> ToolCall:
    ident = call.id and excerpt(call.id, redact.answer, 200)
    return replace(call, name=excerpt(call.name, redact.answer, 200), arguments=redact.answer(call.arguments), id=ident)


def _id_in_body(value: dict[str, Any], redact: Redactor) -> str | None:
    found = text_or_none(value.get("request_id"))
    return found and excerpt(found, redact, 200)


def _joined(value: Any) -> str | None:
    return whole(value) or None if isinstance(value, str) else None
