"""How commands speak: tables for people, `--json` for machines, errors with a hint."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any

import orjson
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from byok.clock import iso
from byok.errors import ByokError
from byok.money import plain
from byok.text import escaped_json, visible

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON of a stable shape instead of a table.")]
"""The type of every command's `json` option."""


def _plain_value(value: object) -> object:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, date):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")


def to_json(payload: object) -> str:
    """JSON of a payload: Decimal as exact text, times as ISO 8601 in UTC."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
    return escaped_json(orjson.dumps(payload, default=_plain_value, option=options).decode())


def console() -> Console:
    """The console on standard output; markup in data is never interpreted."""
    return Console(markup=False, highlight=False, emoji=False)


def emit(payload: object, *, json: bool, human: Callable[[Console], None]) -> None:
    """Print `payload` as JSON, or let `human` draw it."""
    if json:
        print(to_json(payload))
    else:
        human(console())


def cell(value: Any) -> Text:
    """One table cell: None as a dash, Decimal plain, floats short, text cleaned."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, Decimal):
        return Text(plain(value))
    if isinstance(value, float):
        return Text(f"{value:.4g}")
    if isinstance(value, datetime):
        return Text(value.strftime("%Y-%m-%d %H:%M:%S"))
    if isinstance(value, list | tuple):
        return Text(visible(", ".join(map(str, value))))
    return Text(visible(str(value)))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """A table of plain values; numbers are right-aligned."""
    made = Table(title=title and visible(title), title_justify="left", header_style="bold", title_style="bold")
    rows = list(rows)
    for index, name in enumerate(columns):
        numeric = any(isinstance(row[index], int | float | Decimal) and not isinstance(row[index], bool) for row in rows)
        made.add_column(visible(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell(value) for value in row))
    return made


def report_error(error: ByokError, *, json: bool) -> int:
    """Show an error (JSON on standard output, text on standard error); return the exit code."""
    if json:
        print(to_json({"error": error.as_dict()}))
    else:
        out = Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)
        out.print(Text.assemble((f"error: {visible(error.message)}", "bold red"), f"  [{error.code}]"))
        if error.hint:
            out.print(Text(f"hint:  {visible(error.hint)}"))
    return error.exit_code


def note(text: str) -> None:
    """A remark for a person, on standard error, so that standard output stays clean."""
    print(visible(text), file=sys.stderr)
