"""What runs cost by the price book: prices that change in mid-run, GPU hours, reported costs, and prices that come later."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest

from byok.billing import apply_prices, how_to_price, two_bills, unpriced_charges
from byok.errors import ByokError
from byok.money import GPU_HOUR, cost_usd
from byok.reporting import report_page, run_summary
from byok.runs import Resumption, bill_run, change_run, finish_run
from byok.sandbox import Fault
from byok_testing.chain import carry_out

DAY = timedelta(days=1)

TIES = """
SELECT count(*) FROM v1.charges c
WHERE c.run_id = ? AND c.unit = 'token' AND c.plane = 'provider'
    AND CAST(c.quantity AS DECIMAL(18, 0)) * CAST(c.unit_price_usd AS DECIMAL(18, 6))
        IS DISTINCT FROM CAST(c.amount_usd * 1000000 AS DECIMAL(38, 6))
"""
"""Lines that are not their tokens times their price, exactly: prices of six decimals leave nothing to be rounded."""


def set_price(bench, key="model", **values):
    return bench.services.prices.set(bench.services.actor, key, **values)


def apply(bench):
    return apply_prices(bench.services.control, bench.services.warehouse, bench.services.audit, bench.services.actor)


def bill(bench, plan):
    return two_bills(bench.services.warehouse, bench.services.actor.org_id, plan.run_id)


def charges(bench, plan, role="candidate"):
    return bench.query(
        "SELECT c.sku, c.quantity, c.unit_price_usd, c.price_units, c.amount_usd, c.price_version, c.evidence, a.opened_at, a.attempt_id "
        "FROM v1.charges c JOIN v1.attempts a ON a.org_id = c.org_id AND a.attempt_id = c.attempt_id "
        "WHERE c.run_id = ? AND c.plane = 'provider' AND c.role = ?",
        plan.run_id,
        role,
    )


def usage(prompt, completion, cached=None, reasoning=None, **more):
    told = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}
    if cached is not None:
        told["prompt_tokens_details"] = {"cached_tokens": cached}
    if reasoning is not None:
        told["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return told


def test_a_price_that_changes_in_mid_run_splits_the_run_and_the_charges_tie(sums):
    """With retries, failures, usage that is missing or a lie, and cached and reasoning tokens among them."""
    sums.serve(price=None)
    first = set_price(
        sums, input=Decimal("3.333333"), cached_input=Decimal("0.3"), output=Decimal("7.7"), effective_from=datetime.now(UTC) - DAY
    )
    seen, changed = Counter(), []

    def fault(number, question):
        seen[question] += 1
        if number == 30:
            changed.append(set_price(sums, input=Decimal("1.000001"), output=Decimal("9"), reasoning=Decimal("11.5")))
        if number % 7 == 0 and seen[question] == 1:
            return 503
        kinds = {1: usage(101, 17, cached=33), 2: usage(99, 23, reasoning=9), 3: usage(-4, 7), 4: usage(77, 5, cached=78)}
        return Fault(usage=kinds[number % 6]) if number % 6 in kinds else None

    sums.faults["model"] = fault
    plan, finished = sums.run(concurrency=4, max_tokens=64)
    assert finished.status == "completed" and len(changed) == 1
    found = charges(sums, plan)
    assert {version for *_, version, _, _, _ in found} == {first.version, changed[0].version}
    prices = {
        first.version: {"input": "3.333333", "cached_input": "0.3", "output": "7.7", "reasoning": "7.7"},
        changed[0].version: {"input": "1.000001", "cached_input": "1.000001", "output": "9", "reasoning": "11.5"},
    }
    for sku, quantity, unit_price, units, amount, version, evidence, opened_at, _ in found:
        assert version == (first if opened_at < changed[0].effective_from else changed[0]).version
        assert unit_price == Decimal(prices[version][sku.partition("/")[2]]) and units == 1_000_000
        exact = None if quantity is None else (quantity * unit_price / 1_000_000).quantize(Decimal("1e-12"), ROUND_HALF_EVEN)
        assert amount == exact and evidence == ("unknown" if quantity is None else "computed")
    # Every request that may have cost something is on the bill, and every token that was told is on it once.
    told = sums.query(
        "SELECT count(*) FILTER (WHERE usage_class <> 'reported'), "
        "sum(prompt_tokens + completion_tokens) FILTER (WHERE usage_class = 'reported') "
        "FROM v1.attempts WHERE run_id = ? AND role = 'candidate' AND NOT (status = 'error' AND http_status = 503)",
        plan.run_id,
    )[0]
    assert told == (len({row[-1] for row in found if row[1] is None}), sum(row[1] for row in found if row[1] is not None))
    assert sums.query(TIES, plan.run_id) == [(0,)]
    bills = bill(sums, plan)
    assert bills.total_usd == sum(row[4] for role in ("candidate", "probe") for row in charges(sums, plan, role) if row[4] is not None)
    # Billing it again, after yet another price, even one of another kind, changes nothing.
    before = sorted(sums.query("SELECT charge_id, amount_usd FROM v1.charges WHERE run_id = ?", plan.run_id))
    set_price(sums, usd_per_gpu_hour=Decimal(4), effective_from=datetime.now(UTC) - DAY)
    bill_run(sums.services, plan.run_id)
    sums.services.warehouse.drain()
    assert sorted(sums.query("SELECT charge_id, amount_usd FROM v1.charges WHERE run_id = ?", plan.run_id)) == before


def test_gpu_hours_are_shared_by_the_calls_under_way_and_come_to_the_busy_time(sums):
    sums.serve(price=None)
    set_price(sums, usd_per_gpu_hour=Decimal("2.49"), gpus=3, effective_from=datetime.now(UTC) - DAY)
    sums.services.judges.create(sums.services.actor, "right", "model", "binary", "Is {{output}} right?")
    sums.faults["model"] = lambda number, _: 503 if number % 11 == 0 else None
    plan, _ = sums.run(concurrency=8, judges=["right"], limit=20)
    found = [row for role in ("candidate", "judge", "probe") for row in charges(sums, plan, role)]
    assert {(row[0], row[2], row[3], row[6]) for row in found} == {("gpu_time", Decimal("2.49"), GPU_HOUR, "estimated")}
    asked = sums.query(
        "SELECT attempt_id, epoch_us(opened_at), epoch_us(closed_at) FROM v1.attempts WHERE run_id = ? AND coalesce(http_status, 0) <> 503",
        plan.run_id,
    )
    assert len(asked) == len(found) >= 41
    busy, end = 0, 0
    for _, opened, closed in sorted(asked, key=lambda one: one[1]):
        busy, end = busy + max(0, closed - max(opened, end)), max(end, closed)
    assert sum(row[1] for row in found) == 3 * busy
    assert all(row[4] == cost_usd(row[1], Decimal("2.49"), GPU_HOUR) for row in found)
    assert abs(Fraction(bill(sums, plan).total_usd) - Fraction("2.49") * 3 * busy / GPU_HOUR) <= Fraction(len(found), 10**12)
    assert bill(sums, plan).unknown("provider") == 0
    before = sorted(sums.query("SELECT charge_id, quantity FROM v1.charges WHERE run_id = ?", plan.run_id))
    bill_run(sums.services, plan.run_id)
    finish_run(sums.services, plan.run_id)
    assert sorted(sums.query("SELECT charge_id, quantity FROM v1.charges WHERE run_id = ?", plan.run_id)) == before


def test_a_resumed_run_leaves_the_gpu_shares_of_before_as_they_are(sums):
    sums.serve(price=None)
    set_price(sums, usd_per_gpu_hour=Decimal(1), effective_from=datetime.now(UTC) - DAY)
    plan = sums.start(max_requests=25, concurrency=8)
    assert carry_out(sums.services, plan).stopped_by == "budget_reached"
    before = set(charges(sums, plan))
    change_run(sums.services, plan.run_id, Resumption(max_requests=100))
    assert carry_out(sums.services, plan).status == "completed"
    after = set(charges(sums, plan))
    assert before < after and len(after) == 60
    assert bill(sums, plan).unknown("provider") == 0


def test_what_the_endpoint_says_that_a_request_cost_is_taken_and_lies_are_not(sums):
    sums.serve(price=None)
    set_price(sums, reported=True, effective_from=datetime.now(UTC) - DAY)
    costs = [0.000123456789, "0.1", 1e-9, 0, 0.3, -1, 1e9, True, "much", float("1e-13"), None, 0.07]
    told = {question: usage(100 + n, 9, cached=n, cost=costs[n % 12]) for n, (question, _) in enumerate(sums.questions)}
    sums.faults["model"] = lambda _, question: Fault(usage=told[question]) if question in told else None
    plan, _ = sums.run()
    lines = charges(sums, plan)
    believed = [Decimal(text) for text in ("0.000123456789", "0.1", "0.000000001", "0", "0.3", "0", "0.07")]
    known = [row for row in lines if row[4] is not None]
    assert sum(row[4] for row in known) == 5 * sum(believed)
    assert {row[6] for row in known} == {"reported"} and {row[2] for row in lines} == {None}
    by_attempt = Counter()
    for row in known:
        by_attempt[row[-1]] += row[4]
    reported = dict(
        sums.query("SELECT attempt_id, reported_cost_usd FROM v1.attempts WHERE run_id = ? AND role = 'candidate'", plan.run_id)
    )
    assert {key: cost for key, cost in reported.items() if cost is not None} == dict(by_attempt)
    assert sum(cost is None for cost in reported.values()) == 25
    assert {row[6] for row in lines if row[4] is None} == {"unknown"}
    bill(sums, plan)


def test_a_cost_is_recorded_also_where_the_owners_own_price_counts(sums):
    sums.serve(price="1")
    sums.faults["model"] = lambda *_: Fault(usage=usage(10, 5, cost=77.5))
    plan, _ = sums.run(limit=3)
    assert set(sums.query("SELECT reported_cost_usd FROM v1.attempts WHERE run_id = ?", plan.run_id)) == {(Decimal("77.5"),)}
    assert bill(sums, plan).total_usd == 4 * Decimal("0.000015")


def test_charges_without_a_price_get_one_later_and_only_once(sums):
    sums.serve(price=None)
    sums.faults["model"] = lambda number, _: Fault(usage=usage(100, 10, cached=40)) if number % 2 else Fault(usage=usage(-1, 1))
    plan, _ = sums.run(limit=10)
    org = sums.services.actor.org_id
    unknown = bill(sums, plan).unknown("provider")
    [waiting] = unpriced_charges(sums.services.warehouse, org, plan.run_id)
    priced = sum(row[1] is not None for role in ("candidate", "probe") for row in charges(sums, plan, role))
    assert (waiting.model_key, waiting.since) == ("model", datetime.now(UTC).date()) and waiting.charges <= priced < unknown
    assert waiting.charges == unpriced_charges(sums.services.warehouse, org)[0].charges - 2 * 1  # the probe at registration
    assert f"byok price set model --input USD --output USD --from {waiting.since}" in how_to_price([waiting])[0]
    assert apply(sums).corrected == 0
    set_price(sums, input=Decimal(2), cached_input=Decimal(1), output=Decimal(5))
    assert apply(sums).corrected == 0, "a price from now on is none of what was asked before"
    entry = set_price(sums, input=Decimal(2), cached_input=Decimal(1), output=Decimal(5), effective_from=datetime.now(UTC) - DAY)
    applied = apply(sums)
    assert applied.corrected == priced + 2 and applied.unpriced == 0
    again = apply(sums)
    assert (again.corrected, again.usd, again.unpriced) == (0, 0, 0)
    corrections = sums.query(
        "SELECT k.quantity, k.unit_price_usd, k.amount_usd, k.price_version, k.charge_class, k.occurred_at = c.occurred_at, "
        "k.sku = c.sku AND k.quantity = c.quantity, k.recorded_at > c.recorded_at, c.amount_usd "
        "FROM v1.charges k JOIN v1.charges c ON c.charge_id = k.corrects WHERE k.run_id = ?",
        plan.run_id,
    )
    assert len(corrections) == priced
    for quantity, price, amount, version, charge_class, *same, before in corrections:
        assert amount == cost_usd(quantity, price, 1_000_000) and (version, charge_class, before) == (entry.version, "correction", None)
        assert same == [True, True, True]
    bills = bill(sums, plan)
    assert bills.total_usd == sum(row[2] for row in corrections)
    assert bills.unknown("provider") == unknown - priced
    assert sums.query("SELECT total_usd, unpriced_charges FROM v1.bills WHERE run_id = ? AND plane = 'provider'", plan.run_id) == [
        (bills.total_usd, bills.unknown("provider"))
    ]
    org = sums.services.actor.org_id
    summary = run_summary(sums.services.warehouse, org, plan.run_id)
    assert (summary.provider_usd, summary.unpriced_charges) == (bills.total_usd, bills.unknown("provider"))
    assert sums.query("SELECT provider_usd, unpriced_charges FROM v1.leaderboard WHERE run_id = ?", plan.run_id) == [
        (bills.total_usd, bills.unknown("provider"))
    ]
    assert f"{bills.unknown('provider')} charges of unknown amount not in it" in report_page(sums.services.warehouse, org, plan.run_id)
    assert applied.usd == sums.query("SELECT sum(amount_usd) FROM v1.charges WHERE corrects IS NOT NULL")[0][0]
    # Billing the run again adds nothing to it.
    bill_run(sums.services, plan.run_id)
    sums.services.warehouse.drain()
    assert bill(sums, plan) == bills


def test_journals_of_before_costs_were_read_are_billed_as_they_were(sums):
    sums.serve(price="2")
    sums.faults["model"] = lambda *_: Fault(usage=usage(100, 10, cached=40, reasoning=3))
    plan = sums.start(limit=4)
    sums.ask(plan)
    folder = sums.services.home.runs / plan.run_id
    for path in (folder / "journal").glob("*.ndjson"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            if "usage" in record:
                record["usage"] = record["usage"][:5]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    set_price(sums, usd_per_gpu_hour=Decimal(9), effective_from=datetime.now(UTC) - DAY)
    bill_run(sums.services, plan.run_id)
    finish_run(sums.services, plan.run_id)
    found = charges(sums, plan)
    assert {(row[0], row[1], row[4]) for row in found} == {
        ("tokens/input", 100, Decimal("0.0002")),
        ("tokens/output", 10, Decimal("0.00002")),
    }
    assert len(found) == 8 and {row[5] for row in found} == {f"model:{plan.model.id}:r{plan.model.revision}"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"usd_per_gpu_hour": Decimal(1)}, "by the hour"),
        ({"reported": True}, "afterwards"),
        ({"input": Decimal(1)}, "needs the prices"),
    ],
)
def test_a_cap_in_dollars_takes_a_price_of_tokens(sums, values, told):
    server = sums.serve(price=None)
    set_price(sums, **values, effective_from=datetime.now(UTC) - DAY)
    with pytest.raises(ByokError, match=told) as caught:
        sums.start(max_usd="1", max_tokens=10)
    assert caught.value.code == "price_unknown" and "byok price set model" in caught.value.hint
    assert server.stats()["chat_requests"] == 1  # the probe at registration
    # Caps of another kind can be kept.
    plan, finished = sums.run(max_requests=61, limit=5)
    assert finished.status == "completed" and bill(sums, plan).total_micro_ecu == 0


@pytest.mark.parametrize(
    "values", [{"input": Decimal(200_000), "output": Decimal(200_000)}, {"usd_per_gpu_hour": Decimal(1)}, {"reported": True}]
)
def test_a_price_that_is_raised_or_taken_away_in_mid_run_does_not_pass_the_cap(sums, values):
    server = sums.serve(price=None)
    set_price(sums, input=Decimal("0.01"), output=Decimal("0.01"), effective_from=datetime.now(UTC) - DAY)
    before = server.stats()["chat_requests"]
    at = []

    def fault(number, _):
        if number == 10 and not at:
            at.append(set_price(sums, **values, effective_from=datetime.now(UTC) + timedelta(seconds=0.5)))
        if number >= 10:
            return Fault(delay_ms=600)
        return None

    sums.faults["model"] = fault
    plan = sums.start(max_usd="0.5", max_tokens=16, concurrency=2)
    finished = carry_out(sums.services, plan)
    assert finished.stopped_by == "budget_reached"
    assert server.stats()["chat_requests"] - before < 30
    total = bill(sums, plan).total_usd
    assert total is None or total <= Decimal("0.5") or at[0].kind == "token"
