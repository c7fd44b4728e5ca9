"""Facts 42 to 48 and 54: what an answer holds, and in which members."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from byok.endpoint.checking.look import Look
from byok.endpoint.checking.plan import TOOL
from byok.endpoint.checking.verdict import Case, Verdict, bad, good, numbers, unanswered, unseen
from byok.endpoint.errors import BadRequest, ResponseInvalid
from byok.endpoint.wire import BadJson, decode_json

_FINISHES = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_TIERS = frozenset({"auto", "default", "flex", "scale", "priority"})
_CALL_HINT = "let a forced tool_choice end in tool_calls, or refuse it with 400"


def reasoning(case: Case) -> Verdict:
    """42: where reasoning stands."""
    found = [look for look in case.seen.answered if look.answer is not None and look.answer.reasoning]
    if not found:
        return unseen("no answer shows reasoning")
    look = found[0]
    holders = [part for choice in look.choices for part in (choice.get("message"), choice.get("delta")) if isinstance(part, dict)]
    names = [name for name in ("reasoning", "reasoning_content") if any(isinstance(holder.get(name), str) for holder in holders)]
    place = " and ".join(names) or "<think> inside the content"
    return good(f"in {place}, of which the reference knows nothing; kept apart from the answer ({numbers(found)})", *found[:1])


def content(case: Case) -> Verdict:
    """43: the text of a plain answer."""
    look = case.seen.last("chat")
    if look is None or look.answer is None:
        return unanswered(case, "chat")
    message = next((choice.get("message") for choice in look.choices), None)
    answer, raw = look.answer, message.get("content") if isinstance(message, dict) else None
    if (answer.text or "").strip():
        return good(
            "a list of parts, where the reference has a text; joined" if isinstance(raw, list) else "a text, as in the reference", look
        )
    kind = "null" if raw is None else "empty"
    if answer.finish_reason == "length" and (answer.reasoning or answer.usage.reasoning_tokens):
        return good(f"{kind}: reasoning used up the {look.limit} tokens, which the finish reason length tells", look)
    if answer.refusal:
        return good(f"{kind} beside a refusal, as in the reference", look)
    return bad(f"{kind}, with finish reason {case.quote(answer.finish_reason)}", "answer with a text, or say why there is none", look)


def finish(case: Case) -> Verdict:
    """44: why an answer ended."""
    ended = [look for look in case.seen.answered if look.ask != "huge"]
    if not ended:
        return unseen("nothing was answered")
    without = [look for look in ended if look.answer is not None and look.answer.finish_reason is None]
    if without:
        hint = "give every answer a finish_reason"
        return bad(f"no finish reason ({numbers(without)}): a cut answer looks like a whole one", hint, *without)
    words = sorted({str(look.answer.finish_reason) for look in ended if look.answer is not None})
    odd = [word for word in words if word not in _FINISHES]
    if odd:
        return good(f"{case.quote(', '.join(odd))}, which the reference does not have; kept as given")
    return good(f"{', '.join(words)}, as in the reference")


def chunks(case: Case) -> Verdict:
    """45: how a stream is cut into chunks."""
    looks = case.seen.all("stream", "required")
    broken = [look for look in looks if look.frames is not None and isinstance(look.error, ResponseInvalid)]
    if broken:
        hint = "send chat.completion.chunk objects with choices and delta"
        return bad(f"a chunk cannot be read: {case.outcome(broken[0])}", hint, *broken)
    found = [look for look in looks if look.answer is not None and look.frames is not None]
    odd = dict.fromkeys(text for look in found for text in _oddities(look))
    in_text = [look for look in case.seen.answered if look.answer is not None and any(call.in_content for call in look.answer.tool_calls)]
    if in_text:
        odd["a tool call as JSON in the text"] = None
    if not found and not in_text:
        return unanswered(case, "stream") if not looks or looks[-1].answer is None else unseen("no stream came")
    told = f"{', '.join(odd)}, where the reference has it otherwise; put together without loss" if odd else "as in the reference"
    return good(told, *(found + in_text)[:2])


def _oddities(look: Look) -> Iterator[str]:
    deltas = [(choice, choice["delta"]) for choice in look.choices if isinstance(choice.get("delta"), dict)]
    if sum(isinstance(delta.get("role"), str) for _, delta in deltas) > 1:
        yield "the role on more than one chunk"
    if sum(isinstance(choice.get("finish_reason"), str) for choice, _ in deltas) > 1:
        yield "two chunks with a finish reason"
    if any(isinstance(choice.get("finish_reason"), str) and delta.get("tool_calls") for choice, delta in deltas):
        yield "arguments on a chunk with a finish reason"


def named_call(case: Case) -> Verdict:
    """46: a call that was asked for by name."""
    look = case.seen.last("named")
    if look is None:
        return unanswered(case, "named")
    if look.answer is None:
        refused = isinstance(look.error, BadRequest)
        return unseen(f"tools are refused: {case.outcome(look)}", look) if refused else unanswered(case, "named")
    call = next((one for one in look.answer.tool_calls if one.name == TOOL), None)
    if call is None:
        if look.answer.finish_reason == "length":
            return unseen(f"the {look.limit} tokens were used up before a call", look)
        return bad("tool_choice is accepted, and the tool is not called", _CALL_HINT, look)
    if look.answer.finish_reason != "length" and not _is_json(call.arguments):
        return bad(f"the call's arguments are no JSON: {case.quote(call.arguments)}", "write arguments as JSON", look)
    said = case.quote(look.answer.finish_reason)
    if call.in_content:
        return good(f"called as JSON in the text, where the reference has tool_calls; read all the same (finish reason {said})", look)
    return good(f"called, with finish reason {said}: a call is known by itself, not by that", look)


def logprobs(case: Case) -> Verdict:
    """47: the shape of log probabilities."""
    look = case.seen.last("stream")
    if look is None or look.answer is None:
        return unanswered(case, "stream")
    if not look.sent.get("logprobs"):
        return unseen("they are refused", look)
    if look.answer.logprobs is None:
        if not (look.answer.text or "").strip():
            return unseen("the answer had no text to have any", look)
        return bad("asked for, accepted, and none came", "send logprobs, or refuse to", look)
    shapes = [_shape(choice.get("logprobs")) for choice in look.choices if choice.get("logprobs") is not None]
    shape = next((one for one in shapes if one is not None), "another shape")
    count = f"for {len(look.answer.logprobs)} token(s)"
    if shape == "content":
        return good(f"a list of tokens, as in the reference, {count}", look)
    return good(f"{shape}, where the reference has a list of tokens; read {count}", look)


def _shape(value: Any) -> str | None:
    if isinstance(value, dict):
        if isinstance(value.get("content"), list):
            return "content"
        return "parallel lists" if isinstance(value.get("token_logprobs"), list) else "an object" if value else None
    return "a number" if isinstance(value, int | float) else "a bare list" if isinstance(value, list) else None


def logprobs_form(case: Case) -> Verdict:
    """48: how they are asked for."""
    looks = [look for look in case.seen.all("stream") if "logprobs" in look.sent]
    if not looks:
        return unanswered(case, "stream")
    taken = next((look for look in looks if look.answer is not None), None)
    if taken is None:
        if isinstance(looks[-1].error, BadRequest):
            return unseen(f"both forms are refused: {case.outcome(looks[-1])}", *looks)
        return unanswered(case, "stream")
    if taken.sent["logprobs"] is True:
        return good("asked for with logprobs: true and top_logprobs, as in the reference", taken)
    return good("asked for with logprobs as a number, where the reference has true beside top_logprobs; the client can do both", taken)


def types(case: Case) -> Verdict:
    """54: numbers beyond their types."""
    if not case.seen.answered:
        return unseen("nothing was answered")
    odd: dict[str, Look] = {}
    for look in case.seen.answered:
        for part in look.frames.chunks if look.frames is not None else (look.value,):
            for text in _odd_numbers(case, part):
                odd.setdefault(text, look)
    if not odd:
        return good("integers of 64 bits, created as an integer, service_tier as in the reference or absent")
    return good(f"{'; '.join(odd)}: otherwise than in the reference, and read without loss", *dict.fromkeys(odd.values()))


def _odd_numbers(case: Case, part: Any) -> Iterator[str]:
    if not isinstance(part, dict):
        return
    if isinstance(part.get("created"), float):
        yield "created is no integer"
    tier = part.get("service_tier")
    if isinstance(tier, str) and tier not in _TIERS:
        yield f"service_tier is {case.quote(tier)}"
    inner: list[tuple[str, Any]] = list(part.items())
    while inner:
        name, value = inner.pop()
        if isinstance(value, dict):
            inner.extend(value.items())
        elif isinstance(value, list):
            inner.extend((name, one) for one in value)
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            yield f"{case.quote(name)} exceeds 64 bits"


def _is_json(text: str) -> bool:
    try:
        decode_json(text.encode("utf-8", "replace"))
    except BadJson:
        return False
    return True


FACTS = {
    **{42: reasoning, 43: content, 44: finish, 45: chunks, 46: named_call},
    **{47: logprobs, 48: logprobs_form, 54: types},
}
