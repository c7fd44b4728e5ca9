"""The dialect of Nebius Token Factory, one test for each deviation of its table."""

from __future__ import annotations

from typing import Any

import pytest

from byok.sandbox import PROFILES

SUPPORTS = PROFILES["nebius"].supports


@pytest.fixture
def client(serve: Any) -> Any:
    return serve(profile="nebius")


@pytest.fixture
def thinker(serve: Any) -> Any:
    return serve(profile="nebius", supports=SUPPORTS | {"reasoning"})


def test_every_deviation_is_tested() -> None:
    names = {one.name.replace("-", "_") for one in PROFILES["nebius"].deviations}
    assert names <= {name.removeprefix("test_nebius_") for name in globals()}


def test_nebius_verbose_models(client: Any, serve: Any) -> None:
    assert "context_length" not in client.get("/models").json["data"][0]
    chat, embedding = client.get("/models?verbose=true").json["data"]
    assert (chat["context_length"], chat["architecture"]["modality"]) == (8192, "text->text")
    assert embedding["architecture"]["modality"] == "text->embedding"
    assert chat["supported_features"] == ["tools", "json_schema"]
    sees = serve(profile="nebius", supports=SUPPORTS | {"vision"}).get("/models?verbose=true").json["data"][0]
    assert sees["architecture"]["modality"] == "text+image->text"


def test_nebius_string_prices(client: Any) -> None:
    chat, embedding = client.get("/models?verbose=true").json["data"]
    assert (chat["pricing"]["prompt"], chat["pricing"]["completion"]) == ("0.0000002", "0.0000008")
    assert (embedding["pricing"]["prompt"], embedding["pricing"]["completion"]) == ("0.00000002", "0")


def test_nebius_models_need_key(serve: Any) -> None:
    client = serve(key="sk-right", profile="nebius", api_key="sk-right")
    assert client.get("/models").status == 200
    client.key = None
    assert client.get("/models").status == 401


def test_nebius_detail_list(client: Any) -> None:
    answer = client.chat(messages=[], temperature=3, stop=7)
    assert answer.status == 422
    assert [(entry["loc"], entry["type"]) for entry in answer.json["detail"]] == [
        (["body", "messages"], "type_error"),
        (["body", "temperature"], "less_than_equal"),
        (["body", "stop"], "type_error"),
    ]
    assert {frozenset(entry) for entry in answer.json["detail"]} == {frozenset({"type", "loc", "msg", "input"})}


def test_nebius_union_list(thinker: Any) -> None:
    answer = thinker.chat(reasoning_effort=False)
    assert answer.status == 422
    assert {entry["type"] for entry in answer.json["detail"]} == {"literal_error"}
    assert len(answer.json["detail"]) == 7 and all(entry["loc"][:2] == ["body", "reasoning_effort"] for entry in answer.json["detail"])


def test_nebius_named_schema(client: Any) -> None:
    answer = client.chat(response_format={"type": "json_schema", "json_schema": {"schema": {"type": "object"}}})
    assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["body", "response_format", "json_schema"])


def test_nebius_service_tier(client: Any) -> None:
    assert client.chat().json["service_tier"] == "default"
    assert client.chat(service_tier="over-limit").json["service_tier"] == "over-limit"
    assert {chunk["service_tier"] for chunk in client.stream(service_tier="flex").chunks} == {"flex"}
    assert client.chat(service_tier="priority").json["detail"][0]["loc"] == ["body", "service_tier"]


def test_nebius_embedding_tier(client: Any) -> None:
    answer = client.embed("a b").json
    assert (answer["service_tier"], answer["usage"]["prompt_tokens"]) == ("default", 2)


def test_nebius_thinking_by_template(thinker: Any) -> None:
    def thoughts(**members: Any) -> int:
        return int(thinker.chat(**members).json["usage"]["completion_tokens_details"]["reasoning_tokens"])

    assert thoughts(chat_template_kwargs={"enable_thinking": False}) == 0
    assert thoughts(enable_thinking=False) == thoughts() > 0


def test_nebius_null_content(thinker: Any) -> None:
    answer = thinker.chat(max_tokens=3)
    assert (answer.choice["message"]["content"], answer.choice["finish_reason"]) == (None, "length")


def test_nebius_go_durations(client: Any) -> None:
    for answer in (client.chat(), client.embed("a")):
        assert answer.headers["x-ratelimit-reset-requests"] == "1s"
        assert answer.headers["x-ratelimit-dynamic-period-remaining"] == "881s"
        assert answer.headers["x-ratelimit-dynamic-period-usage-tokens"] == "2%"


def test_nebius_retry_after(serve: Any) -> None:
    answer = serve(profile="nebius", faults=[429]).chat()
    assert (answer.status, answer.headers["retry-after"], answer.headers["x-ratelimit-remaining-requests"]) == (429, "1", "0")


def test_nebius_inference_id(client: Any) -> None:
    assert client.chat().headers["x-inference-id"].startswith("chatcmpl-")
    assert client.chat(model="other").headers["x-inference-id"]


def test_nebius_detail_text(serve: Any) -> None:
    client = serve(profile="nebius", context_length=20)
    for answer, status in ((client.chat(model="other"), 404), (client.chat(max_tokens=100), 400)):
        assert answer.status == status and isinstance(answer.json["detail"], str)
