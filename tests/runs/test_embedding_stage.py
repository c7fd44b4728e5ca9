"""The stage of embeddings is stopped, killed and done again: nothing is lost, and nothing is asked twice."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from byok.engine.progress import read_progress
from byok.runs import finish_run
from byok_testing.embedding_bench import KEY, QUESTIONS, SPEC, EmbeddingBench
from byok_testing.installation import Byok, clean_environment, served


@pytest.fixture
def bench(services, monkeypatch, tmp_path):
    with EmbeddingBench(services, monkeypatch, tmp_path) as made:
        yield made


def test_a_revoked_key_stops_the_stage_and_a_resumed_run_asks_only_for_the_rest(bench):
    server = bench.serve()
    begun = server.stats()["embedding_requests"]
    bench.fault = lambda number, text: 401 if number - begun > 8 else None
    plan, finished = bench.run(concurrency=1, shard_size=10, graders=[SPEC, "includes"])
    told = bench.summary(plan)
    assert (finished.status, told.error_code, told.answered) == ("partial", "endpoint_auth", len(QUESTIONS))
    done = bench.score(plan).scored
    assert 0 < done < len(QUESTIONS)
    bench.fault = lambda number, text: None
    before = server.stats()
    assert bench.carry_on(plan).passed
    after = server.stats()
    assert after["embedding_requests"] - before["embedding_requests"] == len(QUESTIONS) - done
    assert after["chat_requests"] == before["chat_requests"]
    assert bench.score(plan).scored == len(QUESTIONS)


def test_a_run_that_ended_before_the_stage_is_partial_and_goes_on_with_it(bench):
    server = bench.serve()
    plan = bench.plan()
    bench.answer(plan)
    assert finish_run(bench.services, plan.run_id).status == "partial"
    before = server.stats()["chat_requests"]
    assert bench.carry_on(plan).passed
    assert server.stats()["chat_requests"] == before


def test_a_killed_process_loses_nothing_and_pays_for_nothing_twice(bench):
    server = bench.serve(latency_ms=30)
    plan = bench.plan(concurrency=4)
    bench.answer(plan)
    before = server.stats()["embedding_requests"]
    code = (
        "import asyncio, sys; from byok.app import open_services; from byok.runs import embed_shard\n"
        "asyncio.run(embed_shard(open_services(), sys.argv[1], sys.argv[2], 0))"
    )
    journal = bench.folder(plan).journal("embed-emb", 0)
    child = subprocess.Popen([sys.executable, "-c", code, plan.run_id, SPEC], env=dict(os.environ))
    until = time.monotonic() + 60
    while child.poll() is None and (not journal.exists() or b'"result"' not in journal.read_bytes()):
        assert time.monotonic() < until
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert bench.carry_on(plan).passed
    told = dict(bench.query("SELECT status, count(*) FROM v1.attempts WHERE role = 'embedding' GROUP BY 1"))
    lost = told.get("lost", 0)
    assert told["ok"] == len(QUESTIONS) and 0 <= lost <= 4
    assert len(QUESTIONS) <= server.stats()["embedding_requests"] - before <= len(QUESTIONS) + lost
    assert bench.query("SELECT count(*) FROM v1.charges WHERE evidence = 'unknown' AND role = 'embedding'") == [(lost,)]


def test_doing_every_stage_again_changes_nothing_and_asks_nothing(bench):
    server = bench.serve()
    plan, _ = bench.run(shard_size=9, graders=[SPEC, f"{SPEC},threshold=0.95", "embedding_similarity:dimensions=8,model=emb"])
    tables = ("samples", "attempts", "verdicts", "charges")
    before = [sorted(map(str, bench.query(f"SELECT * EXCLUDE recorded_at FROM v1.{name}"))) for name in tables]
    asked = server.stats()
    assert bench.carry_on(plan).passed
    assert [sorted(map(str, bench.query(f"SELECT * EXCLUDE recorded_at FROM v1.{name}"))) for name in tables] == before
    assert server.stats() == asked
    stages = read_progress(bench.folder(plan).progress)
    assert set(stages) == {"answer", "embed-emb", "embed-emb.threshold=0.95", "embed-emb.dimensions=8"}
    assert {(one.done, one.failed, one.total) for one in stages.values()} == {(len(QUESTIONS), 0, len(QUESTIONS))}
    plain, strict, short = (bench.score(plan, embedder.spec) for embedder in plan.embedders)
    assert plain.score == strict.score != short.score
    passed = dict(bench.query("SELECT grader, count(*) FILTER (WHERE passed) FROM v1.verdicts GROUP BY 1"))
    assert passed[strict.grader] < passed[plain.grader] == len(QUESTIONS) // 2


def test_an_endpoint_that_refuses_the_encoding_is_asked_without_it_and_both_requests_are_on_record(bench):
    server = bench.serve(profile="fireworks")
    before = server.stats()["embedding_requests"]
    plan, finished = bench.run(limit=6, concurrency=1)
    assert finished.passed and bench.score(plan).scored == 6
    of_run = "FROM v1.attempts WHERE run_id = ? AND model_key = 'emb'"
    rows = bench.query(f"SELECT role, status, count(*) {of_run} GROUP BY ALL", plan.run_id)
    assert set(rows) == {("probe", "error", 1), ("probe", "ok", 1), ("embedding", "error", 1), ("embedding", "ok", 6)}
    assert server.stats()["embedding_requests"] - before == 9


@pytest.mark.slow
@pytest.mark.prefect
def test_a_real_flow_scores_with_embeddings_then_judges_and_bills(tmp_path):
    byok = Byok(tmp_path / "home", clean_environment(tmp_path / "home"))
    byok.run("init", "--org", "acme", "--owner", "owner@acme.example")
    rows = tmp_path / "homes.jsonl"
    rows.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in QUESTIONS))
    byok.run("dataset", "add", "homes", str(rows))
    with served(byok, rows, KEY, "--accuracy", "0.5", "--model-id", "chat") as told:
        byok.allow(told["host_port"])
        for key, remote, *more in (("model", "chat"), ("emb", "sandbox-embedding", "--tag", "embeddings")):
            place = ("--name", key, "--base-url", told["base_url"], "--model-id", remote, *more)
            byok.run("model", "register", key, *place, "--api-key-env", "THE_KEY", "--price-input", "1", THE_KEY=KEY)
        byok.run("judge", "create", "fair", "--model", "model", "--system", "helpfulness", "--output", "binary")
        wanted = ("--grader", "includes", "--grader", SPEC, "--judge", "fair", "--min-score", "embedding_similarity=0.99")
        run = byok.json("evaluate", "model", "homes", *wanted, "--shard-size", "10", "--yes", code=1)["run"]
    assert (run["status"], run["below"]) == ("completed", [SPEC])
    scores = {score["grader"]: score for score in run["scores"]}
    assert [scores[name]["scored"] for name in ("includes", SPEC, "fair")] == [len(QUESTIONS)] * 3
    assert scores[SPEC]["metric"] == "mean" and 0.3 < scores[SPEC]["score"] < 0.8
    assert byok.sql("SELECT role, count(*) FROM v1.attempts WHERE run_id IS NOT NULL GROUP BY 1 ORDER BY 1") == [
        ["candidate", len(QUESTIONS)],
        ["embedding", len(QUESTIONS)],
        ["judge", len(QUESTIONS)],
        ["probe", 2],
    ]
    order = "SELECT max(opened_at) FILTER (WHERE role = 'embedding') < min(opened_at) FILTER (WHERE role = 'judge') FROM v1.attempts"
    assert byok.sql(order) == [[True]]
    lines = {(line["role"], line["sku"]) for line in byok.json("bill", "show", run["run_id"])["bill"]["provider"]["lines"]}
    assert ("embedding", "tokens/input") in lines and ("embedding", "tokens/output") not in lines
