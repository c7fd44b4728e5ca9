"""An export as a file: CSV or Parquet, and the metadata beside it."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

import duckdb
import orjson

from byok import __version__
from byok.money import plain
from byok.statements.focus.columns import COLUMNS, FOCUS_VERSION, SCHEMA_ID, FocusRow
from byok.statements.focus.export import FocusExport
from byok.text import inert

_TYPES = {"text": "VARCHAR", "number": "DECIMAL(38,18)", "time": "TIMESTAMPTZ", "json": "VARCHAR"}
_FOCUS_TYPES = {"text": "STRING", "number": "DECIMAL", "time": "DATETIME", "json": "STRING"}


def write_csv(path: Path, export: FocusExport) -> None:
    """Write the rows as CSV: UTF-8, plain decimals, null as nothing, no cell that a spreadsheet would carry out."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        _write(stream, export.rows, inert)


def write_parquet(path: Path, export: FocusExport) -> None:
    """Write the rows as Parquet: decimals with 18 places, times with their zone."""
    with tempfile.TemporaryDirectory(prefix="byok-") as folder, duckdb.connect() as connection:
        table = Path(folder) / "rows.csv"
        with table.open("w", encoding="utf-8", newline="") as stream:
            _write(stream, export.rows, lambda value: value)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        columns = ", ".join(f'"{name}" {_TYPES[kind]}' for name, kind in COLUMNS.items())
        connection.execute(f"CREATE TABLE export ({columns})")
        connection.execute("COPY export FROM $file (FORMAT csv, HEADER, AUTO_DETECT false, NULLSTR '')", {"file": str(table)})
        connection.table("export").write_parquet(str(path), compression="zstd")


def metadata(export: FocusExport, *, file: str, format: str, organisation: str) -> bytes:
    """What FOCUS wants told of a file, and what is not in it, as JSON."""
    now = datetime.now(UTC)
    told = {
        "DataGenerator": {"DataGenerator": f"byok {__version__}"},
        "Schema": {
            "SchemaId": SCHEMA_ID,
            "FocusVersion": FOCUS_VERSION,
            "CreationDate": _time(now),
            "ColumnDefinition": [{"ColumnName": name, "DataType": _FOCUS_TYPES[kind]} for name, kind in COLUMNS.items()],
        },
        "Export": {"file": file, "format": format, "organisation": organisation, "generator_version": __version__} | export.facts(),
    }
    return orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n"


def _write(stream: TextIO, rows: tuple[FocusRow, ...], safe: Callable[[object], object]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(row.get(name), safe) for name in COLUMNS])


def _cell(value: Any, safe: Callable[[object], object]) -> object:
    match value:
        case None:
            return ""
        case Decimal():
            return plain(value)
        case datetime():
            return _time(value)
        case dict():
            return orjson.dumps(value).decode()
        case _:
            return safe(value)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
