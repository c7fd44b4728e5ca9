"""The reporting contract: tables as the records say, views as they were, a comment on everything."""

import dataclasses
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import duckdb
import pytest

from byok.warehouse import QueryFailed, SnapshotMissing, Warehouse, WarehouseVersion
from byok.warehouse.rows import KINDS
from byok.warehouse.schema import FOLDER, apply_migrations

CONTRACT = Path(__file__).with_name("v1_contract.txt")
TYPES = {
    str: "VARCHAR",
    int: "BIGINT",
    float: "DOUBLE",
    bool: "BOOLEAN",
    datetime: "TIMESTAMP WITH TIME ZONE",
    Decimal: "DECIMAL(28,12)",
    list[str]: "VARCHAR[]",
}


@pytest.mark.parametrize("table", KINDS)
def test_tables_have_the_columns_of_their_records(warehouse, table):
    wanted = []
    hints = get_type_hints(KINDS[table])
    for field in dataclasses.fields(KINDS[table]):
        kind = hints[field.name]
        optional = type(None) in get_args(kind)
        (kind,) = [one for one in get_args(kind) if one is not type(None)] if optional else [kind]
        wanted.append((field.name, TYPES[str if get_origin(kind) is Literal else kind], optional))
    found = warehouse.query(
        "SELECT column_name, data_type, is_nullable FROM duckdb_columns() "
        "WHERE schema_name = 'main' AND table_name = ? ORDER BY column_index",
        [table],
    )
    assert found.rows == wanted


def test_views_are_what_readers_rely_on(warehouse):
    """To change the contract on purpose, write `described` to v1_contract.txt; what readers use must stay."""
    views = warehouse.query("SELECT view_name FROM duckdb_views() WHERE schema_name = 'v1' ORDER BY 1").rows
    described = "".join(f"{view}.{name} {kind}\n" for (view,) in views for name, kind, *_ in warehouse.query(f"DESCRIBE v1.{view}").rows)
    assert described == CONTRACT.read_text()


def test_every_view_and_column_has_a_comment(warehouse):
    assert warehouse.query("SELECT view_name FROM duckdb_views() WHERE schema_name = 'v1' AND coalesce(comment, '') = ''").rows == []
    bare = "SELECT table_name, column_name FROM duckdb_columns() WHERE schema_name = 'v1' AND coalesce(comment, '') = ''"
    assert warehouse.query(bare).rows == []


def test_a_migration_that_fails_is_undone_whole(tmp_path):
    (tmp_path / "0001_good.sql").write_text("CREATE TABLE one (n INTEGER);")
    (tmp_path / "0002_bad.sql").write_text("CREATE TABLE two (n INTEGER); CREATE TABLE one (n INTEGER);")
    with duckdb.connect() as connection:
        with pytest.raises(duckdb.Error):
            apply_migrations(connection, tmp_path)
        assert connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall() == [("one",), ("schema_migration",)]
        (tmp_path / "0002_bad.sql").write_text("CREATE TABLE two (n INTEGER);")
        assert apply_migrations(connection, tmp_path) == 1
        assert apply_migrations(connection, tmp_path) == 0


def test_a_changed_migration_and_a_newer_warehouse_are_refused(tmp_path):
    (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (n INTEGER);")
    with duckdb.connect() as connection:
        apply_migrations(connection, tmp_path)
        (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (n BIGINT);")
        with pytest.raises(WarehouseVersion):
            apply_migrations(connection, tmp_path)
        (tmp_path / "0001_a.sql").unlink()
        with pytest.raises(WarehouseVersion):
            apply_migrations(connection, tmp_path)


def test_migrations_are_numbered_without_gaps():
    assert [int(path.name[:4]) for path in sorted(FOLDER.glob("*.sql"))] == list(range(1, len(list(FOLDER.glob("*.sql"))) + 1))


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO main.score SELECT * FROM main.score",
        "DELETE FROM main.charge",
        "CREATE TABLE t (n INTEGER)",
        "DROP VIEW v1.charges",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "EXPORT DATABASE '{folder}/out'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "ATTACH '{folder}/other.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SELECT nothing",
    ],
)
def test_a_query_changes_nothing_and_reaches_nothing(warehouse, make, tmp_path, query):
    warehouse.write_segment([make("charge")])
    warehouse.drain()
    before = Path(warehouse.snapshot).read_bytes()
    with pytest.raises(QueryFailed):
        warehouse.query(query.format(folder=tmp_path))
    assert Path(warehouse.snapshot).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"warehouse", "spool"}


def test_a_missing_snapshot_is_a_named_error(tmp_path):
    with pytest.raises(SnapshotMissing):
        Warehouse(tmp_path / "w", tmp_path / "s").query("SELECT 1")


def test_unknown_amounts_are_counted_and_stay_unknown(warehouse, make):
    unknown = {"plane": "provider", "amount_usd": None, "amount_micro_ecu": None, "corrects": None}
    rows = [make("charge", charge_id=f"c{n}", run_id="r", **unknown) for n in range(3)]
    rows.append(make("score", run_id="r", grader="exact"))
    rows.append(make("run", run_id="r"))
    warehouse.write_segment(rows)
    warehouse.drain()
    assert warehouse.query("SELECT lines, total_usd, unpriced_charges, total_micro_ecu FROM v1.bills").rows == [(3, None, 3, None)]
    assert warehouse.query("SELECT provider_usd, unpriced_charges, micro_ecu FROM v1.leaderboard").rows == [(None, 3, None)]


def test_ecu_totals_are_exact_however_large(warehouse, make):
    amounts = [9_007_199_254_740_993, 1, 7]  # beyond what a DOUBLE holds
    warehouse.write_segment(
        make("charge", charge_id=f"c{n}", run_id="r", plane="ecu", amount_usd=None, amount_micro_ecu=amount)
        for n, amount in enumerate(amounts)
    )
    warehouse.drain()
    ((micro, total),) = warehouse.query("SELECT total_micro_ecu, total_ecu FROM v1.bills").rows
    assert micro == sum(amounts) and total == Decimal(sum(amounts)) / 1_000_000
