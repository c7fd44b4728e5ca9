"""Both bills, the ledger, the statement and the FOCUS export of the same runs say the same, to the last digit, by SQL alone."""

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import duckdb
import pytest

from byok.app import open_services
from byok.cli.init import initialise
from byok.home import Home
from byok.ledger import mismatches
from byok.runs import refund_run
from byok.sandbox import Fault
from byok.statements import Month, month_statement
from byok.statements.focus import focus_export, write_parquet
from byok_testing.bench import Bench
from byok_testing.chain import carry_out

SUMS = [(f"What is {n} + {n}?", str(2 * n)) for n in range(40)]


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """An installation for all tests here."""
    home = Home(tmp_path_factory.mktemp("ties") / "home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("BYOK_")]:
            patch.delenv(name)
        patch.setenv("BYOK_HOME", str(home.root))
        initialise(home, "acme", "owner@acme.example")
        opened = open_services(home)
        yield opened
        opened.control.close()


@pytest.fixture(scope="module")
def bench(services, tmp_path_factory):
    """Runs with retries, failures, usage that is missing or a lie, a price that changes in mid-run, and judges of both kinds of keys."""
    with pytest.MonkeyPatch.context() as patch, Bench(services, patch, tmp_path_factory.mktemp("bench"), SUMS) as bench:
        bench.serve(price=None)
        bench.serve("referee")
        bench.serve("open", public=True)
        bench.serve("unpriced", price=None)
        for name, model in (("own", "referee"), ("public", "open"), ("nobody-knows", "unpriced")):
            services.judges.create(services.actor, name, model, "binary", "Is {{output}} right?")
        yesterday = datetime.now(UTC) - timedelta(days=1)
        services.prices.set(services.actor, "model", input=Decimal("3.333333"), output=Decimal("7.7"), effective_from=yesterday)
        seen = set()

        def fault(number, question):
            again, _ = question in seen, seen.add(question)
            if number == 20:
                services.prices.set(services.actor, "model", input=Decimal("1.000001"), cached_input=Decimal("0.1"), output=Decimal(9))
            if number % 7 == 0 and not again:
                return 503
            if number % 11 == 0 and not again:
                return Fault(cut=True)
            lies = {
                1: {},
                2: {"prompt_tokens": 50, "completion_tokens": -3},
                3: {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 1},
            }
            return Fault(usage=lies.get(number % 5, usage(90, 7) | {"prompt_tokens_details": {"cached_tokens": 31}}))

        bench.faults["model"] = fault
        bench.faults["open"] = lambda number, question: 503 if number % 9 == 0 else Fault(usage={}) if number % 8 == 0 else None
        bench.judged = bench.start(judges=["own", "public", "nobody-knows"], shard_size=20, max_tokens=64, concurrency=4)
        carry_out(services, bench.judged)
        bench.public = bench.start(model="open", judges=["own"], max_tokens=64)
        carry_out(services, bench.public)
        bench.stopped = bench.start(judges=["own"], max_requests=60)
        carry_out(services, bench.stopped)
        bench.refunded, _ = bench.run(judges=["own"], limit=10, max_tokens=64)
        refund_run(services, bench.refunded.run_id, "it was a trial")
        yield bench


def usage(prompt, completion):
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def of_run(bench, plan, what, where="TRUE"):
    return bench.query(f"SELECT {what} FROM v1.charges WHERE run_id = ? AND {where}", plan.run_id)[0]


def test_the_runs_have_all_that_makes_bills_hard(bench):
    for kind in ("number > 1", "status = 'error'", "usage_class = 'missing'", "usage_class = 'invalid'"):
        assert bench.query(f"SELECT count(*) > 3 FROM v1.attempts WHERE run_id IS NOT NULL AND {kind}") == [(True,)]
    assert bench.query("SELECT count(DISTINCT price_version) FROM v1.charges WHERE model_key = 'model' AND run_id IS NOT NULL") == [(2,)]
    assert of_run(bench, bench.judged, "count(*) > 0", "amount_usd IS NULL AND plane = 'provider'") == (True,)
    assert bench.query("SELECT status, error_code FROM v1.runs WHERE run_id = ?", bench.stopped.run_id) == [("partial", "budget_reached")]


def test_attempts_times_price_are_the_charges(bench):
    # Prices of six decimals leave nothing to be rounded.
    apart = """
    SELECT count(*) FROM v1.charges
    WHERE plane = 'provider' AND unit = 'token' AND CAST(quantity AS DECIMAL(18, 0)) * CAST(unit_price_usd AS DECIMAL(18, 6))
        IS DISTINCT FROM CAST(amount_usd * 1000000 AS DECIMAL(38, 6))
    """
    assert bench.query(apart) == [(0,)]
    # Each token that an endpoint told is on one bill once, and each request that may have cost something is on one.
    told = """
    SELECT a.model_key, sum(a.prompt_tokens + a.completion_tokens) FILTER (WHERE a.usage_class = 'reported') AS tokens
    FROM v1.attempts a GROUP BY ALL
    """
    billed = """
    SELECT model_key, sum(quantity) FILTER (WHERE unit = 'token' AND corrects IS NULL) AS tokens FROM v1.charges GROUP BY ALL
    """
    assert bench.query(f"SELECT * FROM ({told}) t FULL JOIN ({billed}) b USING (model_key) WHERE b.tokens IS DISTINCT FROM t.tokens") == []
    missing = """
    SELECT count(*) FROM v1.attempts a WHERE (a.status = 'ok' OR a.usage_class = 'reported')
        AND NOT EXISTS (SELECT 1 FROM v1.charges c WHERE c.attempt_id = a.attempt_id)
    """
    assert bench.query(missing) == [(0,)]
    assert bench.query("SELECT max(n) FROM (SELECT count(*) AS n FROM v1.charges GROUP BY attempt_id, plane, sku, corrects)") == [(1,)]


def test_the_ledger_is_the_platform_bill_and_holds_end_at_zero(bench):
    services = bench.services
    assert mismatches(services.warehouse, services.actor.org_id) == []
    apart = """
    SELECT * FROM (SELECT coalesce(run_id, 'probes') AS run, sum(amount_micro_ecu) AS m FROM v1.charges WHERE plane = 'ecu' GROUP BY 1)
    FULL JOIN (SELECT coalesce(run_id, 'probes') AS run, sum(micro_ecu) AS u FROM v1.ledger WHERE account = 'usage' GROUP BY 1) USING (run)
    WHERE m IS DISTINCT FROM u AND NOT (m IS NULL AND u = 0)
    """
    assert bench.query(apart) == []
    assert (
        bench.query(
            "SELECT coalesce(run_id, ''), sum(micro_ecu) FROM v1.ledger WHERE account = 'held' GROUP BY 1 HAVING sum(micro_ecu) <> 0"
        )
        == []
    )
    assert bench.query("SELECT transaction_id FROM v1.ledger GROUP BY 1 HAVING sum(micro_ecu) <> 0") == []
    told = services.ledger.balance(services.actor)
    assert bench.query("SELECT available_micro_ecu, held_micro_ecu FROM v1.balance") == [(told.available, 0)]
    assert of_run(bench, bench.refunded, "sum(amount_micro_ecu)") == (0,)
    assert services.ledger.verify(services.actor).bad is None
    # A public model is probed when it is registered: outside runs, and paid all the same.
    assert bench.query("SELECT sum(micro_ecu) > 0 FROM v1.ledger WHERE account = 'usage' AND run_id IS NULL") == [(True,)]


def test_the_focus_export_has_the_same_sums(bench, tmp_path):
    services = bench.services
    with services.warehouse.reading() as results:
        write_parquet(tmp_path / "focus.parquet", focus_export(results, services.actor.org_id, "acme", None, "all"))
    exported = f"read_parquet('{tmp_path / 'focus.parquet'}')"
    used, billed = duckdb.sql(
        f"""SELECT sum(PricingCurrencyEffectiveCost) FILTER (WHERE x_CostPlane = 'platform' AND ChargeCategory = 'Usage'),
            sum(BilledCost) FILTER (WHERE x_CostPlane = 'provider') FROM {exported}"""
    ).fetchone()
    (micro,), (usd,) = (
        bench.query("SELECT sum(micro_ecu) FROM v1.ledger WHERE account = 'usage'"),
        bench.query("SELECT sum(amount_usd) FROM v1.charges"),
    )
    assert used * 1_000_000 == micro[0] > 0 and billed == usd[0] > 0


@pytest.mark.parametrize("by", ["model", "member", "job", "day"])
def test_every_split_adds_up_to_the_same_total(bench, by):
    services = bench.services
    with services.warehouse.reading() as results:
        made = month_statement(results, services.actor.org_id, Month.parse(None), by, {})
    usd, micro, unpriced = bench.query(
        "SELECT sum(amount_usd), CAST(sum(amount_micro_ecu) AS BIGINT), count(*) FILTER (WHERE plane = 'provider' AND amount_usd IS NULL)"
        " FROM v1.charges"
    )[0]
    assert (made.totals.provider_usd, made.totals.micro_ecu) == (usd, micro)
    assert sum((line.amount_usd for line in made.lines if line.amount_usd is not None), Decimal(0)) == usd
    assert sum(line.amount_micro_ecu for line in made.lines if line.amount_micro_ecu is not None) == micro
    assert made.totals.unpriced_charges == unpriced > 0
    split = "SELECT sum(amount_usd), CAST(sum(amount_micro_ecu) AS BIGINT) FROM"
    for view in ("v1.daily_cost", "v1.monthly_cost"):
        assert bench.query(f"{split} {view}") == [(usd, micro)]
    by_role = "(SELECT role, sum(amount_usd) AS amount_usd, sum(amount_micro_ecu) AS amount_micro_ecu FROM v1.charges GROUP BY role)"
    assert bench.query(f"{split} {by_role}") == [(usd, micro)]
