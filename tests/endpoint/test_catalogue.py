"""Lists of models: the forms that providers send, prices of every unit, contradictions, and JSON of any kind."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.endpoint.catalogue import LONGEST_ID, MOST_MODELS, Catalogue, ListedModel, merge, read_catalogue
from byok.endpoint.listed_prices import CHEAPEST, DEAREST
from byok.endpoint.listed_prices import MOST_COUNT as MOST_TOKENS
from byok.endpoint.wire import Redactor, decode_json

KEY = "sk-test-0123456789abcdef"

VLLM = """{"object": "list", "data": [
  {"id": "Qwen/Qwen3-8B", "object": "model", "created": 1790000000, "owned_by": "vllm", "root": "Qwen/Qwen3-8B", "parent": null,
   "max_model_len": 40960, "permission": [{"id": "modelperm-1", "object": "model_permission"}]},
  {"id": "my-lora", "object": "model", "created": 1790000000, "owned_by": "vllm", "root": "/adapters/my-lora",
   "parent": "Qwen/Qwen3-8B", "max_model_len": null, "permission": []}]}"""
TOGETHER = """[
  {"id": "meta-llama/Llama-3.3-70B-Instruct-Turbo", "object": "model", "created": 1733448000, "type": "chat",
   "display_name": "Llama 3.3 70B", "organization": "Meta", "link": "", "license": "", "context_length": 131072,
   "pricing": {"hourly": 0, "input": 0.88, "output": 0.88, "base": 0, "finetune": 0, "cached_input": 0.44}},
  {"id": "BAAI/bge-base-en-v1.5", "object": "model", "created": 0, "type": "embedding", "context_length": 512,
   "pricing": {"hourly": 0, "input": 0.008, "output": 0, "base": 0, "finetune": 0}},
  {"id": "black-forest-labs/FLUX.1-schnell", "object": "model", "created": 0, "type": "image", "context_length": 0,
   "pricing": {"hourly": 0, "input": 0, "output": 0, "base": 0.0027, "finetune": 0}},
  {"id": "meta-llama/Llama-3-8b-hf", "object": "model", "created": 0, "type": "language", "pricing": {"input": 0.2, "output": 0.2}}]"""
TOGETHER_V2 = """{"data": [
  {"id": "sm_0123", "baseModel": "projects/p/models/m", "baseModelId": "", "name": "openai/gpt-oss-120b", "displayName": "GPT OSS",
   "displayType": "chat", "capabilities": ["CAPABILITY_CHAT"], "features": ["FEATURE_TOOL_CALLING", "FEATURE_REASONING"],
   "inputModalities": ["MODALITY_TEXT"], "outputModalities": ["MODALITY_TEXT"], "contextLength": "131072",
   "architecture": "GptOssForCausalLM", "pricing": {"input": 0.15, "output": 0.6, "cachedInput": 0.075}},
  {"id": "sm_0456", "name": "Qwen/Qwen3-VL-8B", "displayName": "Qwen3 VL", "displayType": "vision", "capabilities": ["CAPABILITY_CHAT"],
   "inputModalities": ["MODALITY_TEXT", "MODALITY_IMAGE"], "outputModalities": ["MODALITY_TEXT"]},
  {"id": "sm_0789", "name": "intfloat/e5", "displayName": "E5", "displayType": "embedding", "capabilities": ["CAPABILITY_EMBEDDING"],
   "inputModalities": ["MODALITY_TEXT"], "outputModalities": ["MODALITY_TEXT"]}], "next_cursor": "c2"}"""
FIREWORKS = """{"object": "list", "data": [
  {"id": "accounts/fireworks/models/kimi-k2p7", "object": "model", "owned_by": "fireworks", "created": 1, "kind": "HF_BASE_MODEL",
   "supports_chat": true, "supports_image_input": true, "supports_tools": true, "context_length": 262144},
  {"id": "accounts/fireworks/models/qwen3-embedding-8b", "object": "model", "owned_by": "fireworks", "created": 1,
   "kind": "EMBEDDING_MODEL", "supports_chat": true, "supports_image_input": false, "supports_tools": false, "context_length": 40960},
  {"id": "accounts/me/deployments/x#abc", "object": "model", "owned_by": "me", "created": 1, "kind": "HF_BASE_MODEL",
   "supports_chat": false}]}"""
CONTROL_PLANE = """{"models": [
  {"name": "accounts/fireworks/models/glm-5p2", "displayName": "GLM 5.2", "kind": "HF_BASE_MODEL", "contextLength": 1048576,
   "supportsTools": true, "supportsImageInput": false, "supportsServerless": true, "serverlessModes": [
     {"name": "accounts/fireworks/models/glm-5p2/serverlessModes/default", "skuInfos": [
       {"sku": "LLM input tokens (uncached)", "amount": {"currencyCode": "USD", "units": "1", "nanos": 400000000}, "unit": "1M tokens"},
       {"sku": "LLM input tokens (cached)", "amount": {"currencyCode": "USD", "nanos": 140000000}, "unit": "1M tokens"},
       {"sku": "LLM output tokens", "amount": {"currencyCode": "USD", "units": "4", "nanos": 400000000}, "unit": "1M tokens"}]},
     {"name": "accounts/fireworks/models/glm-5p2/serverlessModes/fast", "usageIdentifier": "accounts/fireworks/routers/glm-5p2-fast",
      "skuInfos": [
       {"sku": "LLM input tokens (uncached)", "amount": {"currencyCode": "USD", "units": "2"}, "unit": "1M tokens"}]}]},
  {"name": "accounts/fireworks/models/flux-1", "displayName": "FLUX", "kind": "FLUMINA_BASE_MODEL"}],
  "nextPageToken": "page/2+=", "totalSize": 3}"""
NEBIUS = """{"object": "list", "data": [
  {"id": "moonshotai/Kimi-K3", "name": "Kimi K3", "object": "model", "created": 1, "owned_by": "system", "context_length": 1024000,
   "architecture": {"modality": "text+image->text", "tokenizer": "Other"}, "quantization": "fp8", "regions": ["eu"],
   "supported_features": ["tools", "reasoning"], "supported_sampling_parameters": ["temperature"], "per_request_limits": null,
   "pricing": {"prompt": "0.0000014", "completion": "0.0000044", "image": "0", "request": "0"}},
  {"id": "Qwen/Qwen3-Embedding-8B", "name": "Qwen3-Embedding-8B", "object": "model", "created": 1, "owned_by": "system",
   "context_length": 40960, "architecture": {"modality": "text->embedding"}, "pricing": {"prompt": "0.00000001", "completion": "0"}}]}"""
NEBIUS_CUSTOM = """[{"id": "my/custom", "max_model_len": 32768, "limits": {}, "input_price_per_million_tokens": 0.13,
  "output_price_per_million_tokens": 0.4}]"""
SAMBANOVA = """{"object": "list", "data": [
  {"id": "Meta-Llama-3.3-70B-Instruct", "object": "model", "owned_by": "no-reply@sambanova.ai", "context_length": 131072,
   "max_completion_tokens": 3072, "pricing": {"prompt": 6e-07, "completion": 1.2e-06, "duration_per_hour": 0}, "sn_metadata": {}}]}"""


def read(text: str) -> Catalogue:
    """The catalogue of a body, by way of the decoder that replies go through."""
    found = read_catalogue(decode_json(text.encode()))
    assert found is not None
    return found


def one(**members: Any) -> ListedModel:
    """The only model of a list whose entry has these members."""
    found = read_catalogue([{"id": "m", **members}])
    assert found is not None
    (model,) = found.models
    return model


def usd(*texts: str | None) -> tuple[Decimal | None, ...]:
    """Prices of input, output and cached input."""
    return tuple(None if text is None else Decimal(text) for text in texts)


def test_vllm() -> None:
    found = read(VLLM)
    assert (found.shape, found.missing, found.next_page, found.left_out) == ("list", (), None, 0)
    assert found.models == (
        ListedModel("Qwen/Qwen3-8B", context_length=40960),
        ListedModel("my-lora", parent="Qwen/Qwen3-8B"),
    )


def test_together() -> None:
    found = read(TOGETHER)
    assert (found.shape, found.missing) == ("array", ("owned_by",))
    chat, embedding, image, language = found.models
    assert (chat.id, chat.kind, chat.context_length) == ("meta-llama/Llama-3.3-70B-Instruct-Turbo", "chat", 131072)
    assert chat.prices == usd("0.88", "0.88", "0.44")
    assert (embedding.kind, embedding.prices) == ("embedding", usd("0.008", "0", None))
    assert (image.kind, image.context_length, image.prices) == ("other", None, usd(None, None, None))
    assert (language.kind, language.prices) == (None, usd("0.2", "0.2", None))


def test_togethers_second_list() -> None:
    found = read(TOGETHER_V2)
    assert (found.shape, found.next_page, found.missing) == ("paged", "c2", ("object", "created", "owned_by"))
    chat, image_reader, embedding = found.models
    assert (chat.id, chat.kind, chat.context_length, chat.tools, chat.vision) == ("openai/gpt-oss-120b", "chat", 131072, True, False)
    assert chat.prices == usd("0.15", "0.6", "0.075")
    assert (image_reader.id, image_reader.kind, image_reader.vision, image_reader.tools) == ("Qwen/Qwen3-VL-8B", "chat", True, None)
    assert (embedding.id, embedding.kind, embedding.contradictory) == ("intfloat/e5", "embedding", ())


def test_fireworks() -> None:
    found = read(FIREWORKS)
    assert (found.shape, found.missing) == ("list", ())
    chat, embedding, completion = found.models
    assert (chat.kind, chat.vision, chat.tools, chat.context_length, chat.contradictory) == ("chat", True, True, 262144, ())
    assert (embedding.kind, embedding.contradictory) == ("embedding", ("kind", "supports_chat"))
    assert (completion.id, completion.kind) == ("accounts/me/deployments/x#abc", "other")


def test_fireworks_control_plane() -> None:
    found = read(CONTROL_PLANE)
    assert (found.shape, found.next_page) == ("paged", "page/2+=")
    text, image = found.models
    assert (text.id, text.kind, text.context_length) == ("accounts/fireworks/models/glm-5p2", None, 1048576)
    assert (text.tools, text.vision) == (True, False)
    assert text.prices == usd("1.4", "4.4", "0.14")
    assert image.kind == "other"


def test_nebius() -> None:
    chat, embedding = read(NEBIUS).models
    assert (chat.id, chat.kind, chat.vision, chat.tools) == ("moonshotai/Kimi-K3", "chat", True, True)
    assert chat.prices == usd("1.4", "4.4", None)
    assert (embedding.kind, embedding.vision, embedding.prices) == ("embedding", False, usd("0.01", "0", None))


def test_nebius_custom_models() -> None:
    found = read(NEBIUS_CUSTOM)
    assert found.shape == "array"
    assert (found.models[0].context_length, found.models[0].prices) == (32768, usd("0.13", "0.4", None))


def test_sambanova() -> None:
    found = read(SAMBANOVA)
    assert found.missing == ("created",)
    (model,) = found.models
    assert (model.context_length, model.max_output) == (131072, 3072)
    assert model.prices == usd("0.6", "1.2", None)
    assert str(model.price_input) == "0.6"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        "models",
        {},
        {"status": "ok"},
        {"data": None},
        {"data": {"id": "m"}},
        {"error": {"message": "no"}, "data": [{"id": "m"}]},
        {"object": "list", "data": [{"object": "embedding", "embedding": [0.1], "index": 0}]},
        [1, None, [], {}],
        [{"id": ""}, {"id": 7}, {"id": "x" * (LONGEST_ID + 1), "name": "short"}],
        {"choices": [{"message": {"content": "OK"}}], "id": "chatcmpl-1"},
    ],
)
def test_what_is_no_list_of_models(value: Any) -> None:
    assert read_catalogue(value) is None


@pytest.mark.parametrize(("value", "shape"), [([], "array"), ({"data": []}, "list"), ({"models": []}, "paged")])
def test_an_empty_list_is_a_list(value: Any, shape: str) -> None:
    assert read_catalogue(value) == Catalogue(shape, (), (), None)  # type: ignore[arg-type]


def test_ids_are_kept_as_they_are_and_found_exactly() -> None:
    ids = ["accounts/fireworks/models/x", "accounts/a/deployments/b#c", "org/Model:free", "org/model:free", "a b", "模型"]
    found = read_catalogue([{"id": name} for name in ids])
    assert found is not None
    assert [model.id for model in found.models] == ids
    assert found.find("org/Model:free") == ListedModel("org/Model:free")
    assert [found.find(other) for other in ("x", "models/x", "ORG/MODEL:FREE", "org/Model", "")] == [None] * 5


def test_entries_that_cannot_be_used_are_counted() -> None:
    found = read_catalogue({"data": ["plain", {"id": "a"}, {"id": None, "name": "b"}, {"id": 3}, None, {"id": "x" * 600}]})
    assert found is not None
    assert ([model.id for model in found.models], found.left_out) == (["plain", "a", "b"], 3)


def test_a_long_list_is_bounded() -> None:
    found = read_catalogue([{"id": str(number)} for number in range(MOST_MODELS + 5)])
    assert found is not None
    assert (len(found.models), found.left_out) == (MOST_MODELS, 5)
    again = merge([found, Catalogue("paged", (ListedModel("more"),), (), "next", 1)])
    assert (len(again.models), again.left_out, again.next_page, again.shape) == (MOST_MODELS, 7, "next", "paged")


def test_an_echoed_key_and_broken_characters_are_taken_out() -> None:
    found = read_catalogue(
        {"data": [{"id": f"m-{KEY}", "parent": f"p-{KEY}"}, {"id": "\ud83d"}], "nextPageToken": "\ud83d"}, redact=Redactor(KEY)
    )
    assert found is not None
    assert [(model.id, model.parent) for model in found.models] == [("m-[key]", "p-[key]"), ("\ufffd", None)]
    assert found.next_page == "\ufffd"


@pytest.mark.parametrize(
    ("pricing", "prices"),
    [
        ({"input": 0.6, "output": 1}, ("0.6", "1", None)),
        ({"prompt": 6e-07, "completion": 1e-06}, ("0.6", "1", None)),
        ({"prompt": "6e-07", "completion": " 0.000001 ", "input_cache_read": "0.00000015"}, ("0.6", "1", "0.15")),
        # A price of another unit under a name: too cheap or too dear to be true.
        ({"input": 6e-07, "output": 1e-06}, (None, None, None)),
        ({"prompt": 0.6, "completion": "1.2"}, (None, None, None)),
        # Two units at once: only if they say the same.
        ({"input": 0.6, "output": 1, "prompt": 6e-07, "completion": 1e-06}, ("0.6", "1", None)),
        ({"input": 0.6, "output": 1, "prompt": 5e-07, "completion": 1e-06}, (None, None, None)),
        ({"input": 0.6, "output": 1, "prompt": "-1"}, (None, None, None)),
        # Texts under Together's names are prices of one token elsewhere.
        ({"input": "0.6", "output": "1"}, (None, None, None)),
        # Free only when both are said to be.
        ({"input": 0, "output": 0}, ("0", "0", None)),
        ({"prompt": "0", "completion": "0.0", "request": "0"}, ("0", "0", None)),
        ({"input": 0, "output": 0, "cached_input": 0.1}, ("0", "0", None)),
        ({"input": 0, "output": 0, "hourly": 2.5}, (None, None, None)),
        ({"prompt": 0, "completion": 0, "duration_per_hour": "soon"}, (None, None, None)),
        ({"input": 0}, (None, None, None)),
        ({"input": 0, "output": None}, (None, None, None)),
        ({"input": 0.6, "output": 0}, ("0.6", None, None)),
        ({"input": 0, "output": 0.6}, (None, "0.6", None)),
        ({"input": 0.6, "output": 0.6, "cached_input": 0}, ("0.6", "0.6", None)),
        ({"input": 0.02}, ("0.02", None, None)),
        # What is no number.
        ({"input": True, "output": False}, (None, None, None)),
        ({"input": -0.6, "output": -0.0}, (None, None, None)),
        ({"input": [0.6], "output": {"usd": 1}}, (None, None, None)),
        ({"input": 10**400, "output": 1e300}, (None, None, None)),
        ({"prompt": "$6e-07", "completion": "NaN"}, (None, None, None)),
        ({"prompt": "1e999999999", "completion": "٣"}, (None, None, None)),
        ({"prompt": "1" * 5000, "completion": "0." + "1" * 5000}, (None, None, None)),
        ({}, (None, None, None)),
        ("free", (None, None, None)),
        (0, (None, None, None)),
    ],
)
def test_prices_of_every_unit(pricing: Any, prices: tuple[str | None, ...]) -> None:
    assert one(pricing=pricing).prices == usd(*prices)


def test_two_prices_are_a_contradiction() -> None:
    assert one(pricing={"input": 0.6, "output": 1, "prompt": 5e-07}).contradictory == ("pricing",)
    assert one(pricing={"prompt": 6e-07}, input_price_per_million_tokens=0.7).contradictory == ("pricing",)
    assert one(pricing={"prompt": 6e-07}, input_price_per_million_tokens=0.6).price_input == Decimal("0.6")


def test_the_noise_of_floats_is_no_price() -> None:
    model = one(pricing={"prompt": 1.3999999999999999e-06, "completion": "7.000000000000001e-08", "input_cache_read": 0.1 * 3 / 1e6})
    assert model.prices == usd("1.4", "0.07", "0.3")


@given(st.decimals(CHEAPEST, DEAREST, places=4), st.decimals(CHEAPEST, DEAREST, places=10))
def test_a_price_is_the_same_in_every_form(paid: Decimal, answered: Decimal) -> None:
    exact = (paid, answered, None)
    million = Decimal(1_000_000)
    assert one(pricing={"prompt": str(paid / million), "completion": f"{answered / million:f}"}).prices == exact
    numbers = {"prompt": float(paid / million), "completion": float(answered / million)}
    assert one(pricing=json.loads(json.dumps(numbers))).prices == exact
    assert one(pricing={"input": float(paid), "output": float(answered)}).prices == exact
    assert one(input_price_per_million_tokens=float(paid), output_price_per_million_tokens=str(answered)).prices == exact
    nanos = int(paid * 10**9)
    money = {"currencyCode": "USD", "units": str(nanos // 10**9), "nanos": nanos % 10**9}
    assert one(serverlessModes=[{"skuInfos": [sku("LLM input tokens (uncached)", money)]}]).price_input == paid


def sku(name: str, amount: Any, unit: str = "1M tokens") -> dict[str, Any]:
    """An entry of Fireworks' list of goods."""
    return {"sku": name, "amount": amount, "unit": unit}


