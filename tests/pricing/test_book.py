"""The price book: entries by their dates, who may set them, what is refused, and what is shown with the model."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from byok.access import ScopeMissing
from byok.errors import InputError
from byok.pricing import ModelPrices, NoSuchModel, PriceOfPublicModel, load_prices
from byok.registry import ModelChanges
from byok_testing.bench import Bench

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture
def bench(services, monkeypatch, tmp_path):
    with Bench(services, monkeypatch, tmp_path, [("What is 1 + 1?", "2")]) as made:
        made.serve(price=None)
        yield made


@pytest.fixture
def book(bench):
    return bench.services.prices


@pytest.fixture
def actor(bench):
    return bench.services.actor


def test_a_model_without_a_price_has_none(book, actor):
    price = book.show(actor, "model")
    assert (price.kind, price.source, price.input) == ("none", "none", None)
    assert book.history(actor, "model") == []


def test_an_entry_holds_from_its_day_until_the_next_one(book, actor):
    first = book.set(actor, "model", input=Decimal("0.1"), output=Decimal("0.2"), effective_from=NOW - 10 * DAY)
    later = book.set(actor, "model", input=Decimal("0.3"), output=Decimal("0.4"), effective_from=NOW + 10 * DAY)
    between = book.set(actor, "model", usd_per_gpu_hour=Decimal("2.5"), gpus=4, effective_from=NOW - 5 * DAY)
    found = [book.show(actor, "model", NOW + days * DAY) for days in (-11, -10, -6, -5, 0, 9, 10, 400)]
    assert [price.version for price in found] == [
        "none",
        *[first.version] * 2,
        *[between.version] * 3,
        *[later.version] * 2,
    ]
    assert (found[4].kind, found[4].usd_per_gpu_hour, found[4].gpus, found[4].input) == ("gpu_hour", Decimal("2.5"), 4, None)
    assert [entry.id for entry in book.history(actor, "model")] == [later.id, between.id, first.id]


def test_of_two_from_the_same_time_on_the_one_that_was_entered_last_counts(book, actor):
    for usd in ("9", "1"):
        book.set(actor, "model", input=Decimal(usd), output=Decimal(usd), effective_from=NOW - DAY)
    assert book.show(actor, "model").input == 1
    assert [entry.input for entry in book.history(actor, "model")] == [1, 9]


def test_cached_and_reasoning_tokens_cost_what_the_others_do_unless_they_have_a_price(book, actor):
    book.set(actor, "model", input=Decimal(3), output=Decimal(5), effective_from=NOW - 2 * DAY)
    price = book.show(actor, "model", NOW - DAY)
    assert (price.cached_input, price.reasoning) == (3, 5)
    book.set(actor, "model", input=Decimal(3), cached_input=Decimal(0), output=Decimal(5), reasoning=Decimal(7))
    price = book.show(actor, "model")
    assert (price.input, price.cached_input, price.output, price.reasoning) == (3, 0, 5, 7)


def test_a_price_now_is_shown_with_the_model_and_one_of_another_day_is_not(book, actor, bench):
    def shown():
        model = bench.services.registry.get(actor, "model")
        return model.price_input, model.price_output, model.revision

    revision = shown()[2]
    book.set(actor, "model", input=Decimal("0.5"), output=Decimal("1.5"))
    assert shown() == (Decimal("0.5"), Decimal("1.5"), revision + 1)
    book.set(actor, "model", input=Decimal(7), output=Decimal(7), effective_from=NOW - DAY)
    book.set(actor, "model", input=Decimal(8), output=Decimal(8), effective_from=NOW + DAY)
    assert shown() == (Decimal("0.5"), Decimal("1.5"), revision + 1)
    book.set(actor, "model", reported=True)
    assert shown() == (None, None, revision + 2)
    assert book.show(actor, "model").kind == "reported"


def test_prices_of_a_registration_and_of_a_change_are_entries_too(book, actor, bench):
    bench.serve("priced", price="0.25")
    model = bench.services.registry.get(actor, "priced")
    [entry] = book.history(actor, "priced")
    assert (entry.input, entry.output, entry.effective_from, entry.created_by) == (
        Decimal("0.25"),
        Decimal("0.25"),
        model.created_at,
        actor.member_id,
    )
    before = datetime.now(UTC)
    asyncio.run(bench.services.registry.update(actor, "priced", ModelChanges(price_input=Decimal(2))))
    newest, oldest = book.history(actor, "priced")
    assert oldest == entry and (newest.input, newest.output) == (2, Decimal("0.25")) and newest.effective_from >= before
    # A change of something else is no price.
    asyncio.run(bench.services.registry.update(actor, "priced", ModelChanges(name="Other")))
    assert len(book.history(actor, "priced")) == 2
    assert book.history(actor, "model") == []


def test_every_entry_is_in_the_audit_log(book, actor, bench):
    book.set(actor, "model", input=Decimal("0.10"), output=Decimal(1), effective_from=NOW, note="from the contract")
    entry = [one for one in bench.services.audit.entries(actor.org_id) if one.action == "price.set"][-1].as_dict()
    assert (entry["actor"], entry["target"], entry["outcome"]) == ("owner@acme.example", "model", "done")
    assert (entry["detail"]["kind"], entry["detail"]["input"], entry["detail"]["output"]) == ("token", "0.1", "1")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"reported": True, "input": Decimal(1)},
        {"usd_per_gpu_hour": Decimal(1), "output": Decimal(1)},
        {"usd_per_gpu_hour": Decimal(1), "reported": True},
        {"gpus": 2},
        {"gpus": 2, "input": Decimal(1)},
        {"usd_per_gpu_hour": Decimal(1), "gpus": 0},
        {"usd_per_gpu_hour": Decimal(1), "gpus": -1},
        {"usd_per_gpu_hour": Decimal(1), "gpus": 10**9},
        {"cached_input": Decimal(1)},
        {"reasoning": Decimal(1)},
        {"input": Decimal(-1)},
        {"input": Decimal("NaN")},
        {"output": Decimal("Infinity")},
        {"input": Decimal("0.0000000000001")},
        {"usd_per_gpu_hour": Decimal(10) ** 16},
    ],
)
def test_what_is_no_price_is_refused_and_nothing_is_stored(book, actor, values):
    with pytest.raises(InputError) as caught:
        book.set(actor, "model", **values)
    assert caught.value.code in ("bad_price", "bad_amount") and caught.value.hint
    assert book.history(actor, "model") == []


def test_a_public_model_is_billed_in_ecu(book, actor, bench):
    bench.serve("shared", public=True, price=None)
    with pytest.raises(PriceOfPublicModel):
        book.set(actor, "shared", input=Decimal(1), output=Decimal(1))


def test_an_unknown_model_and_a_viewer_are_refused(book, actor, bench):
    for act in (lambda: book.show(actor, "none"), lambda: book.history(actor, "none"), lambda: book.set(actor, "none", reported=True)):
        with pytest.raises(NoSuchModel):
            act()
    from dataclasses import replace

    viewer = replace(actor, scopes=frozenset({"models:read"}))
    assert book.show(viewer, "model").kind == "none"
    with pytest.raises(ScopeMissing):
        book.set(viewer, "model", input=Decimal(1), output=Decimal(1))


def test_the_owners_price_comes_before_all_others(book, actor, bench):
    when = datetime(2025, 8, 1, tzinfo=UTC)
    book.set(actor, "model", input=Decimal("9.5"), output=Decimal(1), effective_from=when + DAY)
    ref = bench.services.registry.get(actor, "model").ref()
    at_openai = ref.model_copy(update={"base_url": "https://api.openai.com/v1", "remote_id": "o3"})
    prices = load_prices(bench.services.control, actor.org_id, at_openai)
    assert [prices.at(moment).source for moment in (when, when + DAY)] == ["listed", "own"]
    at_openrouter = ref.model_copy(update={"base_url": "https://openrouter.ai/api/v1", "remote_id": "openai/o3"})
    prices = load_prices(bench.services.control, actor.org_id, at_openrouter)
    assert [(price.kind, price.source) for price in (prices.at(when), prices.at(when + DAY))] == [
        ("reported", "endpoint"),
        ("token", "own"),
    ]
    assert prices.dearest(when, 100) is None and prices.dearest(when + DAY, 100) == (Decimal("9.5"), 1)


def test_what_was_entered_later_is_not_known_earlier(book, actor, bench):
    first = book.set(actor, "model", input=Decimal(1), output=Decimal(1), effective_from=NOW - DAY)
    book.set(actor, "model", input=Decimal(2), output=Decimal(2), effective_from=NOW - DAY)
    prices = load_prices(bench.services.control, actor.org_id, bench.services.registry.get(actor, "model").ref())
    assert prices.at(NOW).input == 2
    assert prices.known_at(first.created_at).at(NOW).input == 1
    assert prices.known_at(first.created_at - DAY).at(NOW).kind == "none"


def test_the_most_that_a_request_may_cost_counts_a_price_that_is_about_to_hold(book, actor):
    class Entry:
        def __init__(self, start, price):
            self.effective_from, self.created_at, self.price = start, NOW, price

    book.set(actor, "model", input=Decimal(1), cached_input=Decimal(4), output=Decimal(2), effective_from=NOW - DAY)
    low = book.show(actor, "model")
    book.set(actor, "model", input=Decimal(3), output=Decimal(5), effective_from=NOW - DAY)
    high = book.show(actor, "model")
    prices = ModelPrices([Entry(NOW - DAY, low), Entry(NOW + timedelta(seconds=30), high)], "http://127.0.0.1:1/v1", "m")
    assert prices.dearest(NOW - timedelta(hours=1), 100) == (4, 2)
    assert prices.dearest(NOW, 100) == (4, 5)
    assert prices.dearest(NOW + timedelta(minutes=1), 100) == (3, 5)
