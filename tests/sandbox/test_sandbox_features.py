"""What a model can do besides answering: tools, forms, log probabilities, images, reasoning; and what it refuses."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from byok.sandbox import BadSandboxOption, Sandbox
from byok.sandbox.capabilities import NAMES

ALL = frozenset(NAMES)
PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG not looked at").decode()


def tool(name: str, parameters: Any = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name} | ({} if parameters is None else {"parameters": parameters})}


def form(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def parts(url: str) -> list[Any]:
    content = [
        {"type": "text", "text": "What is the capital of France, asked in full length?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    return [{"role": "user", "content": content}]


def called(answer: Any) -> list[tuple[str, Any]]:
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"])) for call in answer.choice["message"].get("tool_calls", ())
    ]


# --- tools


def test_a_required_call_takes_the_tool_that_the_question_names(serve: Any) -> None:
    tools = [tool("first"), tool("get_weather", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})]
    client = serve()
    named = client.chat("Try get_weather now.", tools=tools, tool_choice="required")
    assert called(named) == [("get_weather", {"city": "x"})]
    assert (named.choice["finish_reason"], named.choice["message"]["content"]) == ("tool_calls", None)
    assert called(client.chat("Anything.", tools=tools, tool_choice="required")) == [("first", {})]
    chosen = {"type": "function", "function": {"name": "get_weather"}}
    assert called(client.chat("Anything.", tools=tools, tool_choice=chosen)) == [("get_weather", {"city": "x"})]
    assert named.json["usage"]["completion_tokens"] > 0


def test_auto_calls_only_when_a_tool_is_asked_for(serve: Any) -> None:
    client, tools = serve(), [tool("get_weather")]
    assert called(client.chat(tools=tools)) == []
    assert client.chat(tools=tools).text == "The answer is Paris"
    assert called(client.chat("Use the tool, please.", tools=tools)) == [("get_weather", {})]
    assert called(client.chat("Use the tool, please.", tools=tools, tool_choice="none")) == []
    call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    told = [
        {"role": "user", "content": "Use the tool, please."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c"},
    ]
    assert called(client.chat(messages=told, tools=tools)) == []


@pytest.mark.parametrize(
    ("members", "parameter"),
    [
        ({"tools": []}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [tool("a")], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [tool("a")], "tool_choice": {"type": "function", "function": {"name": "b"}}}, "tool_choice"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"n": 2}, "n"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": 7}, "stop"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"logprobs": 3}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "response_format"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages"),
        ({"messages": parts(PIXEL)}, "messages"),
    ],
)
def test_what_is_wrong_is_named(serve: Any, members: dict[str, Any], parameter: str) -> None:
    answer = serve().chat(**members)
    assert (answer.status, answer.error["param"]) == (400, parameter)


# --- forms


def test_json_object_and_schemas(serve: Any) -> None:
    client = serve()
    assert json.loads(client.chat(response_format={"type": "json_object"}).text) == {"answer": "The answer is Paris"}
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "sure": {"type": "boolean"}, "kind": {"enum": ["town", "land"]}},
        "required": ["city", "sure", "kind"],
        "additionalProperties": False,
    }
    assert json.loads(client.chat(response_format=form(schema)).text) == {"city": "The answer is Paris", "sure": False, "kind": "town"}
    numbers = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]}
    assert json.loads(client.chat("no known question", response_format=form(numbers)).text) == {"n": 3}


# --- log probabilities


def test_logprobs_follow_the_text(serve: Any) -> None:
    answer = serve().chat(logprobs=True, top_logprobs=3)
    told = answer.choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in told) == answer.text
    for entry in told:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert entry["top_logprobs"][0]["token"] == entry["token"]
        values = [other["logprob"] for other in entry["top_logprobs"]]
        assert len(values) == 3 and values == sorted(values, reverse=True) and values[0] <= 0
    assert told == serve().chat(logprobs=True, top_logprobs=3).choice["logprobs"]["content"]
    assert serve().chat(logprobs=True).choice["logprobs"]["content"][0]["top_logprobs"] == []
    assert "logprobs" not in serve().chat().choice


# --- images


def test_images_are_seen_only_by_a_model_with_vision(serve: Any) -> None:
    client = serve(supports=ALL)
    seen = client.chat(messages=parts(PIXEL))
    assert seen.text == "The answer is Paris"
    assert seen.json["usage"]["prompt_tokens"] == client.chat().json["usage"]["prompt_tokens"] + 64
    for url in ("https://example.org/x.png", "data:image/png;base64,?", "data:text/plain;base64,eA=="):
        assert client.chat(messages=parts(url)).error["code"] == "invalid_image_url"


# --- reasoning


def test_reasoning_is_told_apart_and_counted(serve: Any) -> None:
    client = serve(supports=ALL)
    counts = {}
    for effort in (..., "none", "low", "high"):
        answer = client.chat(reasoning_effort=effort)
        usage = answer.json["usage"]
        counts[effort] = usage["completion_tokens_details"]["reasoning_tokens"]
        assert usage["completion_tokens"] == counts[effort] + 4
        assert bool(answer.choice["message"].get("reasoning_content")) == bool(counts[effort])
        assert answer.text == "The answer is Paris"
    assert 0 == counts["none"] < counts["low"] < counts[...] < counts["high"]


def test_reasoning_may_use_up_the_limit(serve: Any) -> None:
    answer = serve(supports=ALL).chat(max_tokens=3)
    assert (answer.text, answer.choice["finish_reason"]) == ("", "length")
    assert answer.json["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3 == answer.json["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("place", "names"),
    [("reasoning", ["reasoning"]), ("both", ["reasoning", "reasoning_content"]), ("think", []), (None, ["reasoning_content"])],
)
def test_reasoning_stands_where_it_is_wanted(serve: Any, place: str | None, names: list[str]) -> None:
    client = serve(supports=ALL, reasoning_as=place)
    message = client.chat().choice["message"]
    assert [name for name in ("reasoning", "reasoning_content") if name in message] == names
    inside = message["content"].startswith("<think>\nI read") and message["content"].endswith("\n</think>\n\nThe answer is Paris")
    assert inside == (place == "think")
    assert client.stream().joined() == message["content"]


# --- the context


def test_the_context_holds_prompt_and_answer(serve: Any) -> None:
    client = serve(context_length=20)
    assert client.chat(max_tokens=8).status == 200
    for members in ({"max_tokens": 10}, {"max_completion_tokens": 10**9}, {"prompt": "word " * 21}):
        answer = client.chat(members.pop("prompt", client.question), **members)
        assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
        assert "maximum context length is 20 tokens" in answer.error["message"]


# --- what it lacks

LACKING: dict[str, dict[str, Any]] = {
    "json_object": {"response_format": {"type": "json_object"}},
    "json_schema": {"response_format": form({"type": "object"})},
    "tools": {"tools": [tool("a")], "tool_choice": "required"},
    "logprobs": {"logprobs": True},
    "system": {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]},
    "vision": {"messages": parts(PIXEL)},
    "reasoning": {"reasoning_effort": "high"},
}


@pytest.mark.parametrize("feature", LACKING)
def test_a_feature_is_refused_or_ignored(serve: Any, feature: str) -> None:
    refused = serve(supports=ALL - {feature}).chat(**LACKING[feature])
    name = "messages" if "messages" in LACKING[feature] else next(iter(LACKING[feature]))
    assert (refused.status, refused.error["param"]) == (400, name)
    ignored = serve(supports=ALL - {"reasoning"}, ignores=frozenset({feature})).chat(**LACKING[feature])
    assert (ignored.status, "tool_calls" in ignored.choice["message"], "logprobs" in ignored.choice) == (200, False, False)
    assert ignored.text in ("The answer is Paris", "I do not know")


def test_ignored_parts_count_nothing(serve: Any) -> None:
    plain = serve().chat("hello").json["usage"]["prompt_tokens"]
    assert serve(ignores=frozenset({"system"})).chat(**LACKING["system"]).json["usage"]["prompt_tokens"] == plain
    fixed = serve(supports=ALL, ignores=frozenset({"reasoning"}))
    thoughts = [fixed.chat(reasoning_effort=effort).choice["message"]["reasoning_content"] for effort in ("none", "high")]
    assert thoughts[0] == thoughts[1] != ""


def test_options_that_are_none() -> None:
    for options in (
        {"profile": "nobody"},
        {"supports": frozenset({"telepathy"})},
        {"ignores": frozenset({"embeddings"})},
        {"reasoning_as": "loud"},
        {"context_length": 0},
        {"embedding_dimensions": 0},
        {"chunk_latency_ms": -1},
        {"page_size": 0},
        {"embedding_model_id": "sandbox-model"},
    ):
        with pytest.raises(BadSandboxOption):
            Sandbox([("1+1?", "2")], **options)  # type: ignore[arg-type]
    with pytest.raises(BadSandboxOption) as caught:
        Sandbox([("1+1?", "2")], profile="nobody")
    assert "together" in str(caught.value.hint)
