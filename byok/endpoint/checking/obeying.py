"""Facts 55 to 60: parameters that have the effect which they should have, and embeddings."""

from __future__ import annotations

from typing import Any

from byok.endpoint.answers import ChatAnswer
from byok.endpoint.bodies import is_html
from byok.endpoint.checking.look import Look
from byok.endpoint.checking.plan import HOT, SCHEMA_MEMBER, SCHEMA_VALUES, TOOL, UNKNOWN_PARAMETER
from byok.endpoint.checking.verdict import Case, Verdict, bad, good, unanswered, unseen
from byok.endpoint.classify import TOKEN_PARAMETERS
from byok.endpoint.embeddings import cosine
from byok.endpoint.errors import BadRequest
from byok.endpoint.usage import read_usage
from byok.endpoint.wire import BadJson, decode_json

_SLACK = 16
"""Tokens that servers count beyond a limit: end markers and the like."""

_SAME = 0.999
"""Cosine of one text's vectors as floats and in base64, at least; bytes in the wrong order give anything."""

_NOT_SERVED = frozenset({400, 404, 405, 415, 422, 501})


def limit_name(case: Case) -> Verdict:
    """55: max_tokens and max_completion_tokens."""
    look, chat = case.seen.last("other_limit"), case.seen.last("chat")
    if look is None:
        return unanswered(case, "other_limit")
    other = next((name for name in TOKEN_PARAMETERS if name in look.sent), "the other name")
    mine = next((name for name in TOKEN_PARAMETERS if chat is not None and name in chat.sent), "one name")
    if look.answer is not None:
        if _over(look):
            return bad(f"{other} is accepted, and the answer goes beyond it", f"hold to {other}, or refuse it", look)
        return good(f"both {mine} and {other} are taken", look)
    if isinstance(look.error, BadRequest):
        if look.error.parameter or look.error.fields.get("instead"):
            return good(f"takes {mine} alone, and refuses {other} by name (HTTP {look.status}); the client switches", look)
        return bad(
            f"{other} is refused without being named: {case.outcome(look)}", f"name {other} in param, and the name that is wanted", look
        )
    return unanswered(case, "other_limit")


def effects(case: Case) -> Verdict:
    """56: nothing is accepted and then ignored."""
    ignored = _ignored(case)
    if ignored:
        hint = "refuse with 400 what has no effect: the user believes that it has"
        return bad("accepted without effect: " + ", ".join(ignored), hint, *dict.fromkeys(ignored.values()))
    look = case.seen.last("unknown_parameter")
    if look is None or look.status is None:
        return unanswered(case, "unknown_parameter")
    if look.answer is not None:
        return good("an unknown parameter is ignored, where the reference refuses it; all that was asked otherwise had its effect", look)
    if isinstance(look.error, BadRequest) and UNKNOWN_PARAMETER in f"{look.error.parameter} {look.error.message}":
        return good(f"an unknown parameter is refused (HTTP {look.status}); all that was asked otherwise had its effect", look)
    if look.status in (408, 429, 502, 503, 504):
        return unanswered(case, "unknown_parameter")
    return bad(f"an unknown parameter ends in {case.outcome(look)}", "ignore it, or refuse it by name with 400", look)


def _ignored(case: Case) -> dict[str, Look]:
    found: dict[str, Look] = {}
    for look in case.seen.answered:
        answer = look.answer
        assert answer is not None
        if look.ask == "temperature":
            found[f"temperature {HOT}"] = look
        if look.ask == "schema" and _follows_schema(answer) is False:
            found["response_format json_schema"] = look
        if look.ask == "json" and _is_object(answer) is False:
            found["response_format json_object"] = look
        if look.ask in ("named", "required") and answer.finish_reason != "length" and not _calls(answer):
            found["tool_choice"] = look
        if look.ask == "stream" and answer.timing is None:
            found["stream"] = look
        if look.ask == "stream" and look.sent.get("logprobs") and answer.logprobs is None and (answer.text or "").strip():
            found["logprobs"] = look
        if _over(look) and look.ask != "huge":
            found[next((name for name in TOKEN_PARAMETERS if name in look.sent), "the token limit")] = look
    return found


def _calls(answer: ChatAnswer) -> bool:
    return any(call.name == TOOL for call in answer.tool_calls)


def _over(look: Look) -> bool:
    """Whether an answer is longer than its limit; reasoning, which some do not count in, is left aside."""
    if look.answer is None or look.limit is None or look.ask == "huge":
        return False
    told = read_usage(look.usages[-1], look.headers) if look.usages else look.answer.usage
    if told.completion_tokens is None:
        return len((look.answer.text or "").split()) > look.limit + _SLACK
    thought = told.reasoning_tokens if told.reasoning_tokens is not None or not look.answer.reasoning else told.completion_tokens
    return told.completion_tokens - (thought or 0) > look.limit + _SLACK


