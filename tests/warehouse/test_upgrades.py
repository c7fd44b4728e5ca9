"""A warehouse of an earlier version becomes one of this version, and its rows stay."""

import shutil
from dataclasses import fields

import duckdb
import pytest

from byok.warehouse import Warehouse
from byok.warehouse.rows import FACTS, KEYS, KINDS
from byok.warehouse.schema import FOLDER, apply_migrations


@pytest.fixture
def earlier(make, tmp_path):
    """A warehouse as it was before facts lost their indexes, with three rows in each table of facts, and its columns of then."""
    old = tmp_path / "migrations"
    old.mkdir()
    for path in sorted(FOLDER.glob("000[1-3]_*.sql")):
        shutil.copy(path, old)
    warehouse = Warehouse(tmp_path / "w", tmp_path / "s")
    (tmp_path / "w").mkdir()
    columns = {}
    with duckdb.connect(str(tmp_path / "w" / "byok.duckdb")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        apply_migrations(connection, old)
        for table in FACTS:
            columns[table] = [name for (name, *_) in connection.execute(f"DESCRIBE main.{table}").fetchall()]
            for number in range(3):
                row = make(table, **{KEYS[table][-1]: f"k{number}"})
                values = [getattr(row, name) for name in columns[table]]
                connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
    return warehouse, columns


def test_rows_of_an_earlier_version_stay_and_their_keys_are_taken(earlier, make):
    warehouse, columns = earlier
    assert warehouse.migrate().published
    for table in FACTS:
        key = KEYS[table][-1]
        kept = [make(table, **{key: f"k{number}"}) for number in range(3)]
        found = warehouse.query(f"SELECT {', '.join(columns[table])} FROM main.{table} ORDER BY {key}").rows
        assert found == [tuple(getattr(row, name) for name in columns[table]) for row in kept]
        warehouse.write_segment([make(table, **{key: f"k{number}"}) for number in range(1, 5)])
    warehouse.drain()
    for table in FACTS:
        assert warehouse.query(f"SELECT count(*), count(DISTINCT {KEYS[table][-1]}) FROM main.{table}").rows == [(5, 5)]


def test_an_upgrade_does_not_wait_for_rows(earlier):
    warehouse, _ = earlier
    warehouse.migrate()
    for table in FACTS:
        names = [name for (name, *_) in warehouse.query(f"DESCRIBE main.{table}").rows]
        assert names == [field.name for field in fields(KINDS[table])]
    # And a snapshot that was published by an earlier version is replaced too, though it is not older than its warehouse.
    assert not warehouse.drain().published


def test_facts_have_no_index_and_all_else_has_its_key(warehouse):
    found = warehouse.query("SELECT table_name FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'").rows
    assert {table for (table,) in found} == (set(KINDS) - FACTS) | {"schema_migration"}
