"""Read JSONL, CSV and Parquet files into records, line by line, with flat memory."""

from __future__ import annotations

import csv
import io
import json
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byok.errors import InputError

MAX_LINE = 16 * 1024 * 1024
"""Bytes of one line, at most."""

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "ZIP (or a spreadsheet)",
    b"\x89PNG": "PNG picture",
    b"%PDF": "PDF",
    b"PAR1": "Parquet",
    b"SQLite format 3": "SQLite database",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"BZh": "bzip2",
}


class FileUnreadable(InputError):
    """The file is not there or cannot be read."""

    code = "file_unreadable"


class FormatUnknown(InputError):
    """The ending of the file's name is not that of a format that is read."""

    code = "format_unknown"


class FormatMismatch(InputError):
    """The file is not what its name says."""

    code = "format_mismatch"


@dataclass(frozen=True)
class Record:
    """One record of a file: its values by field, or the reason why there are none.

    Attributes:
        line: Line in the file (JSONL, CSV) or row (Parquet), from 1.
        values: Values by field, or None.
        problem: Why there are no values.
    """

    line: int
    values: dict[str, Any] | None
    problem: str = ""


def read_records(path: Path) -> Iterator[Record]:
    """The records of a file, by the format that its name says and its content confirms.

    Raises:
        FileUnreadable: It cannot be read, or is no file: a pipe would never end, or never begin.
        FormatUnknown: Its name does not end in .jsonl, .ndjson, .csv or .parquet.
        FormatMismatch: It is something else.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FileUnreadable(f"{path} is not a file", hint="give a file: no folder, no pipe, no device")
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as problem:
        raise FileUnreadable(f"{path} cannot be read: {problem.strerror}", hint="check the path and its permissions") from None
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise FormatUnknown(f"{path.name}: the format {path.suffix or '(no ending)'} is not known", hint="use .jsonl, .csv or .parquet")
    if reader is not _read_parquet:
        _refuse_binary(path, head)
    elif not head.startswith(b"PAR1"):
        raise FormatMismatch(f"{path.name} is not a Parquet file", hint="its name must say what it is")
    return reader(path)


def _refuse_binary(path: Path, head: bytes) -> None:
    kind = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    if kind is None and b"\0" in head:
        kind = "binary"
    if kind is not None:
        raise FormatMismatch(
            f"{path.name} is not {path.suffix[1:].upper()} text, but {kind}", hint="unpack or convert it; its name must say what it is"
        )


def _read_jsonl(path: Path) -> Iterator[Record]:
    """Lines end at `\\n` and nowhere else: U+2028 and U+0085 may stand inside a JSON string."""
    good = 0
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if len(line) > MAX_LINE:
                raise FormatMismatch(f"{path.name}: line {number} is longer than {MAX_LINE // 2**20} MiB", hint="one JSON object a line")
            if not line.strip():
                continue
            record = _json_record(number, line)
            good += record.values is not None
            if good == 0 and number == 1 and line.lstrip().startswith(b"["):
                raise FormatMismatch(f"{path.name} is a JSON array, not JSONL", hint="write one JSON object a line")
            yield record


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _json_record(number: int, line: bytes) -> Record:
    try:
        # Numbers stay as they are written: 1.10 is not 1.1, and no float comes between.
        value = json.loads(line, parse_float=str, parse_int=str, parse_constant=_no_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError:
        return Record(number, None, "not UTF-8")
    except (ValueError, RecursionError) as problem:
        return Record(number, None, f"not JSON: {str(problem)[:80]}")
    if not isinstance(value, dict):
        return Record(number, None, "not a JSON object")
    return Record(number, value)


def _read_csv(path: Path) -> Iterator[Record]:
    with path.open("rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                return
            if len(set(header)) < len(header) or not all(header):
                raise FormatMismatch(f"{path.name}: the header has empty or equal names", hint="give each column a name of its own")
            line = reader.line_num + 1
            for row in reader:
                if row and len(row) != len(header):
                    yield Record(line, None, f"{len(row)} fields where the header has {len(header)}")
                elif row:
                    yield Record(line, dict(zip(header, row, strict=True)))
                line = reader.line_num + 1
        except UnicodeDecodeError:
            raise FormatMismatch(f"{path.name} is not UTF-8 text", hint="save it as UTF-8") from None
        except csv.Error as problem:
            raise FormatMismatch(f"{path.name}: line {reader.line_num}: {problem}", hint="check quotes and commas") from None


def _read_parquet(path: Path) -> Iterator[Record]:
    import duckdb

    with duckdb.connect() as connection:
        try:
            # In brackets, what DuckDB takes for a pattern is a character of the name.
            name = re.sub(r"([*?\[])", r"[\1]", str(path.resolve()))
            found = connection.execute("SELECT * FROM read_parquet(?)", [name])
            names = [column[0] for column in found.description or []]
            number = 0
            while rows := found.fetchmany(1000):
                for row in rows:
                    number += 1
                    yield Record(number, dict(zip(names, row, strict=True)))
        except duckdb.Error:
            raise FormatMismatch(f"{path.name} is not a whole Parquet file", hint="write it anew") from None


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
