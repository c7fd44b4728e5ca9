"""`dbt build` on a real snapshot: all tests of the sources hold, and the marts are what SQL says."""

from __future__ import annotations

import json

import duckdb
import pytest

from byok.warehouse import Warehouse
from byok.warehouse.dictionary import read_contract
from byok.warehouse.rows import ChargeRow, LedgerEntryRow


@pytest.fixture(scope="module")
def built(dbt):
    return dbt("build")


@pytest.fixture
def mart(built, project):
    def query(sql):
        with duckdb.connect(str(project / "marts.duckdb"), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(sql).fetchall()

    return query


def test_every_model_is_made_and_every_test_holds(built):
    kinds = [one["unique_id"].split(".")[0] for one in built]
    assert {one["status"] for one in built} == {"success", "pass"}
    claims = sum(column.never_null + column.unique for view in read_contract() for column in view.columns)
    assert kinds.count("model") == 2 and kinds.count("test") == claims + 6 + 2


def test_no_view_was_empty_when_its_tests_held(warehouse):
    """A test holds on no rows at all; so each view of which something is claimed has some."""
    empty = {view.name for view in read_contract() if warehouse.query(f"SELECT count(*) FROM v1.{view.name}").rows == [(0,)]}
    assert empty == {"capabilities"}, "no model was probed in full"


def test_the_monthly_bills_are_those_of_the_charges(mart, warehouse):
    expected = warehouse.query(
        "SELECT strftime(occurred_at AT TIME ZONE 'UTC', '%Y-%m'), model_key, count(*), sum(amount_usd),"
        " count(*) FILTER (WHERE plane = 'provider' AND amount_usd IS NULL), CAST(sum(amount_micro_ecu) AS BIGINT)"
        " FROM main.charge GROUP BY ALL ORDER BY 1, 2"
    ).rows
    found = mart("SELECT month, model_key, charges, provider_usd, unpriced_charges, micro_ecu FROM monthly_bills ORDER BY 1, 2")
    assert found == expected and len(found) >= 5
    assert mart("SELECT DISTINCT typeof(provider_usd), typeof(micro_ecu) FROM monthly_bills") == [("DECIMAL(38,12)", "BIGINT")]


def test_the_cost_of_correct_answers_is_that_of_the_newest_runs(mart, warehouse):
    newest = dict(warehouse.query("SELECT model_key, run_id FROM v1.runs ORDER BY started_at").rows)
    columns = "grader, model_key, run_id, judged, correct, provider_usd, unpriced_charges, provider_usd_per_correct, micro_ecu_per_correct"
    expected = [row for row in warehouse.query(f"SELECT {columns} FROM v1.cost_per_correct ORDER BY 1, 2").rows if row[2] == newest[row[1]]]
    found = mart(f"SELECT {columns} FROM cost_of_correct_answers ORDER BY 1, 2")
    assert found == expected and [row[:2] for row in found] == [
        ("numeric", "dear"),
        ("numeric", "free"),
        ("numeric", "half"),
        ("numeric", "right"),
        ("one", "right"),
    ]


def test_descriptions_reach_dbt(built, project):
    sources = json.loads((project / "target" / "manifest.json").read_text())["sources"].values()
    told = {one["name"]: (one["description"], {name: column["description"] for name, column in one["columns"].items()}) for one in sources}
    assert told == {view.name: (view.comment, {column.name: column.comment for column in view.columns}) for view in read_contract()}


def test_the_snapshot_is_not_changed_and_can_be_replaced(dbt, warehouse, mart):
    before = warehouse.snapshot.read_bytes()
    dbt("build", "--select", "monthly_bills")
    assert warehouse.snapshot.read_bytes() == before
    (row,) = warehouse.query("SELECT * FROM main.charge WHERE model_key = 'right' LIMIT 1").dicts()
    warehouse.write_segment([ChargeRow(**(row | {"charge_id": "one-more"}))])
    warehouse.drain()
    ((was,),) = mart("SELECT sum(charges) FROM monthly_bills")
    dbt("build", "--select", "monthly_bills")
    assert mart("SELECT sum(charges) FROM monthly_bills") == [(was + 1,)]


def test_a_tie_that_does_not_hold_is_found(dbt, warehouse, tmp_path):
    """The same test on a ledger that lacks entries fails."""
    other = Warehouse(tmp_path / "warehouse", tmp_path / "spool")
    other.write_segment(LedgerEntryRow(**row) for row in warehouse.query("SELECT * FROM main.ledger_entry WHERE account = 'wash'").dicts())
    other.drain()
    assert [one["status"] for one in dbt("build", "--select", "ledger_ties", of=other, code=1)] == ["fail"]
