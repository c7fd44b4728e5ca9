"""The sandbox's replies and the types of the providers' own clients."""

from __future__ import annotations

from typing import Any

import pytest
from fireworks.types import Model as FireworksModel
from fireworks.types.chat.chat_completion_chunk import ChatCompletionChunk as FireworksChunk
from fireworks.types.chat.completion_create_response import CompletionCreateResponse as FireworksAnswer
from pydantic import BaseModel, TypeAdapter, ValidationError
from sambanova import SambaNova
from sambanova.types import EmbeddingsResponse, ModelsResponse
from sambanova.types.chat import ChatCompletionResponse, ChatCompletionStreamResponse
from together import Together
from together.types import Embedding, ModelListResponse
from together.types.chat import ChatCompletion as TogetherAnswer
from together.types.chat import ChatCompletionChunk as TogetherChunk

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
COMMON: dict[str, dict[str, Any]] = {
    "plain": {},
    "cut": {"max_tokens": 2},
    "tools": {"tools": [TOOL], "tool_choice": "required"},
    "reasoning": {"reasoning_effort": "low"},
}
TYPES: dict[str, tuple[type[BaseModel], type[BaseModel]]] = {
    "together": (TogetherAnswer, TogetherChunk),
    "sambanova": (ChatCompletionResponse, ChatCompletionStreamResponse),
    "fireworks": (FireworksAnswer, FireworksChunk),
}
CASES = [
    *[(profile, name, members) for profile in TYPES for name, members in COMMON.items()],
    ("together", "logprobs", {"logprobs": 2}),
    ("sambanova", "logprobs", {"logprobs": True, "top_logprobs": 2}),
    ("fireworks", "logprobs", {"logprobs": True, "top_logprobs": 2}),
    ("fireworks", "old-logprobs", {"logprobs": 2}),
    ("fireworks", "metrics", {"perf_metrics_in_response": True}),
]


@pytest.mark.parametrize(("profile", "name", "members"), CASES, ids=[f"{profile}-{name}" for profile, name, _ in CASES])
def test_answers_and_streams_keep_to_the_providers_types(serve: Any, profile: str, name: str, members: dict[str, Any]) -> None:
    sandbox, (whole, part) = serve(profile, "--with", "reasoning"), TYPES[profile]
    answer: Any = whole.model_validate_json(sandbox.chat(**members).text, strict=True)
    chunks: list[Any] = [part.model_validate_json(event, strict=True) for event in sandbox.chat(**members, stream=True).events]
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices or ())
    assert said == (answer.choices[0].message.content or "")
    assert chunks[-1].usage.total_tokens == answer.usage.total_tokens > 0


def test_together_lists_and_embeds(serve: Any) -> None:
    sandbox = serve("together")
    models = TypeAdapter(ModelListResponse).validate_json(sandbox.ask("/models").text, strict=True)
    assert [model.type for model in models] == ["chat", "embedding"]
    assert len(Embedding.model_validate_json(sandbox.embed(["a", "b"]).text, strict=True).data) == 2


def test_sambanova_lists_and_embeds(serve: Any) -> None:
    sandbox = serve("sambanova")
    models = ModelsResponse.model_validate_json(sandbox.ask("/models").text, strict=True)
    assert [model.context_length for model in models.data or ()] == [8192, 8192]
    found = EmbeddingsResponse.model_validate_json(sandbox.embed(["a", "b"]).text, strict=True)
    assert found.usage is not None and found.usage.prompt_tokens == 2
    # Its own type refuses the end that a sibling sends (fact 44).
    text = sandbox.chat().text.replace('"finish_reason":"stop"', '"finish_reason":"eos"')
    with pytest.raises(ValidationError, match="finish_reason"):
        ChatCompletionResponse.model_validate_json(text, strict=True)


def test_fireworks_control_plane(serve: Any) -> None:
    listed = serve("fireworks").ask("//v1/accounts/fireworks/models?pageSize=200").json
    models = [FireworksModel.model_validate(entry, strict=True) for entry in listed["models"]]
    assert [(model.kind, model.context_length) for model in models] == [("HF_BASE_MODEL", 8192), ("EMBEDDING_MODEL", 8192)]


def test_the_clients_themselves(serve: Any) -> None:
    messages: Any = [{"role": "user", "content": serve("together").question}]
    for kind, profile in ((Together, "together"), (SambaNova, "sambanova")):
        sandbox = serve(profile)
        with kind(base_url=sandbox.base_url, api_key="sk-any", max_retries=0) as client:
            answer = client.chat.completions.create(model=sandbox.model, messages=messages)
            assert answer.choices[0].message.content == "The answer is Paris"
            stream = client.chat.completions.create(model=sandbox.model, messages=messages, stream=True)
            said = "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices or ())
            assert said == "The answer is Paris"
            assert len(client.embeddings.create(model=sandbox.embedder, input=["a b"]).data[0].embedding) == 64
