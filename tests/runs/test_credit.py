"""The credit of a run: the worst case is held before the first request, and what it cost is settled, through stops, resumes and refunds."""

import pytest

from byok.billing import two_bills
from byok.ledger import BalanceTooLow, NotReversible, mismatches
from byok.reporting import run_summary
from byok.runs import ApprovalNeeded, NothingToRefund, Resumption, bill_run, change_run, estimate_run, refund_run, resume_run
from byok.runs.request import EvaluationRequest
from byok.sandbox import Fault
from byok_testing.chain import carry_out

CALL = 50_000
"""Micro-ECU of a verdict, by the rate card that ships."""


@pytest.fixture
def judged(sums):
    """Sixty sums, a model, a judge of its own key, and a public model with its judge."""
    sums.serve()
    sums.serve("judge")
    sums.serve("open", public=True)
    for name, model in (("right", "judge"), ("public", "open")):
        sums.services.judges.create(sums.services.actor, name, model, "binary", "Is {{output}} right?")
    return sums


def balance(bench):
    told = bench.services.ledger.balance(bench.services.actor)
    return told.available, told.held


def charged(bench, plan):
    return bench.query("SELECT coalesce(sum(amount_micro_ecu), 0) FROM v1.charges WHERE run_id = ? AND plane = 'ecu'", plan.run_id)[0][0]


def entries(bench, plan):
    of_run = (
        "SELECT kind, account, CAST(sum(micro_ecu) AS BIGINT) FROM v1.ledger WHERE run_id = ? GROUP BY ALL ORDER BY min(seq), min(number)"
    )
    return bench.query(of_run, plan.run_id)


def ties(bench):
    assert mismatches(bench.services.warehouse, bench.services.actor.org_id) == []
    assert bench.services.ledger.verify(bench.services.actor).bad is None
    assert bench.query("SELECT transaction_id FROM v1.ledger GROUP BY 1 HAVING sum(micro_ecu) <> 0") == []


def test_the_worst_case_is_held_and_what_it_cost_is_settled(judged):
    # Six answers are empty, and so are not judged.
    judged.faults["model"] = lambda number, question: Fault(text="") if "0 +" in question else None
    before, _ = balance(judged)
    plan = judged.start(judges=["right"])
    assert balance(judged) == (before - 60 * CALL, 60 * CALL)
    assert carry_out(judged.services, plan).passed
    cost = charged(judged, plan)
    assert cost == 54 * CALL and balance(judged) == (before - cost, 0)
    assert entries(judged, plan) == [
        ("hold", "credit", -60 * CALL),
        ("hold", "held", 60 * CALL),
        ("settle", "held", -60 * CALL),
        ("settle", "usage", cost),
        ("settle", "credit", 60 * CALL - cost),
    ]
    ties(judged)


def test_asked_again_nothing_is_held_or_settled_twice(judged):
    before, _ = balance(judged)
    plan = judged.start(judges=["right"])
    # A process that dies before its first request begins anew.
    resume_run(judged.services, plan.run_id)
    resume_run(judged.services, plan.run_id)
    assert balance(judged)[1] == 60 * CALL
    carry_out(judged.services, plan)
    for _ in range(2):
        bill_run(judged.services, plan.run_id)
    assert balance(judged) == (before - 60 * CALL, 0)
    assert len(judged.services.ledger.settlements(judged.services.actor, plan.run_id)) == 1


def test_a_run_that_is_gone_on_with_holds_what_it_may_still_cost(judged):
    before, _ = balance(judged)
    plan = judged.start(judges=["right"], max_requests=92)
    assert carry_out(judged.services, plan).stopped_by == "budget_reached"
    first = charged(judged, plan)
    assert 0 < first < 60 * CALL and balance(judged) == (before - first, 0)
    change_run(judged.services, plan.run_id, Resumption(max_requests=1000))
    resume_run(judged.services, plan.run_id)
    assert balance(judged) == (before - 60 * CALL, 60 * CALL - first)
    assert carry_out(judged.services, plan).passed
    assert charged(judged, plan) == 60 * CALL and balance(judged) == (before - 60 * CALL, 0)
    assert len(judged.services.ledger.settlements(judged.services.actor, plan.run_id)) == 2
    ties(judged)


def test_two_runs_at_once_never_hold_the_same_credit(judged):
    ledger, actor = judged.services.ledger, judged.services.actor
    available, _ = balance(judged)
    # All but the credit of a run and a half is spoken for.
    ledger.hold(actor, "something else", available - 90 * CALL)
    judged.start(judges=["right"])
    folders = sorted(judged.services.home.runs.iterdir())
    with pytest.raises(BalanceTooLow) as caught:
        judged.start(judges=["right"])
    assert sorted(judged.services.home.runs.iterdir()) == folders
    assert caught.value.fields == {"needed_micro_ecu": 60 * CALL, "available_micro_ecu": 30 * CALL}
    # A smaller one fits, and so does one that is capped.
    judged.start(judges=["right"], limit=10)
    judged.start(judges=["right"], max_ecu="1")
    assert balance(judged)[0] == 0


