"""Segments: how rows reach the warehouse. A segment is written once, durably, and then belongs to whoever loads it.

A segment is NDJSON: one `{"t": table, "r": row}` a line, and a last line with the number of rows and the CRC32 of all bytes before it,
so that a torn file is known for what it is. Decimals are texts, times ISO 8601 in UTC.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from byok.clock import iso
from byok.home import private_dir
from byok.ids import new_id
from byok.warehouse.rows import KINDS, Row

_ADDED = {"model": frozenset({"provider", "auth", "health", "checked_at"})}
"""Columns that came with a later version: a segment that waited over an upgrade lacks them, and they are NULL."""


class SegmentBroken(Exception):
    """A file among the waiting segments is not a whole segment. Internal: the loader sets it aside."""


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return iso(value)
    raise TypeError(f"{type(value).__name__} has no place in a segment")


_NAMES = {table: tuple(field.name for field in fields(kind)) for table, kind in KINDS.items()}


def write_segment(folder: Path, rows: Iterable[Row]) -> Path | None:
    """Write rows as one segment; when this returns they survive any crash.

    Args:
        folder: Where segments wait to be loaded.
        rows: Any rows; none give no segment.
    """
    private_dir(folder)
    path = folder / f"{new_id()}.ndjson"
    part = path.with_suffix(".part")
    count, checksum = 0, 0
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        for row in rows:
            record = {"t": row.table, "r": {name: getattr(row, name) for name in _NAMES[row.table]}}
            line = orjson.dumps(record, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME) + b"\n"
            checksum = zlib.crc32(line, checksum)
            stream.write(line)
            count += 1
        stream.write(orjson.dumps({"end": count, "crc32": checksum}) + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    if count == 0:
        part.unlink()
        return None
    os.rename(part, path)
    sync_dir(folder)
    return path


def read_segment(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a segment, as table and plain values.

    Raises:
        SegmentBroken: The file is torn, changed, or names something that does not exist.
    """
    data = path.read_bytes()
    end = data.rfind(b"\n", 0, -1) + 1
    try:
        footer = orjson.loads(data[end:])
        whole = footer["crc32"] == zlib.crc32(data[:end])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise SegmentBroken("there is no last line") from None
    if not whole:
        raise SegmentBroken("the checksum does not fit")
    found = []
    for line in data[:end].split(b"\n")[:-1]:
        record = orjson.loads(line)
        table, row = record["t"], record["r"]
        names, added = set(_NAMES.get(table, ())), _ADDED.get(table, frozenset())
        if table not in KINDS or row.keys() - names or names - row.keys() - added:
            raise SegmentBroken(f"a row of {table!r} does not have that table's columns")
        found.append((table, dict.fromkeys(added) | row))
    if len(found) != footer["end"]:
        raise SegmentBroken("rows are missing")
    return found


def sync_dir(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
