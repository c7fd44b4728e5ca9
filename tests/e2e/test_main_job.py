"""The whole chain over the 1,319 rows of GSM8K, checked against what the endpoint itself counted."""

from __future__ import annotations

import base64
import json
import os
import re
import time
import urllib.parse
import urllib.request
from decimal import Decimal
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.prefect

ROWS = 1319
INPUT_PRICE, OUTPUT_PRICE = Decimal("0.15"), Decimal("0.6")


def stats(sandbox: dict) -> dict:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(sandbox["base_url"].removesuffix("/v1") + "/stats", timeout=30) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def before(sandboxes) -> dict:
    return {name: stats(sandbox) for name, sandbox in sandboxes.items()}


@pytest.fixture(scope="module")
def registered(byok, sandboxes, keys, before, gsm8k):
    """Models, data set and judge, registered through the command line."""
    candidate, judge = sandboxes["candidate"], sandboxes["judge"]
    model = byok.json(
        *(
            "model",
            "register",
            "candidate",
            "--name",
            "Candidate",
            "--base-url",
            candidate["base_url"],
            "--model-id",
            candidate["model_id"],
        ),
        *("--tag", "chat", "--api-key-env", "CANDIDATE_KEY", "--price-input", str(INPUT_PRICE), "--price-output", str(OUTPUT_PRICE)),
        CANDIDATE_KEY=keys["candidate"],
    )["model"]
    byok.run(
        *("model", "register", "the-judge", "--name", "Judge", "--base-url", judge["base_url"], "--model-id", judge["model_id"]),
        "--api-key-stdin",
        given=keys["judge"] + "\n",
    )
    added = byok.json(
        "dataset", "add", "gsm8k", str(gsm8k), "--input", "question", "--expected", "answer", "--expected-pattern", r"#### (\S+)"
    )
    byok.run("judge", "create", "correct", "--model", "the-judge", "--system", "helpfulness", "--output", "binary")
    return {"model": model, "dataset": added}


@pytest.fixture(scope="module")
def first(byok, up, registered) -> dict:
    """The run over all rows, with a code grader and a judge."""
    return byok.json("evaluate", "candidate", "gsm8k", "--grader", "numeric", "--judge", "correct", "--concurrency", "32", "--yes")["run"]


def test_all_rows_of_the_data_set_arrive(registered):
    assert registered["dataset"]["dataset"]["rows"] == ROWS
    assert registered["dataset"]["dataset"]["quarantined"] == 0