def test_a_public_model_and_its_judge_cost_tokens_and_calls_and_an_own_judge_calls_alone(judged):
    before, _ = balance(judged)
    plan = judged.start(model="open", judges=["right", "public"], max_tokens=50)
    held = balance(judged)[1]
    assert carry_out(judged.services, plan).passed
    kinds = judged.query(
        "SELECT role, model_key, sku, count(*), sum(amount_micro_ecu) > 0 FROM v1.charges WHERE run_id = ? AND plane = 'ecu' GROUP BY ALL"
        " ORDER BY ALL",
        plan.run_id,
    )
    assert [one[:4] for one in kinds if one[0] != "probe"] == [
        ("candidate", "open", "inference/input", 60),
        ("candidate", "open", "inference/output", 60),
        ("judge", "judge", "judge_call", 60),
        ("judge", "open", "inference/input", 60),
        ("judge", "open", "inference/output", 60),
        ("judge", "open", "judge_call", 60),
    ]
    cost = charged(judged, plan)
    assert 120 * CALL < cost < held and balance(judged) == (before - cost, 0)
    # The provider's bill has the own judge's tokens, and nothing of the public model.
    assert judged.query("SELECT DISTINCT model_key FROM v1.charges WHERE run_id = ? AND plane = 'provider'", plan.run_id) == [("judge",)]
    ties(judged)


def test_a_run_whose_usage_is_not_told_is_settled_with_what_is_known(judged):
    judged.faults["open"] = lambda number, question: Fault(usage={}) if number % 2 else None
    plan = judged.start(model="open", judges=["right"], max_tokens=50)
    carry_out(judged.services, plan)
    unknown = judged.query("SELECT count(*) FROM v1.charges WHERE run_id = ? AND plane = 'ecu' AND amount_micro_ecu IS NULL", plan.run_id)
    assert unknown[0][0] > 0
    ties(judged)


def test_a_refund_gives_credit_and_bill_back_alike_and_once(judged):
    before, _ = balance(judged)
    plan, _ = judged.run(judges=["right"])
    assert refund_run(judged.services, plan.run_id, "the judge was broken") == 60 * CALL
    assert balance(judged) == (before, 0) and charged(judged, plan) == 0
    classes = "SELECT charge_class, count(*) FROM v1.charges WHERE run_id = ? AND plane = 'ecu' GROUP BY 1 ORDER BY 1 NULLS FIRST"
    assert judged.query(classes, plan.run_id) == [(None, 60), ("correction", 60)]
    # Its bill shows both, and comes to nothing.
    bills = two_bills(judged.services.warehouse, judged.services.actor.org_id, plan.run_id)
    assert [(line.sku, line.charges, line.quantity, line.amount_micro_ecu) for line in bills.of("ecu")] == [
        ("judge_call", 60, 60, 60 * CALL),
        ("judge_call", 60, -60, -60 * CALL),
    ]
    assert bills.total_micro_ecu == 0
    with judged.services.warehouse.reading() as results:
        summary = run_summary(results, judged.services.actor.org_id, plan.run_id)
    assert (summary.unpriced_charges, summary.micro_ecu) == (0, 0)
    settled = next(one for one in judged.services.ledger.transactions(judged.services.actor) if one.kind == "settle")
    with pytest.raises(NotReversible):
        judged.services.ledger.reverse_credit(judged.services.actor, settled.id, "alone")
    with pytest.raises(NothingToRefund):
        refund_run(judged.services, plan.run_id, "again")
    ties(judged)


def test_what_was_refunded_is_not_due_again_when_the_run_goes_on(judged):
    before, _ = balance(judged)
    plan = judged.start(judges=["right"], max_requests=92)
    carry_out(judged.services, plan)
    first = refund_run(judged.services, plan.run_id, "a mistake")
    change_run(judged.services, plan.run_id, Resumption(max_requests=1000))
    resume_run(judged.services, plan.run_id)
    assert carry_out(judged.services, plan).passed
    assert balance(judged) == (before - (60 * CALL - first), 0) and charged(judged, plan) == 60 * CALL - first
    ties(judged)


def test_an_estimate_is_never_passed(judged):
    request = {"model": "model", "dataset": "questions", "judges": ["right"], "max_tokens": 50, "system": "Answer with a number."}
    worst = estimate_run(judged.services, EvaluationRequest(**request))
    plan, _ = judged.run(**request)
    usd = judged.query("SELECT role, sum(amount_usd) FROM v1.charges WHERE run_id = ? AND plane = 'provider' GROUP BY 1", plan.run_id)
    by_role = {line.role: line.usd for line in worst.lines if line.role != "probe"}
    for role, spent in usd:
        if role != "probe":
            assert 0 < spent < by_role[role]
    assert worst.micro_ecu == 60 * CALL
    assert {line.requests for line in worst.lines} == {1, 60}


def test_what_is_costly_needs_an_approval_and_what_is_not_does_not(judged, monkeypatch):
    def start(**options):
        return judged.start(**({"judges": ["right"], "approved": False, "max_tokens": 50} | options))

    start()
    monkeypatch.setenv("BYOK_APPROVE_ABOVE_ECU", "2.9")
    with pytest.raises(ApprovalNeeded) as caught:
        start()
    assert caught.value.fields["ecu"] == "3" and "| judge | judge | 60 |" in caught.value.fields["reckoned"]
    assert balance(judged)[1] == 60 * CALL  # of the first one alone
    start(approve_up_to_ecu="3")
    start(max_ecu="2.9")
    start(approved=True)
    monkeypatch.setenv("BYOK_APPROVE_ABOVE_USD", "0.001")
    with pytest.raises(ApprovalNeeded):
        start(approve_up_to_ecu="3")
    start(approve_up_to_ecu="3", approve_up_to_usd="10")
