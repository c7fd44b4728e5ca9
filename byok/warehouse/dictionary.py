"""The reporting contract in words: the views of schema v1 with the comments that the database itself carries."""

from __future__ import annotations

import json
from dataclasses import dataclass

import duckdb

from byok.errors import NotFound
from byok.warehouse.schema import apply_migrations

GROUPS = {
    "Results": ("leaderboard", "scores", "runs", "samples", "verdicts", "attempts", "datasets"),
    "Money": (
        "bills",
        "charges",
        "daily_cost",
        "monthly_cost",
        "closed_months",
        "cost_per_correct",
        "cost_score",
        "unpriced_usage",
        "balance",
        "grants",
        "ledger",
    ),
    "Models": ("models", "probes", "capabilities"),
}
"""The views by what people ask about, in the order in which they are shown."""

_ROWS_OF = {"grants": "credit_grant", "ledger": "ledger_entry"}
"""Views of the rows of one table whose name is not that of the table in the plural."""

_ALSO = {"charges": "billing_month", "capabilities": "latest"}
"""Columns that such a view adds to those of its table, and that are never NULL."""

_SUMS = {
    "leaderboard": "run_id started_at status model_id model_key dataset_id dataset_name dataset_version grader kind metric planned scored"
    " unpriced_charges",
    "bills": "run_id plane lines unpriced_charges",
    "daily_cost": "day plane role sku charges unpriced_charges",
    "monthly_cost": "month plane role sku charges unpriced_charges",
    "cost_per_correct": "run_id started_at model_id model_key dataset_name grader judged correct unpriced_charges",
    "cost_score": "run_id started_at model_id model_key dataset_id dataset_name dataset_version grader metric planned scored"
    " unpriced_charges",
    "unpriced_usage": "month role sku reason charges first_at last_at",
    "balance": "available_micro_ecu held_micro_ecu used_micro_ecu expired_micro_ecu granted_micro_ecu overdrawn_micro_ecu waived_micro_ecu"
    " available_ecu seq as_of",
}
"""Columns that are never NULL in the views that reckon something; `org_id` is one of them everywhere."""

_UNIQUE = {
    "models": "model_id",
    "runs": "run_id",
    "samples": "sample_id",
    "attempts": "attempt_id",
    "verdicts": "verdict_id",
    "charges": "charge_id",
    "probes": "probe_id",
    "grants": "grant_id",
    "ledger": "entry_id",
    "closed_months": "month",
    "balance": "org_id",
}
"""Columns that name a row by themselves; a home belongs to one organisation, so `org_id` is not needed beside them."""


class ViewUnknown(NotFound):
    """The reporting contract has no view of that name."""

    code = "view_unknown"


@dataclass(frozen=True)
class Column:
    """A column of a view.

    Attributes:
        name: Its name.
        type: Its DuckDB type.
        comment: What it means.
        never_null: Whether it has a value in every row.
        unique: Whether no two rows share a value.
    """

    name: str
    type: str
    comment: str
    never_null: bool
    unique: bool


@dataclass(frozen=True)
class View:
    """A view of schema v1."""

    name: str
    group: str
    comment: str
    columns: tuple[Column, ...]


def read_contract() -> tuple[View, ...]:
    """The views of this version, read from a database that is made for it, in memory."""
    with duckdb.connect() as connection:
        apply_migrations(connection)
        comments = dict(connection.execute("SELECT view_name, comment FROM duckdb_views() WHERE schema_name = 'v1'").fetchall())
        columns = connection.execute(
            "SELECT schema_name, table_name, column_name, data_type, comment, is_nullable FROM duckdb_columns()"
            " WHERE schema_name IN ('v1', 'main') AND NOT internal ORDER BY table_name, column_index"
        ).fetchall()
    filled = {(table, name) for schema, table, name, _, _, nullable in columns if schema == "main" and not nullable}
    groups = {view: group for group, views in GROUPS.items() for view in views}

    def column(view: str, name: str, kind: str, comment: str | None) -> Column:
        table = _ROWS_OF.get(view, view.removesuffix("s") if view != "capabilities" else "capability")
        if view in _SUMS:
            never_null = name == "org_id" or name in _SUMS[view].split()
        else:
            never_null = (table, name) in filled or _ALSO.get(view) == name
        return Column(name, kind, comment or "", never_null, _UNIQUE.get(view) == name)

    made = [
        View(
            view,
            groups.get(view, "Other"),
            comments[view] or "",
            tuple(
                column(view, name, kind, comment) for schema, table, name, kind, comment, _ in columns if (schema, table) == ("v1", view)
            ),
        )
        for view in comments
    ]
    order = [*groups, *sorted(set(comments) - set(groups))]
    return tuple(sorted(made, key=lambda one: order.index(one.name)))


