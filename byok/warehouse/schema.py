"""Numbered plain SQL, each file in one transaction; a file that was applied must never change."""

from __future__ import annotations

import hashlib
from pathlib import Path

import duckdb

from byok.errors import InputError

FOLDER = Path(__file__).parent / "migrations"


class WarehouseVersion(InputError):
    """The warehouse holds another version of the schema than this program."""

    code = "warehouse_version"


def apply_migrations(connection: duckdb.DuckDBPyConnection, folder: Path = FOLDER) -> int:
    """Apply the migrations that are not yet applied, in order.

    Returns:
        How many were applied.

    Raises:
        WarehouseVersion: The file is of a newer program, or an applied migration has been changed.
    """
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migration"
        " (version INTEGER PRIMARY KEY, name VARCHAR NOT NULL, checksum VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL)"
    )
    known = {
        version: (name, checksum)
        for version, name, checksum in connection.execute("SELECT version, name, checksum FROM schema_migration").fetchall()
    }
    files = {int(path.name[:4]): path for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))}
    newer = sorted(set(known) - set(files))
    if newer:
        raise WarehouseVersion("the warehouse is of a newer byok", hint="use that version, or another BYOK_HOME", version=newer[-1])
    applied = 0
    for version, path in files.items():
        text = path.read_text(encoding="utf-8")
        checksum = hashlib.sha256(text.encode()).hexdigest()
        if version in known:
            if known[version][1] != checksum:
                raise WarehouseVersion(f"migration {path.name} is not the one that was applied", hint="install byok again", version=version)
            continue
        connection.execute("BEGIN")
        try:
            connection.execute(text)
            connection.execute("INSERT INTO schema_migration VALUES (?, ?, ?, now())", [version, path.stem, checksum])
            connection.execute("COMMIT")
        except duckdb.Error:
            connection.execute("ROLLBACK")
            raise
        applied += 1
    return applied