UNCACHED, OUTPUT = "LLM input tokens (uncached)", "LLM output tokens"


@pytest.mark.parametrize(
    ("amount", "price"),
    [
        ({"currencyCode": "USD", "units": "0", "nanos": 140_000_000}, "0.14"),
        ({"units": "0", "nanos": 140_000_000}, "0.14"),
        ({"currencyCode": "USD", "units": "3"}, "3"),
        ({"currencyCode": "USD", "units": 3, "nanos": 0}, "3"),
        ("0.14", "0.14"),
        ({"currencyCode": "EUR", "units": "3"}, None),
        ({"currencyCode": "USD"}, None),
        ({"units": "-1", "nanos": -750_000_000}, None),
        ({"units": "1", "nanos": 10**9}, None),
        ({"units": "1.5", "nanos": 0}, None),
        ({"units": "1", "nanos": True}, None),
        ({"units": "99999", "nanos": 0}, None),
        ({"units": [], "nanos": 5}, None),
        (None, None),
    ],
)
def test_amounts_of_money(amount: Any, price: str | None) -> None:
    model = one(serverlessModes=[{"skuInfos": [sku(UNCACHED, amount), sku(OUTPUT, {"units": "5"})]}])
    assert model.prices == usd(price, "5", None)


@pytest.mark.parametrize(
    "modes",
    [
        [{"skuInfos": [sku(UNCACHED, "1", "1K tokens"), sku(OUTPUT, "1", "1M characters")]}],
        [{"skuInfos": [sku(UNCACHED, "1"), sku(UNCACHED, "2")]}],
        [{"skuInfos": [sku("image tokens", "1"), {"sku": 5}, None, 3]}],
        [{"name": "accounts/f/models/m/serverlessModes/priority", "serviceTier": "priority", "skuInfos": [sku(UNCACHED, "1")]}],
        [{"name": "accounts/f/models/m/serverlessModes/fast", "skuInfos": [sku(UNCACHED, "1")]}],
        [{"serviceTier": "priority", "skuInfos": [sku(UNCACHED, "1")]}],
        [{"usageIdentifier": "accounts/f/routers/m-fast", "skuInfos": [sku(UNCACHED, "1")]}],
        [{"skuInfos": [sku(UNCACHED, {"currencyCode": "USD"}), sku(OUTPUT, {"currencyCode": "USD"})]}],
        [{"skuInfos": [sku(UNCACHED, "1")]}, {"skuInfos": [sku(UNCACHED, "2")]}],
        [{"skuInfos": {"sku": UNCACHED}}, None],
        {"skuInfos": []},
        [],
    ],
)
def test_goods_of_another_unit_or_tier_are_no_price(modes: Any) -> None:
    assert one(serverlessModes=modes).prices == usd(None, None, None)


