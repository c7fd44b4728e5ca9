"""What an endpoint says of its tokens is recorded with what it is worth: nothing that is not believed is billed, or taken for zero."""

import json
from decimal import Decimal

import pytest

from byok.billing import two_bills
from byok.reporting import report_page, run_summary
from byok.sandbox import Fault
from byok_testing.bench import Bench

PRICE = Decimal("0.333333333333")
"""USD per million tokens: each amount has to be rounded at its twelfth place."""

ROOM = 8
"""Tokens that each answer may have."""


def usage(prompt, completion, total=None, **more):
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total} | more


CASES = [
    # what it is, what the endpoint says, how it is taken, and the tokens that are kept for the record
    ("sound", usage(11, 7, 18), "reported", (11, 7)),
    ("sound without a total", usage(12, 6), "reported", (12, 6)),
    ("a true zero", usage(9, 0, 9), "reported", (9, 0)),
    ("whole floats and digits are counts", usage(13.0, "5", 18), "reported", (13, 5)),
    ("reasoning counted on top", usage(10, 3, 17, completion_tokens_details={"reasoning_tokens": 4}), "reported", (10, 7)),
    ("negative", usage(-5, 7, 2), "invalid", (None, 7)),
    ("both negative", usage(-5, -7, -12), "invalid", (None, None)),
    ("huge", usage(10**12, 7, 10**12 + 7), "invalid", (None, 7)),
    ("huger", usage(11, 10**30, 11 + 10**30), "invalid", (11, None)),
    ("just too many", usage(11, 100_000_001), "invalid", (11, None)),
    ("bool", usage(True, False, 1), "invalid", (None, None)),
    ("float", usage(10.5, 7, 17.5), "invalid", (None, 7)),
    ("words", usage("many", "7 tokens"), "invalid", (None, None)),
    ("digits with a sign", usage("-11", "+7"), "invalid", (None, None)),
    ("digits of another script", usage("١١", 7), "invalid", (None, 7)),
    ("lists and objects", usage([11], {"n": 7}), "invalid", (None, None)),
    ("total below the sum", usage(11, 7, 17), "invalid", (11, 7)),
    ("total above the sum", usage(11, 7, 1_000_000), "invalid", (11, 7)),
    ("a bad total", usage(11, 7, -1), "invalid", (11, 7)),
    ("total of only one part", usage(0, 7, 18), "invalid", (0, 7)),
    ("more than was asked for", usage(11, 5_000_000, 5_000_011), "invalid", (11, 5_000_000)),
    ("more cached than sent", usage(11, 7, 18, prompt_tokens_details={"cached_tokens": 12}), "invalid", (11, 7)),
    ("negative cached", usage(11, 7, 18, cached_tokens=-1), "invalid", (11, 7)),
    ("more reasoning than answer", usage(11, 7, 18, completion_tokens_details={"reasoning_tokens": 8}), "invalid", (11, 7)),
    ("no completion", {"prompt_tokens": 11}, "missing", (11, None)),
    ("no prompt", {"completion_tokens": 7}, "missing", (None, 7)),
    ("a null", usage(11, None, 11), "missing", (11, None)),
    ("a total alone", {"total_tokens": 18}, "missing", (None, None)),
    ("other members alone", {"input_tokens": 11, "output_tokens": 7}, "missing", (None, None)),
    ("empty", {}, "missing", (None, None)),
    ("null", None, "missing", (None, None)),
    ("a list", [11, 7], "missing", (None, None)),
    ("a text", "11 + 7", "missing", (None, None)),
]
ABSENT = "absent"
QUESTIONS = [(f"What is {number} times 7?", str(7 * number)) for number in range(len(CASES) + 1)]
BELIEVED = [tokens for _, _, taken, tokens in CASES if taken == "reported"]
REASONING = 4
"""Tokens of reasoning in one of those that are believed: a line of their own."""
NOT_BELIEVED = len(CASES) + 1 - len(BELIEVED)


