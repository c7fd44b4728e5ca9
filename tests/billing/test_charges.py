"""From an attempt to its charges: what is known, what is unknown, what is free."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from byok.billing import RateCard, TokenRates, charges_for, surely_free
from byok_testing.money_rows import attempt_row, model_ref

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CARD = RateCard("2026-01", NOW, {"default": 50_000, "referee": 70_000}, {"default": TokenRates(Decimal("1.0"), Decimal("4.0"))})
MODEL = model_ref(price_input=Decimal("0.15"), price_output=Decimal("0.60"))
PUBLIC = MODEL.model_copy(update={"public": True})
ATTEMPT = attempt_row("acme", "2026-03-01", 1000, 7, attempt_id="a-1", run_id="r-1", sample_id="s-1", closed_at=NOW)
JUDGE = replace(ATTEMPT, role="judge", judge="one", judge_version=1)


def lines(attempt, model=MODEL, **options):
    return {charge.sku: charge for charge in charges_for(attempt, model, CARD, **options)}


def test_tokens_under_the_own_key_are_on_the_provider_bill_alone():
    found = lines(ATTEMPT)
    assert list(found) == ["tokens/input", "tokens/output"]
    into, out = found.values()
    assert (into.quantity, into.unit_price_usd_per_mtok, into.amount_usd) == (1000, Decimal("0.15"), Decimal("0.00015"))
    assert (out.quantity, out.unit_price_usd_per_mtok, out.amount_usd) == (7, Decimal("0.60"), Decimal("0.0000042"))
    for charge in (into, out):
        assert (charge.plane, charge.role, charge.evidence, charge.price_version) == ("provider", "candidate", "computed", "model:m-1:r3")
        assert (charge.rate_micro_ecu, charge.amount_micro_ecu) == (None, None)
        assert (charge.org_id, charge.run_id, charge.attempt_id, charge.model_key) == ("acme", "r-1", "a-1", "mine")


def test_an_unknown_price_gives_no_amount():
    found = lines(ATTEMPT, MODEL.model_copy(update={"price_input": None}))
    assert (found["tokens/input"].quantity, found["tokens/input"].amount_usd, found["tokens/input"].evidence) == (1000, None, "unknown")
    assert found["tokens/output"].amount_usd == Decimal("0.0000042")


@pytest.mark.parametrize("usage_class", ["missing", "invalid"])
@pytest.mark.parametrize("tokens", [None, 0, 12])
def test_usage_that_was_not_reported_is_unknown(usage_class, tokens):
    for charge in lines(replace(ATTEMPT, usage_class=usage_class, prompt_tokens=tokens, completion_tokens=tokens)).values():
        assert (charge.quantity, charge.amount_usd, charge.evidence) == (None, None, "unknown")


@pytest.mark.parametrize("model", [MODEL, PUBLIC])
def test_vectors_have_no_output_of_which_something_could_be_unknown(model):
    missing = replace(ATTEMPT, usage_class="missing", prompt_tokens=None, completion_tokens=None)
    reported = replace(ATTEMPT, completion_tokens=0)
    for attempt in (missing, reported):
        assert [sku.partition("/")[2] for sku in lines(attempt, model, vectors=True)] == ["input"]
        assert [sku.partition("/")[2] for sku in lines(attempt, model)] == ["input", "output"]
    # Who reports an output is billed for it, whatever was asked.
    assert lines(replace(ATTEMPT, completion_tokens=3), model, vectors=True).popitem()[1].quantity == 3


def test_no_tokens_and_no_price_are_known_zeros():
    found = lines(replace(ATTEMPT, completion_tokens=0), MODEL.model_copy(update={"price_input": Decimal(0)}))
    assert (found["tokens/output"].quantity, found["tokens/output"].amount_usd, found["tokens/output"].evidence) == (0, 0, "computed")
    assert (found["tokens/input"].quantity, found["tokens/input"].amount_usd, found["tokens/input"].evidence) == (1000, 0, "computed")


def failed(code, status, **other):
    changes = {"prompt_tokens": None, "completion_tokens": None, "usage_class": "missing"} | other
    return replace(ATTEMPT, status="error", error_code=code, http_status=status, **changes)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("endpoint_redirect", 307),
        ("endpoint_auth", 401),
        ("endpoint_rate_limited", 429),
        ("endpoint_overloaded", 500),
        ("endpoint_overloaded", 503),
        ("endpoint_unreachable", None),
        ("endpoint_tls", None),
        ("endpoint_forbidden_address", None),
    ],
)
@pytest.mark.parametrize("model", [MODEL, PUBLIC])
def test_a_request_that_was_refused_or_never_arrived_costs_nothing(code, status, model):
    for attempt in (failed(code, status), replace(failed(code, status), role="judge", judge="one")):
        assert surely_free(attempt)
        assert lines(attempt, model) == {}


@pytest.mark.parametrize(
    "attempt",
    [
        failed("endpoint_timeout", None),
        failed("endpoint_timeout", 408),
        failed("endpoint_timeout", 499),
        failed("endpoint_overloaded", 504),
        failed("endpoint_overloaded", 524),
        failed("endpoint_cut", 200),
        failed(None, None),
        replace(failed(None, None), status="lost", closed_at=None),
    ],
)
def test_a_request_whose_end_is_not_known_is_unknown_and_not_free(attempt):
    assert not surely_free(attempt)
    found = lines(attempt)
    assert list(found) == ["tokens/input", "tokens/output"]
    assert {(charge.quantity, charge.amount_usd, charge.evidence) for charge in found.values()} == {(None, None, "unknown")}
    assert all(charge.occurred_at == NOW for charge in found.values())
    assert "judge_call" not in lines(replace(attempt, role="judge", judge="one"))


def test_a_public_model_is_on_the_platform_bill_alone():
    found = lines(ATTEMPT, PUBLIC)
    assert list(found) == ["inference/input", "inference/output"]
    assert [charge.amount_micro_ecu for charge in found.values()] == [1000, 28]
    for charge in found.values():
        assert (charge.plane, charge.price_version, charge.evidence) == ("ecu", "card:2026-01", "computed")
        assert (charge.unit_price_usd_per_mtok, charge.amount_usd) == (None, None)


def test_ecu_are_rounded_half_to_even_on_each_line():
    card = replace(CARD, public_inference={"default": TokenRates(Decimal("0.5"), Decimal("1.5"))})
    amounts = [charge.amount_micro_ecu for charge in charges_for(replace(ATTEMPT, prompt_tokens=1, completion_tokens=1), PUBLIC, card)]
    assert amounts == [0, 2]


def test_a_public_model_without_usage_is_unknown():
    for charge in lines(replace(ATTEMPT, usage_class="missing", prompt_tokens=None, completion_tokens=None), PUBLIC).values():
        assert (charge.plane, charge.quantity, charge.amount_micro_ecu, charge.evidence) == ("ecu", None, None, "unknown")


@pytest.mark.parametrize("usage_class", ["reported", "missing"])
def test_a_judge_call_is_on_the_platform_bill_under_whatever_key(usage_class):
    attempt = replace(JUDGE, usage_class=usage_class)
    own, public = lines(attempt), lines(attempt, PUBLIC)
    assert list(own) == ["tokens/input", "tokens/output", "judge_call"]
    assert list(public) == ["inference/input", "inference/output", "judge_call"]
    for charge in (own["judge_call"], public["judge_call"]):
        assert (charge.plane, charge.quantity, charge.rate_micro_ecu, charge.amount_micro_ecu) == ("ecu", 1, 50_000, 50_000)
        assert (charge.role, charge.evidence, charge.price_version) == ("judge", "computed", "card:2026-01")
    dear = lines(attempt, MODEL.model_copy(update={"key": "referee"}))
    assert dear["judge_call"].amount_micro_ecu == 70_000


def test_the_same_attempt_is_never_billed_twice():
    once, again = (charges_for(JUDGE, MODEL, CARD) for _ in range(2))
    assert [charge.charge_id for charge in once] == [charge.charge_id for charge in again]
    other = charges_for(replace(JUDGE, attempt_id="a-2"), MODEL, CARD)
    assert len({charge.charge_id for charge in once + other}) == 6


@pytest.mark.parametrize("model", [MODEL, PUBLIC])
def test_an_error_that_tells_usage_is_billed(model):
    attempt = failed("endpoint_overloaded", 500, prompt_tokens=1000, completion_tokens=0, usage_class="reported")
    assert not surely_free(attempt)
    assert [(charge.quantity, charge.evidence) for charge in lines(attempt, model).values()] == [(1000, "computed"), (0, "computed")]
