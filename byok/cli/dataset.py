"""`byok dataset`: add data sets, and list or show them."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from cyclopts import App
from rich.console import Console

from byok.app import open_services
from byok.cli.output import Json, emit, note, table
from byok.datasets import DatasetInfo, Mapping
from byok.text import visible

app = App(name="dataset", help="Add data sets, and list or show them.")

_SHOWN = 10


@app.command
def add(
    name: str,
    file: Path,
    /,
    *,
    input: str | None = None,
    expected: str | None = None,
    id: str | None = None,
    context: str | None = None,
    expected_pattern: str | None = None,
    json: Json = False,
) -> None:
    """Add a JSONL, CSV or Parquet file as a data set, or as a new version of one.

    Rows that cannot be used are set aside with their line and the reason, and counted; the rest is stored.

    Args:
        name: Name of the data set.
        file: The file; its ending must say what it is.
        input: Field with what is asked (usual names are found: input, question, prompt).
        expected: Field with the right answer (expected, answer, target).
        id: Field with the row's id (id); without one, rows are numbered.
        context: Field with what goes before the input (context).
        expected_pattern: Regular expression that takes the answer out of the expected field: first group of the last match.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    report = services.datasets.add(services.actor, name, file, Mapping(input, expected, id, context, expected_pattern))
    quarantine = [asdict(one) for one in report.quarantine]

    def draw(out: Console) -> None:
        info = report.info
        print(f"{name}: {info.rows} rows, version {info.number} ({info.version[:12]})" + (", as it was before" if report.unchanged else ""))
        if quarantine:
            note(f"{len(quarantine)} rows were set aside:")
            out.print(table(("line", "reason"), [(one["line"], one["reason"]) for one in quarantine[:_SHOWN]]))
            if len(quarantine) > _SHOWN:
                note(f"… and {len(quarantine) - _SHOWN} more: byok dataset show {name} --json")

    emit({"dataset": _dict(report.info) | {"unchanged": report.unchanged, "quarantine": quarantine}}, json=json, human=draw)


@app.command(name="list")
def list_(*, json: Json = False) -> None:
    """List the data sets, each in its newest version.

    Args:
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    found = services.datasets.list(services.actor)

    def draw(out: Console) -> None:
        if not found:
            note("no data sets yet: byok dataset add --help")
            return
        rows = [(one.name, one.number, one.rows, one.quarantined, one.version[:12], one.source_name, one.created_at) for one in found]
        out.print(table(("name", "version", "rows", "set aside", "content", "file", "added (UTC)"), rows))

    emit({"datasets": [_dict(one) for one in found]}, json=json, human=draw)


@app.command
def show(name: str, /, *, rows: int = 5, json: Json = False) -> None:
    """Show the newest version of a data set, its first rows and what was set aside.

    Args:
        name: Name of the data set.
        rows: How many rows to show.
        json: Print JSON of a stable shape instead of tables.
    """
    services = open_services()
    info = services.datasets.get(services.actor, name)
    sample = list(islice(services.datasets.rows(info.version), max(0, rows)))
    quarantine = services.datasets.quarantine(info.version)

    def draw(out: Console) -> None:
        print(f"{name}: {info.rows} rows, version {info.number} ({info.version[:12]}), from {visible(info.source_name)}")
        out.print(table(("id", "input", "expected", "context"), [(row.id, row.input, row.expected, row.context) for row in sample]))
        if quarantine:
            note(f"{len(quarantine)} rows were set aside:")
            out.print(table(("line", "reason"), [(one.line, one.reason) for one in quarantine[:_SHOWN]]))

    told = _dict(info) | {"sample": [asdict(row) for row in sample], "quarantine": [asdict(one) for one in quarantine]}
    emit({"dataset": told}, json=json, human=draw)


def _dict(info: DatasetInfo) -> dict[str, Any]:
    return asdict(info)