def answer(number, told):
    """A chat completion with that usage; without any for `ABSENT`."""
    message = {"role": "assistant", "content": QUESTIONS[number][1]}
    body = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    return Fault(body=json.dumps(body | ({} if told is ABSENT else {"usage": told})).encode())


@pytest.fixture
def bench(services, monkeypatch, tmp_path):
    with Bench(services, monkeypatch, tmp_path, QUESTIONS) as made:
        yield made


@pytest.fixture
def lying(bench):
    """A run whose endpoint tells another usage for each row; `public` as the platform's own model."""

    def run(*, public=False):
        bench.serve(price=str(PRICE), public=public)
        told = {QUESTIONS[number][0]: answer(number, case[1]) for number, case in enumerate(CASES)}
        told[QUESTIONS[-1][0]] = answer(len(CASES), ABSENT)
        bench.faults["model"] = lambda _, question: told.get(question)
        plan, finished = bench.run(max_tokens=ROOM)
        assert finished.passed, "an endpoint that lies about tokens has answered all the same"
        return plan

    return run


def test_37_each_lie_is_recorded_as_what_it_is(lying, bench):
    plan = lying()
    rows = bench.query(
        "SELECT s.row_number, a.usage_class, a.prompt_tokens, a.completion_tokens FROM v1.attempts a JOIN v1.samples s USING (sample_id) "
        "WHERE a.run_id = ? AND a.role = 'candidate' ORDER BY 1",
        plan.run_id,
    )
    found = {([case[0] for case in CASES] + [ABSENT])[number]: (taken, tokens) for number, taken, *tokens in rows}
    assert found == {name: (taken, list(tokens)) for name, _, taken, tokens in CASES} | {ABSENT: ("missing", [None, None])}


def test_37_tokens_that_are_not_believed_have_an_unknown_amount_and_never_zero(lying, bench):
    """Spending caps by requests in flight are the engine's own subject; here it is what is billed afterwards."""
    plan = lying()
    charges = bench.query(
        "SELECT a.usage_class, c.sku, c.evidence, c.quantity, c.amount_usd, c.unit_price_usd_per_mtok FROM v1.charges c "
        "JOIN v1.attempts a USING (attempt_id) WHERE c.run_id = ? AND c.role = 'candidate'",
        plan.run_id,
    )
    assert len(charges) == 2 * len(QUESTIONS) + 1, "one line for input and one for output of each answer, and one for reasoning"
    unknown = [charge for charge in charges if charge[0] != "reported"]
    assert len(unknown) == 2 * NOT_BELIEVED
    assert {(evidence, quantity, amount) for _, _, evidence, quantity, amount, _ in unknown} == {("unknown", None, None)}
    assert {price for *_, price in charges} == {PRICE}
    known = sorted((quantity, amount) for taken, _, _, quantity, amount, _ in charges if taken == "reported")
    # Reckoned here in whole units of the twelfth place: price times tokens, over a million, to the nearest.
    counts = [count for tokens in BELIEVED for count in tokens]
    counts.remove(3 + REASONING)
    again = sorted((count, Decimal(round(count * 333_333_333_333 / 10**6)).scaleb(-12)) for count in [*counts, 3, REASONING])
    assert known == again
    assert [amount for quantity, amount in known if quantity == 0] == [0], "zero is billed as zero only where it was told and adds up"


