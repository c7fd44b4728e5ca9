"""Wire facts 42 to 48: reasoning, contents, finish reasons, tool calls, log probabilities."""

from __future__ import annotations

import json

import pytest

from byok.endpoint import TokenLogprob, ToolCall
from byok_testing.asking import USAGE, chat, chunk, completion, refused
from byok_testing.raw_server import events, http

TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
]


def whole(serve, content="OK", *, options=None, provider=None, **members):
    return chat(serve(http(200, completion(content, **members))), provider=provider, **(options or {}))


def streamed(serve, *deltas, finish="stop", **options):
    return chat(serve(events(*map(chunk, deltas), chunk({}, finish=finish, usage=USAGE))), stream=True, **options)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_fact_42_reasoning_in_a_member_of_its_own(serve, name):
    for answer in (whole(serve, message={name: "think"}), streamed(serve, {name: "thi"}, {name: "nk"}, {"content": "OK"})):
        assert (answer.text, answer.reasoning) == ("OK", "think")


@pytest.mark.parametrize(
    ("content", "text", "reasoning"),
    [
        ("<think>think</think>OK", "OK", "think"),
        ("think</think>\nOK", "OK", "think"),
        ("<think>think", "", "think"),
        ("OK", "OK", None),
        ("Wrap it in <think> and </think>.", "Wrap it in <think> and </think>.", None),
    ],
)
def test_fact_42_reasoning_inside_the_content(serve, content, text, reasoning):
    for answer in (whole(serve, content), streamed(serve, *({"content": sign} for sign in content))):
        assert (answer.text, answer.reasoning) == (text, reasoning)


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, None), ("", ""), ([{"type": "text", "text": "O"}, {"type": "text", "text": "K"}], "OK"), (["O", "K"], "OK"), ([], None)],
)
def test_fact_43_contents_that_are_null_empty_or_a_list(serve, content, text):
    assert whole(serve, content).text == text


def test_fact_43_a_budget_that_reasoning_used_up(serve):
    answer = whole(serve, None, finish="length", message={"reasoning_content": "still thinking"})
    assert (answer.text, answer.reasoning, answer.finish_reason) == (None, "still thinking", "length")
    answer = streamed(serve, {"reasoning": "still"}, {"content": None}, finish="length")
    assert (answer.text, answer.reasoning, answer.finish_reason) == (None, "still", "length")


def test_fact_43_refusals(serve):
    for message in ({"content": None, "refusal": "no"}, {"content": [{"type": "refusal", "refusal": "no"}]}):
        answer = whole(serve, None, message=message)
        assert (answer.text, answer.refusal) == (None, "no")
    assert streamed(serve, {"refusal": "n"}, {"refusal": "o"}).refusal == "no"


@pytest.mark.parametrize("reason", ["eos", "abort", "repetition", "function_call", "content_filter", "something-new"])
def test_fact_44_finish_reasons_are_kept_as_given(serve, reason):
    assert whole(serve, finish=reason).finish_reason == reason
    assert streamed(serve, {"content": "OK"}, finish=reason).finish_reason == reason


def test_fact_44_none_at_all(serve):
    assert whole(serve, finish=None).finish_reason is None
    # A stream has to have one: a gateway may say that it is over behind an upstream that was cut.
    for frames in ([chunk({"content": "OK"})], []):
        assert refused(lambda frames=frames: chat(serve(events(*frames)), stream=True)).code == "response_truncated"


def test_fact_45_a_stream_that_ends_twice_and_brings_its_arguments_at_the_end(serve):
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    rest = {"index": 0, "function": {"arguments": '{"city": "Oslo"}'}}
    frames = [
        chunk({"role": "assistant", "content": "", "tool_calls": [call]}, usage=None),
        chunk({"role": "assistant", "content": "", "tool_calls": [rest]}, finish="tool_calls", usage=None),
        chunk({"role": "assistant", "content": ""}, finish="tool_calls", usage=USAGE),
    ]
    answer = chat(serve(events(*frames)), stream=True, tools=TOOLS, provider="together")
    assert answer.tool_calls == (ToolCall("weather", '{"city": "Oslo"}', "call_1"),)
    assert (answer.finish_reason, answer.usage.completion_tokens) == ("tool_calls", 2)


