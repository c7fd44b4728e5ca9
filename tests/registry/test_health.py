"""What is stored of probes, what tags may claim, and how the health of a model follows from checks in a row."""

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import threading

import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import update

from byok.access import ScopeMissing, authenticate
from byok.cli.main import run
from byok.cli.processes import prefect_environment
from byok.control.tables import model as model_table
from byok.datasets import Mapping
from byok.endpoint import EndpointAuth, EndpointError
from byok.endpoint.capabilities import NAMES, CapabilityMissing
from byok.ids import new_id
from byok.keystore import SecretIntegrity
from byok.registry import ModelChanges, ModelIsDisabled, ModelNotFound, RegisterRequest
from byok.registry.health import Health
from byok.registry.standing import Standing
from byok.runs import EvaluationRequest, probe_models, start_run
from byok.runs.start import NotAChatModel
from byok.sandbox import Fault, Sandbox
from byok.sandbox.capabilities import NAMES as FEATURES

KEY = "sk-health-6f5e4d3c2b1a09f8e7d6c5b4a3928170"
ALL = frozenset(FEATURES)


@pytest.fixture
def wrong():
    """What goes wrong with a sandbox's chat requests from now on: `wrong[0]` is a fault or None."""
    return [None]


@pytest.fixture
def serve(monkeypatch, wrong):
    """Start sandboxes that may be called."""
    started = []

    def start(**options):
        server = Sandbox([("Hi", "kiwi")], **({"api_key": KEY, "faults": lambda number, question: wrong[0]} | options))
        started.append(server.__enter__())
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", ",".join(one.host_port for one in started))
        return server

    yield start
    for server in started:
        server.close()


def register(services, server, key="m", *, full=False, strict=False, **options):
    request = RegisterRequest(**({"key": key, "name": "M", "base_url": server.base_url, "remote_id": server.model_id} | options))
    return asyncio.run(services.registry.register(services.actor, request, SecretStr(KEY), full=full, strict=strict))


def health_of(services):
    return Health(services.control, services.registry, services.warehouse, services.audit)


def check(services, actor=None, key="m", **options):
    return asyncio.run(health_of(services).check(actor or services.actor, key, **options))


def probe(services, key="m", **options):
    return asyncio.run(services.registry.probe(services.actor, key, **options))


def get(services, key="m"):
    return services.registry.get(services.actor, key)


def query(services, sql):
    return services.warehouse.query(sql).rows


def audited(services, action="model.health"):
    entries = services.audit.entries(services.actor.org_id)
    return [orjson.loads(entry.detail) for entry in reversed(entries) if entry.action == action]


PROBES = "SELECT cause, scope, status, error_code, health, failures, requests FROM v1.probes ORDER BY started_at, probe_id"


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


# --- health


@pytest.mark.parametrize(
    ("fault", "code", "health"),
    [
        (Fault(status=401), "endpoint_auth", "degraded"),
        (Fault(status=402), "endpoint_credit", "degraded"),
        (Fault(status=429), "endpoint_rate_limited", "degraded"),
        (Fault(status=503), "endpoint_overloaded", "degraded"),
        (Fault(status=404, code="model_not_found"), "model_not_found", "degraded"),
        (Fault(status=504), "endpoint_timeout", "unreachable"),
        (Fault(body=b"<html>parked</html>", content_type="text/html"), "endpoint_not_openai", "unreachable"),
    ],
)
def test_three_failures_in_a_row_and_the_first_success(services, serve, wrong, fault, code, health):
    register(services, serve())
    wrong[0] = fault
    seen = [check(services) for _ in range(4)]
    assert [(one.error_code, one.health, one.failures, one.ok) for one in seen] == [
        (code, "ok", 1, False),
        (code, "ok", 2, False),
        (code, health, 3, False),
        (code, health, 4, False),
    ]
    model = get(services)
    assert (model.health, model.health_failures, model.revision) == (health, 4, 2), "an unchanged health is no new revision"
    wrong[0] = None
    assert (check(services).health, get(services).health_failures, get(services).revision) == ("ok", 0, 3)
    assert audited(services) == [
        {"before": "ok", "health": health, "failures": 3, "reason": code},
        {"before": health, "health": "ok", "failures": 0, "reason": None},
    ]
    assert [row[2:6] for row in query(services, PROBES)[1:]] == [
        *(("failed", code, "ok", 1), ("failed", code, "ok", 2), ("failed", code, health, 3), ("failed", code, health, 4)),
        ("ok", None, "ok", 0),
    ]
    assert query(services, "SELECT health, revision, checked_at IS NOT NULL FROM v1.models") == [("ok", 3, True)]


