"""Money: exact in, exact through, exact out."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.money import BadAmount, ecu, parse_usd, plain, token_cost_usd

_PRICES = st.decimals(min_value=0, max_value=100_000, places=12, allow_nan=False)


@given(tokens=st.integers(min_value=0, max_value=10**10), price=_PRICES)
def test_token_cost_against_fractions(tokens, price):
    exact = Fraction(price) * tokens / 10**6
    # Python rounds a Fraction half to even.
    assert Fraction(token_cost_usd(tokens, price)) == Fraction(round(exact * 10**12), 10**12)


@pytest.mark.parametrize(
    ("tokens", "price", "cost"),
    [
        (1, "0.15", "0.00000015"),
        (1_000_000, "0.15", "0.15"),
        (0, "0.15", "0"),
        (7, "0", "0"),
        (1, "0.0000005", "0"),  # half of the last place goes to even: down …
        (3, "0.0000005", "0.000000000002"),  # … and up
    ],
)
def test_token_cost(tokens, price, cost):
    assert plain(token_cost_usd(tokens, Decimal(price))) == cost


@pytest.mark.parametrize("text", ["0", "0.15", " 12.5 ", "1e-3", "9999999999999999", "0.000000000001", "9999999999999999.999999999999"])
def test_parse_usd_is_exact(text):
    assert parse_usd(text, what="--price") == Decimal(text.strip())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "free",
        "0,15",
        "$1",
        "-1",
        "-0.01",
        "nan",
        "sNaN",
        "inf",
        "-inf",
        "0.0000000000001",
        "10000000000000000",
        "1e400",
        "1e-400",
        "1 000",
    ],
)
def test_parse_usd_refuses(text):
    with pytest.raises(BadAmount) as caught:
        parse_usd(text, what="--price-input")
    assert caught.value.message.startswith("--price-input: ")
    assert caught.value.hint
    assert caught.value.exit_code == 2


@given(st.decimals(min_value=0, max_value=10**15, places=12, allow_nan=False))
def test_plain_round_trip(amount):
    text = plain(amount)
    assert "e" not in text.lower()
    assert parse_usd(text, what="amount") == amount
    assert text == "0" or not (("." in text and text.endswith("0")) or text.endswith("."))


@given(st.integers(min_value=0, max_value=10**20))
def test_ecu_round_trip(micro):
    assert Decimal(ecu(micro)) * 1_000_000 == micro


@pytest.mark.parametrize(("micro", "text"), [(0, "0"), (1, "0.000001"), (1_500_000, "1.5"), (10_000_000, "10"), (50_000, "0.05")])
def test_ecu(micro, text):
    assert ecu(micro) == text
