"""The sandbox's replies and OpenAI's own types: which profiles keep to them, and exactly where the others do not."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types import CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject
from pydantic import BaseModel, ValidationError

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "cut": {"max_tokens": 2},
    "tools": {"tools": [TOOL], "tool_choice": "required"},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "json": {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
    "reasoning": {"reasoning_effort": "low"},
}
KEEPS = [
    *[("openai", name) for name in ASKED],
    *[("vllm", name) for name in ASKED],
    *[("nebius", name) for name in ASKED],
    *[("proxy", name) for name in ASKED],
    *[("mlflow", name) for name in ASKED],
]


def refused_at(kind: type[BaseModel], text: str) -> list[str]:
    """The places at which a type refuses a text."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate_json(text, strict=True)
    return [".".join(map(str, error["loc"])) for error in caught.value.errors()]


@pytest.mark.parametrize(("profile", "name"), KEEPS)
def test_answers_and_streams_keep_to_the_types(serve: Any, profile: str, name: str) -> None:
    sandbox = serve(profile, "--with", "reasoning")
    whole = sandbox.chat(**ASKED[name])
    answer = ChatCompletion.model_validate_json(whole.text, strict=True)
    assert answer.choices[0].message.role == "assistant" and answer.usage is not None
    streamed = sandbox.chat(**ASKED[name], stream=True, stream_options={"include_usage": True})
    chunks = [ChatCompletionChunk.model_validate_json(event, strict=True) for event in streamed.events]
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == answer.usage.total_tokens
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert said == (answer.choices[0].message.content or "")


@pytest.mark.parametrize("profile", ["openai", "vllm", "nebius", "proxy"])
def test_models_and_embeddings_keep_to_the_types(serve: Any, profile: str) -> None:
    sandbox = serve(profile, "--with", "reasoning")
    for entry in sandbox.ask("/models").json["data"]:
        Model.model_validate(entry, strict=True)
    found = CreateEmbeddingResponse.model_validate_json(sandbox.embed(["a b", "c"], encoding_format="float").text, strict=True)
    assert ([entry.index for entry in found.data], found.usage.prompt_tokens) == ([0, 1], 3)
    # The type knows floats alone; the client decodes base64 before it.
    assert refused_at(CreateEmbeddingResponse, sandbox.embed("a", encoding_format="base64").text) == ["data.0.embedding"]


def test_errors(serve: Any) -> None:
    for profile in ("openai", "proxy", "together", "sambanova"):
        error = serve(profile).chat(temperature=9).json["error"]
        assert ErrorObject.model_validate(error, strict=True).param == "temperature"
    # Fact 14: the code of vLLM's errors is a number.
    with pytest.raises(ValidationError) as caught:
        ErrorObject.model_validate(serve("vllm").chat(temperature=9).json["error"], strict=True)
    assert [error["loc"] for error in caught.value.errors()] == [("code",)]


def test_what_the_types_refuse_for_a_documented_reason(serve: Any) -> None:
    nebius, together, sambanova = serve("nebius"), serve("together"), serve("sambanova")
    # Fact 54: a service tier of Nebius, a time with a fraction of SambaNova.
    assert refused_at(ChatCompletion, nebius.chat(service_tier="over-limit").text) == ["service_tier"]
    assert refused_at(ChatCompletion, sambanova.chat().text) == ["created"]
    # Fact 44: Together's end of a text.
    assert refused_at(ChatCompletion, together.chat().text) == ["choices.0.finish_reason"]
    # Fact 36: Together's embeddings without usage.
    assert refused_at(CreateEmbeddingResponse, together.embed("a").text) == ["usage"]
    # Fact 47: log probabilities as an object.
    assert refused_at(ChatCompletion, sambanova.chat(logprobs=True).text) == ["choices.0.logprobs.content", "created"]
    # Fact 47 again: a number in a stream.
    assert refused_at(ChatCompletionChunk, together.chat(logprobs=1, stream=True).events[1]) == ["choices.0.logprobs"]
    # Fact 2: a model of SambaNova without created.
    with pytest.raises(ValidationError) as caught:
        Model.model_validate(sambanova.ask("/models").json["data"][0], strict=True)
    assert [error["loc"] for error in caught.value.errors()] == [("created",)]


@pytest.mark.parametrize("profile", ["openai", "vllm", "nebius", "sambanova", "together", "fireworks", "mlflow", "proxy"])
def test_the_client_itself_talks_to_every_profile(serve: Any, profile: str) -> None:
    sandbox = serve(profile)
    client = openai.OpenAI(base_url=sandbox.base_url, api_key="sk-any", max_retries=0)
    messages: Any = [{"role": "user", "content": sandbox.question}]
    answer = client.chat.completions.create(model=sandbox.model, messages=messages)
    assert answer.choices[0].message.content == "The answer is Paris"
    stream = client.chat.completions.create(model=sandbox.model, messages=messages, stream=True)
    assert "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices) == "The answer is Paris"
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="other", messages=messages)
    assert caught.value.status_code == (400 if profile == "sambanova" else 404)
    client.close()


def test_the_clients_own_encoding_of_vectors(serve: Any) -> None:
    for profile in ("openai", "vllm", "nebius", "sambanova", "together", "proxy"):
        sandbox = serve(profile)
        with openai.OpenAI(base_url=sandbox.base_url, api_key="sk-any", max_retries=0) as client:
            found = client.embeddings.create(model=sandbox.embedder, input=["a b"])
        assert len(found.data[0].embedding) == 64
    # Fact 59: the client asks for base64 unasked, and Fireworks knows no encoding_format.
    sandbox = serve("fireworks")
    client = openai.OpenAI(base_url=sandbox.base_url, api_key="sk-any", max_retries=0)
    with client, pytest.raises(openai.UnprocessableEntityError) as caught:
        client.embeddings.create(model=sandbox.embedder, input=["a b"])
    assert caught.value.response.json()["detail"][0]["loc"] == ["body", "encoding_format"]
