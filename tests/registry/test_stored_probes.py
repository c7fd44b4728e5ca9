"""What is stored of probes, and what tags may claim."""

import asyncio
import json

import pytest
from pydantic import SecretStr

from byok.cli.main import run
from byok.datasets import Mapping
from byok.endpoint import EndpointError
from byok.endpoint.capabilities import NAMES, CapabilityMissing
from byok.ids import new_id
from byok.registry import ModelChanges, RegisterRequest
from byok.runs import EvaluationRequest, probe_models, start_run
from byok.runs.start import NotAChatModel
from byok.sandbox import Fault
from byok.sandbox.capabilities import NAMES as FEATURES
from byok_testing.probing import Scripted
from byok_testing.registered import KEY, PROBES, audited, check, get, probe, query, register

ALL = frozenset(FEATURES)


# --- what is stored


def test_every_probe_outside_runs_is_a_row_with_its_tokens_and_charges(services, serve):
    server = serve()
    register(services, server, price_input="1", price_output="1")
    probe(services)
    server.accept("sk-health-next-00000000000000000000")
    asyncio.run(services.registry.rotate(services.actor, "m", SecretStr("sk-health-next-00000000000000000000")))
    check(services)
    check(services, full=True)
    causes = [("register", "basic"), ("command", "basic"), ("update", "basic"), ("schedule", "basic"), ("schedule", "full")]
    rows = query(services, PROBES)
    assert [row[:6] for row in rows] == [(*one, "ok", None, "ok", 0) for one in causes]
    assert [row[6] for row in rows] == [1, 1, 1, 1, 7]
    stats = server.stats()
    told = query(services, "SELECT sum(prompt_tokens), sum(completion_tokens), count(*) FILTER (latency_ms > 0) FROM v1.probes")
    assert told == [(stats["prompt_tokens"], stats["completion_tokens"], 5)]
    assert query(services, "SELECT count(*), sum(prompt_tokens) FROM v1.attempts WHERE role = 'probe' AND run_id IS NULL") == [
        (11, stats["prompt_tokens"])
    ]
    ((charged,),) = query(services, "SELECT sum(amount_usd) * 1000000 FROM v1.charges WHERE role = 'probe'")
    assert charged == stats["prompt_tokens"] + stats["completion_tokens"]


def test_a_full_probe_is_a_row_for_each_capability_and_a_basic_one_erases_none(services, serve):
    register(services, serve(), tags=["chat", "tools", "vision"], full=True)
    assert query(services, "SELECT capability, declared FROM v1.capabilities WHERE outcome = 'unsupported' ORDER BY 1") == [
        *(("embeddings", False), ("reasoning", False), ("vision", True))
    ]
    rows = query(services, "SELECT capability, outcome, value, declared, latest FROM v1.capabilities JOIN v1.probes USING (probe_id)")
    assert {row[0] for row in rows} == set(NAMES) and len(rows) == len(NAMES) and all(row[4] for row in rows)
    assert ("context_length", "supported", "8192", False, True) in rows and ("tools", "supported", None, True, True) in rows
    full = get(services).capabilities["full"]
    assert {name: one["outcome"] for name, one in full.items()} == {row[0]: row[1] for row in rows}
    assert full["context_length"]["value"] == 8192 and set(full["tools"]) == {"outcome", "value", "evidence", "at"}
    assert get(services).capabilities["refused"] == ["image_url"]
    (warning,) = get(services).capabilities["warnings"]
    assert "'vision'" in warning and "not supported" in warning
    probe(services)
    after = get(services).capabilities
    assert after["full"] == full and after["chat"] is True and after["warnings"] == []
    probe(services, full=True)
    newest = query(services, "SELECT count(*), count(*) FILTER (latest) FROM v1.capabilities")
    assert newest == [(2 * len(NAMES), len(NAMES))]
    assert get(services).capabilities["full"]["tools"]["at"] > full["tools"]["at"]


def test_what_was_found_belongs_to_one_model_at_one_endpoint(services, serve):
    register(services, serve(), full=True)
    services_registry = services.registry
    asyncio.run(services_registry.update(services.actor, "m", ModelChanges(name="Other")))
    assert "full" in get(services).capabilities
    asyncio.run(services_registry.update(services.actor, "m", ModelChanges(remote_id="another")))
    assert (get(services).capabilities, get(services).health) == ({}, "unknown")
    elsewhere = serve(model_id="another")
    probe_of_all = ModelChanges(base_url=elsewhere.base_url)
    asyncio.run(services_registry.update(services.actor, "m", probe_of_all, SecretStr(KEY)))
    assert "full" not in get(services).capabilities


