"""Answers scored with embeddings: the cosine of what is served, with the whole denominator, and every request billed."""

import json
from decimal import Decimal

import numpy
import pytest

from byok.billing import two_bills
from byok.engine.plan import RunPlan
from byok.engine.progress import read_progress
from byok.errors import ByokError
from byok.reporting import report_page
from byok.runs.probe import probed_of
from byok.runs.start import fingerprint
from byok.sandbox import Fault
from byok_testing.embedding_bench import QUESTIONS, SPEC, EmbeddingBench, cosine_served, reply


@pytest.fixture
def bench(services, monkeypatch, tmp_path):
    with EmbeddingBench(services, monkeypatch, tmp_path) as made:
        yield made


def test_the_score_is_the_cosine_of_what_is_served_and_tells_right_from_wrong(bench):
    server = bench.serve()
    before = server.stats()
    plan, finished = bench.run(shard_size=10, graders=["includes", SPEC])
    after = server.stats()
    assert finished.passed
    rows = bench.query(
        "SELECT s.input, s.output, s.expected, v.score, v.passed, v.kind, v.outcome, a.role, a.model_key, a.sample_id = s.sample_id "
        "FROM v1.verdicts v JOIN v1.samples s USING (run_id, sample_id) JOIN v1.attempts a USING (attempt_id) WHERE v.grader = ?",
        SPEC,
    )
    assert len(rows) == len(QUESTIONS)
    assert {row[5:] for row in rows} == {("code", "ok", "embedding", "emb", True)}
    right = [row for row in rows if row[0] in server.right_questions]
    wrong = [row for row in rows if row[0] not in server.right_questions]
    assert len(right) == len(wrong) == len(QUESTIONS) // 2
    assert min(row[3] for row in right) > 0.8 > 0.5 > max(row[3] for row in wrong)
    assert all(row[4] for row in right) and not any(row[4] for row in wrong)
    for _, output, expected, score, *_ in rows:
        assert score == pytest.approx(cosine_served(server, output, expected), abs=1e-12)
    score, mean = bench.score(plan), float(numpy.mean([row[3] for row in rows]))
    assert (score.kind, score.metric, score.method, score.scored, score.unscored) == ("code", "mean", "t", len(QUESTIONS), 0)
    assert score.score == pytest.approx(mean, abs=1e-12) and score.low < mean < score.high
    assert score.worst == pytest.approx(mean) == score.best
    # What is recorded is what the endpoint counted: one request for each row, and the run's probe.
    assert after["embedding_requests"] - before["embedding_requests"] == len(QUESTIONS) + 1
    of_run = "FROM v1.attempts WHERE run_id = ? AND model_key = 'emb'"
    recorded = bench.query(f"SELECT count(*), CAST(sum(prompt_tokens) AS BIGINT) {of_run}", plan.run_id)
    assert recorded == [(len(QUESTIONS) + 1, after["embedding_tokens"] - before["embedding_tokens"])]
    assert read_progress(bench.folder(plan).progress)["embed-emb"].done == len(QUESTIONS)
    page = report_page(bench.services.warehouse, plan.org_id, plan.run_id)
    assert all(f"({round(row[3], 4)})" in page for row in rows)


def test_embeddings_are_on_the_providers_bill_as_input_alone(bench):
    server = bench.serve()
    before = server.stats()["embedding_tokens"]
    plan, _ = bench.run()
    tokens = server.stats()["embedding_tokens"] - before
    bills = two_bills(bench.services.warehouse, plan.org_id, plan.run_id)
    lines = [line for line in bills.lines if line.model_key == "emb"]
    assert [(line.plane, line.role, line.sku, line.charges, line.unknown) for line in lines] == [
        ("provider", "embedding", "tokens/input", len(QUESTIONS), 0),
        ("provider", "probe", "tokens/input", 1, 0),
    ]
    assert sum(line.quantity for line in lines) == tokens
    assert sum(line.amount_usd for line in lines) == tokens * Decimal("0.13") / 1_000_000
    assert bills.of("ecu") == []
    assert [line.role for line in bills.lines] == ["candidate", "candidate", "embedding", "probe", "probe", "probe"]


