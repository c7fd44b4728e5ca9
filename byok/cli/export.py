"""`byok bill export`: both bills as FOCUS 1.2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from byok.access import BILLING_READ, require
from byok.app import open_services
from byok.cli.files import check_free, write_text, write_whole
from byok.cli.output import Json, emit, note
from byok.errors import InputError
from byok.statements import Month
from byok.statements.focus import Plane, focus_export, metadata, write_csv, write_parquet


class FormatMissing(InputError):
    """It is not said what to write."""

    code = "export_format_missing"


def export(
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    focus: Annotated[bool, Parameter(negative="")] = False,
    month: str | None = None,
    plane: Plane = "all",
    format: Literal["csv", "parquet"] | None = None,
    force: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Write both bills, and purchases of ECU, in the columns of FOCUS 1.2; what is left out stands in FILE.metadata.json.

    Args:
        output: The file.
        focus: In the form of FOCUS 1.2; must be given, since other forms may come.
        month: Only this billing period, YYYY-MM (UTC).
        plane: Only one of the bills.
        format: By default that of the file's ending, or CSV.
        force: Write over files that are there.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    require(services.actor, BILLING_READ, "bill.export")
    if not focus:
        raise FormatMissing("an export needs its form", hint="byok bill export --focus --output FILE")
    asked = None if month is None else Month.parse(month)
    kind = format or ("parquet" if output.suffix.lower() == ".parquet" else "csv")
    beside = output.with_name(f"{output.name}.metadata.json")
    for path in (output, beside):
        check_free(path, force=force)
    with services.warehouse.reading() as results:
        made = focus_export(results, services.actor.org_id, services.actor.org_slug, asked, plane)
    write_whole(output, lambda part: (write_parquet if kind == "parquet" else write_csv)(part, made), force=force)
    write_text(beside, metadata(made, file=output.name, format=kind, organisation=services.actor.org_slug).decode(), force=force)
    if made.unpriced_charges or made.unpriced_ecu_charges:
        note(
            f"{made.unpriced_charges + made.unpriced_ecu_charges} charges whose amount is not known are left out;"
            " what would make it known: byok bill statement"
        )
    if made.unpriced_purchases:
        note(f"{made.unpriced_purchases} purchases of ECU are left out, since it is not recorded what was paid (byok bill topup --paid)")
    if made.value.unvalued_micro_ecu and plane != "provider":
        note("some of the ECU used is worth 0 USD here: it was given, or what was paid for it is not recorded (see the metadata)")
    told = {"path": str(output.resolve()), "metadata": str(beside.resolve()), "format": kind} | made.facts()
    emit({"export": told}, json=json, human=lambda out: print(output.resolve()))