def test_a_failed_probe_of_a_registered_model_is_stored_with_what_it_asked(services, serve, wrong):
    server = serve()
    register(services, server)
    wrong[0] = Fault(status=503)
    with pytest.raises(EndpointError) as caught:
        probe(services)
    assert caught.value.code == "endpoint_overloaded"
    assert query(services, PROBES)[1:] == [("command", "basic", "failed", "endpoint_overloaded", "ok", 1, 1)]
    assert query(services, "SELECT error_message, latency_ms FROM v1.probes WHERE status = 'failed'") == [(caught.value.message, None)]
    assert query(services, "SELECT error_code, http_status FROM v1.attempts WHERE status = 'error'") == [("endpoint_overloaded", 503)]
    assert query(services, "SELECT count(*) FROM v1.charges")[0][0] == 2, "a refused request costs nothing"
    model = get(services)
    assert (model.health_failures, model.revision, model.capabilities["chat"]) == (1, 1, True)


def test_a_failed_registration_leaves_nothing(services, serve, wrong):
    wrong[0] = 503
    with pytest.raises(EndpointError):
        register(services, serve(), full=True)
    assert services.registry.list(services.actor) == []
    assert query(services, "SELECT count(*) FROM v1.probes") == query(services, "SELECT count(*) FROM v1.attempts") == [(0,)]


# --- strictness


def test_strict_registration_refuses_a_claim_that_is_not_true_and_stores_nothing(services, serve):
    server = serve(supports=ALL - {"tools", "vision", "reasoning"}, ignores=frozenset({"json_schema"}))
    with pytest.raises(CapabilityMissing) as caught:
        register(services, server, tags=["chat", "function-calling", "structured-output"], strict=True)
    assert caught.value.code == "capability_missing" and caught.value.exit_code == 2
    assert caught.value.fields == {"tags": "structured-output, function-calling", "outcomes": "json_schema: ignored, tools: unsupported"}
    assert "without effect" in caught.value.message and KEY not in repr(caught.value)
    assert services.registry.list(services.actor) == [] and query(services, "SELECT count(*) FROM v1.probes") == [(0,)]
    assert audited(services, "model.register") == [{"origin": server.base_url.removesuffix("/v1"), "reason": "capability_missing"}]
    model = register(services, server, tags=["chat", "json-mode", "logprobs"], strict=True)
    assert model.capabilities["warnings"] == [] and len(model.capabilities["full"]) == len(NAMES)


@pytest.mark.parametrize("tags", [["chat", "tools"], ["chat", "vision"]])
def test_the_command_shows_all_and_leaves_with_1_for_a_strict_gap(services, serve, capsys, tags):
    register(services, serve(), tags=tags)
    gap = "vision" in tags
    assert run(["model", "probe", "m", "--strict", "--json"]) == (1 if gap else 0)
    told = json.loads(capsys.readouterr().out)["probe"]
    assert (told["model"], told["answers"], told["full"], told["token_limit"]) == ("m", True, True, 300)
    assert [one["capability"] for one in told["capabilities"]] == list(NAMES)
    assert {one["capability"] for one in told["capabilities"] if one["declared"]} == set(tags)
    assert 0 < told["tokens"] <= 300 and len(told["warnings"]) == (1 if gap else 0)
    # The findings are stored all the same.
    assert len(get(services).capabilities["full"]) == len(NAMES)
    assert run(["model", "probe", "m", "--full"]) == 0
    shown = capsys.readouterr()
    assert all(name in shown.out for name in NAMES) and "tokens in 7 requests (a full probe takes at most 300)" in shown.out
    assert "\x1b" not in shown.out + shown.err, "nothing moves where there is no terminal"


