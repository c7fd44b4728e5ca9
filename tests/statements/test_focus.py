"""The FOCUS export: every charge once, sums exact, prices times quantities, ECU lines as in the ledger."""

import csv
import json
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byok.statements import Month, month_statement
from byok.statements.focus import COLUMNS, focus_export, write_csv, write_parquet
from byok.statements.focus.value import rounded
from byok.warehouse import Warehouse
from byok.warehouse.rows import ClosedMonthRow
from byok_testing.bench import Bench
from byok_testing.money_rows import Ledger, at, correction, grant_row, judge_call, model_row, tokens

PLACES = Decimal("1e-12")


def check_row(row):
    """Costs are quantity times price to the last decimal; what was billed may differ by the rounding of each charge."""
    product = rounded(Fraction(row["PricingQuantity"]) * Fraction(row["ListUnitPrice"]), 12)
    assert row["ListCost"] == row["ContractedCost"] == product and row["ListUnitPrice"] == row["ContractedUnitPrice"]
    assert (row["ServiceCategory"], row["PricingCategory"]) == ("AI and Machine Learning", "Standard")
    assert row["ServiceSubcategory"] in ("Generative AI", "AI Platforms") and row["ChargeClass"] in (None, "Correction")
    assert row["ChargeCategory"] in ("Usage", "Purchase", "Credit") and row["ChargeFrequency"] in ("Usage-Based", "One-Time")
    if row["ChargeCategory"] == "Usage":
        told = row["PricingCurrencyEffectiveCost"]
        again = rounded(Fraction(row["PricingQuantity"]) * Fraction(row["PricingCurrencyListUnitPrice"]), 18)
        smallest = PLACES if row["PricingCurrency"] == "USD" else Decimal("1e-6")
        assert abs(told - again) <= smallest * row["x_Charges"]
        if row["x_CostPlane"] == "provider":
            assert row["BilledCost"] == row["EffectiveCost"] == told
        else:
            assert row["BilledCost"] == 0 and row["BillingCurrency"] == "USD"
        assert row["BillingPeriodStart"] < row["BillingPeriodEnd"] and row["ChargePeriodEnd"] - row["ChargePeriodStart"] == timedelta(
            hours=1
        )


@pytest.fixture
def exported(services, put, org):
    """Both planes, a purchase, a gift, a reversal, prices of every kind."""
    ledger = Ledger(org)
    first = ledger.add("g-1", 10_000_000, "2026-05-01")
    ledger.add("g-2", 1_000_000, "2026-05-02", "grant")
    ledger.use("g-2", 30_000, "2026-05-05T11:00:00", "r-1")
    ledger.use("g-1", 10_000, "2026-05-05T11:00:00", "r-1", held=20_000)
    ledger.write("settle", "2026-05-06", ("overdraft", None, -40_000), ("usage", None, 40_000), run_id="r-2")
    ledger.write("reverse", "2026-06-01", ("credit", "g-1", -5_000_000), ("wash", None, 5_000_000), reverses=first)
    gpu = {"sku": "gpu_time", "unit": "gpu_microsecond", "token_type": None, "price_units": 3_600_000_000, "evidence": "estimated"}
    put(
        model_row(org, "m-1", "mine", "https://api.together.ai/v1", "meta/llama"),
        model_row(org, "m-2", "referee", "https://llm.acme.example:8443/v1", "ref"),
        tokens(org, "2026-05-05T10:10:00", 1234, "0.15", run_id="r-1"),
        tokens(org, "2026-05-05T10:59:59", 766, "0.15", run_id="r-1"),
        tokens(org, "2026-05-05T11:00:00", 1, "0.15", run_id="r-1"),
        tokens(
            org, "2026-05-05T10:12:00", 1, None, run_id="r-1", unit_price_usd=Decimal("2.5"), amount_usd=Decimal("0.000000000694"), **gpu
        ),
        tokens(org, "2026-05-05T10:12:00", 55, None, amount_usd=Decimal("0.0000123"), evidence="reported", price_source="endpoint"),
        tokens(org, "2026-05-05T10:13:00", 56, None, amount_usd=Decimal("0.0000123"), evidence="reported", price_source="endpoint"),
        tokens(org, "2026-05-05T10:14:00", None, None, amount_usd=Decimal("0.5"), evidence="reported", price_source="endpoint"),
        tokens(org, "2026-05-05T10:12:00", None, None),
        judge_call(org, "2026-05-05T10:20:00", run_id="r-1"),
        judge_call(org, "2026-05-05T10:21:00", run_id="r-2"),
        judge_call(org, "2026-05-05T10:21:00", calls=None, micro=None, sku="inference/input", unit="token"),
        *ledger.rows,
        grant_row(org, "g-1", 10_000_000, "2026-05-01", paid="30", expires="2027-05-01"),
        grant_row(org, "g-2", 1_000_000, "2026-05-02", kind="promotional"),
    )
    with services.warehouse.reading() as results:
        return focus_export(results, org, "acme", None, "all")