def test_goods_may_stand_under_pricing() -> None:
    goods = [sku("LLM input tokens (cached)", "0.14"), sku(UNCACHED, "1.4"), sku(OUTPUT, "4.4")]
    assert one(pricing=goods, serverless_mode="standard").prices == usd("1.4", "4.4", "0.14")
    assert one(pricing=goods, serverless_mode="priority").prices == usd(None, None, None)


@pytest.mark.parametrize(
    ("members", "context"),
    [
        ({"max_model_len": 10}, 10),
        ({"context_length": 10.0}, 10),
        ({"contextLength": "131072"}, 131072),
        ({"context_window": 8192}, 8192),
        ({"context_length": MOST_TOKENS}, MOST_TOKENS),
        ({"context_length": 0}, None),
        ({"context_length": -1}, None),
        ({"context_length": True}, None),
        ({"context_length": 10.5}, None),
        ({"context_length": MOST_TOKENS + 1}, None),
        ({"context_length": 10**500}, None),
        ({"context_length": "128k"}, None),
        ({"context_length": "٣"}, None),
        ({"context_length": "9" * 5000}, None),
        ({"context_length": [1], "max_model_len": {}}, None),
        ({"context_length": None, "context_window": 7}, 7),
    ],
)
def test_context_under_every_name(members: dict[str, Any], context: int | None) -> None:
    model = one(**members)
    assert (model.context_length, model.contradictory) == (context, ())


