"""`byok sql`: query the results, read-only."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Literal

from byok.access import BILLING_READ, MODELS_READ, require
from byok.app import open_services
from byok.cli.output import Json, console, note, table, to_json
from byok.errors import InputError
from byok.text import inert, visible
from byok.warehouse import Result


class QueryMissing(InputError):
    """There is no query."""

    code = "query_missing"


def sql(
    query: str = "",
    /,
    *,
    file: Path | None = None,
    format: Literal["table", "json", "csv"] = "table",
    limit: int = 200,
    json: Json = False,
) -> None:
    """Query the published results with SQL. Nothing can be changed, and no other file reached.

    The views are in schema v1; byok schema show says what each holds.

    Args:
        query: The query; - reads it from standard input.
        file: Read the query from a file instead.
        format: How to print the result.
        limit: Most rows of a table; JSON and CSV are always whole.
        json: The same as --format json.
    """
    services = open_services()
    for scope in (MODELS_READ, BILLING_READ):
        require(services.actor, scope, "results.query")
    result = services.warehouse.query(_text(query, file))
    if json or format == "json":
        print(to_json({"columns": result.columns, "rows": [list(row) for row in result.rows]}))
    elif format == "csv":
        _write_csv(result)
    else:
        console().print(table(result.columns, result.rows[:limit]))
        if len(result.rows) > limit:
            note(f"the first {limit} of {len(result.rows)} rows; see the others with --limit or --format csv")


def _text(query: str, file: Path | None) -> str:
    if file is not None:
        try:
            query = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise QueryMissing(f"{file} cannot be read as text", hint="give a file with one query") from None
    elif query == "-":
        query = sys.stdin.read()
    if not query.strip():
        raise QueryMissing("there is no query", hint='for example: byok sql "SELECT * FROM v1.leaderboard"')
    return query


def _write_csv(result: Result) -> None:
    writer = csv.writer(_Screen() if sys.stdout.isatty() else sys.stdout)
    # A PIVOT makes column names of data.
    for row in (result.columns, *result.rows):
        writer.writerow([inert(value) for value in row])


class _Screen:
    """Standard output when it is a terminal: a file gets texts as they are, a terminal must not obey them."""

    def write(self, text: str) -> None:
        sys.stdout.write(visible(text.replace("\r\n", "\n")))
