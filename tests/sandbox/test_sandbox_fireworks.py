"""The dialect of Fireworks AI, one test for each deviation of its table."""

from __future__ import annotations

from typing import Any

import pytest

from byok.sandbox import PROFILES, Fault

SUPPORTS = PROFILES["fireworks"].supports
TOOL = {"type": "function", "function": {"name": "f"}}
CATALOGUE = "/v1/accounts/fireworks/models"


@pytest.fixture
def client(serve: Any) -> Any:
    return serve(profile="fireworks")


def test_every_deviation_is_tested() -> None:
    names = {one.name.replace("-", "_") for one in PROFILES["fireworks"].deviations}
    assert names <= {name.removeprefix("test_fireworks_") for name in globals()}


def test_fireworks_prefix(client: Any) -> None:
    assert client.sandbox.base_url.endswith("/inference/v1")
    assert client.at("/v1").chat().status == 404


def test_fireworks_flags(client: Any) -> None:
    model = client.get("/models").json["data"][0]
    assert {"kind": "HF_BASE_MODEL", "supports_chat": True, "supports_tools": True, "supports_image_input": False}.items() <= model.items()
    assert model["context_length"] == 8192


def test_fireworks_contradicting_flags(client: Any) -> None:
    model = client.get("/models").json["data"][1]
    assert (model["kind"], model["supports_chat"], client.chat(model=model["id"]).status) == ("EMBEDDING_MODEL", True, 400)


def test_fireworks_paged_catalogue(serve: Any) -> None:
    for client, query in ((serve(profile="fireworks"), "?pageSize=1"), (serve(profile="fireworks", page_size=1), "?pageSize=200")):
        first = client.at("").get(CATALOGUE + query).json
        second = client.at("").get(f"{CATALOGUE}{query}&pageToken={first['nextPageToken']}").json
        names = [model["name"] for model in (*first["models"], *second["models"])]
        assert names == ["accounts/fireworks/models/sandbox-model", "accounts/fireworks/models/sandbox-embedding"]
        assert (first["totalSize"], second["nextPageToken"], first["models"][0]["contextLength"]) == (2, "", 8192)
    full = serve(profile="fireworks", model_id="accounts/mine/deployments/a").at("").get(CATALOGUE).json
    assert (full["models"][0]["name"], full["nextPageToken"]) == ("accounts/mine/deployments/a", "")


def test_fireworks_money(client: Any) -> None:
    skus = client.at("").get(CATALOGUE).json["models"][0]["serverlessModes"][0]["skuInfos"]
    assert [(sku["amount"]["units"], sku["amount"]["nanos"], sku["unit"]) for sku in skus] == [
        ("0", 200_000_000, "1M tokens"),
        ("0", 100_000_000, "1M tokens"),
        ("0", 800_000_000, "1M tokens"),
    ]


def test_fireworks_control_401(serve: Any) -> None:
    client = serve(key="sk-wrong", profile="fireworks", api_key="sk-right")
    answer = client.at("").get(CATALOGUE)
    assert (answer.status, answer.error["code"], "type" in answer.error) == (401, "UNAUTHORIZED", False)
    client.key = "sk-right"
    assert client.at("").get(CATALOGUE).status == 200


def test_fireworks_truncates(serve: Any) -> None:
    answer = serve(profile="fireworks", context_length=14).chat(max_tokens=10**9)
    assert (answer.status, answer.text, answer.choice["finish_reason"]) == (200, "The answer", "length")


def test_fireworks_overflow_error(serve: Any) -> None:
    answer = serve(profile="fireworks", context_length=14).chat(max_tokens=10, context_length_exceeded_behavior="error")
    assert (answer.status, answer.error["message"]) == (400, "The prompt is too long: 22, model maximum context length: 14")


def test_fireworks_one_limit(client: Any) -> None:
    answer = client.chat(max_tokens=5, max_completion_tokens=5)
    assert answer.status == 422 and "max_tokens" in answer.json["detail"][0]["msg"]
    assert client.chat(max_completion_tokens=2).text == "The answer"


def test_fireworks_two_logprobs(client: Any) -> None:
    new, old = client.chat(logprobs=True, top_logprobs=2).choice["logprobs"], client.chat(logprobs=2).choice["logprobs"]
    assert [entry["token"] for entry in new["content"]] == old["tokens"] == ["The", " answer", " is", " Paris"]
    assert [entry["text_offset"] for entry in new["content"]] == old["text_offset"] == [0, 3, 10, 13]
    assert [entry["token_id"] for entry in new["content"]] == old["token_ids"]
    assert [len(top) for top in old["top_logprobs"]] == [2] * 4 == [len(entry["top_logprobs"]) for entry in new["content"]]
    for members in ({"logprobs": 6}, {"logprobs": True, "top_logprobs": 6}):
        assert client.chat(**members).status == 422
    offsets = [
        choice["logprobs"]["text_offset"] for chunk in client.stream(logprobs=1).chunks for choice in chunk["choices"] if choice["logprobs"]
    ]
    assert offsets == [[0], [3], [10], [13]]


