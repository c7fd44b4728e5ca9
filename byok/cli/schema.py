"""`byok schema`: what the views of the results and their columns mean."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from cyclopts import App
from rich.console import Console

from byok.cli.output import Json, emit, table

app = App(name="schema", help="Show what the views of the results and their columns mean.")


@app.command
def show(view: str = "", /, *, format: Literal["table", "json", "markdown", "dbt"] = "table", json: Json = False) -> None:
    """Show the views of schema v1 that this version makes, or the columns of one of them; no installation is needed.

    Args:
        view: Name of a view, such as charges or v1.charges; all of them by default.
        format: How to print them: markdown is the data dictionary, dbt the sources of a dbt project.
        json: The same as --format json.
    """
    from byok.warehouse.dictionary import as_dbt, as_markdown, read_contract, select_view

    views = read_contract()
    if view:
        views = (select_view(views, view),)

    def draw(out: Console) -> None:
        if view:
            (one,) = views
            rows = [(column.name, column.type, column.comment) for column in one.columns]
            out.print(table(("column", "type", "meaning"), rows, title=f"v1.{one.name}: {one.comment}"))
        else:
            out.print(table(("view", "about", "what it holds"), [(f"v1.{one.name}", one.group.lower(), one.comment) for one in views]))

    if format in ("markdown", "dbt") and not json:
        print(as_markdown(views) if format == "markdown" else as_dbt(views), end="")
    else:
        emit({"views": [asdict(one) for one in views]}, json=json or format == "json", human=draw)
