"""What form an answer can be held to: a JSON schema, JSON, a call of a tool (providers.md, section 12, P2 and P3)."""

from __future__ import annotations

from typing import Any

from byok.endpoint.answers import ChatAnswer
from byok.endpoint.capabilities import Capability
from byok.endpoint.errors import BadRequest
from byok.endpoint.probing.findings import Probing, cut_off, failed, of
from byok.endpoint.probing.session import Seen
from byok.endpoint.wire import BadJson, decode_json

TOKENS = 32
"""Limit of the answer: an endless white space (Fireworks' JSON mode without such a prompt) must end."""

_MEMBER = "kiwi"
_ASKS_FOR_JSON = [{"role": "user", "content": "Say hi in JSON."}]
"""The member that the schema asks for is named by the schema alone."""
_ASKS_FOR_NO_JSON = [{"role": "user", "content": "Say hi. Do not answer in JSON."}]
"""Some servers take JSON mode only beside the word. It is asked against: whoever answers in JSON all the same was made to."""

_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "a",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {_MEMBER: {"type": "integer"}},
            "required": [_MEMBER],
            "additionalProperties": False,
        },
    },
}
_TOOL = {
    "type": "function",
    "function": {
        "name": _MEMBER,
        "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}},
    },
}
_ASKS_FOR_TOOL = [{"role": "user", "content": f"Call {_MEMBER}."}]


async def json_schema(probing: Probing) -> None:
    """Whether an answer follows a JSON schema of which the prompt says nothing."""
    if probing.taken("json_schema", "response_format", "tools"):
        return
    seen = await probing.session.chat(_ASKS_FOR_JSON, TOKENS, response_format=_SCHEMA, more=probing.more)
    if seen.answer is None:
        probing.keep(failed(seen, "json_schema", "response_format.json_schema"))
        return
    value = _value(seen.answer)
    if isinstance(value, dict) and list(value) == [_MEMBER] and type(value[_MEMBER]) is int:
        probing.keep(of(seen, "json_schema", "supported", "the answer follows the schema"))
    else:
        probing.keep(_no_effect(seen, seen.answer, "json_schema", "the answer does not follow the schema"))


async def json_mode(probing: Probing) -> None:
    """Whether an answer is a JSON object when that is asked for."""
    if probing.taken("json_mode", "response_format", "tools"):
        return
    seen = await probing.session.chat(_ASKS_FOR_NO_JSON, TOKENS, response_format={"type": "json_object"}, more=probing.more)
    if seen.answer is None:
        probing.keep(failed(seen, "json_mode", "response_format.json_object"))
    elif isinstance(_value(seen.answer), dict):
        probing.keep(of(seen, "json_mode", "supported", "the answer is a JSON object"))
    else:
        probing.keep(_no_effect(seen, seen.answer, "json_mode", "the answer is no JSON object"))


async def tools(probing: Probing) -> None:
    """Whether the model calls a tool that it has to call."""
    if probing.taken("tools", "tools", "tool_choice", "response_format"):
        return
    if probing.spared("tools", probing.listed.tools if probing.listed else None, "tools"):
        return
    session = probing.session
    seen = await session.chat(_ASKS_FOR_TOOL, TOKENS, tools=[_TOOL], tool_choice="required", more=probing.more)
    refused = seen.error
    about_choice = isinstance(refused, BadRequest) and "tool_choice" in f"{refused.parameter} {refused.message}"
    if about_choice:
        seen = await session.chat(_ASKS_FOR_TOOL, TOKENS, tools=[_TOOL], more=probing.more)
    if seen.answer is None:
        probing.keep(failed(seen, "tools", "tools"))
        return
    call = next((call for call in seen.answer.tool_calls if call.name == _MEMBER), None)
    if call is None:
        probing.keep(_no_effect(seen, seen.answer, "tools", "no tool was called"))
        return
    told = "a tool was called, as JSON in the text of the answer" if call.in_content else "a tool was called"
    told += "; it refuses to be made to call one (tool_choice required)" if about_choice else ""
    probing.keep(of(seen, "tools", "supported", told, parameter="tool_choice" if about_choice else None))


def _value(answer: ChatAnswer) -> Any:
    try:
        return decode_json((answer.text or "").encode())
    except BadJson:
        return None


def _no_effect(seen: Seen[ChatAnswer], answer: ChatAnswer, name: Any, told: str) -> Capability:
    """Accepted without effect; where the limit of tokens ended the answer, its effect cannot be told."""
    if cut_off(answer):
        return of(seen, name, "unknown", f"accepted, but the {TOKENS} tokens of the answer went without a text (reasoning, or white space)")
    if answer.finish_reason == "length" and (answer.text or "").lstrip()[:1] in ("{", "["):
        return of(seen, name, "unknown", f"accepted, but the answer was not complete after {TOKENS} tokens")
    return of(seen, name, "ignored", f"accepted, but {told}")
