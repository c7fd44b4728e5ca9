"""Register, probe, evaluate, judge and bill through real gateways, checked against what the providers behind them counted."""

from __future__ import annotations

import base64
import json
from decimal import Decimal

import pytest

from byok.sandbox import Sandbox
from byok_testing.installation import Byok, clean_environment

pytestmark = pytest.mark.prefect

INPUT_PRICE, OUTPUT_PRICE = Decimal("0.15"), Decimal("0.6")


@pytest.fixture(scope="module")
def byok(tmp_path_factory, tracking, legacy, guarded):
    """An installation that may call the gateways, and not the providers behind them."""
    home = tmp_path_factory.mktemp("installation") / "home"
    command = Byok(home, clean_environment(home))
    command.run("init", "--org", "acme", "--owner", "owner@acme.example")
    for gateway in (tracking, legacy, guarded):
        command.allow(gateway.host_port)
    return command


@pytest.fixture(scope="module")
def served(guarded, questions, upstream_key):
    """Two providers that nobody else calls: a candidate that is right on 75 % of the questions, and a judge that is always right."""
    known = list(questions.items())
    with (
        Sandbox(known, accuracy=0.75, api_key=upstream_key, model_id="sandbox/candidate#1") as candidate,
        Sandbox(known, api_key=upstream_key, model_id="sandbox-judge") as judge,
    ):
        guarded.add("the-candidate", candidate.base_url, candidate.model_id)
        guarded.add("the-judge", judge.base_url, judge.model_id)
        yield {"candidate": candidate, "the-judge": judge}


@pytest.fixture(scope="module")
def registered(byok, guarded, served, questions, tmp_path_factory):
    """The candidate behind the unified route, by user and password; the judge behind the passthrough, by MLflow's own header."""
    user, password = guarded.login
    model = byok.json(
        *("model", "register", "candidate", "--name", "Candidate", "--base-url", f"{guarded.origin}/gateway/mlflow/v1"),
        *("--model-id", "the-candidate", "--auth", "basic", "--basic-user", user, "--api-key-env", "PASSWORD"),
        *("--price-input", str(INPUT_PRICE), "--price-output", str(OUTPUT_PRICE)),
        PASSWORD=password,
    )["model"]
    byok.run(
        *("model", "register", "the-judge", "--name", "Judge", "--base-url", f"{guarded.origin}/gateway/openai/v1"),
        *("--model-id", "the-judge", "--header-env", "X-MLflow-Authorization=LOGIN"),
        LOGIN="Basic " + base64.b64encode(f"{user}:{password}".encode()).decode(),
    )
    rows = tmp_path_factory.mktemp("rows") / "sums.jsonl"
    rows.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in questions.items()))
    byok.run("dataset", "add", "sums", str(rows), "--input", "question", "--expected", "answer")
    byok.run("judge", "create", "correct", "--model", "the-judge", "--system", "helpfulness", "--output", "binary")
    return model


@pytest.fixture(scope="module")
def evaluated(byok, registered):
    return byok.json("evaluate", "candidate", "sums", "--grader", "numeric", "--judge", "correct", "--concurrency", "8", "--yes")["run"]


@pytest.mark.parametrize(
    ("gateway", "path"), [("tracking", "/gateway/mlflow/v1"), ("tracking", "/gateway/openai/v1"), ("legacy", "/v1"), ("legacy", "/v1/")]
)
def test_a_model_is_registered_and_probed_at_each_base_url(request, byok, gateway, path):
    name = f"at{path.replace('/', '-').rstrip('-')}" + ("-slash" if path.endswith("/") else "")
    found = request.getfixturevalue(gateway)
    command = ("model", "register", name, "--name", name, "--base-url", found.origin + path, "--model-id", "candidate")
    assert byok.json(*command)["model"]["base_url"] == found.origin + path.rstrip("/")
    assert byok.sql(f"SELECT DISTINCT status FROM v1.attempts WHERE model_key = '{name}'") == [["ok"]]


def test_a_name_that_the_gateway_does_not_know_is_refused_with_those_that_it_knows(byok, tracking):
    command = ("model", "register", "wrong", "--name", "Wrong", "--base-url", f"{tracking.origin}/gateway/mlflow/v1")
    error = byok.json(*command, "--model-id", "nobody", code=4)["error"]
    assert error["code"] == "model_not_found"
    assert "candidate" in error["hint"]


def test_a_wrong_password_is_refused_and_nothing_is_stored(byok, guarded):
    command = ("model", "register", "locked", "--name", "Locked", "--base-url", f"{guarded.origin}/gateway/mlflow/v1")
    options = ("--model-id", "candidate", "--auth", "basic", "--basic-user", guarded.login[0], "--api-key-env", "PASSWORD")
    error = byok.json(*command, *options, code=4, PASSWORD="not-the-password")["error"]
    assert error["code"] == "endpoint_auth"
    assert "locked" not in byok.run("model", "list").stdout


def test_the_score_is_the_known_one_row_by_row(byok, evaluated, served, questions):
    rows, right = len(questions), len(served["candidate"].right_questions)
    (numeric,) = [score for score in evaluated["scores"] if score["grader"] == "numeric"]
    assert (evaluated["status"], numeric["score"]) == ("completed", right / rows)
    assert [numeric[name] for name in ("planned", "answered", "empty", "refused", "failed", "unscored")] == [rows, rows, 0, 0, 0, 0]
    assert byok.sql(
        "SELECT code.passed, judge.passed, count(*) FROM v1.verdicts code JOIN v1.verdicts judge USING (run_id, sample_id) "
        f"WHERE code.kind = 'code' AND judge.kind = 'judge' AND run_id = '{evaluated['run_id']}' GROUP BY ALL ORDER BY ALL"
    ) == [[False, False, rows - right], [True, True, right]]


def test_requests_and_tokens_are_those_that_the_providers_counted(byok, evaluated, served, questions):
    for key, sandbox in served.items():
        told = sandbox.stats()
        recorded = byok.sql(f"SELECT count(*), sum(prompt_tokens), sum(completion_tokens) FROM v1.attempts WHERE model_key = '{key}'")
        assert recorded == [[told[name] for name in ("chat_requests", "prompt_tokens", "completion_tokens")]]
        assert told["chat_requests"] > len(questions)
        assert told["wrong_keys"] == 0


def test_the_bill_is_tokens_times_price(byok, evaluated, questions):
    run = f"WHERE run_id = '{evaluated['run_id']}'"
    counts = byok.sql(f"SELECT sum(prompt_tokens), sum(completion_tokens) FROM v1.attempts {run} AND model_key = 'candidate'")
    prompt, completion = counts[0]
    bill = byok.json("bill", "show", evaluated["run_id"])["bill"]
    assert Decimal(bill["provider"]["total_usd"]) == (prompt * INPUT_PRICE + completion * OUTPUT_PRICE) / 1_000_000
    calls = byok.sql(f"SELECT sku, sum(quantity) FROM v1.charges {run} AND plane = 'ecu' GROUP BY ALL")
    assert calls == [["judge_call", len(questions)]]


def test_no_password_is_left_in_any_file(byok, evaluated, guarded):
    user, password = guarded.login
    for secret in (password.encode(), base64.b64encode(f"{user}:{password}".encode())):
        assert [path.name for path in byok.home.rglob("*") if path.is_file() and secret in path.read_bytes()] == []
        assert not [text for text in byok.outputs if secret.decode() in text]
