"""How the health of a model follows from checks in a row, and the flow that makes them."""

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import threading

import pytest
from sqlalchemy import update

from byok.access import ScopeMissing, authenticate
from byok.cli.processes import prefect_environment
from byok.control.tables import model as model_table
from byok.endpoint import EndpointAuth, EndpointError
from byok.ids import new_id
from byok.keystore import SecretIntegrity
from byok.registry import ModelIsDisabled, ModelNotFound
from byok.registry.standing import Standing
from byok.sandbox import Fault
from byok_testing.registered import KEY, PROBES, audited, check, get, probe, query, register

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
    assert check(services, worker).ok and services.health.to_check(worker) == ["m"]
    with pytest.raises(ScopeMissing):
        asyncio.run(services.registry.probe(worker, "m"))
    viewer = services.administration.add_member(services.actor, "viewer@acme.example", "viewer")
    for_viewer = authenticate(services.control, viewer.text, services.audit)
    asked = server.stats()["requests"]
    for call in (lambda: check(services, for_viewer), lambda: services.health.to_check(for_viewer)):
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
    health = services.health
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