def test_an_endpoint_that_is_gone_is_unreachable_and_an_interruption_is_forgotten(services, serve, wrong):
    server = serve()
    register(services, server)
    wrong[0] = 503
    check(services)
    check(services)
    wrong[0] = None
    assert check(services).failures == 0
    server.close()
    assert [check(services).health for _ in range(3)] == ["ok", "ok", "unreachable"]
    assert query(services, "SELECT requests, prompt_tokens FROM v1.probes WHERE error_code = 'endpoint_unreachable'") == [(0, 0)] * 3


def test_an_address_that_may_no_longer_be_called_is_unreachable_too(services, serve, monkeypatch):
    server = serve()
    register(services, server)
    asked = server.stats()["requests"]
    monkeypatch.delenv("BYOK_ENDPOINT_ALLOW")
    assert [check(services).error_code for _ in range(3)] == ["endpoint_forbidden_address"] * 3
    assert get(services).health == "unreachable" and server.stats()["requests"] == asked


def test_failures_by_command_count_as_well(services, serve, wrong):
    register(services, serve())
    wrong[0] = 401
    for _ in range(3):
        with pytest.raises(EndpointError):
            probe(services)
    assert get(services).health == "degraded"
    wrong[0] = None
    probe(services)
    assert (get(services).health, get(services).health_failures) == ("ok", 0)


def test_a_model_from_before_there_were_checks_is_unknown_until_three_failures_or_a_success(services, serve, wrong):
    register(services, serve())
    with services.control.write() as connection:
        connection.execute(update(model_table).values(health="unknown", checked_at=None))
    wrong[0] = 503
    assert [check(services).health for _ in range(2)] == ["unknown", "unknown"]
    wrong[0] = None
    assert check(services).health == "ok"


def test_a_key_that_does_not_open_is_no_failure_of_the_endpoint(services, serve):
    register(services, serve())
    with services.control.write() as connection:
        connection.execute(update(model_table).values(origin="http://127.0.0.1:1"))
    with pytest.raises(SecretIntegrity):
        check(services)
    assert get(services).health_failures == 0 and query(services, "SELECT count(*) FROM v1.probes") == [(1,)]


def test_a_check_of_what_the_model_was_counts_for_nothing(services, serve):
    """It is disabled while the check is under way."""

    def disable(number, question):
        if number > 1:
            worker = threading.Thread(target=services.registry.disable, args=(services.actor, "m"))
            worker.start()
            worker.join()
            return Fault(status=401)
        return None

    register(services, serve(faults=disable))
    assert (check(services).error_code, get(services).status, get(services).health_failures) == ("endpoint_auth", "disabled", 0)
    assert query(services, PROBES)[-1] == ("schedule", "basic", "failed", "endpoint_auth", "ok", 0, 1)


