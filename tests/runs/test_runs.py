"""A run, stage by stage, against real endpoints that fail in known ways; checked against what the endpoints counted."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal

import pytest
from pydantic import SecretStr

from byok.billing import two_bills
from byok.datasets import Mapping
from byok.errors import ByokError
from byok.ids import new_id
from byok.registry import RegisterRequest
from byok.reporting import run_summary
from byok.runs import EvaluationRequest, probe_models, start_run
from byok.sandbox import Fault, Sandbox
from byok_testing.chain import carry_out

KEY = "sk-runs-0f1e2d3c4b5a69788796a5b4c3d2e1f0"
QUESTIONS = [(f"What is {n} times 7?", str(7 * n)) for n in range(60)]


@pytest.fixture
def data(services, tmp_path):
    """The questions as a data set of 60 rows."""
    path = tmp_path / "sevens.jsonl"
    path.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in QUESTIONS))
    services.datasets.add(services.actor, "sevens", path, Mapping())


@pytest.fixture
def serve(services, monkeypatch):
    """Start a sandbox and register it as a model; sandboxes end with the test."""
    servers, faults = [], {}

    def start(key="model", price=Decimal("1"), public=False, **options):
        faults[key] = lambda number, question: None
        server = Sandbox(
            QUESTIONS, api_key=KEY, model_id=f"remote-{key}", faults=lambda number, question: faults[key](number, question), **options
        )
        servers.append(server.__enter__())
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", ",".join(one.host_port for one in servers))
        request = RegisterRequest(
            key=key, name=key, base_url=server.base_url, remote_id=server.model_id, price_input=price, price_output=price, public=public
        )
        asyncio.run(services.registry.register(services.actor, request, SecretStr(KEY)))
        return server

    start.faults = faults  # by model: replace one to change what goes wrong from then on
    yield start
    for server in servers:
        server.close()


def evaluate(services, *, error=None, **options):
    """The stages of a flow, in its order; returns the plan and how it finished."""
    plan = start_run(services, EvaluationRequest(**({"model": "model", "dataset": "sevens", "graders": ["numeric"]} | options)), new_id())
    return plan, carry_out(services, plan)


def summary(services, plan):
    return run_summary(services.warehouse, services.actor.org_id, plan.run_id)


def test_every_way_in_which_a_row_can_end_is_told_apart(services, data, serve):
    serve(accuracy=1.0)
    ends = {
        QUESTIONS[0][0]: Fault(text=""),
        QUESTIONS[1][0]: Fault(text="   \n"),
        QUESTIONS[2][0]: Fault(refusal="I would rather not."),
        QUESTIONS[3][0]: Fault(status=400, message="too long", code="context_length_exceeded"),
    }
    serve.faults["model"] = lambda number, question: ends.get(question)
    plan, finished = evaluate(services, max_failure_rate=0.05)
    told = summary(services, plan)
    assert finished.status == "completed"
    assert (told.planned, told.answered, told.empty, told.refused, told.failed) == (60, 56, 2, 1, 1)
    (score,) = told.scores
    assert (score.score, score.scored, score.unscored) == (1.0, 56, 0)
    assert (score.worst, score.best) == (56 / 60, 1.0)
    errors = services.warehouse.query("SELECT error_code FROM v1.samples WHERE status = 'failed'").rows
    assert errors == [("context_length",)]


def test_a_run_over_its_failure_threshold_is_invalid_and_not_low(services, data, serve):
    serve(accuracy=1.0)
    bad = {question for question, _ in QUESTIONS[:10]}
    serve.faults["model"] = lambda number, question: (
        Fault(status=400, message="too long", code="context_length_exceeded") if question in bad else None
    )
    plan, finished = evaluate(services)
    assert finished.status == "invalid" and not finished.passed
    assert summary(services, plan).scores[0].score == 1.0


def test_missing_usage_is_unknown_cost_and_never_zero(services, data, serve):
    serve(usage=False)
    plan, _ = evaluate(services)
    told = summary(services, plan)
    assert told.prompt_tokens is None and told.provider_usd is None and told.unpriced_charges == 2 * 61
    bills = two_bills(services.warehouse, services.actor.org_id, plan.run_id)
    assert bills.total_usd is None and bills.unknown("provider") == 2 * 61
    assert services.warehouse.query("SELECT count(*) FROM v1.charges WHERE amount_usd = 0").rows == [(0,)]


def test_retries_are_recorded_and_refused_requests_are_not_charged(services, data, serve):
    server = serve(accuracy=1.0)
    seen = set()

    def once(number, question):
        if question in seen or "times" not in question:
            return None
        seen.add(question)
        return Fault(status=429, headers={"Retry-After": "0"})

    serve.faults["model"] = once
    before = server.stats()
    plan, finished = evaluate(services, limit=10, seed=3)
    assert finished.passed
    rows = services.warehouse.query(
        "SELECT status, count(*), count(prompt_tokens) FROM v1.attempts WHERE run_id = ? AND role = 'candidate' GROUP BY ALL ORDER BY ALL",
        [plan.run_id],
    ).rows
    assert rows == [("error", 10, 0), ("ok", 10, 10)]
    charged = services.warehouse.query("SELECT count(DISTINCT attempt_id) FROM v1.charges WHERE role = 'candidate'").rows
    assert charged == [(10,)]
    assert server.stats()["chat_requests"] - before["chat_requests"] == 21  # 10 refused, 10 answered, one probe


def test_a_revoked_key_stops_the_run_and_a_resumed_one_asks_only_for_the_rest(services, data, serve):
    server = serve(accuracy=0.5)
    serve.faults["model"] = lambda number, question: 401 if number > 20 else None
    plan, finished = evaluate(services, concurrency=1)
    told = summary(services, plan)
    assert finished.status == "partial" and told.error_code == "endpoint_auth"
    done = told.answered
    assert 0 < done < 60 and told.not_asked == 60 - done
    billed = two_bills(services.warehouse, services.actor.org_id, plan.run_id).total_usd
    serve.faults["model"] = lambda number, question: None
    before = server.stats()["chat_requests"]
    finished = carry_out(services, plan)
    assert finished.passed
    assert server.stats()["chat_requests"] - before == 60 - done
    told = summary(services, plan)
    assert (told.status, told.answered, told.error_code) == ("completed", 60, None)
    assert told.scores[0].score == 0.5
    assert two_bills(services.warehouse, services.actor.org_id, plan.run_id).total_usd > billed


def test_doing_every_stage_again_changes_nothing_and_asks_nothing(services, data, serve):
    server = serve()
    judge = serve("judge")
    services.judges.create(services.actor, "right", "judge", "binary", "Is {{output}} right?")
    plan, _ = evaluate(services, judges=["right"], shard_size=25)
    tables = ("samples", "attempts", "verdicts", "charges")
    before = [sorted(map(str, services.warehouse.query(f"SELECT * EXCLUDE recorded_at FROM v1.{name}").rows)) for name in tables]
    asked = server.stats()["chat_requests"], judge.stats()["chat_requests"]
    assert carry_out(services, plan).passed
    assert [sorted(map(str, services.warehouse.query(f"SELECT * EXCLUDE recorded_at FROM v1.{name}").rows)) for name in tables] == before
    assert (server.stats()["chat_requests"], judge.stats()["chat_requests"]) == asked


@pytest.mark.parametrize("output", ["binary", "score", "label"])
@pytest.mark.parametrize("json_schema", [True, False])
def test_judges_of_every_output_agree_with_the_truth_however_they_are_asked(services, data, serve, output, json_schema):
    serve(accuracy=0.5)
    server = serve("judge", json_schema=json_schema)
    labels = {"labels": ("good", "bad"), "passing": ("good",)} if output == "label" else {}
    services.judges.create(services.actor, "right", "judge", output, "Compare {{output}} with {{expected}}.", **labels)
    plan, finished = evaluate(services, judges=["right"], concurrency=4)
    assert finished.passed
    agree = services.warehouse.query(
        "SELECT count(*), count(*) FILTER (WHERE c.passed = j.passed) FROM v1.verdicts c JOIN v1.verdicts j USING (run_id, sample_id) "
        "WHERE c.kind = 'code' AND j.kind = 'judge'"
    ).rows
    assert agree == [(60, 60)]
    (score,) = [one for one in summary(services, plan).scores if one.kind == "judge"]
    assert score.score == (3.0 if output == "score" else 0.5)
    # Refusals of the schema come from the calls that were under way at once, not from every one of the 60.
    refused = services.warehouse.query("SELECT count(*) FROM v1.attempts WHERE role = 'judge' AND status = 'error'").rows[0][0]
    assert refused == 0 if json_schema else 1 <= refused <= 4
    assert two_bills(services.warehouse, services.actor.org_id, plan.run_id).total_micro_ecu == 60 * 50_000
    assert server.stats()["judged"] == 60


def test_a_judge_that_cannot_be_read_leaves_the_answer_unscored(services, data, serve):
    serve()
    serve("judge")
    services.judges.create(services.actor, "right", "judge", "binary", "Is {{output}} right?")
    texts = ["Certainly! I would say pass.", '{"reasoning": "r", "verdict": "maybe"}', '{"reasoning": "r", "verdict": "unknown"}']
    serve.faults["judge"] = lambda number, question: Fault(text=texts[number % 3]) if "OUTPUT" in question else None
    plan, finished = evaluate(services, judges=["right"], limit=30)
    (score,) = [one for one in summary(services, plan).scores if one.kind == "judge"]
    assert (score.score, score.scored, score.unscored, score.worst, score.best) == (None, 0, 30, 0.0, 1.0)
    outcomes = services.warehouse.query(
        "SELECT outcome, count(*), count(passed) FROM v1.verdicts WHERE kind = 'judge' GROUP BY 1 ORDER BY 1"
    )
    assert outcomes.rows == [("unknown", 10, 0), ("unparsable", 20, 0)]
    assert finished.status == "completed"


def test_public_models_are_billed_in_ecu_by_token_and_not_by_the_provider(services, data, serve):
    serve(public=True)
    plan, _ = evaluate(services, limit=10)
    bills = two_bills(services.warehouse, services.actor.org_id, plan.run_id)
    told = summary(services, plan)
    assert bills.of("provider") == []
    assert bills.total_micro_ecu == told.prompt_tokens * 1 + told.completion_tokens * 4


def test_a_limit_draws_the_same_rows_for_the_same_seed(services, data, serve):
    serve()
    chosen = []
    for seed in (1, 1, 2):
        plan, _ = evaluate(services, limit=12, seed=seed, shard_size=5)
        assert plan.shards == 3
        chosen.append(services.warehouse.query("SELECT row_id FROM v1.samples WHERE run_id = ? ORDER BY 1", [plan.run_id]).rows)
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(chosen[0]) == 12


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"graders": []}, "no_grader"),
        ({"graders": ["numeric", "numeric:tolerance=0"]}, "double_grader"),
        ({"min_scores": {"exact": 0.5}}, "threshold_unknown"),
        ({"model": "nobody"}, "model_not_registered"),
        ({"dataset": "nothing"}, "dataset_not_found"),
        ({"judges": ["nobody"]}, "judge_not_found"),
    ],
)
def test_a_request_that_cannot_run_plans_nothing(services, data, serve, options, code):
    serve()
    with pytest.raises(ByokError) as caught:
        evaluate(services, **options)
    assert caught.value.code == code and caught.value.hint
    assert list(services.home.runs.glob("*")) == []


def test_thresholds_may_name_a_grader_without_its_options(services, data, serve):
    serve(accuracy=0.5)
    plan, finished = evaluate(services, graders=["numeric:tolerance=0.1"], min_scores={"numeric": 0.6})
    assert finished.below == ("numeric:tolerance=0.1",) and not finished.passed
    assert summary(services, plan).below == finished.below


def test_a_killed_process_loses_nothing_and_pays_for_nothing_twice(services, data, serve):
    """kill -9 in the middle of a shard, five times; then what the endpoint counted is what is on record."""
    server = serve(latency_ms=30)
    plan = start_run(services, EvaluationRequest(model="model", dataset="sevens", graders=["numeric"], concurrency=4), new_id())
    asyncio.run(probe_models(services, plan.run_id))
    code = (
        "import asyncio, sys; from byok.app import open_services; from byok.runs import answer_shard\n"
        "asyncio.run(answer_shard(open_services(), sys.argv[1], 0))"
    )
    journal = services.home.runs / plan.run_id / "journal" / "answer-00000.ndjson"
    for _ in range(5):
        size = journal.stat().st_size if journal.exists() else 0
        child = subprocess.Popen([sys.executable, "-c", code, plan.run_id], env=dict(os.environ))
        until = time.monotonic() + 60
        while child.poll() is None and (not journal.exists() or journal.stat().st_size < size + 2500):
            assert time.monotonic() < until
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert carry_out(services, plan).passed
    told = dict(
        services.warehouse.query(
            "SELECT status, count(*) FROM v1.attempts WHERE run_id = ? AND role = 'candidate' GROUP BY 1", [plan.run_id]
        ).rows
    )
    lost = told.get("lost", 0)
    assert told["ok"] == 60 and 1 <= lost <= 5 * 4
    # One answer is the registration's probe and one the run's; a lost attempt may or may not have reached the endpoint.
    asked = server.stats()["chat_requests"] - 2
    assert 60 <= asked <= 60 + lost
    assert services.warehouse.query("SELECT count(*), count(DISTINCT row_id) FROM v1.samples").rows == [(60, 60)]
    unknown = services.warehouse.query("SELECT count(*) FROM v1.charges WHERE evidence = 'unknown' AND role = 'candidate'").rows
    assert unknown == [(2 * lost,)]
