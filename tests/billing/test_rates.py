"""Rate cards: the newest in force counts, and a card that is not in order is refused whole."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from byok.billing import NoRateCard, RateCardInvalid, rate_card, read_cards
from byok.resources import shipped

CARD = """
version = "{version}"
effective_from = {start}

[judge_call]
default = 50_000
"big-judge" = 70_000

[public_inference.default]
input = "1.0"
output = "4.0"

[public_inference."big-model"]
input = "2.5"
output = "0.000001"
"""


def write(folder, name, version=None, start="2026-01-01T00:00:00Z", text=CARD):
    (folder / f"{name}.toml").write_text(text.replace("{version}", version or name).replace("{start}", start), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "b", start="2026-01-01T00:00:00Z")
    write(tmp_path, "a", start="2026-07-01T02:00:00+02:00")
    return tmp_path


JULY = datetime(2026, 7, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "version"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), "b"),
        (JULY - timedelta(microseconds=1), "b"),
        (JULY, "a"),
        (datetime(2026, 6, 30, 20, tzinfo=timezone(timedelta(hours=-4))), "a"),
        (JULY + timedelta(days=9000), "a"),
    ],
)
def test_the_newest_in_force_counts(folder, at, version):
    assert rate_card(at, folder).version == version


def test_none_in_force(folder, tmp_path_factory):
    with pytest.raises(NoRateCard, match="2025-12-31") as caught:
        rate_card(datetime(2025, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), folder)
    assert caught.value.hint
    with pytest.raises(NoRateCard):
        rate_card(JULY, tmp_path_factory.mktemp("empty"))


def test_rates_by_model_and_default(folder):
    card = rate_card(JULY, folder)
    assert card.effective_from == JULY
    assert (card.judge_call_micro_ecu("big-judge"), card.judge_call_micro_ecu("other")) == (70_000, 50_000)
    assert (card.inference("big-model").input, card.inference("big-model").output) == (Decimal("2.5"), Decimal("0.000001"))
    assert (card.inference("other").input, card.inference("other").output) == (Decimal("1.0"), Decimal("4.0"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('version = "{version}"', "version = "),
        ('version = "{version}"', ""),
        ("effective_from = {start}", ""),
        ("effective_from = {start}", "effective_from = 2026-01-01T00:00:00"),
        ("effective_from = {start}", "effective_from = 2026-01-01"),
        ("effective_from = {start}", 'effective_from = "2026-01-01T00:00:00Z"'),
        ("default = 50_000", ""),
        ("default = 50_000", "default = 0.05"),
        ("default = 50_000", "default = -1"),
        ("default = 50_000", "default = true"),
        ("default = 50_000", 'default = "50000"'),
        ('input = "1.0"', "input = 1.0"),
        ('input = "1.0"', "input = 1"),
        ('input = "1.0"', 'input = "-1.0"'),
        ('input = "1.0"', 'input = "NaN"'),
        ('input = "1.0"', 'input = "Infinity"'),
        ('input = "1.0"', 'input = "free"'),
        ('input = "1.0"', 'input = "0.0000001"'),
        ('input = "1.0"', 'input = "1e40"'),
        ('input = "1.0"', ""),
        ("[public_inference.default]", "[public_inference.other]"),
        ("[judge_call]", "[judge_calls]"),
    ],
)
def test_a_malformed_card_is_refused(folder, old, new):
    assert old in CARD
    write(folder, "c", start="2027-01-01T00:00:00Z", text=CARD.replace(old, new, 1))
    with pytest.raises(RateCardInvalid, match=r"c\.toml") as caught:
        rate_card(JULY, folder)
    assert caught.value.fields["file"] == "c.toml"


def test_a_card_that_is_not_utf8_is_refused(folder):
    (folder / "c.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RateCardInvalid, match=r"c\.toml"):
        read_cards(folder)


def test_two_cards_may_not_share_a_version(folder):
    write(folder, "c", version="a", start="2027-01-01T00:00:00Z")
    with pytest.raises(RateCardInvalid, match="same version"):
        rate_card(JULY, folder)


def test_two_cards_may_not_start_together(folder):
    write(folder, "c", start="2026-07-01T00:00:00Z")
    with pytest.raises(RateCardInvalid, match="same effective_from"):
        rate_card(JULY, folder)


def test_the_cards_that_ship():
    cards = read_cards(shipped("data", "rates"))
    assert cards
    assert rate_card(datetime.now(UTC)) in cards
    assert all(card.judge_call_micro_ecu("any") >= 0 and card.inference("any").input >= 0 for card in cards)
