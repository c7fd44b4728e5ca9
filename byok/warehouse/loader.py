"""Group commit: whoever holds the lock loads all segments that wait, in one transaction.

Loading is idempotent by natural key: facts keep their first arrival, rows with a `revision` their highest. So a loader that dies
after its commit, before it could remove the segments, does no harm: they are loaded again and change nothing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson

from byok.home import private_dir
from byok.ids import new_id
from byok.warehouse.rows import KEYS, KINDS
from byok.warehouse.segments import SegmentBroken, read_segment, sync_dir

BATCH_SEGMENTS = 500
"""Segments in one transaction, at most: bounds the memory of a loader that finds a long queue."""


Rows = list[tuple[str, dict[str, Any]]]

_UNLOADABLE = (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.ConstraintException, duckdb.OutOfRangeException)


@dataclass(frozen=True)
class LoadReport:
    """What a drain did.

    Attributes:
        segments: Segments loaded.
        rows: Rows in them (those that were there already included).
        rejected: Segments set aside because they are broken.
        published: Whether a new snapshot was published.
    """

    segments: int = 0
    rows: int = 0
    rejected: int = 0
    published: bool = False


def load_waiting(connection: duckdb.DuckDBPyConnection, waiting: Path, rejected: Path) -> LoadReport:
    """Load all waiting segments; the caller holds the lock."""
    segments = rows = broken = 0
    while paths := sorted(waiting.glob("*.ndjson"))[:BATCH_SEGMENTS]:
        found: dict[Path, Rows] = {}
        for path in paths:
            try:
                found[path] = read_segment(path)
            except SegmentBroken as problem:
                _set_aside(path, rejected, str(problem))
                broken += 1
        try:
            _load(connection, waiting, found)
        except _UNLOADABLE:
            # One of them holds a value that its column cannot take: find it, so that it does not block the others for ever.
            for path, one in list(found.items()):
                try:
                    _load(connection, waiting, {path: one})
                except _UNLOADABLE as problem:
                    _set_aside(path, rejected, f"a row does not fit its table ({type(problem).__name__})")
                    broken += 1
                    del found[path]
        segments += len(found)
        rows += sum(map(len, found.values()))
    return LoadReport(segments, rows, broken)


def _load(connection: duckdb.DuckDBPyConnection, waiting: Path, segments: dict[Path, Rows]) -> None:
    """Load segments in one transaction, and remove them once it is committed."""
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for rows in segments.values():
        for table, row in rows:
            tables[table].append(row)
    if tables:
        _insert(connection, waiting, tables)
    for path in segments:
        path.unlink()
    sync_dir(waiting)


def _set_aside(path: Path, rejected: Path, reason: str) -> None:
    private_dir(rejected)
    (rejected / f"{path.stem}.reason").write_text(reason + "\n", encoding="utf-8")
    os.rename(path, rejected / path.name)
    sync_dir(rejected)


def _insert(connection: duckdb.DuckDBPyConnection, folder: Path, tables: dict[str, list[dict[str, Any]]]) -> None:
    staged: list[Path] = []
    connection.execute("BEGIN")
    try:
        for table, rows in tables.items():
            # One file for each table: DuckDB reads a few large files far faster than many small ones.
            staging = folder / f".{table}-{new_id()}.staging"
            staged.append(staging)
            staging.write_bytes(b"\n".join(map(orjson.dumps, _newest(table, rows))))
            connection.execute(_statement(connection, table), [str(staging)])
        connection.execute("COMMIT")
    except duckdb.Error:
        connection.execute("ROLLBACK")
        raise
    finally:
        for staging in staged:
            staging.unlink(missing_ok=True)


def _newest(table: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each key: the first, or that of the highest revision. (One statement may not meet a key twice.)"""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in KEYS[table])
        if key not in found or row.get("revision", 0) > found[key].get("revision", 0):
            found[key] = row
    return list(found.values())


def _statement(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """The upsert of one table from a staging file, with the table's own column types."""
    if table not in KINDS:
        raise ValueError(table)
    columns = connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = 'main' AND table_name = ? ORDER BY column_index", [table]
    ).fetchall()
    # Names and types come from the catalogue and from rows.py, never from data.
    names = ", ".join(f'"{name}"' for name, _ in columns)
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in columns)
    if any(name == "revision" for name, _ in columns):
        changes = ", ".join(f'"{name}" = excluded."{name}"' for name, _ in columns if name not in KEYS[table])
        conflict = f"DO UPDATE SET {changes} WHERE excluded.revision > {table}.revision"
    else:
        conflict = "DO NOTHING"
    return (
        f"INSERT INTO {table} ({names}) SELECT {names} FROM read_json(?, format = 'newline_delimited', columns = {{{types}}},"  # noqa: S608
        f" maximum_object_size = 268435456) ON CONFLICT {conflict}"
    )


def remove_stale(waiting: Path) -> None:
    """Remove what dead writers and loaders left: staging files. (Parts of segments may belong to a living writer.)"""
    for path in waiting.glob(".*.staging"):
        path.unlink(missing_ok=True)