def test_every_kind_of_charge_has_its_row(exported):
    for row in exported.rows:
        check_row(row)
    usage = [row for row in exported.rows if row["ChargeCategory"] == "Usage"]
    found = {(row["SkuMeter"], row["PricingUnit"], row["PricingQuantity"], row["BilledCost"], row["x_Charges"]) for row in usage}
    assert found == {
        ("Input Tokens", "1000000 Tokens", Decimal("0.002"), Decimal("0.0003"), 2),
        ("Input Tokens", "1000000 Tokens", Decimal("0.000001"), Decimal("0.00000015"), 1),
        ("GPU Time", "GPU-Hours", Decimal("0.000000000277777778"), Decimal("0.000000000694"), 1),
        ("Input Tokens", "Requests", 2, Decimal("0.0000246"), 2),
        ("Input Tokens", "Requests", 1, Decimal("0.5"), 1),
        ("Judge Calls", "Requests", 1, 0, 1),
    }
    assert (exported.unpriced_charges, exported.unpriced_ecu_charges) == (1, 1)
    assert {row["ProviderName"] for row in exported.rows} == {"Together AI", "byok"}


def test_ecu_are_worth_what_was_paid_for_the_credit_that_was_drawn(exported):
    drawn = {row["x_RunId"]: row for row in exported.rows if row["PricingCurrency"] == "ECU"}
    # A quarter of it was paid for, at 3 USD an ECU.
    assert drawn["r-1"]["EffectiveCost"] == Decimal("0.03") and drawn["r-1"]["PricingCurrencyEffectiveCost"] == Decimal("0.04")
    assert drawn["r-1"]["ListUnitPrice"] == Decimal("0.03") and drawn["r-1"]["PricingCurrencyListUnitPrice"] == Decimal("0.04")
    assert drawn["r-2"]["EffectiveCost"] == 0 and exported.value.unvalued_micro_ecu == 70_000


def test_purchases_are_cash_and_gifts_are_not(exported):
    bought, given, back = [row for row in exported.rows if row["ChargeFrequency"] == "One-Time" and row["PricingQuantity"] != 1000]
    assert (bought["ChargeCategory"], bought["BilledCost"], bought["EffectiveCost"], bought["PricingQuantity"]) == ("Purchase", 30, 0, 10)
    assert bought["ChargePeriodEnd"] == at("2027-05-01") and bought["BillingPeriodEnd"] == at("2026-06-01")
    assert (given["ChargeCategory"], given["BilledCost"]) == ("Credit", 0)
    assert (back["BilledCost"], back["ChargeClass"], back["BillingPeriodStart"]) == (-15, "Correction", at("2026-06-01"))


def test_a_purchase_of_unknown_payment_is_left_out_and_counted(services, put, org):
    put(grant_row(org, "g-1", 5_000_000, "2026-05-01", paid=None), grant_row(org, "g-2", 5_000_000, "2026-05-02", paid="4"))
    with services.warehouse.reading() as results:
        made = focus_export(results, org, "acme", Month(2026, 5), "all")
    assert [row["BilledCost"] for row in made.rows] == [4] and made.facts()["unpriced_purchases"] == 1


