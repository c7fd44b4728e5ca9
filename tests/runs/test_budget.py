"""Caps of a run: never passed, by the counters of the endpoint and by the bills; what was done is valid, and goes on with a higher cap."""

from decimal import Decimal

import pytest

from byok.billing import two_bills
from byok.errors import ByokError
from byok.runs import Resumption, change_run
from byok_testing.chain import carry_out


def bill(bench, plan):
    return two_bills(bench.services.warehouse, bench.services.actor.org_id, plan.run_id)


def told(bench, plan):
    return bench.query("SELECT status, error_code, answered, planned FROM v1.runs WHERE run_id = ?", plan.run_id)[0]


def test_a_cap_on_requests_is_used_up_and_not_passed_and_more_finish_the_run(sums):
    server = sums.serve()
    before = server.stats()["chat_requests"]
    plan = sums.start(max_requests=25, concurrency=16)
    finished = carry_out(sums.services, plan)
    assert finished.status == "partial" and finished.stopped_by == "budget_reached"
    assert server.stats()["chat_requests"] - before == 25  # the probe is one of them
    assert told(sums, plan) == ("partial", "budget_reached", 24, 60)
    score = sums.query("SELECT score, scored, planned FROM v1.scores WHERE run_id = ?", plan.run_id)[0]
    assert score == (1.0, 24, 60)
    # The same cap again leaves no room; a higher one does, and what was spent counts.
    assert carry_out(sums.services, plan).stopped_by == "budget_reached"
    assert server.stats()["chat_requests"] - before == 25
    change_run(sums.services, plan.run_id, Resumption(max_requests=61))
    assert carry_out(sums.services, plan).status == "completed"
    assert server.stats()["chat_requests"] - before == 61


def test_a_cap_in_dollars_is_never_passed_whatever_fails_on_the_way(sums):
    server = sums.serve(price="1000")
    # Every third request fails on the server's side after it may have cost something; the cap counts those with all that they can cost.
    sums.faults["model"] = lambda number, question: {0: 500, 1: 504}.get(number % 6)
    cap = Decimal("0.6")
    plan = sums.start(max_usd="0.6", max_tokens=20, concurrency=32)
    finished = carry_out(sums.services, plan)
    assert finished.stopped_by == "budget_reached"
    status, code, answered, planned = told(sums, plan)
    assert (status, code) == ("partial", "budget_reached") and 0 < answered < planned
    spent = bill(sums, plan).total_usd
    assert spent is not None and Decimal(0) < spent <= cap
    assert server.stats()["chat_requests"] > answered


def test_a_cap_in_ecu_covers_public_models_and_judge_calls(sums):
    sums.serve(public=True)
    sums.serve("judge")
    sums.services.judges.create(sums.services.actor, "right", "judge", "binary", "Is {{output}} right?")
    plan = sums.start(max_ecu="0.2", max_tokens=16, judges=["right"])
    finished = carry_out(sums.services, plan)
    assert finished.stopped_by == "budget_reached" and finished.status == "partial"
    assert 0 < bill(sums, plan).total_micro_ecu <= 200_000
    change_run(sums.services, plan.run_id, Resumption(max_ecu="1000"))
    assert carry_out(sums.services, plan).status == "completed"


@pytest.mark.parametrize(
    ("price", "options", "code"),
    [
        (None, {"max_usd": "1", "max_tokens": 10}, "price_unknown"),
        ("1", {"max_usd": "1"}, "answer_unbounded"),
        ("1", {"max_usd": "one"}, "bad_amount"),
        ("1", {"max_ecu": "0.0000001"}, "bad_amount"),
    ],
)
def test_a_cap_that_cannot_be_kept_is_refused_before_anything_is_asked(sums, price, options, code):
    server = sums.serve(price=price)
    before = server.stats()["chat_requests"]
    with pytest.raises(ByokError) as caught:
        sums.start(**options)
    assert caught.value.code == code and caught.value.hint
    assert server.stats()["chat_requests"] == before and list(sums.services.home.runs.glob("*")) == []


def test_a_cap_that_cannot_be_kept_changes_nothing_about_a_run(sums):
    sums.serve(price=None)
    plan = sums.start(max_requests=5)
    assert carry_out(sums.services, plan).stopped_by == "budget_reached"
    with pytest.raises(ByokError) as caught:
        change_run(sums.services, plan.run_id, Resumption(max_usd="5"))
    assert caught.value.code == "price_unknown"
    change_run(sums.services, plan.run_id, Resumption(max_requests=100))
    assert carry_out(sums.services, plan).status == "completed"
