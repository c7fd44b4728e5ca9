"""Wire facts 1 to 9: lists of models, in every shape that a provider gives them."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

import pytest

from byok.endpoint import EgressPolicy, EndpointAuth, EndpointClient, probe
from byok_testing.asking import KEY, MODEL, chat, completion, refused, using
from byok_testing.raw_server import http

ANSWER = http(200, completion())


def listed(server, **options):
    return using(server, lambda one: one.catalogue(), **options)


def probed(server):
    return using(server, probe)


def test_fact_01_a_list_of_models_that_is_a_bare_array(serve):
    entry = {
        "id": MODEL,
        "object": "model",
        "created": 1,
        "type": "chat",
        "context_length": 131072,
        "pricing": {"input": 0.88, "output": 0.88},
    }
    server = serve(http(200, [entry, {"id": "other"}]), ANSWER)
    found = probed(server)
    assert found.models_listed is True
    catalogue = listed(serve(http(200, [entry])))
    assert (catalogue.shape, [model.id for model in catalogue.models]) == ("array", [MODEL])


def test_fact_02_entries_without_what_openai_demands(serve):
    catalogue = listed(serve(http(200, {"object": "list", "data": [{"id": MODEL, "context_length": 16384}]})))
    assert [model.id for model in catalogue.models] == [MODEL]
    assert set(catalogue.missing) == {"object", "created", "owned_by"}


@pytest.mark.parametrize("answer", [http(404, {"detail": "Not Found"}), http(404, "<html>404</html>", kind="text/html"), http(405, "")])
def test_fact_03_no_list_of_models_while_chat_works(serve, answer):
    server = serve(answer, ANSWER)
    assert probed(server).models_listed is None
    assert chat(serve(ANSWER)).text == "OK"


def test_fact_04_the_list_needs_another_right_than_chat(serve):
    # Closed list, open chat: the model works, and the probe says what it could not see.
    closed = serve(http(401, {"error": {"message": "no", "type": "x", "param": None, "code": None}}), ANSWER)
    found = probed(closed)
    assert found.models_listed is None and any("models list" in warning for warning in found.warnings)
    # Open list, closed chat: the list proves nothing.
    opened = serve(http(200, {"object": "list", "data": [{"id": MODEL}]}), http(401, {"error": "Unauthorized"}))
    assert isinstance(refused(lambda: probed(opened)), EndpointAuth)


@pytest.mark.parametrize(
    ("members", "length"),
    [
        ({"max_model_len": 4096}, 4096),
        ({"context_length": 131072}, 131072),
        ({"contextLength": "32768"}, 32768),
        ({}, None),
        ({"context_length": None}, None),
        ({"context_length": "many"}, None),
    ],
)
def test_fact_05_the_context_length_under_its_several_names(serve, members, length):
    assert listed(serve(http(200, {"object": "list", "data": [{"id": MODEL, **members}]}))).find(MODEL).context_length == length


@pytest.mark.parametrize(
    ("entry", "prices"),
    [
        ({"pricing": {"prompt": 6e-07, "completion": 1.2e-06}}, ("0.6", "1.2")),  # SambaNova: per token, numbers
        ({"pricing": {"prompt": "0.00000013", "completion": "0.0000004"}}, ("0.13", "0.4")),  # Nebius: per token, texts
        ({"pricing": {"input": 0.88, "output": 0.9, "hourly": 0}}, ("0.88", "0.9")),  # Together: per million, numbers
        ({"input_price_per_million_tokens": 0.2, "output_price_per_million_tokens": 0.6}, ("0.2", "0.6")),
        ({}, None),
        ({"pricing": {"prompt": -1, "completion": 2}}, None),
    ],
)
def test_fact_06_prices_in_their_several_units_are_never_mixed(serve, entry, prices):
    found = listed(serve(http(200, {"object": "list", "data": [{"id": MODEL, **entry}]}))).find(MODEL)
    if prices is None:
        assert (found.price_input, found.price_output) == (None, None)
    else:
        assert (found.price_input, found.price_output) == tuple(map(Decimal, prices))


def test_fact_06_money_with_units_and_nanos(serve):
    def sku(name, nanos):
        return {"sku": name, "amount": {"currencyCode": "USD", "units": "0", "nanos": nanos}, "unit": "1M tokens"}

    names = ("LLM input tokens (uncached)", "LLM input tokens (cached)", "LLM output tokens")
    skus = [sku(name, nanos) for name, nanos in zip(names, (150_000_000, 75_000_000, 600_000_000), strict=True)]
    entry = {"name": "accounts/fireworks/models/x", "contextLength": 8192, "serverlessModes": [{"skuInfos": skus}]}
    found = listed(serve(http(200, {"models": [entry], "nextPageToken": "", "totalSize": 1}))).models[0]
    assert found.prices == (Decimal("0.15"), Decimal("0.6"), Decimal("0.075"))


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ({"type": "chat"}, "chat"),
        ({"type": "embedding"}, "embedding"),
        ({"type": "image"}, "other"),
        ({"architecture": {"modality": "text+image->text"}}, "chat"),
        ({"architecture": {"modality": "text->embedding"}}, "embedding"),
        ({"supports_chat": True}, "chat"),
        ({}, None),
    ],
)
def test_fact_07_what_a_model_answers(serve, members, kind):
    assert listed(serve(http(200, {"object": "list", "data": [{"id": MODEL, **members}]}))).find(MODEL).kind == kind


def test_fact_07_flags_that_contradict_each_other_are_shown(serve):
    entry = {"id": MODEL, "kind": "EMBEDDING_MODEL", "supports_chat": True}
    assert "supports_chat" in listed(serve(http(200, {"object": "list", "data": [entry]}))).find(MODEL).contradictory


def test_fact_08_a_list_that_comes_in_pages(serve):
    first = {"models": [{"name": "accounts/fireworks/models/a"}], "nextPageToken": "to&ken=2", "totalSize": 2}
    last = {"models": [{"name": "accounts/fireworks/models/b"}], "nextPageToken": "", "totalSize": 2}
    server = serve(http(200, first), http(200, last))
    catalogue = listed(server)
    assert [model.id for model in catalogue.models] == ["accounts/fireworks/models/a", "accounts/fireworks/models/b"]
    assert [first for first, _, _ in server.requests] == ["GET /v1/models HTTP/1.1", "GET /v1/models?pageToken=to%26ken%3D2 HTTP/1.1"]


def test_fact_08_a_list_without_end_is_left(serve):
    server = serve(http(200, {"models": [{"name": "accounts/x/models/a"}], "nextPageToken": "again"}))
    assert len(listed(server).models) == 1
    assert len(server.requests) == 10


@pytest.mark.parametrize("model_id", ["accounts/f/models/x#accounts/y/deployments/Z", "org/Model:Tag", "Qwen/QwQ-32B-fast", "MiXeD"])
def test_fact_09_model_ids_are_sent_as_they_are(serve, model_id):
    server = serve(ANSWER)

    async def go():
        policy = EgressPolicy.parse(server.host_port)
        async with EndpointClient(f"http://{server.host_port}/v1", model_id, KEY, policy=policy) as client:
            await client.chat([{"role": "user", "content": "hi"}])

    asyncio.run(go())
    assert json.loads(server.requests[0][2])["model"] == model_id
    catalogue = listed(serve(http(200, [{"id": model_id.lower()}, {"id": model_id}])))
    assert catalogue.find(model_id).id == model_id