def test_fireworks_strict_messages(client: Any) -> None:
    answer = client.chat(messages=[{"role": "user", "content": "x", "mood": "gay"}])
    assert (answer.status, answer.json["detail"][0]) == (
        422,
        {"type": "extra_forbidden", "loc": ["body", "messages", 0, "mood"], "msg": "Extra inputs are not permitted"},
    )


def test_fireworks_detail_list(client: Any) -> None:
    answer = client.chat(temperature=3, stop=["a"] * 5)
    assert (answer.status, [entry["type"] for entry in answer.json["detail"]]) == (422, ["less_than_equal", "too_long"])


def test_fireworks_any_tool(client: Any) -> None:
    assert client.chat(tools=[TOOL], tool_choice="any").choice["finish_reason"] == "tool_calls"


def test_fireworks_tools_or_format(client: Any) -> None:
    answer = client.chat("Answer in JSON.", tools=[TOOL], response_format={"type": "json_object"})
    assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["body", "response_format"])


def test_fireworks_blank_json(client: Any) -> None:
    answer = client.chat(response_format={"type": "json_object"}, max_tokens=30)
    assert (answer.text.strip(), answer.choice["finish_reason"], answer.json["usage"]["completion_tokens"]) == ("", "length", 30)
    assert client.chat(f"{client.question} As JSON.", response_format={"type": "json_object"}).text == '{"answer":"The answer is Paris"}'


def test_fireworks_effort_kinds(serve: Any) -> None:
    client = serve(profile="fireworks", supports=SUPPORTS | {"reasoning"})
    assert client.chat(reasoning_effort=False).choice["message"].get("reasoning_content") is None
    for effort in (True, 2048, "low"):
        assert client.chat(reasoning_effort=effort).choice["message"]["reasoning_content"]
    assert client.chat(thinking={"type": "disabled"}).choice["message"].get("reasoning_content") is None
    assert client.chat(thinking={"type": "enabled"}, reasoning_effort="low").json["detail"][0]["loc"] == ["body", "thinking"]


def test_fireworks_reasoning_content(serve: Any) -> None:
    client = serve(profile="fireworks", supports=SUPPORTS | {"reasoning"})
    assert client.stream().joined("reasoning_content") == client.chat().choice["message"]["reasoning_content"] != ""


def test_fireworks_no_completion_details(serve: Any) -> None:
    usage = serve(profile="fireworks", supports=SUPPORTS | {"reasoning"}).chat().json["usage"]
    assert "completion_tokens_details" not in usage and usage["prompt_tokens_details"] == {"cached_tokens": 0}


def test_fireworks_usage_on_finish(client: Any) -> None:
    *before, last = client.stream().chunks
    assert last["choices"][0]["finish_reason"] == "stop" and last["usage"]["completion_tokens"] == 4
    assert not any("usage" in chunk or "perf_metrics" in chunk for chunk in before)


def test_fireworks_perf_headers(client: Any) -> None:
    headers = client.chat().headers
    assert headers["fireworks-prompt-tokens"] == "12" and headers["fireworks-cached-prompt-tokens"] == "0"
    assert 0 < float(headers["fireworks-server-time-to-first-token"]) < float(headers["fireworks-server-processing-time"])


def test_fireworks_perf_metrics(client: Any) -> None:
    asked, plain = client.stream(perf_metrics_in_response=True), client.stream()
    assert asked.chunks[-1]["perf_metrics"]["prompt-tokens"] == "12"
    assert "perf_metrics" not in plain.chunks[-1] and "fireworks-prompt-tokens" not in plain.headers


def test_fireworks_own_limits(client: Any) -> None:
    headers = client.chat().headers
    assert int(headers["x-ratelimit-limit-tokens-generated"]) > int(headers["x-ratelimit-remaining-tokens-generated"])
    assert "x-ratelimit-limit-tokens-cache-adjusted-prompt" in headers


def test_fireworks_no_encoding_format(client: Any) -> None:
    answer = client.embed("a", encoding_format="float")
    assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["body", "encoding_format"])
    assert client.embed("a b", dimensions=8).json["usage"]["prompt_tokens"] == 2


def test_fireworks_eight_texts(client: Any) -> None:
    assert len(client.embed(["a"] * 8).json["data"]) == 8
    assert client.embed(["a"] * 9).json["detail"][0]["loc"] == ["body", "input"]


def test_fireworks_scaling_up(serve: Any) -> None:
    answer = serve(profile="fireworks", faults=[Fault(status=503, code="DEPLOYMENT_SCALING_UP")]).chat()
    assert (answer.status, answer.error["code"], "scaling up" in answer.error["message"]) == (503, "DEPLOYMENT_SCALING_UP", True)
