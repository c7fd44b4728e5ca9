"""Segments: how rows reach the warehouse. A segment is written once, durably, and then belongs to whoever loads it.

A segment is NDJSON: one `{"t": table, "r": row}` a line, and a last line with the number of rows and the CRC32 of all bytes before it,
so that a torn file is known for what it is. Decimals are texts, times ISO 8601 with their offset.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from decimal import Decimal
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from byok.home import private_dir
from byok.ids import new_id
from byok.warehouse.rows import KINDS, Row

_ADDED = {
    "model": frozenset({"provider", "auth", "health", "checked_at"}),
    "run": frozenset({"unknown_attempts", "reused"}),
    "sample": frozenset({"request_hash", "reused_from"}),
    "verdict": frozenset({"request_hash", "reused_from"}),
    "attempt": frozenset({"reported_cost_usd"}),
    "charge": frozenset({"unit", "token_type", "unit_price_usd", "price_units", "price_source", "corrects"}),
}
"""Columns that came with a later version: a segment that waited over an upgrade lacks them, and they are NULL."""

SEGMENT_BYTES = 8 * 1024 * 1024
"""A segment of this size is full: what the loader takes at once must never be more than it needs to. Usual rows do not come near it."""

_BUFFER = 1024 * 1024


class SegmentBroken(Exception):
    """A file among the waiting segments is not a whole segment. Internal: the loader sets it aside."""


class Content(NamedTuple):
    """What a segment holds.

    Attributes:
        rows: How many rows.
        longest: Bytes of the longest line.
    """

    rows: int
    longest: int


def _times_of(kind: type[Row]) -> Callable[[Row], tuple[Any, ...]]:
    names = [field.name for field in fields(kind) if "datetime" in str(field.type)]
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda row: (get(row),)


_COLUMNS = {table: frozenset(field.name for field in fields(kind)) for table, kind in KINDS.items()}
_TIMES = {table: _times_of(kind) for table, kind in KINDS.items()}


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    raise TypeError(f"{type(value).__name__} has no place in a segment")


def _line(row: Row) -> bytes:
    # orjson would write a time without a zone as it is, and it would be read as one in UTC.
    if any(moment is not None and moment.tzinfo is None for moment in _TIMES[row.table](row)):
        raise ValueError("a time without a zone was about to be stored")
    return orjson.dumps({"t": row.table, "r": row}, default=_plain, option=orjson.OPT_APPEND_NEWLINE)


def write_segment(folder: Path, rows: Iterable[Row]) -> Path | None:
    """Write rows, one after the other, as one segment, or several if they are long; when this returns they survive any crash.

    Args:
        folder: Where segments wait to be loaded.
        rows: Any rows; none give no segment.

    Returns:
        The segment, the last one if there are several.

    Raises:
        ValueError: A row has a time without a zone.
    """
    private_dir(folder)
    path = None
    source = iter(rows)
    for row in source:
        path = _write_one(folder, chain([row], source))
    return path


def _write_one(folder: Path, rows: Iterator[Row]) -> Path:
    path = folder / f"{new_id()}.ndjson"
    part = path.with_suffix(".part")
    count = size = checksum = 0
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", _BUFFER) as stream:
            for row in rows:
                line = _line(row)
                checksum = zlib.crc32(line, checksum)
                stream.write(line)
                count += 1
                size += len(line)
                if size >= SEGMENT_BYTES:
                    break
            stream.write(orjson.dumps({"end": count, "crc32": checksum}) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_dir(folder)
    return path


def copy_rows(path: Path, target: BinaryIO) -> Content:
    """Append the lines of a segment's rows to another file, if it is whole: what was checked is then what is loaded.

    Raises:
        SegmentBroken: The file is torn or changed; the target is as it was.
    """
    start = target.tell()
    rows = longest = checksum = 0
    held = b""  # the line before: of the last one, which is no row, it is only known at the end
    with path.open("rb", _BUFFER) as stream:
        for line in stream:
            if held:
                checksum = zlib.crc32(held, checksum)
                target.write(held)
                rows += 1
                longest = max(longest, len(held))
            held = line
    try:
        _check_end(held, rows, checksum)
    except SegmentBroken:
        target.seek(start)
        target.truncate()
        raise
    return Content(rows, longest)


def _check_end(last: bytes, rows: int, checksum: int) -> None:
    try:
        end = orjson.loads(last)
        whole, complete = end["crc32"] == checksum, end["end"] == rows
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise SegmentBroken("there is no last line") from None
    if not whole:
        raise SegmentBroken("the checksum does not fit")
    if not complete:
        raise SegmentBroken("rows are missing")


def fits(table: str | None, names: Iterable[str] | None) -> bool:
    """Whether rows with these names of values belong into a table: its columns, but for those that came with a later version."""
    columns, found = _COLUMNS.get(table or "", frozenset()), frozenset(names or ())
    return bool(columns) and found <= columns <= found | _ADDED.get(table or "", frozenset())


def sync_dir(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
