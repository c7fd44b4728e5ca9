"""docs/queries.md: each query runs, and its answer is what the rows say when they are added up by hand."""

import re
import statistics
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from byok.cli.main import run as byok
from byok_testing.reported import QUESTIONS, reported

DOC = (Path(__file__).resolve().parents[2] / "docs" / "queries.md").read_text(encoding="utf-8")
SECTIONS = {int(number): text for number, text in re.findall(r"^## (\d+)\. (.*?)(?=^## |\Z)", DOC, re.MULTILINE | re.DOTALL)}
QUERIES = {number: re.findall(r"```sql\n(.*?)```", text, re.DOTALL) for number, text in SECTIONS.items()}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with reported(tmp_path_factory.mktemp("reported")) as made:
        yield made


@pytest.fixture(scope="module")
def ask(bench):
    """The answer of a query on what the runs left."""
    return lambda number: bench.services.warehouse.query(QUERIES[number][0]).dicts()


@pytest.fixture(scope="module")
def charges(bench):
    """All charges, as they are stored."""
    return bench.services.warehouse.query("SELECT * FROM main.charge").dicts()


def added(charges, name="amount_usd", **wanted):
    """The sum of what is known in the charges that are as is wanted; None when nothing is."""
    known = [one[name] for one in charges if one[name] is not None and all(one[key] == value for key, value in wanted.items())]
    return sum(known) if known else None


def unpriced(charges, **wanted):
    return sum(
        one["plane"] == "provider" and one["amount_usd"] is None and all(one[key] == value for key, value in wanted.items())
        for one in charges
    )


def test_there_are_queries_and_each_has_a_question_and_says_what_to_read():
    assert list(SECTIONS) == list(range(1, len(SECTIONS) + 1)) and len(SECTIONS) >= 10
    for number, text in SECTIONS.items():
        assert text.splitlines()[0].endswith("?") and len(QUERIES[number]) == 1
        assert len(text.partition("```sql")[2].partition("```")[2].split()) > 15, f"query {number} does not say what to read"


@pytest.mark.parametrize("number", SECTIONS)
def test_each_runs_from_the_command_line(bench, tmp_path, capfd, number):
    file = tmp_path / "query.sql"
    file.write_text(QUERIES[number][0])
    assert byok(["sql", "--file", str(file)]) == 0
    assert capfd.readouterr().out


def test_1_the_bills_of_the_latest_month(ask, charges):
    month = max(one["occurred_at"].strftime("%Y-%m") for one in charges)
    charges = [one for one in charges if one["occurred_at"].strftime("%Y-%m") == month]
    found = {row.pop("model_key"): row for row in ask(1)}
    assert found.keys() == {"right", "half", "dear", "free", "judge"}
    for key, row in found.items():
        assert row == {
            "provider_usd": added(charges, model_key=key),
            "unpriced_charges": unpriced(charges, model_key=key),
            "micro_ecu": added(charges, "amount_micro_ecu", model_key=key),
        }
    assert found["judge"]["micro_ecu"] == 50_000 * len(QUESTIONS)
    assert found["free"]["provider_usd"] is None and found["free"]["unpriced_charges"] > 0


def test_2_the_cost_of_a_correct_answer(ask, bench, charges):
    found = {(row["model_key"], row["grader"]): row for row in ask(2)}
    assert {key: (row["correct"], row["judged"]) for key, row in found.items()} == {
        ("right", "numeric"): (10, 10),
        ("right", "one"): (10, 10),
        ("half", "numeric"): (5, 10),
        ("dear", "numeric"): (9, 10),
        ("free", "numeric"): (10, 10),
    }
    runs = dict(bench.query("SELECT model_key, run_id FROM v1.runs ORDER BY started_at"))  # the newest of each
    for (key, _), row in found.items():
        for cost, spent in (
            ("candidate_usd", added(charges, run_id=runs[key], role="candidate")),
            ("provider_usd", added(charges, run_id=runs[key])),
        ):
            each = None if spent is None else (spent / row["correct"]).quantize(Decimal("0.000000000001"))
            assert row[f"{cost}_per_correct"] == each
        assert row["unpriced_charges"] == unpriced(charges, run_id=runs[key])
    assert found["right", "one"]["micro_ecu_per_correct"] == 50_000 and found["half", "numeric"]["micro_ecu_per_correct"] is None