def test_of_two_contexts_the_smaller_is_safe() -> None:
    model = one(context_length=131072, max_model_len=40960, max_completion_tokens=4096)
    assert (model.context_length, model.max_output) == (40960, 4096)
    assert set(model.contradictory) == {"context_length", "max_model_len"}


@pytest.mark.parametrize(
    ("members", "kind", "contradictory"),
    [
        ({"type": "chat"}, "chat", ()),
        ({"type": "rerank"}, "other", ()),
        ({"type": "code"}, None, ()),
        ({"type": "model"}, None, ()),
        ({"type": 5, "kind": ["EMBEDDING_MODEL"]}, None, ()),
        ({"kind": "EMBEDDING_MODEL"}, "embedding", ()),
        ({"kind": "EMBEDDING_MODEL", "supports_chat": False}, "embedding", ()),
        ({"kind": "EMBEDDING_MODEL", "supports_chat": True}, "embedding", ("kind", "supports_chat")),
        ({"kind": "HF_BASE_MODEL"}, None, ()),
        ({"supports_chat": True}, "chat", ()),
        ({"supports_chat": False}, "other", ()),
        ({"supports_chat": "yes"}, None, ()),
        ({"supports_chat": 1}, None, ()),
        ({"type": "chat", "supports_chat": False}, "chat", ("type", "supports_chat")),
        ({"type": "chat", "kind": "EMBEDDING_MODEL"}, None, ("type", "kind")),
        ({"type": "chat", "architecture": {"modality": "text->embedding"}}, None, ("type", "architecture.modality")),
        ({"type": "embedding", "architecture": {"modality": "text->text"}}, "embedding", ("type", "architecture.modality")),
        ({"architecture": {"modality": "text->text"}, "supports_chat": False}, None, ("supports_chat", "architecture.modality")),
        ({"architecture": {"modality": "text+image->text"}}, "chat", ()),
        ({"architecture": {"modality": "text->embedding"}}, "embedding", ()),
        ({"architecture": {"modality": "text->image"}}, "other", ()),
        ({"architecture": {"modality": "audio->text"}}, "other", ()),
        ({"architecture": {"modality": "->"}}, None, ()),
        ({"architecture": "LlamaForCausalLM"}, None, ()),
        ({"modality": "text->text"}, "chat", ()),
        ({"output_modalities": ["text"]}, "chat", ()),
        ({"output_modalities": ["embeddings"]}, "embedding", ()),
        ({"input_modalities": ["audio"], "output_modalities": ["text"]}, None, ()),
        ({"capabilities": {"completion_chat": True, "fine_tuning": False}}, "chat", ()),
        ({"capabilities": {"completion_chat": False}}, None, ()),
        ({"capabilities": ["CAPABILITY_RERANKING"]}, "other", ()),
        ({"capabilities": ["CAPABILITY_CHAT"], "displayType": "moderation"}, "chat", ()),
        ({"displayType": "moderation"}, "other", ()),
        ({}, None, ()),
    ],
)
def test_kinds(members: dict[str, Any], kind: str | None, contradictory: tuple[str, ...]) -> None:
    model = one(**members)
    assert (model.kind, set(model.contradictory)) == (kind, set(contradictory))


