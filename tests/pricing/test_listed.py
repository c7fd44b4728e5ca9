"""Listed prices, by facts about providers that anybody can look up; nothing is ever fetched, and nobody gets another's prices."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from byok.money import MICRO, cost_usd
from byok.pricing import NO_PRICE, ModelPrices
from byok.pricing.listed import listed_model

OPENAI, GOOGLE = "https://api.openai.com/v1", "https://generativelanguage.googleapis.com/v1beta/openai"


def cost(base_url, remote_id, when, **tokens):
    price = ModelPrices([], base_url, remote_id).at(when, tokens["input"] + tokens.get("cached_input", 0))
    assert (price.kind, price.source) == ("token", "listed") and price.version.startswith("genai-prices:")
    return sum(cost_usd(count, price.per_mtok(token_type), MICRO) for token_type, count in tokens.items())


def test_o3_became_cheaper_on_10_june_2025():
    used = {"input": 1_000_000, "output": 100_000}
    assert cost(OPENAI, "o3", datetime(2025, 6, 9, tzinfo=UTC), **used) == Decimal("14.0")
    assert cost(OPENAI, "o3", datetime(2025, 6, 11, tzinfo=UTC), **used) == Decimal("2.8")


def test_long_prompts_of_gemini_cost_more_and_the_tier_holds_for_all_tokens():
    when = datetime(2025, 9, 1, tzinfo=UTC)
    assert cost(GOOGLE, "gemini-2.5-pro", when, input=200_000, output=1000) == Decimal("0.26")
    assert cost(GOOGLE, "gemini-2.5-pro", when, input=200_001, output=1000) == Decimal("0.5150025")
    # Cached tokens are a part of the prompt, and count for its size.
    assert cost(GOOGLE, "gemini-2.5-pro", when, input=100_000, cached_input=100_001) == Decimal("0.27500025")


@pytest.mark.parametrize("remote_id", ["gpt-4o", "gpt-4o-mini", "o3", "o4-mini", "text-embedding-3-small"])
@pytest.mark.parametrize("used", [(1000, 10, 0), (123_457, 789, 23_457)])
def test_the_library_itself_reckons_the_same(remote_id, used):
    from genai_prices import Usage, calc_price

    prompt, completion, cached = used
    when = datetime(2025, 8, 1, 12, tzinfo=UTC)
    told = calc_price(
        Usage(input_tokens=prompt, output_tokens=completion, cache_read_tokens=cached),
        remote_id,
        provider_api_url=OPENAI,
        genai_request_timestamp=when,
    )
    price = ModelPrices([], OPENAI, remote_id).at(when, prompt)
    lines = [("input", prompt - cached), ("cached_input", cached), ("output", completion)]
    ours = sum(cost_usd(count, usd, MICRO) for name, count in lines if (usd := price.per_mtok(name)) is not None)
    assert ours == told.total_price


def test_a_price_by_the_hour_of_the_day_changes_within_a_day():
    prices = ModelPrices([], "https://api.deepseek.com", "deepseek-chat")
    day = datetime(2025, 3, 1, tzinfo=UTC)
    assert prices.at(day.replace(hour=12)).input == 2 * prices.at(day.replace(hour=18)).input
    # What a request may cost from now on counts the price that is about to be in force.
    before = day.replace(minute=29, second=30)
    assert prices.at(before).input < prices.at(before + timedelta(minutes=1)).input == prices.dearest(before, 100)[0]


def test_the_most_that_a_request_may_cost_counts_the_tiers_that_its_prompt_may_reach():
    prices, when = ModelPrices([], GOOGLE, "gemini-2.5-pro"), datetime(2025, 9, 1, tzinfo=UTC)
    assert prices.dearest(when, 200_000) == (Decimal("1.25"), Decimal(10))
    assert prices.dearest(when, 200_001) == (Decimal("2.5"), Decimal(15))


@pytest.mark.parametrize(
    "base_url",
    [
        "https://api.openai.com.example.net/v1",
        "https://api.openai.community/v1",
        "https://evil.net/.googleapis.com/v1",
        "https://evil.net/?https://api.openai.com/v1",
        "https://myapi.openai.com.evil.net/v1",
        "http://127.0.0.1:8000/v1",
        "http://localhost:8000/v1",
        "http://[::1]:8000/v1",
        "http://10.1.2.3/v1",
        "https://models.internal/v1",
        "https://llm.corp.example.net/v1",
        "http://gpu-box/v1",
    ],
)
def test_an_address_that_is_not_the_providers_gets_none_of_its_prices(base_url):
    for remote_id in ("gpt-4o", "gemini-2.5-pro"):
        assert listed_model(base_url, remote_id) is None
        assert ModelPrices([], base_url, remote_id).at(datetime.now(UTC)) is NO_PRICE


@pytest.mark.parametrize("remote_id", ["no-such-model", "ft:gpt-4o-2024-08-06:acme::x1", ""])
def test_a_model_that_the_list_does_not_name_has_no_price(remote_id):
    assert ModelPrices([], OPENAI, remote_id).at(datetime.now(UTC)) is NO_PRICE


def test_a_model_with_a_price_for_each_request_has_none_of_tokens_alone():
    assert ModelPrices([], "https://api.perplexity.ai", "sonar").at(datetime.now(UTC)) is NO_PRICE


def test_the_list_is_loaded_when_it_is_needed_and_updates_nothing():
    code = """
import sys
import byok.app, byok.runs, byok.cli.price
from byok.pricing.listed import listed_model
listed_model("http://127.0.0.1:1/v1", "gpt-4o")
assert not [name for name in sys.modules if name.startswith("genai_prices")]
assert listed_model("https://api.openai.com/v1", "gpt-4o") is not None
from genai_prices import data_snapshot, update_prices
import threading
assert threading.active_count() == 1 and data_snapshot._custom_snapshot is None
"""
    subprocess.run([sys.executable, "-c", code], check=True)