def test_the_score_is_the_known_fraction(byok, first, sandboxes):
    right = stats(sandboxes["candidate"])["right_rows"]
    assert right == round(0.7 * ROWS)
    (numeric,) = [score for score in first["scores"] if score["grader"] == "numeric"]
    assert numeric["score"] == right / ROWS
    assert [numeric[name] for name in ("planned", "answered", "empty", "refused", "failed", "unscored")] == [ROWS, ROWS, 0, 0, 0, 0]
    assert numeric["low"] < numeric["score"] < numeric["high"]
    # Wilson's interval, by its published formula.
    z, n, p = 1.959963984540054, ROWS, right / ROWS
    middle, half = (p + z * z / (2 * n)) / (1 + z * z / n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    assert numeric["low"] == pytest.approx(middle - half, abs=1e-9)
    assert numeric["high"] == pytest.approx(middle + half, abs=1e-9)
    assert byok.sql(f"SELECT count(*) FROM v1.verdicts WHERE run_id = '{first['run_id']}' AND grader = 'numeric' AND passed") == [[right]]


def test_the_judge_agrees_with_the_truth_row_by_row(byok, first):
    assert byok.sql(
        "SELECT code.passed, judge.passed, count(*) FROM v1.verdicts code JOIN v1.verdicts judge USING (run_id, sample_id) "
        f"WHERE code.kind = 'code' AND judge.kind = 'judge' AND run_id = '{first['run_id']}' GROUP BY ALL ORDER BY ALL"
    ) == [[False, False, ROWS - round(0.7 * ROWS)], [True, True, round(0.7 * ROWS)]]


def test_requests_and_tokens_are_those_that_the_endpoints_counted(byok, first, sandboxes, before):
    for name, key in (("candidate", "candidate"), ("judge", "the-judge")):
        after = stats(sandboxes[name])
        told = {count: after[count] - before[name][count] for count in ("chat_requests", "prompt_tokens", "completion_tokens")}
        recorded = byok.sql(f"SELECT count(*), sum(prompt_tokens), sum(completion_tokens) FROM v1.attempts WHERE model_key = '{key}'")
        assert recorded == [[told["chat_requests"], told["prompt_tokens"], told["completion_tokens"]]]
        # All rows, the probe at registration and the probe of the run.
        assert told["chat_requests"] == ROWS + 2
        assert after["wrong_keys"] == 0


def test_the_bills_are_tokens_times_price_to_the_last_digit(byok, first):
    bill = byok.json("bill", "show", first["run_id"])["bill"]
    prompt, completion = byok.sql(
        f"SELECT sum(prompt_tokens), sum(completion_tokens) FROM v1.attempts WHERE run_id = '{first['run_id']}' AND model_key = 'candidate'"
    )[0]
    expected = (prompt * INPUT_PRICE + completion * OUTPUT_PRICE) / 1_000_000
    charges = f"FROM v1.charges WHERE run_id = '{first['run_id']}'"
    charged = byok.sql(f"SELECT CAST(sum(amount_usd) AS VARCHAR) {charges} AND model_key = 'candidate' AND plane = 'provider'")[0][0]
    assert Decimal(charged) == expected
    assert Decimal(bill["provider"]["total_usd"]) == expected
    # The judge's model has no price: its tokens are counted as unpriced, never as free.
    unpriced = byok.sql(f"SELECT count(*), count(amount_usd) {charges} AND model_key = 'the-judge' AND plane = 'provider'")[0]
    assert unpriced == [2 * (ROWS + 1), 0]
    assert bill["provider"]["unpriced_charges"] == unpriced[0]
    # The platform bills each judge call, and no token under the owner's own key.
    assert byok.sql(f"SELECT DISTINCT sku FROM v1.charges WHERE run_id = '{first['run_id']}' AND plane = 'ecu'") == [["judge_call"]]
    calls, micro, rate = byok.sql(
        "SELECT sum(quantity), sum(amount_micro_ecu), CAST(any_value(rate_micro_ecu) AS VARCHAR) FROM v1.charges "
        f"WHERE run_id = '{first['run_id']}' AND plane = 'ecu'"
    )[0]
    assert calls == ROWS
    assert micro == ROWS * Decimal(rate)
    assert bill["platform"]["total_micro_ecu"] == micro


def test_a_second_run_of_the_same_configuration_gives_the_same_verdicts(byok, first, up):
    second = byok.json("evaluate", "candidate", "gsm8k", "--grader", "numeric", "--judge", "correct", "--concurrency", "16", "--yes")["run"]
    assert second["run_id"] != first["run_id"]
    assert byok.sql(f"SELECT count(DISTINCT fingerprint) FROM v1.runs WHERE run_id IN ('{first['run_id']}', '{second['run_id']}')") == [[1]]
    verdicts = (
        "SELECT row_id, grader, outcome, score, passed FROM v1.verdicts JOIN v1.samples USING (run_id, sample_id) WHERE run_id = '{}'"
    )
    one, two = verdicts.format(first["run_id"]), verdicts.format(second["run_id"])
    assert byok.sql(f"SELECT count(*) FROM ({one})") == [[2 * ROWS]]
    assert byok.sql(f"SELECT count(*) FROM (({one} EXCEPT {two}) UNION ALL ({two} EXCEPT {one}))") == [[0]]


def test_an_ad_hoc_run_through_the_api_ends_with_the_same_rows(byok, registered, up):
    request = {"model": "candidate", "dataset": "gsm8k", "graders": ["numeric"], "judges": ["correct"], "limit": 40, "seed": 7}
    deployment = up.ask("deployments/name/evaluate/ad-hoc")
    schema = deployment["parameter_openapi_schema"]
    form = next(iter(schema["definitions"].values()))["properties"]
    assert all(field.get("description") for field in form.values()), "every field of the form explains itself"
    run = up.ask(f"deployments/{deployment['id']}/create_flow_run", {"parameters": {"request": request}})
    until = time.monotonic() + 200
    while (state := up.ask(f"flow_runs/{run['id']}")["state"])["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
        assert time.monotonic() < until, state
        time.sleep(0.5)
    logs = (byok.home / "logs" / "worker.log").read_text(errors="replace")[-3000:]
    assert state["type"] == "COMPLETED", f"{state['message']}\n{logs}"
    mine = byok.json("evaluate", "candidate", "gsm8k", "--grader", "numeric", "--judge", "correct", "--limit", "40", "--seed", "7")["run"]
    (theirs,) = byok.sql(f"SELECT run_id FROM v1.runs WHERE flow_run_id = '{run['id']}'")[0]
    rows = (
        "SELECT row_id, output, grader, outcome, score, passed, s.prompt_tokens, s.completion_tokens "
        "FROM v1.verdicts v JOIN v1.samples s USING (run_id, sample_id) WHERE run_id = '{}'"
    )
    one, two = rows.format(mine["run_id"]), rows.format(theirs)
    assert byok.sql(f"SELECT count(*) FROM ({two})") == [[80]]
    assert byok.sql(f"SELECT count(*) FROM (({one} EXCEPT {two}) UNION ALL ({two} EXCEPT {one}))") == [[0]]
    # The random fence in a judge's prompt is no reason for other tokens here, but might be with another tokenizer.
    bills = (
        "SELECT plane, sku, role, model_key, count(*), sum(quantity), sum(amount_usd), sum(amount_micro_ecu) "
        "FROM v1.charges WHERE run_id = '{}' AND role <> 'judge' GROUP BY ALL"
    )
    one, two = bills.format(mine["run_id"]), bills.format(theirs)
    assert byok.sql(f"SELECT count(*) FROM (({one} EXCEPT {two}) UNION ALL ({two} EXCEPT {one}))") == [[0]]
    artifacts = {artifact["key"] for artifact in up.ask("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})}
    assert artifacts >= {"run-summary", "leaderboard", "two-bills"}


def test_a_run_below_its_threshold_leaves_with_one(byok, registered, up):
    told = byok.json("evaluate", "candidate", "gsm8k", "--grader", "numeric", "--limit", "30", "--min-score", "numeric=0.999", code=1)[
        "run"
    ]
    assert (told["status"], told["below"]) == ("completed", ["numeric"])
    state = up.ask(f"flow_runs/{byok.sql('SELECT flow_run_id FROM v1.runs ORDER BY started_at DESC LIMIT 1')[0][0]}")["state"]
    assert (state["type"], state["name"]) == ("FAILED", "BelowThreshold")


def test_a_model_whose_endpoint_is_gone_ends_the_run_with_the_endpoints_error(byok, registered, up, serve, gsm8k, keys):
    with serve(gsm8k, keys["candidate"], "--model-id", "short-lived") as told:
        byok.allow(told["host_port"])
        byok.run(
            *("model", "register", "gone", "--name", "Gone", "--base-url", told["base_url"], "--model-id", "short-lived"),
            "--api-key-stdin",
            given=keys["candidate"] + "\n",
        )
    error = byok.json("evaluate", "gone", "gsm8k", "--grader", "numeric", "--limit", "5", code=4)["error"]
    assert error["code"] == "endpoint_unreachable" and error["hint"]
    ((status, code),) = byok.sql("SELECT status, error_code FROM v1.runs WHERE model_key = 'gone'")
    assert (status, code) == ("failed", "endpoint_unreachable")


def test_the_report_is_one_page_without_outside_requests(byok, first, tmp_path):
    page = tmp_path / "report.html"
    byok.run("report", first["run_id"], "-o", str(page))
    text = page.read_text()
    assert "candidate" in text and "gsm8k" in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", text)


def forms(secret: str) -> dict[str, bytes]:
    """A secret as it is, and as encodings would carry it."""
    raw = secret.encode()
    found = {"plain": raw, "url": urllib.parse.quote(secret, safe="").encode(), "hex": raw.hex().encode(), "reversed": raw[::-1]}
    # Base64 at each of the three alignments, without the characters that the neighbours decide.
    for shift in range(3):
        found[f"base64+{shift}"] = base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4]
    return found


def test_the_keys_are_found_nowhere(byok, first, up, keys):
    """Prefect's database and storage, DuckDB, logs, journals, reports, outputs and the process list."""
    everything = {str(path.relative_to(byok.home)): path.read_bytes() for path in byok.home.rglob("*") if path.is_file()}
    everything |= {f"output {number}": text.encode() for number, text in enumerate(byok.outputs)}
    for process in psutil.process_iter():
        try:
            everything[f"arguments of {process.pid}"] = "\0".join(process.cmdline()).encode()
            if any("byok" in part or "prefect" in part for part in process.cmdline()) and "sandbox" not in process.cmdline():
                everything[f"environment of {process.pid}"] = Path(f"/proc/{process.pid}/environ").read_bytes()
        except (psutil.Error, OSError):
            continue
    names = set(everything)
    assert any(name.startswith("prefect/") and name.endswith(".db") for name in names), sorted(names)
    assert {
        "data/control.db",
        "data/warehouse/byok.duckdb",
        "data/warehouse/snapshot.duckdb",
        "logs/worker.log",
        "logs/server.log",
    } <= names
    assert any(name.endswith(".ndjson") for name in names)
    assert any(name.startswith(f"arguments of {os.getpid()}") for name in names)
    for secret in keys.values():
        for form, wanted in forms(secret).items():
            assert [name for name, data in everything.items() if wanted in data] == [], f"{form} form"