def test_planes_and_months_add_up_to_the_whole(services, org, exported):
    with services.warehouse.reading() as results:
        planes = [focus_export(results, org, "acme", None, plane) for plane in ("provider", "ecu")]
        months = [focus_export(results, org, "acme", Month(2026, number), "all") for number in (5, 6)]
        (micro,) = results.query("SELECT CAST(sum(micro_ecu) AS BIGINT) FROM v1.ledger WHERE account = 'usage' AND run_id = 'r-1'").rows[0]
    for parts in (planes, months):
        for column in ("BilledCost", "EffectiveCost", "x_Charges"):
            assert sum(part.total(column) for part in parts) == exported.total(column)
    ecu = [row["PricingCurrencyEffectiveCost"] for row in exported.rows if row["PricingCurrency"] == "ECU" and row["x_RunId"] == "r-1"]
    assert sum(ecu) * 1_000_000 == micro


def test_a_correction_of_a_closed_month_is_in_the_later_period(services, put, org):
    first = tokens(org, "2026-05-05T10:10:00", 1000, None)
    closed = dict(org_id=org, month="2026-05", closed_at=at("2026-06-02"), member_id="x", charges=1, provider_usd=Decimal(0))
    put(first, ClosedMonthRow(**closed, unpriced_charges=1, micro_ecu=0, recorded_at=at("2026-06-02")))
    put(correction(first, "0.0025", "2026-06-05"))
    with services.warehouse.reading() as results:
        may, june = (focus_export(results, org, "acme", Month(2026, number), "all") for number in (5, 6))
    assert (may.rows, may.unpriced_charges) == ((), 1)
    (row,) = june.rows
    assert (row["ChargeClass"], row["BilledCost"], row["ConsumedQuantity"]) == ("Correction", Decimal("0.0025"), 1000)
    assert row["ChargePeriodStart"] == at("2026-05-05T10:00:00") and row["BillingPeriodStart"] == at("2026-06-01")