def test_37_the_lines_add_up_to_the_totals_to_the_last_unit_everywhere(lying, bench):
    plan = lying()
    org = bench.services.actor.org_id
    charges = bench.query("SELECT amount_usd, amount_micro_ecu FROM v1.charges WHERE run_id = ? AND plane = 'provider'", plan.run_id)
    total = sum((usd for usd, _ in charges if usd is not None), Decimal(0))
    unknown = sum(usd is None for usd, _ in charges)
    assert unknown == 2 * NOT_BELIEVED
    bills = two_bills(bench.services.warehouse, org, plan.run_id)
    assert isinstance(bills.total_usd, Decimal)
    assert bills.total_usd == total == sum(line.amount_usd for line in bills.of("provider"))
    assert bills.unknown("provider") == unknown == sum(line.unknown for line in bills.lines)
    assert sum(line.charges for line in bills.of("provider")) == len(charges)
    assert bench.query("SELECT total_usd, unpriced_charges FROM v1.bills WHERE run_id = ? AND plane = 'provider'", plan.run_id) == [
        (total, unknown)
    ]
    ((probed,),) = bench.query("SELECT sum(amount_usd) FROM v1.charges WHERE run_id = ? AND role = 'probe'", plan.run_id)
    assert bench.query("SELECT sum(amount_usd), sum(unpriced_charges) FROM v1.daily_cost WHERE role = 'candidate'") == [
        (total - probed, unknown)
    ]
    assert bench.query("SELECT provider_usd, unpriced_charges FROM v1.leaderboard WHERE run_id = ?", plan.run_id) == [(total, unknown)]
    summary = run_summary(bench.services.warehouse, org, plan.run_id)
    assert (summary.provider_usd, summary.unpriced_charges) == (total, unknown)
    assert f"{unknown} charges of unknown amount not in it" in report_page(bench.services.warehouse, org, plan.run_id)


def test_37_the_tokens_of_a_run_are_those_that_are_believed(lying, bench):
    """Else a single lie of five million tokens would stand in the summary as if they had been used."""
    plan = lying()
    ((prompt, completion),) = bench.query(
        "SELECT sum(prompt_tokens), sum(completion_tokens) FROM v1.attempts WHERE run_id = ? AND role = 'probe'", plan.run_id
    )
    summary = run_summary(bench.services.warehouse, bench.services.actor.org_id, plan.run_id)
    assert summary.prompt_tokens == prompt + sum(tokens[0] for tokens in BELIEVED)
    assert summary.completion_tokens == completion + sum(tokens[1] for tokens in BELIEVED)


def test_37_a_lie_on_the_platforms_own_model_is_no_ecu_either(lying, bench):
    plan = lying(public=True)
    bills = two_bills(bench.services.warehouse, bench.services.actor.org_id, plan.run_id)
    assert bills.of("provider") == []
    assert bills.unknown("ecu") == 2 * NOT_BELIEVED
    ((prompt, completion),) = bench.query(
        "SELECT sum(prompt_tokens), sum(completion_tokens) FROM v1.attempts WHERE run_id = ? AND role = 'probe'", plan.run_id
    )
    believed = prompt + sum(tokens[0] for tokens in BELIEVED) + 4 * (completion + sum(tokens[1] for tokens in BELIEVED))
    lines = [line.amount_micro_ecu for line in bills.lines]
    assert bills.total_micro_ecu == sum(lines) == believed
    assert bench.query("SELECT total_micro_ecu FROM v1.bills WHERE run_id = ?", plan.run_id) == [(believed,)]


def test_37_a_run_of_lies_alone_has_no_total_at_all(bench):
    bench.serve(usage=False)
    bench.faults["model"] = lambda *_: Fault(usage=usage(11, 7, 19))
    plan, _ = bench.run(limit=5)
    bills = two_bills(bench.services.warehouse, bench.services.actor.org_id, plan.run_id)
    summary = run_summary(bench.services.warehouse, bench.services.actor.org_id, plan.run_id)
    assert (bills.total_usd, summary.provider_usd, summary.prompt_tokens, summary.completion_tokens) == (None, None, None, None)
    assert bills.unknown("provider") == summary.unpriced_charges == 2 * 6, "five answers and the probe"
    assert bench.query("SELECT count(*) FROM v1.charges WHERE amount_usd = 0 OR evidence <> 'unknown'") == [(0,)]
