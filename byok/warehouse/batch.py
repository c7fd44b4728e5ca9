"""One batch of rows into the tables, in one transaction, by DuckDB alone: Python sees names of tables and columns, never a row.

A key is taken once: facts keep their first arrival, rows with a `revision` their highest. The facts of runs have no index (DuckDB holds
one in memory as a whole), so their keys are looked up among the rows of the same run, which takes 0.05 s for each million of them; other
runs cost next to nothing, since DuckDB knows of each group of rows between which ids of runs they lie.
"""

from __future__ import annotations

import glob
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import duckdb
import orjson

from byok.warehouse.rows import FACTS, KEYS
from byok.warehouse.segments import fits

_LEAST_OBJECT = 2 * 1024 * 1024
"""DuckDB reads through buffers of twice the longest object, and takes 16 MiB for it when it is not told."""

_UNLOADABLE = (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.ConstraintException, duckdb.OutOfRangeException)


class Unloadable(Exception):
    """A row cannot be put into its table. Internal: the loader finds its segment and sets it aside."""


def load_batch(connection: duckdb.DuckDBPyConnection, source: Path, longest: int) -> None:
    """Load the rows of a file in one transaction.

    Args:
        connection: The warehouse, its lock held.
        source: NDJSON, one `{"t": table, "r": row}` a line.
        longest: Bytes of its longest line.

    Raises:
        Unloadable: A row has no table, other columns than its table, or a value that its column cannot take; nothing is loaded.
        duckdb.OutOfMemoryException: DuckDB may not use as much memory as these rows need; nothing is loaded.
    """
    connection.execute("BEGIN")
    try:
        for table, layouts in _arrived(connection, source, longest).items():
            _read(connection, table, layouts)
            _find_surplus(connection, table)
            _insert(connection, table)
        for name in ("arrived", "fresh", "surplus"):
            connection.execute(f"DROP TABLE IF EXISTS temp.{name}")
        connection.execute("COMMIT")
    except (duckdb.Error, Unloadable) as problem:
        with suppress(duckdb.Error):  # a commit that failed has ended the transaction, or the whole connection
            connection.execute("ROLLBACK")
        if isinstance(problem, _UNLOADABLE):
            raise Unloadable(f"a row does not fit its table ({type(problem).__name__})") from None
        raise


def _arrived(connection: duckdb.DuckDBPyConnection, source: Path, longest: int) -> dict[str, list[list[str]]]:
    """Read the file into a temporary table; return which tables its rows are for, and which columns they have."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE arrived AS SELECT t AS kind, r AS content FROM read_json("
        "?, format = 'newline_delimited', columns = {t: 'VARCHAR', r: 'JSON'}, maximum_object_size = ?)",
        [glob.escape(str(source)), max(_LEAST_OBJECT, longest + 1)],
    )
    found: dict[str, list[list[str]]] = defaultdict(list)
    for table, names in connection.execute("SELECT DISTINCT kind, json_keys(content) FROM arrived").fetchall():
        if not fits(table, names):
            raise Unloadable(f"a row of {table!r} does not have that table's columns")
        found[table].append(names)
    return found


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    return dict(
        connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = 'main'"
            " AND table_name = ? ORDER BY column_index",
            [table],
        ).fetchall()
    )


# Names and types below come from the catalogue and from rows.py, never from data: a row's names were compared with them.


def _read(connection: duckdb.DuckDBPyConnection, table: str, layouts: list[list[str]]) -> None:
    """The rows of one table with its types, numbered as they arrived; a value that does not fit is an error, not NULL."""
    types = _columns(connection, table)
    connection.execute(f'CREATE OR REPLACE TEMP TABLE fresh AS SELECT 0::BIGINT AS arrival, * FROM main."{table}" LIMIT 0')  # noqa: S608
    for names in layouts:
        form = orjson.dumps({name: types[name] for name in names}).decode()
        which, given = ("", [table]) if len(layouts) == 1 else (" AND json_keys(content) = ?", [table, names])
        connection.execute(
            f"INSERT INTO fresh BY NAME SELECT rowid AS arrival, unnest(from_json_strict(content, '{form}'))"  # noqa: S608
            f" FROM arrived WHERE kind = ?{which}",
            given,
        )


def _find_surplus(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Which rows are not to be stored: those of a key that came before, in this batch or (of a fact) in an earlier one."""
    keys = ", ".join(KEYS[table])
    first = "revision DESC, arrival" if "revision" in _columns(connection, table) else "arrival"
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE surplus AS SELECT arrival FROM ("  # noqa: S608
        f"SELECT arrival, row_number() OVER (PARTITION BY {keys} ORDER BY {first}) AS place FROM fresh) WHERE place > 1"
    )
    if table in FACTS:
        # Two joins, since only one on equal ids of runs lets DuckDB pass over the rows of others.
        same = " AND ".join(f"stored.{name} = fresh.{name}" for name in KEYS[table])
        connection.execute(
            "INSERT INTO surplus SELECT arrival FROM fresh SEMI JOIN ("  # noqa: S608
            f"SELECT {keys} FROM main.{table} AS stored SEMI JOIN fresh ON {same} AND stored.run_id = fresh.run_id UNION ALL"
            f" SELECT {keys} FROM main.{table} AS stored SEMI JOIN fresh ON {same} AND fresh.run_id IS NULL WHERE stored.run_id IS NULL"
            f") AS known USING ({keys})"
        )


def _insert(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    names = _columns(connection, table)
    if table in FACTS:
        conflict = ""
    elif "revision" in names:
        changes = ", ".join(f'"{name}" = excluded."{name}"' for name in names if name not in KEYS[table])
        conflict = f" ON CONFLICT DO UPDATE SET {changes} WHERE excluded.revision > {table}.revision"
    else:
        conflict = " ON CONFLICT DO NOTHING"
    connection.execute(
        f'INSERT INTO main."{table}" BY NAME SELECT * EXCLUDE (arrival) FROM fresh ANTI JOIN surplus USING (arrival)'  # noqa: S608
        f" ORDER BY arrival{conflict}"
    )
