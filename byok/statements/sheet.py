"""A statement as CSV: one row for each line, plain decimals, nothing that a spreadsheet would carry out."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict

from byok.clock import iso
from byok.money import ecu, plain
from byok.statements.lines import Statement, StatementLine
from byok.text import inert

COLUMNS = (
    *("section", "month", "plane", "by", "name", "model_key", "dataset_name", "started_at", "charge_class", "used_in"),
    *("charges", "tokens", "calls", "amount_usd", "amount_ecu", "amount_micro_ecu", "unpriced"),
)
"""`section` is charge, or credit for a row of the ECU ledger; a sum over the charges of a plane is its total."""


def statement_csv(statement: Statement) -> str:
    """The lines of a statement, then the ledger's way through the month; no rows of totals, so that sums are not doubled."""
    told = io.StringIO()
    writer = csv.DictWriter(told, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    month = str(statement.month)
    for line in statement.lines:
        writer.writerow(_row(line, month, statement.by))
    for name, micro in asdict(statement.credit).items():
        writer.writerow(
            {"section": "credit", "month": month, "plane": "ecu", "name": name, "amount_ecu": ecu(micro), "amount_micro_ecu": micro}
        )
    return told.getvalue()


def _row(line: StatementLine, month: str, by: str) -> dict[str, object]:
    known = {name: inert(value) for name, value in asdict(line).items() if value is not None}
    if line.amount_usd is not None:
        known["amount_usd"] = plain(line.amount_usd)
    if line.amount_micro_ecu is not None:
        known["amount_ecu"] = ecu(line.amount_micro_ecu)
    if line.started_at is not None:
        known["started_at"] = iso(line.started_at)
    return {"section": "charge", "month": month, "by": by} | known
