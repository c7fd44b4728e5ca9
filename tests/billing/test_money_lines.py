"""Lines of the provider's bill: each token once, and parts that add up to the whole to the last digit, whatever the endpoint says."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.billing import BillDoesNotTie, RateCard, TokenRates, charges_for, two_bills
from byok.endpoint.usage import MOST_COST_USD, read_cost, read_usage
from byok.money import GPU_HOUR, cost_usd, split
from byok.pricing.entries import PriceEntry
from byok.pricing.prices import ModelPrices
from byok.warehouse import Warehouse
from byok_testing.money_rows import attempt_row, model_ref

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CARD = RateCard("2026-01", NOW, {"default": 50_000}, {"default": TokenRates(Decimal("1.0"), Decimal("4.0"))})
MODEL = model_ref()
ATTEMPT = attempt_row(
    "acme", "2026-03-01", 1000, 50, attempt_id="a-1", run_id="r-1", sample_id="s-1", cached_tokens=400, reasoning_tokens=20
)


def prices(kind="token", start=NOW - timedelta(days=1), **values):
    return ModelPrices([entry(kind, start, **values)], MODEL.base_url, MODEL.remote_id)


def entry(kind, start, **values):
    return PriceEntry(
        id=f"p-{start:%d}", org_id="acme", model_id="m-1", kind=kind, effective_from=start, created_by="x", created_at=NOW, **values
    )


TOKENS = {"input": Decimal("3"), "cached_input": Decimal("0.3"), "output": Decimal("15"), "reasoning": Decimal("20")}


def lines(attempt, book, **options):
    return {charge.sku: charge for charge in charges_for(attempt, MODEL, CARD, book, **options)}


def test_each_token_is_in_one_bucket_with_its_own_price():
    found = lines(ATTEMPT, prices(**TOKENS))
    assert {sku: (one.quantity, one.unit_price_usd, one.amount_usd) for sku, one in found.items()} == {
        "tokens/input": (600, 3, Decimal("0.0018")),
        "tokens/cached_input": (400, Decimal("0.3"), Decimal("0.00012")),
        "tokens/output": (30, 15, Decimal("0.00045")),
        "tokens/reasoning": (20, 20, Decimal("0.0004")),
    }
    for charge in found.values():
        assert (charge.unit, charge.price_units, charge.price_source, charge.price_version) == ("token", 1_000_000, "own", "price:p-28")
        assert charge.sku == f"tokens/{charge.token_type}" and charge.unit_price_usd_per_mtok == charge.unit_price_usd
        assert (charge.evidence, charge.corrects) == ("computed", None)


def test_the_price_is_that_of_the_time_at_which_the_request_was_sent():
    book = ModelPrices(
        [
            entry("token", NOW - timedelta(days=1), input=Decimal(1), output=Decimal(1)),
            entry("token", NOW + timedelta(seconds=1), input=Decimal(2), output=Decimal(2)),
        ],
        MODEL.base_url,
        MODEL.remote_id,
    )
    # It was answered under the newer price, and sent under the older one.
    assert lines(ATTEMPT, book)["tokens/input"].unit_price_usd == 1
    assert lines(replace(ATTEMPT, opened_at=NOW + timedelta(seconds=1)), book)["tokens/input"].unit_price_usd == 2


def test_a_type_without_a_price_is_unknown_alone():
    found = lines(ATTEMPT, prices(input=Decimal(3)))
    assert (found["tokens/output"].amount_usd, found["tokens/output"].evidence, found["tokens/output"].price_source) == (
        None,
        "unknown",
        "none",
    )
    assert found["tokens/input"].amount_usd == Decimal("0.0018")


COUNTS = st.integers(0, 10**8)
USD = st.decimals(min_value=0, max_value=10**6, places=12)


@given(COUNTS, COUNTS, st.fractions(0, 1), st.fractions(0, 1), st.tuples(USD, USD, USD, USD))
def test_the_buckets_come_to_what_was_used_and_each_amount_is_exact(prompt, completion, cached, reasoning, usd):
    attempt = replace(
        ATTEMPT,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=int(prompt * cached),
        reasoning_tokens=int(completion * reasoning),
    )
    found = lines(attempt, prices(**dict(zip(TOKENS, usd, strict=True))))
    into = [one.quantity for sku, one in found.items() if "input" in sku]
    out = [one.quantity for sku, one in found.items() if "input" not in sku]
    assert (sum(into), sum(out)) == (prompt, completion) and min(into + out) >= 0
    for one in found.values():
        assert Fraction(one.amount_usd) == Fraction(round(one.quantity * Fraction(one.unit_price_usd) * 10**6), 10**12)


@given(COUNTS, COUNTS, st.fractions(0, 1), st.fractions(0, 1), st.decimals(min_value=0, max_value=MOST_COST_USD, places=12), st.booleans())
def test_a_reported_cost_is_allotted_to_the_last_digit(prompt, completion, cached, reasoning, cost, vectors):
    attempt = replace(
        ATTEMPT,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=int(prompt * cached),
        reasoning_tokens=int(completion * reasoning),
        reported_cost_usd=cost,
    )
    found = lines(attempt, prices("reported"), vectors=vectors)
    assert sum(one.amount_usd for one in found.values()) == cost
    total = prompt + completion
    for one in found.values():
        assert (one.evidence, one.price_source, one.unit_price_usd, one.price_units) == ("reported", "endpoint", None, None)
        assert one.amount_usd >= 0
        if total:
            assert abs(Fraction(one.amount_usd) - Fraction(cost) * one.quantity / total) <= Fraction(1, 10**12)


@given(st.integers(0, 10**18), st.lists(st.integers(0, 10**12), min_size=1, max_size=6))
def test_a_split_adds_up_and_nothing_without_weight_gets_anything(total, weights):
    parts = split(total, weights)
    assert sum(parts) == total and min(parts) >= 0
    if sum(weights):
        assert all(part == 0 for part, weight in zip(parts, weights, strict=True) if weight == 0)


def test_a_reported_cost_without_tokens_stands_on_one_line():
    unknown = replace(ATTEMPT, usage_class="invalid", prompt_tokens=None, reported_cost_usd=Decimal("0.25"))
    [line] = charges_for(unknown, MODEL, CARD, prices("reported"))
    assert (line.sku, line.quantity, line.amount_usd, line.evidence) == ("tokens/input", None, Decimal("0.25"), "reported")


def test_a_cost_that_is_not_told_is_unknown_and_one_that_nobody_asked_for_changes_nothing():
    for charge in lines(ATTEMPT, prices("reported")).values():
        assert (charge.amount_usd, charge.evidence, charge.price_source) == (None, "unknown", "endpoint") and charge.quantity
    told = replace(ATTEMPT, reported_cost_usd=Decimal(999))
    assert [one.amount_usd for one in lines(told, prices(**TOKENS)).values()] == [
        one.amount_usd for one in lines(ATTEMPT, prices(**TOKENS)).values()
    ]


def test_gpu_hours_are_paid_by_busy_time():
    book = prices("gpu_hour", usd_per_gpu_hour=Decimal("2.5"), gpus=8)
    [line] = charges_for(ATTEMPT, MODEL, CARD, book, busy_us=1_500_000)
    assert (line.sku, line.quantity, line.unit, line.token_type) == ("gpu_time", 12_000_000, "gpu_microsecond", None)
    assert (line.unit_price_usd, line.price_units, line.unit_price_usd_per_mtok) == (Decimal("2.5"), 3_600_000_000, None)
    assert (line.amount_usd, line.evidence, line.price_source) == (Decimal("0.008333333333"), "estimated", "own")
    [lost] = charges_for(replace(ATTEMPT, status="lost", closed_at=None, usage_class="missing"), MODEL, CARD, book)
    assert (lost.quantity, lost.amount_usd, lost.evidence) == (None, None, "unknown")


@given(st.integers(0, 10**15), USD)
def test_gpu_time_is_rounded_once(quantity, usd):
    assert Fraction(cost_usd(quantity, usd, GPU_HOUR)) == Fraction(round(Fraction(quantity) * Fraction(usd) / GPU_HOUR * 10**12), 10**12)


@pytest.mark.parametrize(
    ("told", "read"),
    [
        (0.00014, "0.00014"),
        (0, "0"),
        (3, "3"),
        (1e-7, "0.0000001"),
        ("0.000123456789", "0.000123456789"),
        ("1.5e-3", "0.0015"),
        (0.1 + 0.2, "0.3"),  # to 12 places
        (1000, "1000"),
        (1000.01, None),
        (-0.01, None),
        ("-1", None),
        (True, None),
        (False, None),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**30, None),
        ("1e99", None),
        ("1_000", None),
        ("٣", None),
        (" 1", None),
        ("NaN", None),
        ("", None),
        ([1], None),
        ({"usd": 1}, None),
    ],
)
def test_a_cost_is_read_exactly_or_not_at_all(told, read):
    assert read_cost(told) == (None if read is None else Decimal(read))


@pytest.mark.parametrize(
    ("more", "cost"),
    [
        ({}, "0.05"),
        ({"is_byok": False, "cost_details": {"upstream_inference_cost": 0.05}}, "0.05"),
        ({"cost_details": {"upstream_inference_cost": 19}}, "0.05"),
        ({"is_byok": True, "cost_details": {"upstream_inference_cost": 0.95}}, "1.00"),
        ({"is_byok": True, "cost_details": {"upstream_inference_cost": None}}, None),
        ({"is_byok": True, "cost_details": {"upstream_inference_cost": -1}}, None),
        ({"is_byok": True}, None),
        ({"is_byok": "true", "cost_details": "none"}, "0.05"),
    ],
)
def test_a_routers_fee_alone_is_not_what_a_request_costs_under_the_owners_own_key(more, cost):
    told = read_usage({"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.05} | more, {}).cost_usd
    assert told == (None if cost is None else Decimal(cost))


@given(st.one_of(st.floats(), st.integers(), st.text(max_size=30), st.booleans(), st.none(), st.decimals().map(str)))
def test_no_cost_that_an_endpoint_tells_is_ever_more_than_it_can_be(told):
    cost = read_usage({"prompt_tokens": 1, "completion_tokens": 1, "cost": told}, {}).cost_usd
    assert cost is None or (0 <= cost <= MOST_COST_USD and cost == cost.quantize(Decimal("1e-12")))


LIES = st.one_of(
    st.integers(-(10**13), 10**13), st.booleans(), st.floats(), st.none(), st.text(max_size=5), st.integers(0, 200), st.integers(0, 200)
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: LIES for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens", "cost")
        },
    )
)
def test_37_whatever_is_said_of_tokens_every_amount_is_right_or_unknown(told):
    usage = read_usage(json.loads(json.dumps(told)), {})
    attempt = replace(
        ATTEMPT,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        usage_class=usage.usage_class,
        reported_cost_usd=usage.cost_usd,
    )
    for book in (prices(**TOKENS), prices("reported")):
        found = lines(attempt, book)
        known = [one.amount_usd for one in found.values() if one.amount_usd is not None]
        assert all(usd >= 0 for usd in known)
        assert all(one.quantity is None or 0 <= one.quantity <= 10**8 for one in found.values())
        if book.at(NOW).kind == "reported":
            assert sum(known) == (usage.cost_usd or 0)
        elif usage.usage_class == "reported":
            assert len(known) == len(found)
            assert sum(one.quantity for one in found.values()) == usage.prompt_tokens + usage.completion_tokens
        else:
            assert known == []


@pytest.fixture
def warehouse(tmp_path):
    made = Warehouse(tmp_path / "warehouse", tmp_path / "spool")
    made.migrate()
    return made


REPORTED = replace(ATTEMPT, attempt_id="a-2", reported_cost_usd=Decimal("0.0123"))
BY_HOUR = replace(ATTEMPT, attempt_id="a-3")


def stored(warehouse, *, sku=None, of=None, **wrong):
    """Three attempts, one of each kind of price, and their charges; of one of them something is wrong."""
    charges = [
        *charges_for(ATTEMPT, MODEL, CARD, prices(**TOKENS)),
        *charges_for(REPORTED, MODEL, CARD, prices("reported")),
        *charges_for(BY_HOUR, MODEL, CARD, prices("gpu_hour", usd_per_gpu_hour=Decimal(3), gpus=2), busy_us=7),
    ]
    rows = [replace(one, **wrong) if (one.sku, one.attempt_id) == (sku, of) else one for one in charges]
    warehouse.write_segment([ATTEMPT, REPORTED, BY_HOUR, *rows])
    warehouse.drain()


def test_a_bill_of_all_kinds_adds_up(warehouse):
    stored(warehouse)
    bills = two_bills(warehouse, "acme", "r-1")
    assert bills.total_usd == Decimal("0.00277") + Decimal("0.0123") + cost_usd(14, Decimal(3), GPU_HOUR)
    assert bills.unknown("provider") == 0
    units = {(line.sku, line.unit_price): line.unit for line in bills.lines}
    assert units[("gpu_time", 3)] == "gpu_microsecond" and units[("tokens/input", None)] == units[("tokens/input", 3)] == "token"


@pytest.mark.parametrize(
    ("sku", "of", "wrong"),
    [
        ("tokens/reasoning", "a-1", {"amount_usd": Decimal("0.0005")}),
        ("tokens/cached_input", "a-1", {"unit_price_usd": Decimal("0.4")}),
        ("tokens/cached_input", "a-1", {"price_units": 1000}),
        ("tokens/input", "a-2", {"amount_usd": Decimal("0.01")}),
        ("tokens/input", "a-2", {"amount_usd": None}),
        ("tokens/input", "a-2", {"unit_price_usd": Decimal("1")}),
        ("gpu_time", "a-3", {"quantity": 15}),
        ("gpu_time", "a-3", {"unit_price_usd_per_mtok": Decimal(3)}),
        ("gpu_time", "a-3", {"price_units": 1_000_000}),
        ("gpu_time", "a-3", {"corrects": "somewhere else"}),
    ],
)
def test_a_line_that_was_changed_is_found(warehouse, sku, of, wrong):
    stored(warehouse, sku=sku, of=of, **wrong)
    with pytest.raises(BillDoesNotTie):
        two_bills(warehouse, "acme", "r-1")


def test_charges_that_waited_over_an_upgrade_are_taken_for_tokens(warehouse):
    before = {"unit": None, "token_type": None, "unit_price_usd": None, "price_units": None, "price_source": None}
    charges = charges_for(replace(ATTEMPT, cached_tokens=None, reasoning_tokens=None), MODEL, CARD, prices(**TOKENS))
    warehouse.write_segment([replace(one, **before) for one in charges])
    warehouse.drain()
    bills = two_bills(warehouse, "acme", "r-1")
    assert bills.total_usd == sum(one.amount_usd for one in charges)
    assert [line.unit_price for line in bills.lines] == [3, 15]
