"""`byok bill statement|consumption|close`: months and days of both bills."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from byok.access import BILLING_READ, require
from byok.app import open_services
from byok.cli.files import check_free, write_text
from byok.cli.output import Json, console, emit, note, table, to_json
from byok.clock import utcnow
from byok.errors import InputError
from byok.money import ecu, plain
from byok.statements import By, Consumption, Month, Statement, StatementLine, close_month, member_names, month_statement
from byok.statements import consumption as consume
from byok.text import visible

Output = Annotated[Path | None, Parameter(name=("--output", "-o"))]
Force = Annotated[bool, Parameter(negative="")]


class TableToFile(InputError):
    """A table is for the screen."""

    code = "table_to_file"


def statement(
    *,
    month: str | None = None,
    by: By = "model",
    format: Literal["table", "json", "csv", "html"] = "table",
    output: Output = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Show the statement of a month: both bills, what is not priced, and the way of the ECU credit.

    Args:
        month: YYYY-MM (UTC); the present month by default.
        by: What each line is for.
        format: How to show it.
        output: Write it to this file; the format is that of its ending unless it is given.
        force: Write over a file that is there.
        json: The same as --format json.
    """
    services = open_services()
    require(services.actor, BILLING_READ, "bill.statement")
    asked = Month.parse(month)
    kind: str = "json" if json else format
    if output is not None:
        if kind == "table":
            kind = {".csv": "csv", ".html": "html", ".htm": "html", ".json": "json"}.get(output.suffix.lower(), "table")
        if kind == "table":
            raise TableToFile(f"{output.name} does not say in which format", hint="add --format json, csv or html")
        check_free(output, force=force)
    with services.warehouse.reading() as results:
        made = month_statement(results, services.actor.org_id, asked, by, member_names(services.control, services.actor.org_id))
    text = _text(made, kind, services.actor.org_slug)
    if output is not None:
        write_text(output, text, force=force)
        print(output.resolve())
    elif kind == "table":
        _draw(console(), made)
    else:
        print(text if kind != "csv" else visible(text.replace("\r\n", "\n")), end="" if text.endswith("\n") else "\n")


def _text(made: Statement, kind: str, organisation: str) -> str:
    if kind == "csv":
        from byok.statements.sheet import statement_csv

        return statement_csv(made)
    if kind == "html":
        from byok.statements.page import statement_page

        return statement_page(made, organisation)
    return to_json({"statement": made.as_dict()}) if kind == "json" else ""


def _draw(out: Console, made: Statement) -> None:
    state = f"closed {made.closing.closed_at:%Y-%m-%d}" if made.closing else "open"
    usd, micro = made.known_usd, made.known_micro_ecu
    for plane, title, counted, total in (
        ("provider", "provider bill (USD)", "tokens", "unknown" if usd is None else plain(usd)),
        ("ecu", "platform bill (ECU)", "calls", "unknown" if micro is None else ecu(micro)),
    ):
        rows = [_row(line, plane) for line in made.of(plane)]
        drawn = table((made.by, "charges", counted, "unknown", "amount"), rows, title=f"{made.month}, {state}: {title}")
        drawn.show_footer = True
        drawn.columns[0].footer, drawn.columns[-1].footer, drawn.columns[-1].justify = "known total", total, "right"
        out.print(drawn)
    told = made.credit
    steps = [("opening balance", told.opening), ("bought", told.top_ups), ("given", told.grants), ("taken back", -told.taken_back)]
    steps += [("used", -told.used), ("expired", -told.expired), ("closing balance", told.closing), ("of it held", told.held)]
    shown = [(name, ecu(micro)) for name, micro in steps if micro or name in ("opening balance", "closing balance")]
    out.print(table(("ECU credit", "ECU"), shown))
    for one in made.unpriced:
        why = "no price is known" if one.reason == "no_price" else "the endpoint told no usage"
        note(f"{one.charges} charges of {one.model_key} are in no total, since {why}: {one.fix}")
    if made.unpriced_ecu:
        note(f"{made.unpriced_ecu} charges on the platform bill have an unknown amount: the endpoint told no usage.")
    for name, both in made.differences.items():
        note(f"the statement is not as it was closed: {name} was {both['closed']} and is {both['now']}")


def _row(line: StatementLine, plane: str) -> tuple[object, ...]:
    name = line.name or "(none)"
    if line.started_at is not None:
        name += f"\n{line.model_key} on {line.dataset_name}, {line.started_at:%Y-%m-%d %H:%M}"
    if line.charge_class is not None:
        name = f"correction of {line.used_in}: {name}"
    if plane == "provider":
        return name, line.charges, line.tokens, line.unpriced, "unknown" if line.amount_usd is None else plain(line.amount_usd)
    return name, line.charges, line.calls, line.unpriced, "unknown" if line.amount_micro_ecu is None else ecu(line.amount_micro_ecu)


def consumption(*, days: int = 30, json: Json = False) -> None:
    """Show what was consumed by day on both planes, and on which day the ECU balance runs out.

    Args:
        days: How many days to look back, the present one included (UTC).
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    require(services.actor, BILLING_READ, "bill.consumption")
    with services.warehouse.reading() as results:
        found = consume(results, services.actor.org_id, days, utcnow())
    emit({"consumption": found.as_dict()}, json=json, human=lambda out: _draw_days(out, found))


def _draw_days(out: Console, found: Consumption) -> None:
    rows = [
        (str(one.day), one.charges, one.amount_usd, one.unpriced, None if one.micro_ecu is None else ecu(one.micro_ecu))
        for one in found.days
    ]
    out.print(table(("day", "charges", "USD", "unknown", "ECU"), rows))
    if found.forecast is None:
        note("there is no ECU ledger yet, so there is nothing that could run out")
        return
    told = found.forecast
    when = "-" if told.runs_out_on is None else str(told.runs_out_on)
    rate = "-" if told.micro_ecu_per_day is None else ecu(told.micro_ecu_per_day)
    out.print(table(("ECU left", "ECU per day", "runs out on"), [(ecu(told.left_micro_ecu), rate, when)]))
    print(visible(told.how))


def close(month: str, /, *, json: Json = False) -> None:
    """Close a month that has ended. Its statement stands from then on; what comes later is a correction on a later one.

    Args:
        month: YYYY-MM (UTC).
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    row = close_month(services, Month.parse(month))
    told = {
        "month": row.month,
        "closed_at": row.closed_at,
        "charges": row.charges,
        "provider_usd": row.provider_usd,
        "unpriced_charges": row.unpriced_charges,
        "micro_ecu": row.micro_ecu,
        "ecu": ecu(row.micro_ecu),
    }
    text = f"{row.month} is closed: {plain(row.provider_usd)} USD and {ecu(row.micro_ecu)} ECU in {row.charges} charges"
    emit({"closed": told}, json=json, human=lambda out: print(text))