def test_missing_usage_is_unknown_cost_and_never_zero(bench):
    bench.serve(profile="together")  # tells no usage of embeddings, as the provider does
    plan, finished = bench.run(limit=5)
    assert finished.passed and bench.score(plan).scored == 5
    counted = "SELECT sku, count(*), count(quantity), count(amount_usd) FROM v1.charges"
    lines = bench.query(f"{counted} WHERE run_id = ? AND model_key = 'emb' GROUP BY ALL", plan.run_id)
    assert lines == [("tokens/input", 6, 0, 0)]


def test_a_public_embedding_model_is_billed_in_ecu_by_token(bench):
    server = bench.serve()
    bench.register("ours", server, server.embedding_model_id, tags=["embeddings"], public=True)
    before = server.stats()["embedding_tokens"]
    plan, _ = bench.run(limit=4, graders=["embedding_similarity:model=ours"])
    lines = [line for line in two_bills(bench.services.warehouse, plan.org_id, plan.run_id).lines if line.model_key == "ours"]
    assert {(line.plane, line.sku) for line in lines} == {("ecu", "inference/input")}
    assert sum(line.quantity for line in lines) == server.stats()["embedding_tokens"] - before


def test_rows_without_an_expected_answer_are_unscored_and_nothing_is_asked_about_them(bench):
    server = bench.serve(accuracy=1.0)
    bench.add_rows("bare", [QUESTIONS[0], (QUESTIONS[1][0], None), (QUESTIONS[2][0], "  "), QUESTIONS[3]])
    before = server.stats()["embedding_requests"]
    plan, finished = bench.run(dataset="bare")
    assert finished.status == "completed" and server.stats()["embedding_requests"] - before == 2 + 1
    score = bench.score(plan)
    assert (score.planned, score.answered, score.scored, score.unscored) == (4, 4, 2, 2)
    total = score.score * 2
    assert (score.worst, score.best) == (pytest.approx((total - 2) / 4), pytest.approx((total + 2) / 4))
    counted = "count(*), count(score), count(passed), count(attempt_id)"
    found = bench.query(f"SELECT outcome, {counted} FROM v1.verdicts GROUP BY 1 ORDER BY 1")
    assert found == [("ok", 2, 2, 2, 2), ("unscored", 2, 0, 0, 0)]


def test_every_way_in_which_a_score_can_fail_is_told_apart(bench):
    bench.serve(accuracy=1.0)
    bad = [
        (reply([0.0] * 16, [1.0] * 16), "unscored", "zero"),
        (reply([1.0] * 64, [1.0] * 64), "unscored", "64 dimensions came, and 16 were asked for"),
        (reply([1.0] * 16, [1.0] * 15), "error", "response_invalid"),
        (reply([1.0] * 16), "error", "response_invalid"),
        (Fault(status=500, headers={"Retry-After": "0"}), "error", "endpoint_overloaded"),
        (Fault(status=400, message="too long", code="context_length_exceeded"), "error", "context_length"),
    ]
    ends = {answer: fault for (_, answer), (fault, _, _) in zip(QUESTIONS, bad, strict=False)}
    bench.fault = lambda number, text: next((fault for answer, fault in ends.items() if text.endswith(answer)), None)
    spec = "embedding_similarity:dimensions=16,model=emb"
    plan, finished = bench.run(graders=[spec])
    assert finished.status == "completed"
    rows = bench.query(
        "SELECT s.row_number, v.outcome, v.reasoning, v.score, v.passed FROM v1.verdicts v JOIN v1.samples s USING (sample_id)"
    )
    found = {number: rest for number, *rest in rows}
    for number, (_, outcome, reason) in enumerate(bad):
        assert found[number][0] == outcome and reason in found[number][1] and found[number][2:] == [None, None]
    assert {found[number][0] for number in range(len(bad), len(QUESTIONS))} == {"ok"}
    score = bench.score(plan, spec)
    assert (score.scored, score.unscored, score.answered) == (len(QUESTIONS) - 6, 6, len(QUESTIONS))
    tried = "SELECT status, error_code, count(*), count(DISTINCT sample_id) FROM v1.attempts WHERE role = 'embedding' GROUP BY ALL"
    assert set(bench.query(tried)) == {
        ("ok", None, len(QUESTIONS) - 4, len(QUESTIONS) - 4),
        ("error", "response_invalid", 2, 2),
        ("error", "endpoint_overloaded", 5, 1),
        ("error", "context_length", 1, 1),
    }
    # Refused requests cost nothing; of those whose answer could not be read, nobody knows.
    charged = "SELECT evidence, count(*) FROM v1.charges WHERE role = 'embedding' GROUP BY 1 ORDER BY 1"
    assert bench.query(charged) == [("computed", len(QUESTIONS) - 4), ("unknown", 2)]


