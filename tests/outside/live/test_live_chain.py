"""Register, probe, evaluate, judge and bill on a live server: what must hold for any honest one, however good its model is."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from byok_testing.installation import Byok
from byok_testing.leaks import hits, search_files

pytestmark = pytest.mark.prefect

ROWS = [(f"What is {number} plus {number}? Reply with the number alone.", str(2 * number)) for number in range(1, 9)]
MAX_TOKENS = 24
INPUT_PRICE, OUTPUT_PRICE = Decimal("0.15"), Decimal("0.6")
OUTCOMES = {"supported", "unsupported", "ignored", "unknown", "untested"}
CAPABILITIES = {"chat", "streaming", "embeddings", "json_mode", "json_schema", "tools", "logprobs", "system_role", "vision"} | {
    "context_length",
    "reasoning",
}


@pytest.fixture(scope="module")
def registered(byok: Byok, live: Any) -> Any:
    """What was told of the model at its registration."""
    return byok.json(
        *("model", "register", "live", "--name", "Live", "--base-url", live.base_url, "--model-id", live.model),
        *("--max-tokens", str(MAX_TOKENS), "--price-input", str(INPUT_PRICE), "--price-output", str(OUTPUT_PRICE)),
        *live.key_options,
        **live.environment,
    )["model"]


@pytest.fixture(scope="module")
def probed(byok: Byok, registered: Any) -> Any:
    """What a full probe told."""
    return byok.json("model", "probe", "live", "--full")


@pytest.fixture(scope="module")
def run(byok: Byok, live: Any, registered: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with a code grader and a judge: the same model once more, with room for a verdict."""
    byok.run(
        *("model", "register", "the-judge", "--name", "Judge", "--base-url", live.base_url, "--model-id", live.model, *live.key_options),
        **live.environment,
    )
    rows: Path = tmp_path_factory.mktemp("rows") / "sums.jsonl"
    rows.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in ROWS))
    byok.run("dataset", "add", "sums", str(rows), "--input", "question", "--expected", "answer")
    byok.run("judge", "create", "fair", "--model", "the-judge", "--system", "helpfulness", "--output", "binary")
    options = ("--grader", "numeric", "--judge", "fair", "--concurrency", "4", "--yes")
    return byok.json("evaluate", "live", "sums", *options)["run"]


def rows_of(byok: Byok, columns: str, view: str, run: Any, more: str = "") -> list[list[Any]]:
    return byok.sql(f"SELECT {columns} FROM v1.{view} WHERE run_id = '{run['run_id']}' {more}")


def test_an_address_without_a_chat_route_is_not_registered(byok: Byok, live: Any) -> None:
    error = byok.json(
        *("model", "register", "nothing", "--name", "N", "--base-url", f"{live.base_url.rstrip('/')}/nothing-here"),
        *("--model-id", live.model, *live.key_options),
        code=4,
        **live.environment,
    )["error"]
    assert error["code"] and error["message"] and error["hint"]
    assert byok.sql("SELECT count(*) FROM v1.models WHERE key = 'nothing'") == [[0]]


def test_the_registration_asked_the_server_and_recorded_that(byok: Byok, live: Any, registered: Any) -> None:
    assert (registered["key"], registered["remote_id"]) == ("live", live.model)
    ((status, http_status, role),) = byok.sql(
        "SELECT status, http_status, role FROM v1.attempts WHERE model_key = 'live' AND run_id IS NULL AND status = 'ok' "
        "ORDER BY opened_at LIMIT 1"
    )
    assert (status, http_status, role) == ("ok", 200, "probe")


def test_a_full_probe_says_of_each_capability_what_it_saw(byok: Byok, probed: Any) -> None:
    found = byok.sql(
        "SELECT capability, outcome, evidence, http_status, error_code FROM v1.capabilities WHERE model_key = 'live' AND latest"
    )
    assert {name for name, *_ in found} == CAPABILITIES
    assert {outcome for _, outcome, *_ in found} <= OUTCOMES
    assert all(evidence for _, _, evidence, _, _ in found)
    told = {name: outcome for name, outcome, *_ in found}
    assert told["chat"] == "supported"
    # What is not supported was refused or had no effect, and what was refused has a status.
    assert all(status is not None for _, outcome, _, status, error in found if outcome == "unsupported" and error)
    ((scope, status, health, requests),) = byok.sql(
        "SELECT scope, status, health, requests FROM v1.probes WHERE model_key = 'live' AND scope = 'full' ORDER BY started_at DESC LIMIT 1"
    )
    assert (scope, status) == ("full", "ok")
    assert health in ("ok", "degraded")
    assert requests >= 3
    # Every request of a probe is recorded, refused ones included.
    ((told,),) = byok.sql("SELECT sum(requests) FROM v1.probes WHERE model_key = 'live'")
    assert byok.sql("SELECT count(*) FROM v1.attempts WHERE model_key = 'live' AND role = 'probe' AND run_id IS NULL") == [[told]]