def select_view(views: tuple[View, ...], name: str) -> View:
    """The view of a name, with or without the schema before it.

    Raises:
        ViewUnknown: There is none.
    """
    for view in views:
        if view.name == name.removeprefix("v1."):
            return view
    raise ViewUnknown(f"there is no view {name!r} in schema v1", hint="byok schema show lists them")


_HEAD = """# Data dictionary

The views of schema `v1`: the contract between byok and whoever asks for its results. Columns are only ever added; a change that would
break a reader makes a schema `v2` beside it. This page is made from the comments in the database itself, by
`byok schema show --format markdown`: `make docs` writes it anew, and a test fails when it is not current. Ready queries stand in
[queries.md](queries.md).

- A value that is not known is NULL, never 0; what is missing from a sum is counted beside it (`unpriced_charges`).
- USD are `DECIMAL`, ECU whole micro-ECU (a millionth of an ECU) in `BIGINT`: sums are exact. Quotients are rounded in their last place.
- Times are UTC. A month is a text, `YYYY-MM`.
- Ids are UUID texts. `org_id` comes first everywhere.
"""


def as_markdown(views: tuple[View, ...]) -> str:
    """The data dictionary: a table of the views, then a section for each, by group."""
    lines = [_HEAD]
    for group in dict.fromkeys(view.group for view in views):
        lines += [f"| {group.lower()} | what it holds |", "| --- | --- |"]
        lines += [f"| [`v1.{view.name}`](#v1{view.name}) | {_cell(view.comment)} |" for view in views if view.group == group]
        lines.append("")
    for group in dict.fromkeys(view.group for view in views):
        lines += [f"## {group}", ""]
        for view in (one for one in views if one.group == group):
            lines += [f"### v1.{view.name}", "", view.comment, "", "| column | type | meaning |", "| --- | --- | --- |"]
            lines += [f"| `{column.name}` | {_type(column.type)} | {_cell(column.comment)} |" for column in view.columns]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def as_dbt(views: tuple[View, ...]) -> str:
    """The views as sources of a dbt project, with the tests that hold for each column."""
    lines = [
        "# Made by `byok schema show --format dbt`; `make docs` writes it anew.",
        "version: 2",
        "",
        "sources:",
        "  - name: byok",
        f"    description: {_quoted('The reporting contract of byok, version 1: schema v1 of its published snapshot.')}",
        "    database: byok",
        "    schema: v1",
        "    tables:",
    ]
    for view in views:
        lines += [f"      - name: {view.name}", f"        description: {_quoted(view.comment)}", "        columns:"]
        for column in view.columns:
            lines += [
                f"          - name: {column.name}",
                f"            description: {_quoted(column.comment)}",
                f"            data_type: {_quoted(column.type)}",
                "            quote: true",
            ]
            holds = [name for name, true in (("not_null", column.never_null), ("unique", column.unique)) if true]
            if holds:
                lines.append(f"            data_tests: [{', '.join(holds)}]")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _quoted(text: str) -> str:
    """Text in YAML: a JSON string is one there too."""
    return json.dumps(text, ensure_ascii=False)


def _type(kind: str) -> str:
    return "TIMESTAMPTZ" if kind == "TIMESTAMP WITH TIME ZONE" else kind
