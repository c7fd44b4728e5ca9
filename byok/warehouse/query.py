"""Read-only queries on the published snapshot.

A home belongs to one organisation, and so does its snapshot: DuckDB has no rights of its own that could keep two apart in one file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import duckdb

from byok.errors import InputError, NotFound


class SnapshotMissing(NotFound):
    """Nothing has been published yet."""

    code = "snapshot_missing"


class QueryFailed(InputError):
    """DuckDB does not accept the query."""

    code = "query_failed"


@dataclass(frozen=True)
class Result:
    """Names and rows of a query."""

    columns: list[str]
    rows: list[tuple[Any, ...]]

    def dicts(self) -> list[dict[str, Any]]:
        """Each row as a mapping."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Queries(Protocol):
    """What answers queries: the warehouse, or one state of its snapshot."""

    def query(self, sql: str, parameters: list[Any] | None = None) -> Result: ...


class Reading:
    """One state of a snapshot, open for several queries."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def query(self, sql: str, parameters: list[Any] | None = None) -> Result:
        """Run one query.

        Raises:
            QueryFailed: DuckDB's own message says why.
        """
        try:
            cursor = self._connection.execute(sql, parameters or [])
            columns = [column[0] for column in cursor.description or []]
            return Result(columns, cursor.fetchall())
        except (duckdb.Error, RuntimeError) as problem:
            raise QueryFailed(
                str(problem), hint="the snapshot is read-only; its views are in schema v1 (SELECT * FROM duckdb_views())"
            ) from None


@contextmanager
def reading(snapshot: Path, *, memory: str | None = None) -> Iterator[Reading]:
    """Open a snapshot, which takes longer (20 ms) than most queries; it must not stay open: a newer one is published meanwhile.

    Args:
        snapshot: The published snapshot.
        memory: What DuckDB may use, such as `200MB`; None is its own default, most of the machine's.

    Raises:
        SnapshotMissing: Nothing has been published yet.
    """
    connection = _open(snapshot, memory)
    try:
        yield Reading(connection)
    finally:
        connection.close()


def run_query(snapshot: Path, sql: str, parameters: list[Any] | None = None) -> Result:
    """Run one query on a snapshot that cannot be changed, by a connection that reaches no other file.

    Raises:
        SnapshotMissing: Nothing has been published yet.
        QueryFailed: DuckDB's own message says why.
    """
    with reading(snapshot) as results:
        return results.query(sql, parameters)


def _open(snapshot: Path, memory: str | None) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {"enable_external_access": "false"}
    if memory is not None:
        config["memory_limit"] = memory
    for _ in range(50):
        if not snapshot.exists():
            break
        try:
            connection = duckdb.connect(str(snapshot), read_only=True, config=config)
        except duckdb.IOException:
            time.sleep(0.02)  # renamed between the look and the opening
            continue
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")  # on, in a process that was started without a file
        connection.execute("SET lock_configuration = true")
        return connection
    raise SnapshotMissing("nothing has been published yet", hint="run byok init, then an evaluation: byok evaluate --help")