def test_3_who_is_on_the_front(ask, bench, charges):
    found = ask(3)
    assert [(row["grader"], row["model_key"], row["score"], row["on_front"]) for row in found] == [
        ("numeric", "half", 0.5, True),
        ("numeric", "right", 1.0, True),
        ("numeric", "dear", 0.9, False),  # right is better and cheaper
        ("one", "right", 1.0, True),
    ]
    runs = dict(bench.query("SELECT model_key, run_id FROM v1.runs ORDER BY started_at"))
    for row in found:
        assert row["provider_usd_per_1000_rows"] == added(charges, run_id=runs[row["model_key"]]) * 1000 / len(QUESTIONS)


def test_4_what_is_unpriced(ask, charges):
    found = ask(4)
    assert {row["model_key"] for row in found} == {"free"}
    assert sum(row["charges"] for row in found) == unpriced(charges)
    told = [row for row in found if row["reason"] == "no_price"]
    assert sum(row["quantity"] for row in told if row["role"] == "candidate") == 120 * len(QUESTIONS)
    assert all(row["fix"].startswith("byok price set free ") for row in told)
    cut = [row for row in found if row["reason"] == "no_usage"]
    assert cut and all((row["quantity"], row["role"]) == (None, "candidate") and "byok bill reconcile" in row["fix"] for row in cut)


def test_5_the_spend_of_each_day(ask, charges):
    found = ask(5)
    days = defaultdict(list)
    for one in charges:
        days[one["occurred_at"].astimezone(UTC).date()].append(one)
    assert [row["day"] for row in found] == sorted(days, reverse=True)
    for row in found:
        assert row["provider_usd"] == added(days[row["day"]]) and row["unpriced_charges"] == unpriced(days[row["day"]])
        month = [one for day, ones in days.items() for one in ones if day.replace(day=1) == row["day"].replace(day=1) and day <= row["day"]]
        assert row["month_to_date_usd"] == added(month)


def test_7_retries_and_failures_and_their_cost(ask, bench, charges):
    found = {(row["model_key"], row["status"], row["error_code"]): row for row in ask(7)}
    counts = ("attempts", "retries", "rows_concerned", "of_unknown_cost", "not_charged")
    assert {key: tuple(row[name] for name in counts) for key, row in found.items()} == {
        ("right", "error", "endpoint_rate_limited"): (1, 0, 1, 0, 1),
        ("right", "ok", None): (1, 1, 1, 0, 0),
        ("free", "error", "response_truncated"): (1, 0, 1, 1, 0),
        ("free", "ok", None): (1, 1, 1, 1, 0),
    }
    ((again,),) = bench.query("SELECT attempt_id FROM v1.attempts WHERE model_key = 'right' AND number > 1")
    assert found["right", "ok", None]["provider_usd"] == added(charges, attempt_id=again) > 0
    assert found["free", "ok", None]["provider_usd"] is None


def test_8_how_fast_models_answer(ask, bench):
    found = {row.pop("model_key"): row for row in ask(8)}
    times = defaultdict(list)
    for key, latency in bench.query("SELECT model_key, latency_ms FROM main.attempt WHERE role = 'candidate' AND status = 'ok'"):
        times[key].append(latency)
    assert {key: row["answers"] for key, row in found.items()} == {"right": 10, "half": 20, "dear": 10, "free": 10}
    for key, row in found.items():
        hundredths = statistics.quantiles(times[key], n=100, method="inclusive")
        expected = [hundredths[49], hundredths[89], hundredths[98], max(times[key])]
        assert [row["p50_ms"], row["p90_ms"], row["p99_ms"], row["slowest_ms"]] == pytest.approx(expected)
        assert row["tokens_per_second"] == pytest.approx(20 * len(times[key]) / sum(times[key]) * 1000)


def test_9_what_flipped(ask):
    assert [tuple(row.values()) for row in ask(9)] == [
        ("half", "numeric", "row-000005", "What is 5 + 5?", "The answer is 10.", "The answer is 11.", True, False),
        ("half", "numeric", "row-000010", "What is 10 + 10?", "The answer is 21.", "The answer is 20.", False, True),
    ]


def test_10_cached_and_reasoning_tokens(ask):
    found = {(row.pop("model_key"), row.pop("role")): row for row in ask(10)}
    assert found["half", "candidate"] == {
        "prompt_tokens": 2000,
        "cached_tokens": 1200,
        "cached_percent": 60.0,
        "completion_tokens": 400,
        "reasoning_tokens": 100,
        "reasoning_percent": 25.0,
        "attempts_that_tell_no_cache": 0,
    }
    judge = found["judge", "judge"]
    assert (judge["cached_tokens"], judge["cached_percent"], judge["reasoning_percent"]) == (None, None, None)
    assert judge["attempts_that_tell_no_cache"] == len(QUESTIONS)