def test_the_basic_command_stays_what_it_was(services, serve, capsys):
    register(services, serve())
    assert run(["model", "probe", "m", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["probe"]
    assert (told["requests"], told["completion_tokens"], told["full"], told["capabilities"], told["token_limit"]) == (1, 1, False, [], None)
    assert told["tokens"] == told["prompt_tokens"] + told["completion_tokens"]
    assert run(["model", "list"]) == 0
    assert "ok" in capsys.readouterr().out
    assert run(["model", "show", "m", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["model"]
    assert (shown["health"], shown["health_failures"]) == ("ok", 0) and shown["checked_at"]


def test_registering_by_command_with_a_full_probe(services, serve, capsys, monkeypatch):
    server = serve()
    monkeypatch.setenv("PROVIDER_KEY", KEY)
    words = ["model", "register", "new", "--name", "N", "--base-url", server.base_url, "--model-id", server.model_id]
    words += ["--api-key-env", "PROVIDER_KEY", "--tag", "vision"]
    assert run([*words, "--strict", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "capability_missing"
    assert run([*words, "--full-probe"]) == 0
    shown = capsys.readouterr()
    assert "capabilities of new" in shown.out and "warning: the tag 'vision'" in shown.err


# --- the owner's own payload


def test_the_owners_limits_do_not_set_what_a_full_probe_costs(services, serve):
    server = serve()
    register(services, server, extra_payload={"max_tokens": 5000, "n": 1, "temperature": 0.5}, full=True)
    assert get(services).capabilities["full"]["context_length"]["outcome"] == "supported"
    stats = server.stats()
    assert stats["prompt_tokens"] + stats["completion_tokens"] <= 300


def test_what_the_owner_sets_is_not_probed_over_it(services, serve):
    server = serve()
    register(services, server, extra_payload={"response_format": {"type": "json_object"}, "logprobs": True}, full=True)
    full = get(services).capabilities["full"]
    assert {name for name, one in full.items() if "the extra payload sets" in one["evidence"]} == {
        *("json_mode", "json_schema", "tools", "logprobs")
    }
    assert {full[name]["outcome"] for name in ("json_mode", "logprobs")} == {"untested"}


# --- embeddings


@pytest.mark.parametrize("tag", ["embeddings", "embedding"])
def test_an_embedding_model_is_registered_by_one_vector(services, serve, tag):
    server = serve(embedding_dimensions=48)
    model = register(services, server, tags=[tag], remote_id=server.embedding_model_id)
    assert (server.stats()["embedding_requests"], server.stats()["chat_requests"]) == (1, 0)
    told = model.capabilities
    assert (told["embeddings"], told["dimensions"], told["chat"], told["models_listed"]) == (True, 48, False, True)
    assert query(services, "SELECT prompt_tokens, completion_tokens, requests FROM v1.probes") == [(1, 0, 1)]
    assert query(services, "SELECT status, prompt_tokens, completion_tokens FROM v1.attempts") == [("ok", 1, 0)]
    assert check(services).ok and server.stats()["chat_requests"] == 0
    probe(services, full=True)
    full = get(services).capabilities["full"]
    assert (full["embeddings"]["value"], full["chat"]["outcome"]) == (48, "unsupported")


def test_an_embedders_chat_that_was_given_up_may_have_cost_an_answer(services, monkeypatch):
    texts = [{"object": "embedding", "index": number, "embedding": [0.5, 0.25]} for number in range(2)]
    made = {"object": "list", "data": texts, "model": "e", "usage": {"prompt_tokens": 2, "total_tokens": 2}}

    def answer(route, body):
        return (200, made) if route == "/embeddings" else (504, "given up")

    with Scripted(answer) as server:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
        place = {"base_url": f"http://{server.host_port}/v1", "remote_id": "e"}
        asked = RegisterRequest(key="m", name="M", tags=["embeddings"], price_input="1", price_output="1", **place)
        asyncio.run(services.registry.register(services.actor, asked, SecretStr(KEY), full=True))
    lines = "SELECT sku, quantity, evidence FROM v1.charges JOIN v1.attempts USING (attempt_id) WHERE status = '{}' ORDER BY sku"
    assert query(services, lines.format("ok")) == [("tokens/input", 2, "computed")]
    assert query(services, lines.format("error")) == [("tokens/input", None, "unknown"), ("tokens/output", None, "unknown")]


def test_a_model_that_is_tagged_for_both_is_asked_to_chat(services, serve):
    server = serve()
    model = register(services, server, tags=["chat", "embeddings"])
    assert model.capabilities["chat"] is True and server.stats()["embedding_requests"] == 0


def test_an_embedding_model_is_no_candidate_and_no_judge(services, serve, tmp_path):
    server = serve()
    register(services, server)
    register(services, server, "vectors", tags=["embeddings"], remote_id=server.embedding_model_id)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "Hi", "answer": "kiwi"}\n')
    services.datasets.add(services.actor, "d", path, Mapping())
    services.judges.create(services.actor, "j", "vectors", "binary", "Is {{output}} right?")
    for request in (
        EvaluationRequest(model="vectors", dataset="d", graders=["exact"]),
        EvaluationRequest(model="m", dataset="d", judges=["j"]),
    ):
        with pytest.raises(NotAChatModel) as caught:
            start_run(services, request, new_id())
        assert caught.value.code == "not_a_chat_model" and "byok model probe vectors" in caught.value.hint
    assert query(services, "SELECT count(*) FROM v1.runs") == [(0,)]
    plan = start_run(services, EvaluationRequest(model="m", dataset="d", graders=["exact"]), new_id())
    assert asyncio.run(probe_models(services, plan.run_id)) == 1