def test_thresholds_of_a_run_compare_with_the_mean_and_may_leave_the_options_out(bench):
    bench.serve()
    plan, finished = bench.run(min_scores={"embedding_similarity": 0.9})
    assert finished.below == (SPEC,) == bench.summary(plan).below and not finished.passed
    _, finished = bench.run(min_scores={SPEC: -0.5})
    assert finished.passed


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"graders": ["embedding_similarity:model=nobody"]}, "model_not_registered"),
        ({"graders": ["embedding_similarity:model=model"]}, "not_an_embedding_model"),
        ({"graders": ["embedding_similarity:model=gone"]}, "model_disabled"),
        ({"graders": [SPEC, f"{SPEC},threshold=0.80"]}, "double_grader"),
        ({"graders": [SPEC, f"{SPEC},threshold=0.9"], "min_scores": {"embedding_similarity": 0.5}}, "threshold_unknown"),
    ],
)
def test_a_request_that_cannot_run_plans_nothing(bench, options, code):
    server = bench.serve()
    bench.register("gone", server, server.embedding_model_id, tags=["embeddings"])
    bench.services.registry.disable(bench.services.actor, "gone")
    with pytest.raises(ByokError) as caught:
        bench.plan(**options)
    assert caught.value.code == code and caught.value.hint
    assert list(bench.services.home.runs.glob("*")) == []


def test_what_decides_the_scores_is_in_the_fingerprint_and_the_config(bench):
    bench.serve()
    plans = [bench.plan(graders=[spec]) for spec in (SPEC, SPEC, f"{SPEC},threshold=0.7", f"{SPEC},dimensions=8", "includes")]
    prints = [fingerprint(plan) for plan in plans]
    assert prints[0] == prints[1] and len(set(prints)) == 4
    ((config,),) = bench.query("SELECT config FROM v1.runs WHERE run_id = ?", plans[3].run_id)
    assert json.loads(config)["graders"] == ["embedding_similarity:dimensions=8,model=emb"]
    # A plan that was written before there were embedders still loads, and its run is a repeat of the same run of today.
    old = plans[4].model_dump(mode="json")
    del old["embedders"]
    loaded = RunPlan.model_validate_json(json.dumps(old))
    assert loaded == plans[4] and fingerprint(loaded) == prints[4]


def test_a_model_that_chats_and_makes_embeddings_is_probed_for_both(bench):
    bench.serve()
    plan = bench.plan()
    same = plan.embedders[0].model_copy(update={"model": plan.model})
    both = probed_of(plan.model_copy(update={"embedders": (same, plan.embedders[0])}))
    assert [(probed.model.key, probed.embeddings) for probed in both] == [("model", False), ("model", True), ("emb", True)]
    assert len({probed.unit("r") for probed in both}) == 3


def test_a_text_that_is_too_long_for_the_embedder_is_its_rows_failure_alone(bench):
    bench.serve()
    words = {"error": {"message": "Input validation error: `inputs` must be shorter. Given: 700 tokens", "type": "Validation"}}
    refusal = Fault(status=400, body=json.dumps(words).encode())
    bench.fault = lambda number, text: refusal if "walrus" in str(text) and "granite" in str(text) else None
    plan, finished = bench.run(concurrency=1, graders=[SPEC, "includes"])
    outcomes = dict(bench.query("SELECT outcome, count(*) FROM v1.verdicts WHERE grader = ? GROUP BY 1", SPEC))
    assert outcomes["error"] >= 1 and outcomes["ok"] == len(QUESTIONS) - outcomes["error"]
    score = bench.score(plan)
    assert (finished.status, score.scored, score.unscored) == ("completed", outcomes["ok"], outcomes["error"])


def test_the_interval_of_a_mean_stays_within_what_a_cosine_can_be(bench):
    bench.serve()
    near = [0.9, 0.19**0.5]
    # The first two requests are probes, with one text each.
    bench.fault = lambda number, text: None if number <= 2 else reply([1.0, 0.0], near if number % 2 else [1.0, 0.0])
    plan, _ = bench.run(concurrency=1, limit=2, graders=[SPEC])
    score = bench.score(plan)
    assert score.score == pytest.approx(0.95) and -1 <= score.low < 0.95 < score.high == 1.0
