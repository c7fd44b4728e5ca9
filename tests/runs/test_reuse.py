"""Answers and verdicts of earlier runs that count again: asked for is what is new, by the endpoint's own counters."""

import asyncio
import json

import pytest

from byok.billing import two_bills
from byok.datasets import Mapping
from byok.registry import ModelChanges
from byok_testing.chain import carry_out


def add(bench, tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{n}", "question": q, "answer": a}) + "\n" for n, (q, a) in enumerate(rows)))
    bench.services.datasets.add(bench.services.actor, "grown", path, Mapping())


def run(bench, **options):
    plan = bench.start(**({"dataset": "grown", "reuse": True} | options))
    return plan, carry_out(bench.services, plan)


def told(bench, plan):
    return bench.query(
        "SELECT count(*), count(reused_from), count(*) FILTER (WHERE attempts = 0) FROM v1.samples WHERE run_id = ?", plan.run_id
    )[0]


@pytest.fixture
def grown(sums, tmp_path):
    """Sixty rows that a run has answered and judged."""
    sums.serve()
    sums.serve("judge")
    sums.services.judges.create(sums.services.actor, "right", "judge", "binary", "Is {{output}} right?")
    add(sums, tmp_path, sums.questions)
    plan, finished = run(sums, judges=["right"], reuse=False)
    assert finished.passed and told(sums, plan) == (60, 0, 0)
    return sums


def asked(bench):
    return [bench.sandboxes[key].stats()["chat_requests"] for key in ("model", "judge")]


def test_the_same_run_again_asks_nothing_and_costs_nothing(grown):
    before = asked(grown)
    plan, finished = run(grown, judges=["right"])
    assert finished.passed and asked(grown) == before
    assert told(grown, plan) == (60, 60, 60)
    assert grown.query("SELECT reused, unknown_attempts FROM v1.runs WHERE run_id = ?", plan.run_id) == [(60, 0)]
    assert grown.query("SELECT count(*) FROM v1.charges WHERE run_id = ?", plan.run_id) == [(0,)]
    bills = two_bills(grown.services.warehouse, grown.services.actor.org_id, plan.run_id)
    assert (bills.total_usd, bills.total_micro_ecu) == (0, 0)
    kinds = (
        "SELECT kind, count(*), count(reused_from), count(*) FILTER (WHERE passed) FROM v1.verdicts WHERE run_id = ? GROUP BY 1 ORDER BY 1"
    )
    assert grown.query(kinds, plan.run_id) == [("code", 60, 0, 60), ("judge", 60, 60, 60)]
    # What was taken over names the run that paid, not the one that took it over before.
    again, _ = run(grown, judges=["right"])
    origins = "SELECT DISTINCT o.run_id FROM v1.samples s JOIN v1.samples o ON o.sample_id = s.reused_from WHERE s.run_id = ?"
    assert grown.query(origins, again.run_id) == grown.query(origins, plan.run_id) != [(plan.run_id,)]


def test_one_row_added_and_one_row_edited_cost_exactly_two_requests(grown, tmp_path):
    rows = [*grown.questions, ("What is 7 + 8?", "15")]
    rows[3] = ("What is 3 + 30?", "33")
    add(grown, tmp_path, rows)
    before = asked(grown)
    plan, finished = run(grown, judges=["right"])
    assert finished.status == "completed" and told(grown, plan) == (61, 59, 59)
    assert [now - then for now, then in zip(asked(grown), before, strict=True)] == [2, 2]
    charged = grown.query("SELECT role, count(DISTINCT attempt_id) FROM v1.charges WHERE run_id = ? GROUP BY 1 ORDER BY 1", plan.run_id)
    assert charged == [("candidate", 2), ("judge", 2)]


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.5}, {"max_tokens": 99}, {"system": "Be brief."}, {"reuse": False}],
    ids=lambda options: next(iter(options)),
)
def test_another_question_is_asked(grown, options):
    before = asked(grown)[0]
    plan, _ = run(grown, **options)
    assert asked(grown)[0] - before >= 60 and told(grown, plan) == (60, 0, 0)


def test_what_does_not_change_an_answer_does_not_keep_it_from_counting(grown):
    changes = ModelChanges(name="Renamed", requests_per_minute=6000)
    asyncio.run(grown.services.registry.update(grown.services.actor, "model", changes))
    before = asked(grown)[0]
    plan, _ = run(grown)
    assert asked(grown)[0] == before and told(grown, plan) == (60, 60, 60)


def test_what_changes_an_answer_keeps_it_from_counting(grown):
    asyncio.run(grown.services.registry.update(grown.services.actor, "model", ModelChanges(extra_payload={"top_k": 1})))
    before = asked(grown)[0]
    plan, _ = run(grown)
    assert asked(grown)[0] - before >= 60 and told(grown, plan) == (60, 0, 0)