@pytest.mark.parametrize(
    ("members", "vision", "tools", "contradictory"),
    [
        ({"supports_image_input": True, "supports_tools": False}, True, False, ()),
        ({"supportsImageInput": False, "supportsTools": True}, False, True, ()),
        ({"supports_image_input": 1, "supports_tools": "true"}, None, None, ()),
        ({"supported_features": ["tools", "reasoning"]}, None, True, ()),
        ({"features": ["function-calling"], "capabilities": ["vision"]}, True, True, ()),
        ({"capabilities": {"vision": False, "function_calling": True}}, False, True, ()),
        ({"features": []}, None, None, ()),
        ({"inputModalities": []}, None, None, ()),
        ({"input_modalities": ["text", "image"]}, True, None, ()),
        ({"architecture": {"input_modalities": ["text"]}}, False, None, ()),
        ({"supports_image_input": True, "input_modalities": ["text"]}, None, None, ("supports_image_input", "input_modalities")),
        ({"supports_tools": False, "features": ["tools"]}, None, None, ("supports_tools", "features")),
    ],
)
def test_abilities(members: dict[str, Any], vision: bool | None, tools: bool | None, contradictory: tuple[str, ...]) -> None:
    model = one(**members)
    assert (model.vision, model.tools, set(model.contradictory)) == (vision, tools, set(contradictory))


