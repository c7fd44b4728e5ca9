"""Two bills through a real warehouse: they add up to the last digit, and say what they do not know."""

import random
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest

from byok.billing import BillDoesNotTie, RateCard, TokenRates, charges_for, two_bills
from byok.engine.plan import ModelRef
from byok.money import plain
from byok.warehouse import Warehouse
from byok.warehouse.rows import AttemptRow

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def warehouse(tmp_path):
    made = Warehouse(tmp_path / "warehouse", tmp_path / "spool")
    made.migrate()
    return made


def model(key="mine", price_input="0.15", price_output="0.60", public=False):
    return ModelRef(
        id=f"id-{key}",
        key=key,
        revision=1,
        remote_id=key,
        base_url="https://api.example/v1",
        origin="https://api.example",
        max_tokens=None,
        extra_payload={},
        public=public,
        price_input=None if price_input is None else Decimal(price_input),
        price_output=None if price_output is None else Decimal(price_output),
        key_version=1,
        capabilities={},
    )


def attempt(number, key="mine", *, role="candidate", into=1000, out=7, status="ok", run="r-1", org="acme"):
    return AttemptRow(
        org_id=org,
        attempt_id=f"{org}-{run}-{number}",
        run_id=run,
        role=role,
        model_id=f"id-{key}",
        model_key=key,
        sample_id="s-1",
        judge="one" if role == "judge" else None,
        judge_version=1 if role == "judge" else None,
        number=1,
        status=status,
        error_code=None,
        http_status=200 if status == "ok" else None,
        latency_ms=1.0,
        prompt_tokens=into,
        completion_tokens=out,
        cached_tokens=None,
        reasoning_tokens=None,
        usage_class="missing" if into is None else "reported",
        provider_request_id=None,
        key_version=1,
        opened_at=NOW,
        closed_at=NOW,
        recorded_at=NOW,
    )


CARD = RateCard("2026-01", NOW, {"default": 50_000}, {"default": TokenRates(Decimal("1.0"), Decimal("4.0"))})


def store(warehouse, charges):
    warehouse.write_segment(charges)
    warehouse.drain()


def billed(warehouse, *pairs, card=CARD):
    store(warehouse, [charge for one, asked in pairs for charge in charges_for(one, asked, card)])


@pytest.mark.parametrize("seed", range(6))
def test_the_bills_add_up_to_the_last_digit(warehouse, seed):
    draw = random.Random(seed)
    prices = [Decimal(draw.randrange(10**15)).scaleb(-12) for _ in range(4)]
    rates = TokenRates(Decimal(draw.randrange(10**8)).scaleb(-6), Decimal(draw.randrange(10**8)).scaleb(-6))
    card = RateCard("x", NOW, {"default": draw.randrange(10**6)}, {"default": rates})
    models = [
        model("mine", prices[0], prices[1]),
        model("yours", prices[2], prices[3]),
        model("dear", "9999.999999999999", None),
        model("shared", public=True),
    ]
    usd, micro, unknown_usd, unknown_micro, pairs = Fraction(0), 0, 0, 0, []
    for number in range(200):
        asked, role = draw.choice(models), draw.choice(["candidate", "judge"])
        counts = (None, None) if draw.random() < 0.1 else (draw.randrange(10**6), draw.randrange(10**4))
        pairs.append((attempt(number, asked.key, role=role, into=counts[0], out=counts[1]), asked))
        micro += card.judge_call_micro_ecu(asked.key) if role == "judge" else 0
        for tokens, price, rate in zip(counts, (asked.price_input, asked.price_output), (rates.input, rates.output), strict=True):
            if asked.public:
                micro += 0 if tokens is None else round(tokens * Fraction(rate))
                unknown_micro += tokens is None
            elif tokens is None or price is None:
                unknown_usd += 1
            else:
                usd += Fraction(round(tokens * Fraction(price) * 10**6), 10**12)
    billed(warehouse, *pairs, card=card)
    bills = two_bills(warehouse, "acme", "r-1")
    assert Fraction(bills.total_usd) == usd
    assert bills.total_micro_ecu == micro
    assert (bills.unknown("provider"), bills.unknown("ecu")) == (unknown_usd, unknown_micro)
    assert sum(line.charges for line in bills.lines) == sum(len(charges_for(one, asked, card)) for one, asked in pairs)
    shape = bills.as_dict()
    assert Fraction(plain(shape["provider"]["total_usd"])) == usd
    assert Fraction(shape["platform"]["total_ecu"]) == Fraction(micro, 10**6)
    assert shape["provider"]["unpriced_charges"] == unknown_usd


