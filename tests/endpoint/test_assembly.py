"""Chunks of a streamed chat completion become the completion that would have come without streaming."""

from __future__ import annotations

import copy
import json
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.endpoint import EgressPolicy
from byok.endpoint.answers import ChatAnswer, answer_of
from byok.endpoint.assembly import Assembly, BadChunk
from byok.endpoint.place import Place
from byok.endpoint.sse import Decoder
from byok.endpoint.wire import Redactor, Reply

PLACE = Place(EgressPolicy().check_base_url("https://llm.example/v1"), "m", Redactor(None))
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
NO_USAGE = {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def shaped(inner: st.SearchStrategy[Any], *names: str) -> st.SearchStrategy[Any]:
    """Objects with some of these members, whatever those are."""
    return st.fixed_dictionaries({}, optional={name: inner | JSON for name in names})


TEXT = st.text(max_size=3) | st.none()
FUNCTION = shaped(TEXT, "name", "arguments")
CALL = st.builds(
    lambda call, function: {**call, "function": function}, shaped(TEXT | st.integers(-1, 2), "index", "id", "type"), FUNCTION | JSON
)
CONTENT = TEXT | st.lists(TEXT | shaped(TEXT, "text", "refusal", "type"), max_size=3)
MESSAGE = st.builds(
    lambda texts, content, calls, function: {**texts, **content, **calls, **function},
    shaped(TEXT, "role", "reasoning", "reasoning_content", "refusal"),
    shaped(CONTENT, "content"),
    shaped(st.lists(CALL | JSON, max_size=3), "tool_calls"),
    shaped(FUNCTION, "function_call"),
)
LOGPROBS = st.floats(-9, 0) | shaped(st.lists(JSON, max_size=2), "content", "tokens", "token_logprobs", "top_logprobs")
CHOICE = st.builds(
    lambda choice, message, logprobs: {**choice, **message, **logprobs},
    shaped(TEXT | st.integers(-1, 2), "index", "finish_reason", "text", "seed"),
    shaped(MESSAGE, "delta", "message"),
    shaped(LOGPROBS, "logprobs"),
)
CHUNK = st.builds(
    lambda head, choices, usage: {**head, **choices, **usage},
    shaped(TEXT | st.integers(), "id", "model", "created", "service_tier", "request_id", "object"),
    shaped(st.lists(CHOICE | JSON, max_size=3), "choices"),
    shaped(shaped(st.integers() | st.none(), "prompt_tokens", "completion_tokens"), "usage"),
)


def chunk(delta: Any = None, finish: Any = None, **members: Any) -> dict[str, Any]:
    """A chunk with one choice; members of the choice may be given as `choice`."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish, **members.pop("choice", {})}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "org/Model", "choices": [choice], **members}


def assemble(*chunks: Any, **limits: int) -> Assembly:
    """What these chunks come to; none of them is changed by that."""
    before = copy.deepcopy(chunks)
    assembly = Assembly(**limits)
    for one in chunks:
        assembly.add(one)
    assert chunks == before
    return assembly


def message(*deltas: Any) -> dict[str, Any]:
    """The message that these deltas come to."""
    found: dict[str, Any] = assemble(*map(chunk, deltas)).completion()["choices"][0]["message"]
    return found


def read(assembly: Assembly) -> ChatAnswer:
    """The answer, as the client reads it."""
    return answer_of(assembly.completion(), Reply(200, {}, b"", 1.0), PLACE)


def receive(body: str) -> Assembly:
    """What the bytes of a stream come to, without its `[DONE]`."""
    decoder, assembly = Decoder(), Assembly()
    events = decoder.feed(body.encode())
    last = decoder.end()
    for event in [*events, *([last] if last else [])]:
        if event.data != "[DONE]":
            assembly.add(json.loads(event.data))
    return assembly


def frames(*chunks: Any, end: str = "\n\n") -> str:
    """A stream of these chunks."""
    return "".join(f"data: {json.dumps(one)}{end}" for one in chunks)


def _together(text: str, finish: str | None = None, token: int | None = None, **members: Any) -> dict[str, Any]:
    delta = {"token_id": token, "role": "assistant", "content": text, **members.pop("delta", {})}
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "seed": members.pop("seed", None), "delta": delta}
    return {"id": "oabc-1", "object": "chat.completion.chunk", "created": 1, "choices": [choice], "model": "org/Model-Turbo", **members}


def test_together_text() -> None:
    usage = {"prompt_tokens": 45, "completion_tokens": 3, "total_tokens": 48, "cached_tokens": 7}
    found = receive(
        frames(
            _together("Hello", token=9906, usage=None),
            _together("!", usage=None),
            _together("", "stop", 128009, seed=15924764223251450000, usage=usage),
        )
        + "data: [DONE]\n\n"
    )
    assert (found.finish_reason, found.usage_place, found.pieces, found.complete) == ("stop", "finish", 2, True)
    assert found.completion() == {
        "id": "oabc-1",
        "model": "org/Model-Turbo",
        "object": "chat.completion",
        "created": 1,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
        "usage": usage,
    }
    answer = read(found)
    assert (answer.text, answer.usage.cached_tokens, answer.usage.usage_class) == ("Hello!", 7, "reported")


def test_together_tool_call() -> None:
    opened = {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}]}
    filled = {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":"Paris"}'}}]}
    found = assemble(
        _together(""),
        _together("", delta=opened),
        _together("", "tool_calls", delta=filled),
        _together("", "tool_calls", 128009, seed=9033012299842426000, usage=USAGE),
    )
    assert (found.finish_reason, found.usage_place, found.pieces) == ("tool_calls", "finish", 2)
    assert found.completion()["choices"][0]["message"] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}],
    }


def test_together_numbers_for_logprobs() -> None:
    chunks = [_together(text) for text in ("a", "b")]
    for one, number in zip(chunks, (-0.5, 0), strict=True):
        one["choices"][0]["logprobs"] = number
    found = assemble(*chunks, _together("", "eos"))
    assert found.completion()["choices"][0]["logprobs"] == {"token_logprobs": [-0.5, 0]}
    assert [one.logprob for one in read(found).logprobs or ()] == [-0.5, 0.0]


def test_vllm_reasoning_comments_and_usage_at_the_end() -> None:
    entry = {"token": "4", "logprob": -0.1, "bytes": None, "top_logprobs": []}
    chunks = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning": "2+2 "}),
        chunk({"reasoning": "is 4"}),
        chunk({"content": "4"}, choice={"logprobs": {"content": [entry]}}),
        chunk({"content": "."}, choice={"logprobs": {"content": [entry, entry]}}),
        chunk({"content": ""}, "stop", choice={"stop_reason": 128009, "token_ids": None}),
        {"id": "x", "model": "org/Model", "choices": [], "usage": {**USAGE, "prompt_tokens_details": None}},
    ]
    found = receive(": keep-alive\r\n\r\n" + frames(*chunks, end="\r\n\r\n: keep-alive\r\n\r\n") + "data: [DONE]\r\n\r\n")
    assert (found.finish_reason, found.usage_place, found.pieces) == ("stop", "empty_choices", 4)
    answer = read(found)
    assert (answer.text, answer.reasoning, answer.usage.usage_class) == ("4.", "2+2 is 4", "reported")
    assert found.completion()["choices"][0]["logprobs"] == {"content": [entry] * 3}
    assert len(answer.logprobs or ()) == 3


def test_vllm_running_usage() -> None:
    counts = [{"prompt_tokens": 5, "completion_tokens": number, "total_tokens": 5 + number} for number in (0, 1, 2, 2)]
    deltas = [({"role": "assistant", "content": ""}, None), ({"content": "a"}, None), ({"content": "b"}, "abort")]
    chunks = [chunk(*one, usage=usage) for one, usage in zip(deltas, counts, strict=False)]
    found = assemble(*chunks, {"choices": [], "usage": counts[-1]})
    assert (found.usage_place, found.finish_reason, read(found).usage.completion_tokens) == ("every", "abort", 2)
    assert assemble(*chunks[1:]).usage_place == "every"


def test_sambanova_usage_unasked_and_choices_left_out() -> None:
    usage = {**USAGE, "time_to_first_token": 0.05, "end_time": 1700000000.5, "is_last_response": True, "stop_reason": "stop"}
    last = {"id": "x", "created": 1700000000.25, "model": "Meta", "object": "chat.completion.chunk", "system_fingerprint": "fastcoe"}
    for empty in ({"choices": []}, {"choices": None}, {}):
        found = assemble(
            {**last, "choices": None},
            {**chunk({"role": "assistant", "content": "Hi"}), **last},
            {**chunk({"content": "", "role": "assistant"}, "stop"), **last},
            {**last, **empty, "usage": usage},
        )
        assert (found.usage_place, found.completion()["created"], found.completion()["usage"]) == ("empty_choices", 1700000000.25, usage)
        assert (read(found).text, read(found).usage.completion_tokens) == ("Hi", 3)


def test_mlflow_ends_without_done_and_knows_no_counts() -> None:
    empty = {"role": "assistant", "tool_calls": None, "refusal": None}
    chunks = [chunk({**empty, "content": "Hi"}, usage=NO_USAGE), chunk({**empty, "content": None}, "stop", usage=NO_USAGE, provider="p")]
    found = receive(frames(*chunks).rstrip("\n"))
    assert (found.complete, found.usage_place) == (True, "missing")
    assert "usage" not in found.completion()
    assert (read(found).text, read(found).usage.usage_class, read(found).tool_calls) == ("Hi", "missing", ())
    # Null counts do not hide those that came before.
    assert read(assemble(chunk({"content": "a"}, usage=USAGE), chunks[1])).usage.usage_class == "reported"


def test_fireworks_reasoning_content_and_perf_metrics() -> None:
    perf = {"prompt-tokens": 5, "server-time-to-first-token": 0.1, "server-processing-time": 0.2}
    usage = {"prompt_tokens": 5, "total_tokens": 8, "completion_tokens": 3, "prompt_tokens_details": None}
    found = assemble(
        chunk({"role": "assistant"}, perf_metrics=None),
        chunk({"reasoning_content": "hm"}, choice={"raw_output": None, "token_ids": [1]}),
        chunk({"content": "OK"}, choice={"prompt_token_ids": [1, 2]}),
        chunk({}, "length", usage=usage, perf_metrics=perf),
        {"id": "x", "perf_metrics": perf},
    )
    assert (found.usage_place, found.pieces) == ("finish", 2)
    answer = read(found)
    assert (answer.text, answer.reasoning, answer.finish_reason, answer.usage.completion_tokens) == ("OK", "hm", "length", 3)


def test_the_tier_and_the_id_of_a_request_are_kept() -> None:
    found = assemble(chunk({"content": "a"}, service_tier="over-limit", request_id=""), chunk({}, "stop", request_id="r-1")).completion()
    assert (found["service_tier"], found["request_id"]) == ("over-limit", "r-1")


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([], {"content": None}),
        ([{"role": "assistant"}], {"content": None}),
        ([{"content": None}], {"content": None}),
        ([{"content": ""}], {"content": ""}),
        ([{"content": None}, {"content": ""}], {"content": ""}),
        ([{"content": []}, {"content": [{"type": "thinking"}]}], {"content": None}),
        ([{"content": [{"type": "text", "text": "a"}, "b"]}, {"content": "c"}], {"content": "abc"}),
        ([{"content": [{"type": "refusal", "refusal": "n"}]}, {"refusal": "o"}], {"content": None, "refusal": "no"}),
        ([{"content": 5}, {"content": {"text": "x"}}], {"content": None}),
        ([{"role": "tool", "content": "a"}, {"role": "assistant", "content": "b"}], {"role": "tool", "content": "ab"}),
        ([{"role": 7, "content": "a"}], {"content": "a"}),
        ([{"content": "\ud83d"}, {"content": "\ude00"}], {"content": "\ud83d\ude00"}),
        ([{"reasoning": "r"}, {"reasoning": None, "content": "a"}], {"content": "a", "reasoning": "r"}),
        ([{"reasoning": ["r"], "reasoning_content": {}, "refusal": 1}], {"content": None}),
        (
            [{"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": "{}"}}],
            {"content": None, "function_call": {"name": "f", "arguments": "{}"}},
        ),
    ],
)
def test_the_parts_of_a_message(deltas: list[Any], expected: dict[str, Any]) -> None:
    assert message(*deltas) == {"role": "assistant", **expected}


def test_reasoning_under_two_names_is_not_doubled() -> None:
    found = assemble(*(chunk({"reasoning": text, "reasoning_content": text}) for text in "abc"))
    assert (read(found).reasoning, found.pieces) == ("abc", 3)
    found = assemble(*(chunk({"reasoning": "", "reasoning_content": text}) for text in "abc"))
    assert read(found).reasoning == "abc"


def test_the_legacy_text_counts_where_it_stands_alone() -> None:
    assert read(assemble(chunk({"content": "a"}, choice={"text": "a"}), chunk({"content": ""}, choice={"text": "b"}))).text == "a"
    assert read(assemble(chunk({"reasoning": "a", "content": None}, choice={"text": "a"}))).text is None
    assert (
        read(assemble({"choices": [{"text": "a"}]}, {"choices": [{"text": "b", "delta": None}]}, chunk({}, choice={"text": "c"}))).text
        == "abc"
    )
    assert read(assemble(chunk({}, choice={"text": ""}))).text is None


def test_a_message_instead_of_deltas() -> None:
    whole = {"index": 0, "message": {"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]}, "finish_reason": "stop"}
    found = assemble({"choices": [whole], "usage": USAGE})
    assert (read(found).text, found.pieces, found.complete, found.usage_place) == ("a", 1, True, "finish")
    assert read(assemble(chunk({"role": "assistant", "content": ""}), {"choices": [whole]})).text == "a"
    # What repeats the deltas is not added to them.
    found = assemble(chunk({"content": "a"}), {"choices": [whole]})
    assert (message({"content": "a"}), found.finish_reason, found.pieces) == (found.completion()["choices"][0]["message"], "stop", 1)
    assert read(assemble(chunk({"content": "a"}, choice={"message": {"content": "a"}}))).text == "a"


def _fragment(arguments: Any = "", name: str | None = None, **members: Any) -> dict[str, Any]:
    return {**members, "function": {"arguments": arguments, **({"name": name} if name else {})}}


@pytest.mark.parametrize(
    ("fragments", "expected"),
    [
        # By index; a repeated name, type or id changes nothing.
        (
            [
                [_fragment("", "f", index=0, id="1", type="function"), _fragment("[", "g", index=1, id="2")],
                [_fragment("2]", index=1), _fragment("{", index=0)],
                [_fragment("}", "f", index=0, id="another", type="function")],
            ],
            [("1", "f", "{}"), ("2", "g", "[2]")],
        ),
        # Without an index: by id, else the last one.
        ([[_fragment("{", "f", id="1")], [_fragment("[", "g", id="2")], [_fragment("}", id="1")]], [("1", "f", "{}"), ("2", "g", "[")]),
        ([[_fragment("{", "f", id="1")], [_fragment("}")]], [("1", "f", "{}")]),
        ([[_fragment("{", "f", index=0, id="1")], [_fragment("}", id="1")]], [("1", "f", "{}")]),
        ([[_fragment("{}", "f")]], [(None, "f", "{}")]),
        ([[_fragment("{}", "f", id=""), _fragment(" ", index=None, id=None)]], [(None, "f", "{} ")]),
        # Whole calls in one chunk.
        ([[_fragment("{}", "f", id="1"), _fragment("{}", "f", id="2")]], [("1", "f", "{}"), ("2", "f", "{}")]),
        # Arguments that some gateway has decoded.
        ([[_fragment({"a": [1]}, "f", index=0)]], [(None, "f", {"a": [1]})]),
        ([[_fragment("{}", "f", index=0)], [_fragment({}, index=0)]], [(None, "f", "{}")]),
        ([[_fragment(None, "f", index=0)], [_fragment(7, index=0)]], [(None, "f", "")]),
        ([[None, 3, "x"], []], None),
        ([[{"index": 0}, {"index": 0, "function": "f"}]], [(None, None, "")]),
    ],
)
def test_tool_calls(fragments: list[list[Any]], expected: list[tuple[Any, ...]] | None) -> None:
    calls = message(*({"tool_calls": some} for some in fragments)).get("tool_calls")
    found = calls and [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]
    assert found == expected
    assert all(call["type"] == "function" for call in calls or ())


@pytest.mark.parametrize(
    ("finishes", "reason"),
    [
        *[((None, reason), reason) for reason in ("stop", "eos", "abort", "repetition", "function_call", "content_filter", "neu")],
        (("", "length", None), "length"),
        (("tool_calls", "stop"), "tool_calls"),
        (("\ud83d",), "\ufffd"),
        ((None, ""), None),
        (({}, [], True), None),
    ],
)
def test_the_first_finish_reason_counts(finishes: tuple[Any, ...], reason: str | None) -> None:
    found = assemble(*(chunk({"content": "a"}, finish) for finish in finishes))
    assert (found.finish_reason, found.complete) == (reason, reason is not None)
    assert found.completion()["choices"][0]["finish_reason"] == reason


@pytest.mark.parametrize(
    ("chunks", "place"),
    [
        ([chunk({"content": "a"}), chunk({}, "stop")], "missing"),
        ([chunk({"content": "a"}, usage=USAGE), chunk({}, "stop")], "other"),
        ([chunk({"content": "a"}), chunk({}, "stop"), chunk({}, usage=USAGE)], "other"),
        ([chunk({"content": "a"}), chunk({}, "stop", usage=USAGE), {"choices": [], "usage": USAGE}], "empty_choices"),
        ([chunk({"content": "a"}), {"choices": [], "usage": USAGE}, chunk({}, "stop", usage=USAGE)], "finish"),
        ([chunk({"content": "a"}, "stop", usage=USAGE)], "finish"),
        ([chunk({"content": "a"}, usage=USAGE), chunk({}, "stop", usage=USAGE)], "every"),
        ([chunk({"content": "a"}, usage=USAGE)] * 2 + [chunk({}, "stop")], "every"),
        ([chunk({"content": "a"}, usage=usage) for usage in (None, {}, [USAGE], "5", NO_USAGE)], "missing"),
    ],
)
def test_where_usage_came(chunks: list[Any], place: str) -> None:
    found = assemble(*chunks)
    assert found.usage_place == place
    assert ("usage" in found.completion()) is (place != "missing")


def test_the_last_usage_counts() -> None:
    other = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
    assert assemble(chunk({}, "stop", usage=other), {"choices": [], "usage": USAGE}, chunk({}, usage=None)).completion()["usage"] == USAGE


def test_only_the_first_choice_is_put_together() -> None:
    first, second = ({"index": index, "delta": {"content": str(index)}, "finish_reason": "stop"} for index in (0, 1))
    found = assemble(
        {"choices": [second]}, {"choices": [second, first]}, {"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]}
    )
    assert (read(found).text, found.pieces) == ("0a", 2)
    found = assemble({"choices": [second]})
    assert (read(found).text, found.complete, found.pieces) == (None, False, 0)


@pytest.mark.parametrize(
    ("logprobs", "expected"),
    [
        ([None, {}, {"content": None}], None),
        (
            [{"content": [{"token": "a"}]}, {"content": [], "refusal": None}, {"content": [{"token": "b"}]}],
            {"content": [{"token": "a"}, {"token": "b"}]},
        ),
        (
            [{"tokens": ["a"], "token_logprobs": [-1], "top_logprobs": [{"a": -1}]}, {"tokens": ["b"], "token_logprobs": [None]}],
            {"tokens": ["a", "b"], "token_logprobs": [-1, None], "top_logprobs": [{"a": -1}]},
        ),
        ([{"content": {"token": "a"}}, {"content": {"token": "b"}}], {"content": [{"token": "a"}, {"token": "b"}]}),
        ([[{"token": "a"}], [{"token": "b"}]], {"content": [{"token": "a"}, {"token": "b"}]}),
        ([True, "x"], None),
    ],
)
def test_logprobs_are_kept_as_lists(logprobs: list[Any], expected: Any) -> None:
    found = assemble(*(chunk({"content": "a"}, choice={"logprobs": one}) for one in logprobs))
    assert found.completion()["choices"][0].get("logprobs") == expected


def test_a_completion_does_not_change_with_what_comes_later() -> None:
    assembly = assemble(chunk({"content": "a", "tool_calls": [_fragment("{", "f", index=0)]}, choice={"logprobs": -1}))
    before = assembly.completion()
    kept = copy.deepcopy(before)
    assembly.add(chunk({"content": "b", "tool_calls": [_fragment("}", index=0)]}, choice={"logprobs": -1}))
    assert before == kept


@pytest.mark.parametrize(
    ("delta", "wrote"),
    [
        ({}, False),
        ({"role": "assistant", "content": ""}, False),
        ({"content": None, "reasoning": ""}, False),
        ({"content": " "}, True),
        ({"reasoning": "r"}, True),
        ({"reasoning_content": "r"}, True),
        ({"refusal": "n"}, True),
        ({"tool_calls": [_fragment("", index=0, id="1")]}, False),
        ({"tool_calls": [_fragment("", "f", index=0)]}, True),
        ({"tool_calls": [_fragment("{", index=0)]}, True),
        ({"function_call": {"name": "f"}}, True),
    ],
)
def test_what_counts_as_a_piece(delta: Any, wrote: bool) -> None:
    assembly = Assembly()
    assert assembly.add(chunk(delta, "stop", usage=USAGE)) is wrote
    assert assembly.pieces == wrote


@pytest.mark.parametrize(
    "bad",
    [
        *(None, [], "data", 5, True),
        *({"choices": choices} for choices in ({}, "x", 0, False, [None], [[]], ["x"], [{"delta": {}}, 7])),
        *({"choices": [{"delta": delta}]} for delta in ("x", [], 0, False)),
        {"choices": [{"message": "x"}]},
    ],
)
def test_what_is_no_chunk(bad: Any) -> None:
    assembly = assemble({"choices": [{"message": {"content": "a"}}]})
    with pytest.raises(BadChunk):
        assembly.add(bad)
    assert (read(assembly).text, assembly.pieces) == ("a", 1)


def _long(size: int) -> list[dict[str, Any]]:
    return [
        {"content": "x" * size},
        {"content": ["x" * size]},
        {"reasoning": "x" * size},
        {"refusal": "x" * size},
        {"role": "x" * size},
        {"tool_calls": [_fragment("x" * size, index=0)]},
        {"tool_calls": [_fragment("", "x" * size, index=0)]},
        {"tool_calls": [_fragment({"a": "x" * size}, index=0)]},
        {"tool_calls": [{"id": "x" * size}]},
        {"tool_calls": [{"index": number} for number in range(size // 16)]},
        {"function_call": {"arguments": "x" * size}},
    ]


@pytest.mark.parametrize("delta", _long(1000))
def test_what_is_too_long_is_refused(delta: Any) -> None:
    with pytest.raises(BadChunk, match="longer than 999 characters"):
        assemble(chunk(delta), most_characters=999)
    assert assemble(chunk(delta), most_characters=6000).completion()


def test_the_limit_is_for_all_texts_together() -> None:
    assembly = assemble({"choices": [{"delta": {"content": "x" * 5, "reasoning": "y" * 5}}]}, most_characters=10)
    with pytest.raises(BadChunk):
        assembly.add({"choices": [{"delta": {"refusal": "n"}}]})
    assert len(read(assembly).text or "") == 5


def test_too_many_log_probabilities_cost_no_answer() -> None:
    entry = {"token": "a", "logprob": -0.1}
    found = assemble(*(chunk({"content": "a"}, choice={"logprobs": {"content": [entry]}}) for _ in range(100)), most_characters=2000)
    assert (read(found).text, read(found).logprobs) == ("a" * 100, None)


def _peak(times: int, make: Any) -> int:
    """Most bytes that an assembly held while it was given some chunks."""
    assembly = Assembly(most_characters=4096)
    tracemalloc.start()
    try:
        for number in range(times):
            try:
                assembly.add(make(number))
            except BadChunk:
                continue
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "make",
    [
        lambda _: chunk({"role": "assistant", "content": ""}, usage=USAGE),
        lambda number: {"id": f"{number}", "model": f"m{number}", "choices": []},
        lambda number: chunk({"content": f"{number}"}, choice={"logprobs": {f"{number}": [number]}}),
        lambda number: chunk({"tool_calls": [_fragment("", index=0, id=f"call-{number}")]}),
        lambda number: chunk({"tool_calls": [_fragment("", index=number)]}),
        lambda number: chunk({}, f"reason {number}"),
    ],
)
def test_nothing_grows_without_bound(make: Any) -> None:
    assert _peak(16_000, make) < 100 * 1024


def test_five_megabytes_in_half_a_million_pieces() -> None:
    # Copying the text for each piece would move some 1.3 TB and never end in time.
    assembly, one = Assembly(), {"choices": [{"delta": {"content": "0123456789"}}]}
    assert all(assembly.add(one) for _ in range(500_000))
    assert assembly.pieces == 500_000
    assert assembly.completion()["choices"][0]["message"]["content"] == "0123456789" * 500_000


@given(JSON)
def test_any_value_is_a_chunk_or_a_bad_one(value: Any) -> None:
    assembly = Assembly()
    try:
        assembly.add(value)
    except BadChunk:
        return
    assert read(assembly).text is None


@given(st.lists(CHUNK, max_size=6))
def test_any_chunks_come_to_a_completion_that_can_be_read(chunks: list[Any]) -> None:
    assembly = Assembly()
    for one in chunks:
        pieces = assembly.pieces
        try:
            assert assembly.add(one) is (assembly.pieces > pieces)
        except BadChunk:
            assert assembly.pieces == pieces
        json.dumps(assembly.completion())
    answer = read(assembly)
    assert (answer.finish_reason is not None) <= assembly.complete
    assert (assembly.usage_place == "missing") is ("usage" not in assembly.completion())


def test_deep_values_are_no_trouble() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = {"a": [deep]}
    members = ("role", "content", "reasoning", "refusal", "tool_calls", "function_call")
    chunks = [chunk({name: value}) for name in members for value in (deep, [deep])]
    chunks += [chunk({"tool_calls": [_fragment(deep, index=0)]}), chunk({}, deep, choice={"text": deep, "index": deep})]
    chunks += [chunk({}, usage=deep, id=deep, created=deep), chunk({}, choice={"logprobs": deep}), chunk({}, choice={"logprobs": [deep]})]
    assembly = Assembly()
    for one in chunks:
        assembly.add(one)
    assert assembly.completion()["choices"][0]["message"]["content"] is None


@st.composite
def streams(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A message, and chunks that say the same in pieces."""
    texts = draw(st.fixed_dictionaries({}, optional={name: st.text() for name in ("content", "reasoning", "reasoning_content", "refusal")}))
    names = draw(st.lists(st.sampled_from("fgh"), max_size=3))
    calls = [
        {"id": f"call-{number}", "type": "function", "function": {"name": name, "arguments": draw(st.text())}}
        for number, name in enumerate(names)
    ]
    rows: list[list[dict[str, Any]]] = [[{name: piece} for piece in _pieces(draw, text)] for name, text in texts.items()]
    for number, call in enumerate(calls):
        function = call["function"]
        opened = {"index": number, "id": call["id"], "type": "function", "function": {"name": function["name"], "arguments": ""}}
        filled = [{"index": number, "function": {"arguments": piece}} for piece in _pieces(draw, function["arguments"])]
        rows.append([{"tool_calls": [one]} for one in (opened, *filled)])
    deltas: list[dict[str, Any]] = []
    while rows := [row for row in rows if row]:
        # Calls begin in their order; everything else may be mixed.
        deltas.append(rows[draw(st.integers(0, len(rows) - 1)) if all("tool_calls" not in row[0] for row in rows) else 0].pop(0))
    whole = {"role": "assistant", "content": None, **texts, **({"tool_calls": calls} if calls else {})}
    return whole, [chunk({"role": "assistant", **delta}) for delta in deltas] + [chunk({}, "stop", usage=USAGE)]


def _pieces(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in pairwise([0, *places, len(text)])]


@given(streams(), st.integers(1, 9))
def test_a_message_in_pieces_is_the_message(stream: tuple[dict[str, Any], list[dict[str, Any]]], step: int) -> None:
    expected, chunks = stream
    body = frames(*chunks).encode()
    decoder, assembly = Decoder(), Assembly()
    for start in range(0, len(body), step):
        for event in decoder.feed(body[start : start + step]):
            assembly.add(json.loads(event.data))
    assert decoder.end() is None
    found = assembly.completion()
    assert found["choices"] == [{"index": 0, "message": expected, "finish_reason": "stop"}]
    whole = {"id": "x", "choices": [{"index": 0, "message": expected, "finish_reason": "stop"}], "usage": USAGE}
    assert _without_time(read(assembly)) == _without_time(answer_of(whole, Reply(200, {}, b"", 1.0), PLACE))


def _without_time(answer: ChatAnswer) -> tuple[Any, ...]:
    return answer.text, answer.reasoning, answer.refusal, answer.finish_reason, answer.usage, answer.tool_calls