def test_a_model_that_is_listed_twice_is_one_and_what_is_disputed_is_unknown() -> None:
    same = {"id": "m", "context_length": 10, "pricing": {"input": 1, "output": 2}}
    found = read_catalogue([same, same, {"id": "m", "supports_tools": True}])
    assert found is not None
    (model,) = found.models
    assert (model.context_length, model.tools, model.prices, model.contradictory) == (10, True, usd("1", "2", None), ())
    dearer = {"id": "m", "context_length": 20, "pricing": {"input": 1, "output": 3}}
    for entries in ([same, dearer], [same, dearer, same], [dearer, same, {"id": "m"}]):
        again = read_catalogue(entries)
        assert again is not None
        (model,) = again.models
        assert (model.context_length, model.prices) == (None, usd(None, None, None))
        assert set(model.contradictory) == {"context_length", "pricing"}


def test_pages_are_one_catalogue() -> None:
    first = read('{"models": [{"name": "a"}, {"name": "b", "contextLength": 5}], "nextPageToken": "2"}')
    last = read('{"models": [{"name": "b", "supportsTools": true}, {"name": "c"}, 7], "nextPageToken": ""}')
    found = merge([first, last])
    assert found.models == (ListedModel("a"), ListedModel("b", context_length=5, tools=True), ListedModel("c"))
    assert (found.shape, found.next_page, found.left_out) == ("paged", None, 1)
    assert found.missing == ("object", "created", "owned_by")
    assert merge([first]) == first
    assert merge([]) == Catalogue("paged", (), (), None)
    assert merge([last, first]).next_page == "2"


