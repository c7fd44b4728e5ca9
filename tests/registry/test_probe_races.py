"""What happens to a model while it is probed: nothing is found of another one, nothing is lost that was asked, nobody's change either."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack

import pytest
from pydantic import SecretStr

import byok.registry.health as checks
import byok.registry.registry as registry
from byok.datasets import Mapping
from byok.endpoint import EndpointError
from byok.ids import new_id
from byok.registry import ModelChanged, ModelChanges, RegisterRequest
from byok.runs import EvaluationRequest, bill_run, probe_models, start_run
from byok.sandbox import Sandbox
from byok_testing.asking import completion
from byok_testing.raw_server import http, starting

KEY, NEXT = "sk-races-6f5e4d3c2b1a09f8e7d6c5b4a3928170", "sk-races-next-0f1e2d3c4b5a69788796a5b4c3d2e1f0"


@pytest.fixture
def serve(monkeypatch):
    """Start sandboxes that may be called, and take both keys."""
    with ExitStack() as open_ones:
        allowed = []

        def start(**options):
            server = open_ones.enter_context(Sandbox([("1+1?", "2")], api_key=KEY, **options))
            server.accept(KEY, NEXT)
            allowed.append(server.host_port)
            monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", ",".join(allowed))
            return server

        yield start


def register(services, base_url, remote_id="sandbox-model", **options):
    request = RegisterRequest(key="m", name="M", base_url=base_url, remote_id=remote_id, price_input="1", price_output="1", **options)
    return asyncio.run(services.registry.register(services.actor, request, SecretStr(KEY)))


def meanwhile(monkeypatch, module, name, act):
    """After a probe has been answered, and before anything of it is stored, `act` happens, once."""
    real = getattr(module, name)

    async def probed(*arguments, **options):
        found = await real(*arguments, **options)
        monkeypatch.setattr(module, name, real)
        done = act()
        if asyncio.iscoroutine(done):
            await done
        return found

    monkeypatch.setattr(module, name, probed)


def probing(services, monkeypatch, how, act):
    """Probe fully, by command or by a check, while something happens; the model as it is then."""
    meanwhile(monkeypatch, registry if how == "probe" else checks, "probe_stored", act)
    if how == "probe":
        asyncio.run(services.registry.probe(services.actor, "m", full=True))
    else:
        asyncio.run(services.health.check(services.actor, "m", full=True))
    return services.registry.get(services.actor, "m")


def count(services, view):
    return services.warehouse.query(f"SELECT count(*) FROM v1.{view}").rows[0][0]


@pytest.mark.parametrize("how", ["probe", "check"])
def test_what_was_found_of_the_old_model_is_not_stored_with_the_new_one(services, serve, monkeypatch, how):
    server, other = serve(), serve(context_length=1234)
    register(services, server.base_url)
    change = services.registry.update

    def another():
        return change(services.actor, "m", ModelChanges(remote_id="another"))

    model = probing(services, monkeypatch, how, another)
    assert (model.remote_id, model.capabilities, model.health) == ("another", {}, "unknown")

    asyncio.run(change(services.actor, "m", ModelChanges(remote_id=other.model_id)))

    def move():
        return change(services.actor, "m", ModelChanges(base_url=other.base_url), SecretStr(KEY))

    model = probing(services, monkeypatch, how, move)
    assert model.base_url == other.base_url and "full" not in model.capabilities
    # What was asked is recorded all the same, with the key that it was asked with.
    stats = server.stats()["prompt_tokens"] + other.stats()["prompt_tokens"]
    assert services.warehouse.query("SELECT sum(prompt_tokens) FROM v1.attempts").rows == [(stats,)]


@pytest.mark.parametrize("how", ["probe", "check"])
def test_a_model_that_was_disabled_meanwhile_stays_as_it_is(services, serve, monkeypatch, how):
    register(services, serve().base_url)
    disabled = []
    model = probing(services, monkeypatch, how, lambda: disabled.append(services.registry.disable(services.actor, "m")))
    assert (model.status, model.revision, "full" in model.capabilities) == ("disabled", disabled[0].revision, False)


@pytest.mark.parametrize("how", ["probe", "check"])
def test_somebody_elses_change_of_the_name_costs_neither_it_nor_the_findings(services, serve, monkeypatch, how):
    register(services, serve().base_url)
    change = services.registry.update
    model = probing(services, monkeypatch, how, lambda: change(services.actor, "m", ModelChanges(name="Other")))
    assert model.name == "Other" and model.capabilities["full"]["chat"]["outcome"] == "supported"
    assert count(services, "probes") == 2


def test_a_check_in_the_middle_of_a_rotation_does_not_undo_it(services, serve, monkeypatch):
    register(services, serve().base_url)

    def check():
        return services.health.check(services.actor, "m", full=True)

    meanwhile(monkeypatch, registry, "probe_with", check)
    model = asyncio.run(services.registry.rotate(services.actor, "m", SecretStr(NEXT)))
    assert (model.key_version, "full" in model.capabilities) == (2, True)
    assert [(one["version"], one["state"]) for one in services.registry.key_versions(services.actor, "m")] == [
        (2, "active"),
        (1, "retiring"),
    ]


def test_a_rotation_that_loses_against_another_change_is_billed_for_its_probe(services, serve, monkeypatch):
    server = serve()
    register(services, server.base_url)
    change = services.registry.update
    meanwhile(monkeypatch, registry, "probe_with", lambda: change(services.actor, "m", ModelChanges(name="Other")))
    with pytest.raises(ModelChanged):
        asyncio.run(services.registry.rotate(services.actor, "m", SecretStr(NEXT)))
    assert services.registry.get(services.actor, "m").key_version == 1
    assert services.warehouse.query("SELECT sum(prompt_tokens) FROM v1.attempts").rows == [(server.stats()["prompt_tokens"],)]
    assert services.warehouse.query("SELECT max(key_version) FROM v1.attempts").rows == [(2,)]


NOT_LISTED = http(404, {"detail": "Not Found"})
ODD = http(200, completion() | {"choices": "nonsense"})


@pytest.fixture
def raw():
    """Start raw servers that are stopped after the test."""
    yield from starting()


def test_a_probe_of_unknown_cost_is_on_the_bill_as_unknown_wherever_it_is_made(services, raw, monkeypatch, tmp_path):
    server = raw(NOT_LISTED, http(200, completion()), NOT_LISTED, ODD)
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
    register(services, f"http://{server.host_port}/v1", "x")
    unknown = "SELECT count(*) FROM v1.charges WHERE evidence = 'unknown' AND amount_usd IS NULL"

    with pytest.raises(EndpointError):
        asyncio.run(services.registry.rotate(services.actor, "m", SecretStr(NEXT)))
    assert services.warehouse.query(unknown).rows == [(2,)]
    assert services.warehouse.query("SELECT cause, status, error_code FROM v1.probes ORDER BY started_at DESC LIMIT 1").rows == [
        ("update", "failed", "response_invalid")
    ]

    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "q", "answer": "a"}))
    services.datasets.add(services.actor, "d", path, Mapping())
    plan = start_run(services, EvaluationRequest(model="m", dataset="d", graders=["exact"]), new_id())
    for _ in range(2):
        with pytest.raises(EndpointError):
            asyncio.run(probe_models(services, plan.run_id))
    bill_run(services, plan.run_id)
    services.warehouse.drain()
    assert services.warehouse.query("SELECT number, status FROM v1.attempts WHERE run_id IS NOT NULL ORDER BY 1").rows == [
        (1, "error"),
        (2, "error"),
    ]
    assert services.warehouse.query(unknown + " AND run_id IS NOT NULL").rows == [(4,)]


def test_a_probe_asks_for_one_token_whatever_the_owner_asks_for(services, raw, monkeypatch):
    server = raw(NOT_LISTED, http(200, completion()))
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
    register(services, f"http://{server.host_port}/v1", "x", extra_payload={"max_completion_tokens": 4000, "top_p": 0.5})
    sent = json.loads(server.requests[1][2])
    assert (sent["max_tokens"], sent.get("max_completion_tokens"), sent["top_p"]) == (1, None, 0.5)