WHEN = datetime(2026, 11, 10, 12, tzinfo=UTC)


@pytest.fixture
def written(warehouse, make):
    """Query rows that are written directly: give rows, then numbers of queries."""

    def asked(rows, number):
        warehouse.write_segment(rows)
        warehouse.drain()
        return warehouse.query(QUERIES[number][0]).rows

    return asked


@pytest.fixture
def entries(make):
    """Entries of a ledger: a top-up, then a run that holds 500 and uses 420."""
    transactions = [
        ("top_up", None, [("wash", -1000, None), ("credit", 1000, "g1")]),
        ("hold", "run-1", [("credit", -500, "g1"), ("held", 500, "g1")]),
        ("settle", "run-1", [("held", -500, "g1"), ("usage", 420, "g1"), ("credit", 80, "g1")]),
    ]
    return [
        make(
            "ledger_entry",
            org_id="org-1",
            entry_id=f"e{seq}-{number}",
            transaction_id=f"t{seq}",
            seq=seq,
            number=number,
            kind=kind,
            account=account,
            grant_id=grant,
            run_id=run_id,
            micro_ecu=micro,
            occurred_at=WHEN,
        )
        for seq, (kind, run_id, parts) in enumerate(transactions, 1)
        for number, (account, micro, grant) in enumerate(parts, 1)
    ]


@pytest.fixture
def ecu(make):
    """A charge on the ECU bill."""

    def build(charge_id, micro, **given):
        plain = {"org_id": "org-1", "plane": "ecu", "amount_usd": None, "corrects": None, "occurred_at": WHEN, "recorded_at": WHEN}
        return make("charge", charge_id=charge_id, amount_micro_ecu=micro, **(plain | given))

    return build


def test_6_the_ecu_ledger_and_the_balance_it_leads_to(written, warehouse, entries):
    assert written(entries, 6) == [
        (1, WHEN, "top_up", None, 1000, 0, 0, 1000, 0),
        (2, WHEN, "hold", "run-1", -500, 500, 0, 500, 500),
        (3, WHEN, "settle", "run-1", 80, -500, 420, 580, 0),
    ]
    assert warehouse.query("SELECT available_micro_ecu, held_micro_ecu, used_micro_ecu, seq FROM v1.balance").rows == [(580, 0, 420, 3)]


def test_11_where_ledger_and_charges_do_not_tie(written, entries, ecu):
    assert written([*entries, ecu("c1", 400, run_id="run-1"), ecu("c2", 20, run_id="run-1")], 11) == []
    provider = ecu("c3", None, run_id="run-1", plane="provider", amount_usd=Decimal(1))
    assert written([provider, ecu("c4", None, run_id="run-1")], 11) == []
    assert written([ecu("c5", 1, run_id="run-1"), ecu("c6", 7, run_id="run-2")], 11) == [("run-1", 420, 421, -1), ("run-2", None, 7, -7)]


def test_12_closed_months_are_what_they_were(written, make, ecu):
    usd = {"plane": "provider", "amount_micro_ecu": None}
    closed = {"org_id": "org-1", "closed_at": datetime(2026, 12, 2, tzinfo=UTC)}
    rows = [
        make("charge", charge_id="c1", org_id="org-1", corrects=None, amount_usd=Decimal("0.5"), occurred_at=WHEN, recorded_at=WHEN, **usd),
        make("charge", charge_id="c2", org_id="org-1", corrects=None, amount_usd=None, occurred_at=WHEN, recorded_at=WHEN, **usd),
        ecu("c3", 50_000),
        make("closed_month", month="2026-11", charges=3, provider_usd=Decimal("0.5"), unpriced_charges=1, micro_ecu=50_000, **closed),
        make("closed_month", month="2026-10", charges=0, provider_usd=Decimal(0), unpriced_charges=0, micro_ecu=0, **closed),
    ]
    as_closed = ("2026-11", closed["closed_at"], 3, 3, Decimal("0.5"), Decimal("0.5"), 50_000, 50_000, True)
    assert written(rows, 12)[1] == as_closed
    assert written([], 12)[0][2:] == (0, 0, Decimal(0), Decimal(0), 0, 0, True)
    late = datetime(2026, 12, 9, tzinfo=UTC)
    paid = make("charge", charge_id="k2", org_id="org-1", corrects="c2", amount_usd=Decimal(2), occurred_at=WHEN, recorded_at=late, **usd)
    assert written([paid, ecu("c4", 9, recorded_at=late)], 12)[1] == as_closed
    assert written([ecu("c5", 1)], 12)[1][-3:] == (50_000, 50_001, False), "written before the closing, and loaded after it"