def test_every_row_is_accounted_for(byok: Byok, run: Any) -> None:
    assert run["status"] == "completed"
    for score in run["scores"]:
        assert score["planned"] == len(ROWS)
        assert score["answered"] + score["empty"] + score["refused"] + score["failed"] == len(ROWS)
        assert score["failed"] == 0
        assert 0 <= score["unscored"] <= len(ROWS)
        assert score["score"] is None or 0 <= score["score"] <= 1
    assert {score["grader"] for score in run["scores"]} == {"numeric", "fair"}
    samples = rows_of(byok, "status, output, reasoning, attempts", "samples", run)
    assert len(samples) == len(ROWS)
    for status, output, _reasoning, attempts in samples:
        assert (status == "answered") == bool(output and output.strip())
        assert attempts >= 1


def test_every_request_is_recorded_with_what_the_server_says_it_used(byok: Byok, run: Any) -> None:
    found = rows_of(
        byok, "role, status, http_status, prompt_tokens, completion_tokens, usage_class, latency_ms", "attempts", run, "ORDER BY opened_at"
    )
    answered = [one for one in found if one[1] == "ok"]
    assert [one[0] for one in answered].count("candidate") == len(ROWS)
    for role, _status, http_status, prompt, completion, usage_class, latency in answered:
        assert http_status == 200
        assert latency > 0
        assert usage_class in ("reported", "missing")
        if usage_class == "reported":
            assert prompt > 0 and completion >= 0
            assert role != "candidate" or completion <= MAX_TOKENS + 16


def test_each_verdict_belongs_to_an_answer(byok: Byok, run: Any) -> None:
    verdicts = rows_of(byok, "grader, kind, outcome, score, passed", "verdicts", run)
    # An answer that is empty, as when reasoning took all of its tokens, is none to be graded.
    for score in run["scores"]:
        assert len([one for one in verdicts if one[0] == score["grader"]]) == score["answered"]
    for _grader, _kind, outcome, score, passed in verdicts:
        # Only what was scored passes or fails.
        assert outcome
        assert (outcome == "ok") == (passed is not None) == (score is not None)
        assert score is None or 0 <= score <= 1
    ((orphans,),) = byok.sql(
        "SELECT count(*) FROM v1.verdicts v LEFT JOIN v1.samples s USING (run_id, sample_id) "
        f"WHERE run_id = '{run['run_id']}' AND s.sample_id IS NULL"
    )
    assert orphans == 0


def test_the_bill_is_what_the_server_says_times_the_price(byok: Byok, run: Any) -> None:
    bill = byok.json("bill", "show", run["run_id"])["bill"]
    reported = "AND usage_class = 'reported' AND model_key = 'live'"
    ((prompt, completion),) = rows_of(
        byok, "coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0)", "attempts", run, reported
    )
    assert Decimal(bill["provider"]["total_usd"] or 0) == (prompt * INPUT_PRICE + completion * OUTPUT_PRICE) / 1_000_000
    ((calls,),) = rows_of(byok, "count(*)", "verdicts", run, "AND kind = 'judge' AND attempt_id IS NOT NULL")
    ((billed,),) = rows_of(byok, "coalesce(sum(quantity), 0)", "charges", run, "AND sku = 'judge_call'")
    assert billed == calls


def test_the_key_is_found_nowhere(byok: Byok, live: Any, run: Any, probed: Any) -> None:
    everything = sum(1 for path in byok.home.rglob("*") if path.is_file())
    assert everything > 10
    if live.key:
        assert search_files(byok.home, [live.key]) == {}
        assert hits("\n".join(byok.outputs), [live.key]) == []
