"""The dialect of Together AI, one test for each deviation of its table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from byok.sandbox import PROFILES

TOOLS: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"required": ["q"], "properties": {"q": {"type": "string"}}}}}],
    "tool_choice": "required",
}


@pytest.fixture
def client(serve: Any) -> Any:
    return serve(profile="together")


def test_every_deviation_is_tested() -> None:
    names = {one.name.replace("-", "_") for one in PROFILES["together"].deviations}
    assert names <= {name.removeprefix("test_together_") for name in globals()}


def test_together_bare_list(client: Any) -> None:
    listed = client.get("/models").json
    assert [model["id"] for model in listed] == ["sandbox-model", "sandbox-embedding"]
    assert client.get("/models?dedicated=true").json == []


def test_together_model_type(client: Any) -> None:
    assert [(model["type"], model["context_length"]) for model in client.get("/models").json] == [("chat", 8192), ("embedding", 8192)]


def test_together_price_per_million(client: Any) -> None:
    chat, embedding = (model["pricing"] for model in client.get("/models").json)
    assert (chat["input"], chat["output"], chat["cached_input"], embedding["input"]) == (0.2, 0.8, 0.1, 0.02)


def test_together_prompt_member(client: Any) -> None:
    assert client.chat().json["prompt"] == []


def test_together_eos(client: Any) -> None:
    assert client.chat().choice["finish_reason"] == "eos"
    assert client.stream().finishes == ["eos"]
    assert client.chat(stop=[" is"]).choice["finish_reason"] == "stop"
    assert client.chat(max_tokens=1).choice["finish_reason"] == "length"


def test_together_count_logprobs(client: Any) -> None:
    for wrong in (True, 21, "1"):
        answer = client.chat(logprobs=wrong)
        assert (answer.status, answer.error["param"]) == (400, "logprobs")
    assert client.chat(logprobs=0).choice.get("logprobs") is None


def test_together_legacy_logprobs(client: Any) -> None:
    told = client.chat(logprobs=2).choice["logprobs"]
    assert set(told) == {"token_ids", "tokens", "token_logprobs", "top_logprobs"}
    assert told["tokens"] == ["The", " answer", " is", " Paris"]
    assert len(told["token_ids"]) == len(told["token_logprobs"]) == 4
    numbers = [choice["logprobs"] for chunk in client.stream(logprobs=2).chunks for choice in chunk["choices"]]
    assert [number for number in numbers if number is not None] == told["token_logprobs"]


def test_together_role_on_each_delta(client: Any) -> None:
    answer = client.stream()
    assert {delta["role"] for delta in answer.deltas} == {"assistant"}
    assert [chunk["choices"][0]["text"] for chunk in answer.chunks if "token_id" in chunk["choices"][0]["delta"]] == [
        "The",
        " answer",
        " is",
        " Paris",
    ]


def test_together_two_finishes(client: Any) -> None:
    answer = client.stream(**TOOLS)
    assert answer.finishes == ["tool_calls", "tool_calls"]
    first, last = answer.chunks[-2:]
    assert json.loads(first["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]) == {"q": "x"}
    assert "tool_calls" not in last["choices"][0]["delta"] and last["usage"] and first["usage"] is None


def test_together_content_beside_call(client: Any) -> None:
    assert client.chat(**TOOLS).choice["message"]["content"] == ""


def test_together_usage_on_finish(client: Any) -> None:
    *before, last = client.stream().chunks
    assert last["choices"][0]["finish_reason"] and last["usage"]["completion_tokens"] == 4
    assert all(chunk["usage"] is None for chunk in before)


def test_together_flat_cached(client: Any) -> None:
    usage = client.chat().json["usage"]
    assert usage["cached_tokens"] == 0 and "prompt_tokens_details" not in usage


def test_together_huge_seed(client: Any) -> None:
    seeds = [choice["seed"] for chunk in client.stream().chunks for choice in chunk["choices"] if "seed" in choice]
    assert len(seeds) == 1 and seeds[0] > 2**63


def test_together_overflow_403(serve: Any) -> None:
    answer = serve(profile="together", context_length=20).chat(max_tokens=100)
    assert answer.status == 403 and answer.error["code"] is None
    assert "`inputs` tokens + `max_new_tokens` must be <= 20. Given: 12 `inputs` tokens and 100 `max_new_tokens`" in answer.error["message"]


def test_together_overflow_truncate(serve: Any) -> None:
    answer = serve(profile="together", context_length=20).chat(max_tokens=100, context_length_exceeded_behavior="truncate")
    assert (answer.status, answer.text) == (200, "The answer is Paris")


def test_together_max_tokens_only(client: Any) -> None:
    answer = client.chat(max_completion_tokens=5)
    assert (answer.status, answer.error["param"]) == (400, "max_completion_tokens")
    assert "max_tokens" in answer.error["message"]


def test_together_dynamic_limits(serve: Any) -> None:
    client = serve(profile="together", faults=[429, 503])
    limited, busy = client.chat(), client.chat()
    assert (limited.status, limited.error["type"]) == (429, "dynamic_request_limited")
    assert (busy.status, busy.error["type"]) == (503, "server_error")


def test_together_limits_per_second(serve: Any) -> None:
    client = serve(profile="together", faults=[429])
    for answer, left in ((client.chat(), "0"), (client.chat(), "9")):
        assert (answer.headers["x-ratelimit-remaining"], answer.headers["x-ratelimit-reset"]) == (left, "0.1")
        assert "x-tokenlimit-limit" in answer.headers


def test_together_own_request_id(client: Any) -> None:
    headers = client.chat().headers
    assert headers["x-together-request-id"] and headers["cf-ray"] and headers["x-request-id"]


def test_together_embeddings_no_usage(client: Any) -> None:
    assert set(client.embed("a").json) == {"object", "model", "data"}


def test_together_embeddings_plain(client: Any) -> None:
    plain = client.embed("a").json["data"]
    assert client.embed("a", encoding_format="base64", dimensions=3).json["data"] == plain


def test_together_both_reasoning(serve: Any) -> None:
    client = serve(profile="together", supports=PROFILES["together"].supports | {"reasoning"})
    message = client.chat(reasoning_effort="low").choice["message"]
    assert message["reasoning"] == message["reasoning_content"] != ""
    streamed = client.stream(reasoning_effort="low")
    assert streamed.joined("reasoning") == streamed.joined("reasoning_content") == message["reasoning"]
    assert client.chat(reasoning={"enabled": False}).choice["message"].get("reasoning") is None
