"""The dialect of SambaNova Cloud, one test for each deviation of its table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from byok.sandbox import PROFILES

SUPPORTS = PROFILES["sambanova"].supports


@pytest.fixture
def client(serve: Any) -> Any:
    return serve(profile="sambanova")


def test_every_deviation_is_tested() -> None:
    names = {one.name.replace("-", "_") for one in PROFILES["sambanova"].deviations}
    assert names <= {name.removeprefix("test_sambanova_") for name in globals()}


def test_sambanova_no_created(client: Any) -> None:
    models = client.get("/models").json["data"]
    assert len(models) == 2 and not any("created" in model for model in models)


def test_sambanova_context_and_limit(client: Any) -> None:
    model = client.get("/models").json["data"][0]
    assert (model["context_length"], model["max_completion_tokens"]) == (8192, 3072)


def test_sambanova_price_per_token(client: Any) -> None:
    assert client.get("/models").json["data"][0]["pricing"] == {"prompt": 2e-07, "completion": 8e-07, "duration_per_hour": 0.0}


def test_sambanova_float_created(client: Any) -> None:
    assert isinstance(client.chat().json["created"], float)
    assert all(isinstance(chunk["created"], float) for chunk in client.stream().chunks)


def test_sambanova_fingerprint(client: Any) -> None:
    assert client.chat().json["system_fingerprint"] == "fastcoe"


def test_sambanova_timed_usage(client: Any) -> None:
    usage = client.chat().json["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < usage["time_to_first_token"] < usage["total_latency"]
    assert usage["is_last_response"] is True and usage["completion_tokens_per_sec"] > 0
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0} and usage["completion_tokens_details"] == {"reasoning_tokens": 0}


def test_sambanova_usage_unasked(client: Any) -> None:
    *before, last = client.stream().chunks
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 4
    assert not any("usage" in chunk for chunk in before)


def test_sambanova_object_logprobs(client: Any) -> None:
    content = client.chat(logprobs=True, top_logprobs=2).choice["logprobs"]["content"]
    assert content["token"] == content["top_logprobs"]["token"] == "The"


def test_sambanova_ignored_penalties(client: Any) -> None:
    assert client.chat(frequency_penalty=2, presence_penalty=-2, repetition_penalty=1.5).text == "The answer is Paris"


def test_sambanova_json_by_prompt(client: Any) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": {"city": {"type": "string"}}}}}
    answer = client.chat(response_format=schema)
    assert (answer.status, answer.error["param"]) == (400, "response_format")
    assert json.loads(client.chat(f"{client.question} Answer as JSON.", response_format=schema).text) == {"city": "The answer is Paris"}


def test_sambanova_base64_images(serve: Any) -> None:
    client = serve(profile="sambanova", supports=SUPPORTS | {"vision"})
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    answer = client.chat(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, image]}])
    assert (answer.status, "base64" in answer.error["message"]) == (400, True)


def test_sambanova_request_id_in_body(client: Any) -> None:
    assert client.chat(model="other").json["request_id"]


def test_sambanova_model_400(client: Any) -> None:
    for answer in (client.chat(model="other"), client.post("/embeddings", {"model": "other", "input": "a"})):
        assert (answer.status, answer.error["code"]) == (400, "model_not_found")


def test_sambanova_gone_410(serve: Any) -> None:
    answer = serve(profile="sambanova", faults=[410]).chat()
    assert (answer.status, answer.error["code"]) == (410, "model_deprecated")


def test_sambanova_quota_429(serve: Any) -> None:
    answer = serve(profile="sambanova", faults=[429]).chat()
    assert (answer.status, answer.error["code"]) == (429, "insufficient_quota")
    assert (answer.headers["x-ratelimit-remaining-requests"], "retry-after" in answer.headers) == ("0", False)


def test_sambanova_auth_code(serve: Any) -> None:
    answer = serve(key="sk-wrong", profile="sambanova", api_key="sk-right").chat()
    assert (answer.status, answer.error["code"]) == (401, "invalid_authentication")


def test_sambanova_overflow_400(serve: Any) -> None:
    answer = serve(profile="sambanova", context_length=20).chat(max_tokens=100)
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")


def test_sambanova_range_codes(client: Any) -> None:
    codes = [
        client.chat(**members).error["code"] for members in ({"temperature": 3}, {"temperature": -1}, {"top_logprobs": 21}, {"stop": 7})
    ]
    assert codes == ["decimal_above_max_value", "decimal_below_min_value", "integer_above_max_value", "invalid_type"]


def test_sambanova_limits_per_day(client: Any) -> None:
    headers = client.chat().headers
    assert int(headers["x-ratelimit-reset-requests-day"]) > 1_700_000_000
    assert headers["x-ratelimit-limit-requests-day"] == "12000"


def test_sambanova_reasons(serve: Any) -> None:
    client = serve(profile="sambanova", supports=SUPPORTS | {"reasoning"})
    assert client.chat(reasoning_effort="low").json["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    assert client.chat(chat_template_kwargs={"enable_thinking": False}).json["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
    assert client.stream().joined("reasoning") == client.chat().choice["message"]["reasoning"]