def test_the_command_writes_both_formats_with_the_same_numbers(services, exported, byok, tmp_path):
    for name in ("all.csv", "all.parquet"):
        code, shown, told = byok("bill", "export", "--focus", "-o", str(tmp_path / name), "--json")
        made = json.loads(shown)["export"]
        assert code == 0 and made["rows"] == len(exported.rows) and "2 charges whose amount is not known are left out" in told
    beside = json.loads((tmp_path / "all.csv.metadata.json").read_text())
    assert (
        beside["Schema"]["FocusVersion"] == "1.2" and beside["Export"]["unpriced_charges"] == 1 and beside["Export"]["rows"] == made["rows"]
    )
    assert [one["ColumnName"] for one in beside["Schema"]["ColumnDefinition"]] == list(COLUMNS)
    with (tmp_path / "all.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(COLUMNS) and {row["InvoiceId"] for row in rows} == {""}
    assert sum(Decimal(row["BilledCost"]) for row in rows) == exported.total("BilledCost")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        table = connection.read_parquet(str(tmp_path / "all.parquet"))
        found = [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]
    for row, parquet in zip(rows, found, strict=True):
        for name, kind in COLUMNS.items():
            if kind == "number":
                assert (None if row[name] == "" else Decimal(row[name])) == parquet[name], name
            elif kind == "time":
                assert row[name] == parquet[name].strftime("%Y-%m-%dT%H:%M:%SZ"), name
            else:
                assert (row[name] or None) == parquet[name], name
    assert byok("bill", "export", "--focus", "-o", str(tmp_path / "all.csv"), "--json")[0] == 2
    assert byok("bill", "export", "-o", str(tmp_path / "x.csv"), "--json")[0] == 2 and not (tmp_path / "x.csv").exists()
    assert byok("bill", "export", "--focus", "--plane", "ecu", "-o", str(tmp_path / "all.csv"), "--force")[0] == 0


def test_texts_that_a_spreadsheet_would_carry_out_are_inert(services, put, org, tmp_path):
    put(model_row(org, "m-1", "mine", "https://x.example/v1", "r", provider="=cmd()"), tokens(org, "2026-05-05", 1))
    with services.warehouse.reading() as results:
        made = focus_export(results, org, "acme", Month(2026, 5), "all")
    write_csv(tmp_path / "x.csv", made)
    write_parquet(tmp_path / "x.parquet", made)
    with (tmp_path / "x.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["ProviderName"] == "'=cmd()" and made.rows[0]["ProviderName"] == "=cmd()"


def test_a_real_run_is_exported_whole(services, monkeypatch, tmp_path, org):
    with Bench(services, monkeypatch, tmp_path, [(f"{number} + 1?", str(number + 1)) for number in range(4)]) as bench:
        bench.serve(price="0.2")
        bench.serve("referee", price=None)
        services.judges.create(services.actor, "helpful", "referee", "binary", "Is {{output}} right?")
        bench.run(judges=["helpful"])
        month = Month.parse(None)
        with services.warehouse.reading() as results:
            made, told = focus_export(results, org, "acme", month, "all"), month_statement(results, org, month, "model", {})
    assert made.total("BilledCost") == told.totals.provider_usd > 0
    assert (
        sum(row["PricingCurrencyEffectiveCost"] for row in made.rows if row["PricingCurrency"] == "ECU") * 1_000_000
        == told.totals.micro_ecu
        > 0
    )
    assert made.unpriced_charges == told.totals.unpriced_charges > 0
    assert int(made.total("x_Charges")) + made.unpriced_charges + made.unpriced_ecu_charges == told.totals.charges


PRICES = st.none() | st.decimals("0", "1000", places=12).map(str)
USED = st.tuples(
    st.integers(0, 40 * 24 * 60),
    st.sampled_from(["r-1", None]),
    st.sampled_from(["input", "output"]),
    st.none() | st.integers(0, 10**8),
    PRICES,
)
CALLS = st.tuples(
    st.integers(0, 40 * 24 * 60), st.sampled_from(["r-1", "r-2"]), st.integers(0, 10**6), st.decimals("0", "100000", places=6).map(str)
)


@settings(max_examples=8, deadline=None)
@given(used=st.lists(USED, max_size=30), calls=st.lists(CALLS, max_size=20), paid=st.decimals("0", "1000", places=2).map(str))
def test_random_charges_are_exported_once_and_exactly(used, calls, paid, tmp_path_factory):
    folder, start = tmp_path_factory.mktemp("warehouse"), at("2026-05-01")
    warehouse = Warehouse(folder / "warehouse", folder / "spool")
    rows = [tokens("o", start + timedelta(minutes=m), n, price, run_id=run, token_type=kind) for m, run, kind, n, price in used]
    for minutes, run, number, rate in calls:
        micro = int((number * Decimal(rate)).to_integral_value())
        rows.append(judge_call("o", start + timedelta(minutes=minutes), rate, number, micro=micro, run_id=run))
    ledger = Ledger("o")
    for run in ("r-1", "r-2"):
        if micro := sum(row.amount_micro_ecu for row in rows if row.plane == "ecu" and row.run_id == run):
            ledger.use("g-1", micro, "2026-05-20", run)
    warehouse.migrate()
    warehouse.write_segment([*rows, *ledger.rows, grant_row("o", "g-1", 7_000_000, "2026-05-01", paid=paid)])
    warehouse.drain()
    with warehouse.reading() as results:
        made = focus_export(results, "o", "o", None, "all")
        months = [focus_export(results, "o", "o", Month(2026, number), "all") for number in (5, 6)]
    for row in made.rows:
        check_row(row)
    known = [row for row in rows if row.amount_usd is not None or row.amount_micro_ecu is not None]
    assert made.total("x_Charges") == len(known) and made.unpriced_charges == len(rows) - len(known)
    assert made.total("BilledCost", plane="provider") == sum((row.amount_usd or 0 for row in rows), Decimal(0))
    ecu = sum((row["PricingCurrencyEffectiveCost"] for row in made.rows if row["PricingCurrency"] == "ECU"), Decimal(0))
    usage = sum(entry.micro_ecu for entry in ledger.rows if entry.account == "usage")
    assert ecu * 1_000_000 == sum(row.amount_micro_ecu or 0 for row in rows) == usage
    # What it is worth is rounded for each row.
    lines = sum(row["PricingCurrency"] == "ECU" for row in made.rows)
    worth = sum((row["EffectiveCost"] for row in made.rows if row["PricingCurrency"] == "ECU"), Decimal(0))
    assert abs(worth - rounded(usage * Fraction(paid) / 7_000_000, 12)) <= PLACES * (lines + 1)
    for column in ("BilledCost", "EffectiveCost", "x_Charges"):
        assert sum(part.total(column) for part in months) == made.total(column)
