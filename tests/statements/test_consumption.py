"""The day on which the balance runs out, and when nothing can be said."""

import json
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.clock import utcnow
from byok.ledger import ship
from byok.statements import consumption, forecast
from byok_testing.money_rows import Ledger, at, judge_call, tokens

NOON = at("2026-11-26T12:00:00")


def days_back(*numbers):
    return [date(2026, 11, 26) - timedelta(days=number) for number in numbers]


def test_what_is_left_is_divided_by_the_mean_of_the_days():
    # 3.5 days, 350 in them: 100 a day; 1000 last ten days from noon.
    found = forecast(dict.fromkeys(days_back(0, 1, 3), 100) | {days_back(2)[0]: 50}, 1000, NOON, 30)
    assert (found.runs_out_on, found.micro_ecu_per_day, found.days, found.days_with_usage) == (date(2026, 12, 6), 100, "3.50", 4)
    assert "divided by the mean usage of the last 3.50 days" in found.how


def test_days_without_usage_count_when_there_was_usage_before():
    usage = dict.fromkeys(days_back(1, 2, 3), 100)
    assert forecast(usage, 1000, NOON, 10).days == "3.50"
    assert forecast(usage | {days_back(40)[0]: 1}, 1000, NOON, 10).days == "9.50"


@pytest.mark.parametrize("days", [(), (0,), (1, 2)])
def test_too_little_usage_gives_no_forecast(days):
    found = forecast(dict.fromkeys(days_back(*days), 100), 1000, NOON, 30)
    assert found.runs_out_on is None and "at least 3" in found.how


def test_nothing_left_runs_out_today_and_very_much_never():
    usage = dict.fromkeys(days_back(1, 2, 3), 1)
    assert forecast(usage, -5, NOON, 30).runs_out_on == date(2026, 11, 26)
    assert forecast(usage, 10**15, NOON, 30).runs_out_on is None and "ten years" in forecast(usage, 10**15, NOON, 30).how


@given(
    st.dictionaries(st.integers(0, 60).map(lambda back: days_back(back)[0]), st.integers(0, 10**12), max_size=60),
    st.integers(-(10**12), 10**13),
    st.integers(1, 60),
    st.timedeltas(timedelta(0), timedelta(hours=12)),
)
def test_a_forecast_is_never_in_the_past_and_more_credit_never_ends_earlier(usage, left, days, later):
    found, more = (forecast(usage, micro, NOON + later, days) for micro in (left, left + 10**9))
    assert found.runs_out_on is None or found.runs_out_on >= (NOON + later).date()
    assert found.runs_out_on is None or more.runs_out_on is None or more.runs_out_on >= found.runs_out_on
    assert found.used_micro_ecu == sum(micro for day, micro in usage.items() if day > NOON.date() - timedelta(days=days))


def test_the_command_shows_days_and_the_forecast_from_ledger_and_charges(services, put, org, byok):
    with services.warehouse.reading() as results:
        assert consumption(results, "somebody else", 30, utcnow()).forecast is None
    # What the organisation was given to begin with is taken back.
    (welcome,) = services.ledger.transactions(services.actor)
    services.ledger.reverse_credit(services.actor, welcome.id, "begin with nothing")
    ship(services.control, services.warehouse, org)
    now, ledger = utcnow(), Ledger(org)
    ledger.add("g-1", 1_000_000, "2026-01-01")
    days = [now - timedelta(days=number) for number in (1, 2, 3)]
    put(*(judge_call(org, day) for day in days), tokens(org, days[0], 1000, "2"), tokens(org, days[0], 5, None), *ledger.rows)
    made = json.loads(byok("bill", "consumption", "--days", "5", "--json")[1])["consumption"]
    assert [one["micro_ecu"] for one in made["days"]] == [40_000] * 3 and made["total_usd"] == "0.002" and made["unpriced_charges"] == 1
    assert made["forecast"]["left_ecu"] == "1" and made["forecast"]["runs_out_on"] > str(now.date())
    assert "divided by" in byok("bill", "consumption")[1]
    assert byok("bill", "consumption", "--days", "0", "--json")[0] == 2