def test_the_lines(warehouse):
    mine, shared = model(), model("shared", public=True)
    billed(
        warehouse,
        (attempt(1), mine),
        (attempt(2, into=None, out=None), mine),
        (attempt(3, role="judge"), mine),
        (attempt(4, "shared"), shared),
    )
    bills = two_bills(warehouse, "acme", "r-1")
    found = [(line.plane, line.role, line.model_key, line.sku, line.charges, line.quantity, line.unknown) for line in bills.lines]
    assert found == [
        ("provider", "candidate", "mine", "tokens/input", 2, 1000, 1),
        ("provider", "candidate", "mine", "tokens/output", 2, 7, 1),
        ("provider", "judge", "mine", "tokens/input", 1, 1000, 0),
        ("provider", "judge", "mine", "tokens/output", 1, 7, 0),
        ("ecu", "candidate", "shared", "inference/input", 1, 1000, 0),
        ("ecu", "candidate", "shared", "inference/output", 1, 7, 0),
        ("ecu", "judge", "mine", "judge_call", 1, 1, 0),
    ]
    assert bills.total_usd == Decimal("0.0003084")
    assert bills.total_micro_ecu == 51_028
    assert bills.lines[0].unit_price == Decimal("0.15")
    assert bills.lines[-1].unit_price == 50_000
    shape = bills.as_dict()
    assert "amount_micro_ecu" not in shape["provider"]["lines"][0]
    assert "amount_usd" not in shape["platform"]["lines"][0]


def test_nothing_known_is_unknown_and_nothing_billed_is_zero(warehouse):
    billed(warehouse, (attempt(1), model(price_input=None, price_output=None)), (attempt(2, status="lost", into=None, out=None), model()))
    bills = two_bills(warehouse, "acme", "r-1")
    assert (bills.total_usd, bills.unknown("provider")) == (None, 4)
    assert (bills.total_micro_ecu, bills.unknown("ecu"), bills.of("ecu")) == (0, 0, [])
    empty = two_bills(warehouse, "acme", "r-none")
    assert (empty.total_usd, empty.total_micro_ecu, empty.lines) == (0, 0, ())


def test_an_attempt_that_is_stored_again_is_billed_once(warehouse):
    for _ in range(2):
        billed(warehouse, (attempt(1), model()))
    assert two_bills(warehouse, "acme", "r-1").total_usd == Decimal("0.0001542")


def test_bills_of_other_runs_and_organisations_stay_apart(warehouse):
    billed(warehouse, (attempt(1), model()), (attempt(1, run="r-2"), model()), (attempt(1, org="other"), model()))
    assert two_bills(warehouse, "acme", "r-1").total_usd == Decimal("0.0001542")
    assert two_bills(warehouse, "other", "r-2").lines == ()


@pytest.mark.parametrize(
    ("sku", "wrong"),
    [
        ("tokens/input", {"amount_usd": Decimal("0.000150000001")}),
        ("tokens/input", {"amount_usd": None}),
        ("tokens/input", {"quantity": 1001}),
        ("tokens/input", {"unit_price_usd_per_mtok": Decimal("0.16")}),
        ("tokens/input", {"quantity": None}),
        ("tokens/input", {"amount_micro_ecu": 5}),
        ("judge_call", {"amount_micro_ecu": 49_999}),
        ("judge_call", {"amount_micro_ecu": None}),
        ("judge_call", {"rate_micro_ecu": Decimal("50001")}),
        ("judge_call", {"amount_usd": Decimal("1")}),
    ],
)
def test_an_amount_that_was_changed_is_found(warehouse, sku, wrong):
    charges = charges_for(attempt(1, role="judge"), model(), CARD)
    store(warehouse, [replace(charge, **wrong) if charge.sku == sku else charge for charge in charges])
    with pytest.raises(BillDoesNotTie, match="r-1") as caught:
        two_bills(warehouse, "acme", "r-1")
    assert caught.value.exit_code == 4