def test_checks_at_the_same_time_are_all_counted(services, serve):
    register(services, serve())
    standing, model = Standing(services.control, services.audit), get(services)
    workers = [threading.Thread(target=standing.record, args=(services.actor, model, EndpointAuth("no"))) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (get(services).health, get(services).health_failures, get(services).revision) == ("degraded", 8, 2)
    assert [one["health"] for one in audited(services)] == ["degraded"]


def test_who_may_run_may_check_and_nobody_less(services, serve):
    server = serve()
    register(services, server)
    worker = authenticate(services.control, services.home.worker_token_file.read_text().strip(), services.audit)
    assert check(services, worker).ok and health_of(services).to_check(worker) == ["m"]
    with pytest.raises(ScopeMissing):
        asyncio.run(services.registry.probe(worker, "m"))
    viewer = services.administration.add_member(services.actor, "viewer@acme.example", "viewer")
    for_viewer = authenticate(services.control, viewer.text, services.audit)
    asked = server.stats()["requests"]
    for call in (lambda: check(services, for_viewer), lambda: health_of(services).to_check(for_viewer)):
        with pytest.raises(ScopeMissing):
            call()
    stranger = dataclasses.replace(worker, org_id=new_id(), org_slug="other")
    with pytest.raises(ModelNotFound):
        check(services, stranger)
    assert server.stats()["requests"] == asked


def test_disabled_models_are_left_out(services, serve):
    server = serve()
    for key in ("a", "b", "c"):
        register(services, server, key)
    services.registry.disable(services.actor, "b")
    health = health_of(services)
    assert health.to_check(services.actor) == ["a", "c"]
    assert health.to_check(services.actor, ["c", "b", "c"]) == ["c"]
    assert health.to_check(services.actor, ["nobody", "b"]) == ["nobody"]
    with pytest.raises(ModelNotFound):
        check(services, key="nobody")
    with pytest.raises(ModelIsDisabled):
        check(services, key="b")


# --- the flow

DRIVER = """
import asyncio, json, sys
from prefect import get_client
from flows.probing import probe_models
async def main():
    told = []
    for arguments in json.load(sys.stdin):
        state = await probe_models(**arguments, return_state=True)
        told.append([state.type.value, state.name, state.message])
    async with get_client() as client:
        runs = await client.read_task_runs()
        artifacts = [(one.key, one.data) for one in await client.read_artifacts()]
    print(json.dumps({"states": told, "tasks": [run.name.rpartition("-")[0] for run in runs], "artifacts": artifacts}))
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.prefect
def test_the_flow_checks_all_models_and_names_those_that_fail(services, serve, wrong):
    good, bad, gone = serve(faults=None), serve(), serve(faults=None)
    for key, server in (("good", good), ("bad", bad), ("gone", gone), ("off", good)):
        register(services, server, key)
    services.registry.disable(services.actor, "off")
    wrong[0] = 503
    gone.close()
    # As the worker's own member, which may not change a model.
    environment = prefect_environment(services.home) | {"BYOK_TOKEN_FILE": str(services.home.worker_token_file)}
    environment.pop("BYOK_TOKEN", None)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps([{}, {"models": ["good", "off"], "full": True}, {"models": ["nobody", "good"]}]),
        capture_output=True,
        text=True,
        env=environment,
        cwd=os.getcwd(),
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    first, second, third = told["states"]
    assert first == ["FAILED", "Degraded", "2 of 3 models fail: bad: endpoint_overloaded, gone: endpoint_unreachable"]
    assert second == ["COMPLETED", "Completed", "1 model(s) answer"]
    assert third == ["FAILED", "Degraded", "1 of 2 models fail: nobody: model_not_registered"]
    assert sorted(told["tasks"]) == ["check-model"] * 6 + ["models-to-check"] * 3
    tables = [json.loads(rows) if isinstance(rows, str) else rows for key, rows in told["artifacts"] if key == "model-health"]
    (table,) = [rows for rows in tables if len(rows) == 3]
    assert [(row["model"], row["answers"], row["health"], row["failures in a row"], row["error"]) for row in table] == [
        ("bad", "no", "ok", 1, "endpoint_overloaded"),
        ("gone", "no", "ok", 1, "endpoint_unreachable"),
        ("good", "yes", "ok", 0, "-"),
    ]
    assert query(services, "SELECT model_key, scope, status FROM v1.probes WHERE cause = 'schedule' ORDER BY 1, started_at") == [
        *(("bad", "basic", "failed"), ("gone", "basic", "failed")),
        *(("good", "basic", "ok"), ("good", "full", "ok"), ("good", "basic", "ok")),
    ]
    assert KEY not in done.stdout + done.stderr
