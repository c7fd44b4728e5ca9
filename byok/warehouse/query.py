"""Read-only queries on the published snapshot.

A home belongs to one organisation, and so does its snapshot: DuckDB has no rights of its own that could keep two apart in one file.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def run_query(snapshot: Path, sql: str, parameters: list[Any] | None = None) -> Result:
    """Run one query on a snapshot that cannot be changed, by a connection that reaches no other file.

    Raises:
        SnapshotMissing: Nothing has been published yet.
        QueryFailed: DuckDB's own message says why.
    """
    connection = _open(snapshot)
    try:
        cursor = connection.execute(sql, parameters or [])
        columns = [column[0] for column in cursor.description or []]
        return Result(columns, cursor.fetchall())
    except (duckdb.Error, RuntimeError) as problem:
        raise QueryFailed(
            str(problem), hint="the snapshot is read-only; its views are in schema v1 (SELECT * FROM duckdb_views())"
        ) from None
    finally:
        connection.close()


def _open(snapshot: Path) -> duckdb.DuckDBPyConnection:
    for _ in range(50):
        if not snapshot.exists():
            break
        try:
            connection = duckdb.connect(str(snapshot), read_only=True, config={"enable_external_access": "false"})
        except duckdb.IOException:
            time.sleep(0.02)  # renamed between the look and the opening
            continue
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET lock_configuration = true")
        return connection
    raise SnapshotMissing("nothing has been published yet", hint="run byok init, then an evaluation: byok evaluate --help")