def schema(case: Case) -> Verdict:
    """57: an answer by a schema."""
    look = case.seen.last("schema")
    if look is None or look.answer is None:
        return _format_refused(case, look, "schema")
    follows = _follows_schema(look.answer)
    if follows is None:
        return unseen(f"the {look.limit} tokens were used up before the answer was whole", look)
    if follows:
        return good("the answer follows a schema of which the prompt says nothing", look)
    seen = f"accepted, and not followed: {case.quote(look.answer.text)}"
    return bad(seen, "hold answers to response_format json_schema, or refuse it with 400", look)


def json_mode(case: Case) -> Verdict:
    """58: JSON mode that ends."""
    look = case.seen.last("json")
    if look is None or look.answer is None:
        return _format_refused(case, look, "json")
    text = look.answer.text or ""
    if look.answer.finish_reason == "length" and text and not text.strip():
        return bad(f"nothing but white space, up to the limit of {look.limit} tokens", "let JSON mode forbid endless white space", look)
    fine = _is_object(look.answer)
    if fine is None:
        return unseen(f"the {look.limit} tokens were used up before the answer was whole", look)
    if fine:
        return good("a JSON object, as in the reference", look)
    return bad(f"accepted, and no JSON object: {case.quote(text)}", "hold answers to JSON, or refuse response_format with 400", look)


def _format_refused(case: Case, look: Look | None, ask: str) -> Verdict:
    if look is None or not isinstance(look.error, BadRequest):
        return unanswered(case, ask)
    if "response_format" in f"{look.error.parameter} {look.error.message}" or "json" in look.error.message.lower():
        return unseen(f"refused, so it is not offered: {case.outcome(look)}", look)
    return bad(f"refused without saying what: {case.outcome(look)}", "name response_format in param", look)


def _value(answer: ChatAnswer) -> Any:
    try:
        return decode_json((answer.text or "").encode("utf-8", "replace"))
    except BadJson:
        return None


def _follows_schema(answer: ChatAnswer) -> bool | None:
    """Whether an answer follows the schema; None when it ended too early to tell."""
    value = _value(answer)
    if isinstance(value, dict):
        return list(value) == [SCHEMA_MEMBER] and value[SCHEMA_MEMBER] in SCHEMA_VALUES
    return None if _too_early(answer) else False


def _is_object(answer: ChatAnswer) -> bool | None:
    if isinstance(_value(answer), dict):
        return True
    return None if _too_early(answer) else False


def _too_early(answer: ChatAnswer) -> bool:
    return answer.finish_reason == "length" and (answer.text or "").lstrip()[:1] in ("", "{")


def embeddings(case: Case) -> Verdict:
    """59: vectors, however they are written."""
    look, coded = case.seen.last("embeddings"), case.seen.last("base64")
    if look is None or look.vectors is None:
        return unanswered(case, "embeddings")
    told = f"{len(look.vectors.vectors)} vectors of {look.vectors.dimensions} numbers"
    refused = [one for one in case.seen.all("embeddings") if one.answer is None and one.error is not None]
    notes = ["encoding_format is refused, and left out"] if refused else []
    if coded is not None and coded.vectors is not None:
        pairs = zip(look.vectors.vectors, coded.vectors.vectors, strict=True)
        if any((cosine(one, other) or 0.0) < _SAME for one, other in pairs):
            return bad(
                "the vectors in base64 are others than those as floats", "write base64 as float32 in little-endian order", look, coded
            )
        notes.append(
            "base64 is the same"
            if coded.vectors.encoding == "base64"
            else "base64 is asked for, and floats come; the client asks for floats"
        )
    elif coded is not None:
        notes.append(f"no base64: {case.outcome(coded)}")
    indexes = [entry.get("index") for entry in look.value.get("data", []) if isinstance(entry, dict)]
    if indexes != list(range(len(indexes))):
        notes.append("not in the order of the texts; put in order by index")
    return good("; ".join([told, *notes]), *((look, coded) if coded is not None else (look,)))


def no_embeddings(case: Case) -> Verdict:
    """60: the route of embeddings where nothing makes any."""
    look = case.seen.last("embeddings")
    if look is None:
        return unanswered(case, "embeddings")
    if look.vectors is not None:
        return unseen("embeddings are served", look)
    proved = any(one.answer is not None or one.catalogue is not None for one in case.seen.looks)
    if not proved:
        return unseen("neither chat nor the list shows that the key is good", look)
    hint = "say 404 or 400 with a JSON error when no model makes embeddings"
    if look.reply is not None and is_html(look.reply):
        return bad(f"a web page: {case.outcome(look)}", hint, look)
    if look.status in _NOT_SERVED:
        return good(f"HTTP {look.status}, taken for not supported", look)
    if look.status in (None, 408, 429, 502, 503, 504):
        return unanswered(case, "embeddings")
    return bad(f"it looks like another failure: {case.outcome(look)}", hint, look)


FACTS = {55: limit_name, 56: effects, 57: schema, 58: json_mode, 59: embeddings, 60: no_embeddings}