NAMES = st.sampled_from(
    [
        *("id", "name", "displayName", "object", "created", "type", "kind", "supports_chat", "parent", "architecture", "modality"),
        *("capabilities", "features", "input_modalities", "outputModalities", "context_length", "contextLength", "max_completion_tokens"),
        *("pricing", "input", "output", "prompt", "completion", "cachedInput", "hourly", "input_price_per_million_tokens"),
        *("serverlessModes", "skuInfos", "sku", "amount", "unit", "units", "nanos", "currencyCode"),
        *("data", "models", "error", "nextPageToken"),
    ]
)
WORDS = st.sampled_from(
    [
        *("chat", "embedding", "text->text", "->", "EMBEDDING_MODEL", "CAPABILITY_CHAT", "1M tokens", "USD", UNCACHED, OUTPUT),
        *("0", "0.5", "1e-06", "-1", "NaN", "1e99"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(10**4400), 10**4400) | st.floats() | st.text(max_size=20) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=6),
    max_leaves=25,
)


@given(VALUES | st.lists(VALUES, max_size=4) | st.fixed_dictionaries({"data": st.lists(VALUES, max_size=4)}))
def test_any_value_is_read_or_is_no_list(value: Any) -> None:
    _check(read_catalogue(value))


@given(
    st.lists(
        st.fixed_dictionaries({"id": st.just("m") | st.text(max_size=3)}, optional={"pricing": VALUES}).flatmap(
            lambda entry: st.dictionaries(NAMES, VALUES, max_size=8).map(lambda more: more | entry)
        ),
        max_size=4,
    )
)
def test_any_entry_is_a_model_with_sound_values(entries: list[dict[str, Any]]) -> None:
    _check(read_catalogue(entries))


def _check(found: Catalogue | None) -> None:
    if found is None:
        return
    assert len({model.id for model in found.models}) == len(found.models)
    for model in found.models:
        assert 0 < len(model.id) <= LONGEST_ID
        model.id.encode()
        for count in (model.context_length, model.max_output):
            assert count is None or (type(count) is int and 0 < count <= MOST_TOKENS)
        for price in model.prices:
            assert price is None or (type(price) is Decimal and (price == 0 or CHEAPEST <= price <= DEAREST))
        if model.price_input == 0:
            assert model.price_output == 0
        assert model.vision in (True, False, None)
        assert model.tools in (True, False, None)
        assert len(set(model.contradictory)) == len(model.contradictory)
    assert merge([found]) == found
