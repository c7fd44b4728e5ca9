"""Read a provider's usage export. A file that is not understood whole is refused with row and column, and nothing of it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from byok.datasets.readers import FileUnreadable, FormatMismatch, Record, read_records
from byok.errors import InputError
from byok.statements.reconcile.layouts import Layout, layout_of

MAX_JSON = 64 * 1024 * 1024
"""Bytes of one JSON document, at most; CSV and JSONL are read row by row."""

_MOST = 10**15


class UsageFileInvalid(InputError):
    """A row of the export cannot be understood; nothing is compared."""

    code = "usage_file_invalid"


@dataclass(frozen=True)
class Told:
    """What a provider tells of one model on one day; None: its export does not say.

    Attributes:
        day: In the provider's own day; UTC where the file has moments.
        model: The provider's name of it; None: the file is of one model.
        decimals: Most decimals that a cost was told with, at least 2: it is not known more exactly.
    """

    day: date
    model: str | None
    input: int | None
    output: int | None
    requests: int | None
    usd: Decimal | None
    decimals: int = 2


def read_usage(path: Path, mapping: Mapping[str, tuple[str, ...]]) -> tuple[Layout, list[Told]]:
    """What a file tells, added up by day and model.

    Raises:
        UsageFileInvalid: A value is not what its column says; row and column are named.
        LayoutUnknown, BadMap, FileUnreadable, FormatUnknown, FormatMismatch: The file or its columns are not understood.
    """
    layout: Layout | None = None
    found: dict[tuple[date, str | None], Told] = {}
    for record in _records(path):
        if record.values is None:
            raise UsageFileInvalid(f"{path.name}: row {record.line}: {record.problem}", hint="export it anew", row=record.line)
        values = _flat(record.values)
        if layout is None:
            layout = layout_of(list(values), mapping)
        told = _Row(path.name, record.line, values).told(layout)
        before = found.get((told.day, told.model))
        found[told.day, told.model] = told if before is None else _sum(before, told)
    if layout is None:
        raise UsageFileInvalid(f"{path.name} has no rows", hint="export a period with usage")
    # Zeros at the end may not be written: the row with the most decimals tells how exact the file is.
    decimals = max(2, *(one.decimals for one in found.values()))
    return layout, [replace(found[key], decimals=decimals) for key in sorted(found, key=lambda key: (key[0], key[1] or ""))]


def _sum(one: Told, other: Told) -> Told:
    def add(a: Any, b: Any) -> Any:
        return a if b is None else b if a is None else a + b

    return Told(
        one.day,
        one.model,
        add(one.input, other.input),
        add(one.output, other.output),
        add(one.requests, other.requests),
        add(one.usd, other.usd),
        max(one.decimals, other.decimals),
    )


def _records(path: Path) -> Iterator[Record]:
    return _document(path) if path.suffix.lower() == ".json" else read_records(path)


def _document(path: Path) -> Iterator[Record]:
    """The rows of a JSON document: a list, a list under `data`, or buckets of results with the time of their bucket."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_JSON:
            raise FileUnreadable(f"{path} is not a file of at most {MAX_JSON // 2**20} MiB", hint="export a shorter period, or JSONL")
        # Numbers stay as they are written: no float comes between.
        value = json.loads(path.read_bytes(), parse_float=str, parse_int=str)
    except OSError as problem:
        raise FileUnreadable(f"{path} cannot be read: {problem.strerror}", hint="check the path and its permissions") from None
    except (ValueError, RecursionError):
        raise FormatMismatch(f"{path.name} is not JSON", hint="its name must say what it is: .json, .jsonl or .csv") from None
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise FormatMismatch(f"{path.name} holds no list of rows", hint="a list of objects, or an object with such a list as data")
    number = 0
    for row in rows:
        inner = row.get("results") if isinstance(row, dict) else None
        if isinstance(row, dict) and isinstance(inner, list):
            outer = {name: value for name, value in row.items() if name != "results"}
            merged = [outer | one if isinstance(one, dict) else one for one in inner]
        else:
            merged = [row]
        for one in merged:
            number += 1
            yield Record(number, one if isinstance(one, dict) else None, "not a JSON object")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested objects as columns with a dot in their names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": one for inner, one in value.items()}
        else:
            flat[name] = value
    return flat


class _Row:
    """One row, whose values are read with its place at hand."""

    def __init__(self, file: str, line: int, values: Mapping[str, Any]) -> None:
        self._file, self._line, self._values = file, line, values

    def told(self, layout: Layout) -> Told:
        if layout.currency is not None and str(self._values.get(layout.currency, "usd")).strip().lower() not in ("usd", ""):
            raise self._bad(layout.currency, "is not USD: other currencies are not converted")
        model = layout.model and str(self._values.get(layout.model) or "").strip()
        if layout.model is not None and not model:
            raise self._bad(layout.model, "is empty")
        costs = [self._decimal(name) for name in layout.cost]
        return Told(
            day=self._day(layout.day),
            model=model or None,
            input=self._count(layout.input),
            output=self._count(layout.output),
            requests=1 if layout.each else self._count(layout.requests),
            usd=sum(costs, Decimal(0)) if costs else None,
            decimals=max((_decimals(one) for one in costs), default=2),
        )

    def _bad(self, column: str, problem: str) -> UsageFileInvalid:
        shown = str(self._values.get(column))[:60]
        return UsageFileInvalid(
            f"{self._file}: row {self._line}, column {column}: {shown!r} {problem}",
            hint="nothing was compared; export it anew, or name the right columns with --map",
            row=self._line,
            column=column,
        )

    def _count(self, columns: tuple[str, ...]) -> int | None:
        if not columns:
            return None
        total = 0
        for name in columns:
            amount = self._decimal(name)
            if amount < 0 or amount != amount.to_integral_value():
                raise self._bad(name, "is not a whole number of at least 0")
            total += int(amount)
        return total

    def _decimal(self, column: str) -> Decimal:
        value = self._values.get(column)
        text = "" if value is None else str(value).strip().removeprefix("$")
        if isinstance(value, bool):
            raise self._bad(column, "is not a number")
        if not text:
            return Decimal(0)
        try:
            amount = Decimal(text)
        except InvalidOperation:
            raise self._bad(column, "is not a plain number") from None
        if not amount.is_finite() or abs(amount) >= _MOST or _decimals(amount) > 30:
            raise self._bad(column, "is not a number that could be true")
        return amount

    def _day(self, column: str) -> date:
        value = self._values.get(column)
        text = "" if value is None else str(value).strip()
        try:
            if isinstance(value, date):  # Parquet
                return (
                    value.astimezone(UTC).date()
                    if isinstance(value, datetime) and value.tzinfo
                    else date(value.year, value.month, value.day)
                )
            if re.fullmatch(r"[0-9]{9,11}", text, re.ASCII):
                return datetime.fromtimestamp(int(text), UTC).date()
            moment = datetime.fromisoformat(text.removesuffix(" UTC"))
        except (ValueError, OverflowError, OSError):
            raise self._bad(column, "is not a day: write 2026-11-30, a time after ISO 8601, or seconds since 1970") from None
        return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date()


def _decimals(amount: Decimal) -> int:
    exponent = amount.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