@pytest.mark.parametrize(
    "content",
    [
        '{"name": "weather", "arguments": {"city": "Oslo"}}',
        '[{"name": "weather", "parameters": {"city": "Oslo"}}]',
        '```json\n{"type": "function", "function": {"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}}\n```',
        '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>',
    ],
)
def test_fact_45_a_call_that_stands_in_the_content(serve, content):
    (call,) = whole(serve, content, options={"tools": TOOLS}).tool_calls
    assert (call.name, json.loads(call.arguments), call.in_content) == ("weather", {"city": "Oslo"}, True)
    # Without tools on offer, or about another one, it is just text.
    assert whole(serve, content).tool_calls == ()
    assert whole(serve, content.replace("weather", "other"), options={"tools": TOOLS}).tool_calls == ()
    assert whole(serve, '{"name": ["weather"]}', options={"tools": TOOLS}).tool_calls == ()


def test_fact_46_a_call_under_the_finish_reason_stop(serve):
    calls = [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
    answer = whole(serve, None, message={"tool_calls": calls}, options={"tools": TOOLS})
    assert (answer.tool_calls, answer.finish_reason, answer.text) == ((ToolCall("weather", "{}", "call_1"),), "stop", None)
    older = whole(serve, None, message={"function_call": {"name": "weather", "arguments": "{}"}}, finish="function_call")
    assert older.tool_calls == (ToolCall("weather", "{}"),)


ASKED = {"logprobs": 1}


@pytest.mark.parametrize(
    ("logprobs", "wanted"),
    [
        ({"content": [{"token": "OK", "logprob": -0.25, "bytes": None, "top_logprobs": []}]}, [("OK", -0.25)]),
        ({"tokens": ["O", "K"], "token_ids": [1, 2], "token_logprobs": [-0.25, None], "top_logprobs": []}, [("O", -0.25)]),
        ({"content": {"token": "OK", "logprob": -0.25}}, [("OK", -0.25)]),
        (-0.25, [("", -0.25)]),
        ({"content": [{"token": "OK", "logprob": -9999.0}]}, [("OK", -9999.0)]),
        (None, None),
        ({"content": None}, None),
        ("odd", None),
    ],
)
def test_fact_47_log_probabilities_in_every_form(serve, logprobs, wanted):
    answer = whole(serve, choice={"logprobs": logprobs}, options=ASKED)
    assert answer.logprobs == (None if wanted is None else tuple(TokenLogprob(*one) for one in wanted))


def test_fact_47_log_probabilities_of_a_stream(serve):
    def piece(text, logprobs):
        made = chunk({"content": text})
        made["choices"][0]["logprobs"] = logprobs
        return made

    lists = [piece(text, {"content": [{"token": text, "logprob": -1.0}]}) for text in "OK"]
    numbers = [piece(text, -1.0) for text in "OK"]
    for frames in (lists, numbers):
        answer = chat(serve(events(*frames, chunk({}, finish="stop"))), stream=True, logprobs=1)
        assert [one.logprob for one in answer.logprobs] == [-1.0, -1.0]


@pytest.mark.parametrize(
    ("provider", "asked", "sent"),
    [
        (None, 2, {"logprobs": True, "top_logprobs": 2}),
        (None, 50, {"logprobs": True, "top_logprobs": 20}),
        ("fireworks", 20, {"logprobs": True, "top_logprobs": 5}),
        ("together", 2, {"logprobs": 2}),
        ("together", 0, {"logprobs": 1}),
    ],
)
def test_fact_48_the_two_ways_to_ask_for_log_probabilities(serve, provider, asked, sent):
    server = serve(http(200, completion()))
    chat(server, provider=provider, logprobs=asked)
    body = json.loads(server.requests[0][2])
    assert {name: value for name, value in body.items() if "logprobs" in name} == sent
