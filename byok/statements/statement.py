"""The statement of a month: both planes line by line, and the ECU ledger's way through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from byok.statements.credit import StatementDoesNotTie, credit_month
from byok.statements.lines import By, Closing, Statement, StatementLine, Totals, Unpriced
from byok.statements.months import Month
from byok.warehouse import Queries

# An amount that a correction made known, on this statement or one before, is not unknown any more; what a later statement corrects was
# unknown on this one, and stays so: a closed statement does not change.
_CHARGES = """
WITH corrected AS (
    SELECT DISTINCT corrects FROM v1.charges WHERE org_id = $org AND corrects IS NOT NULL AND billing_month <= $month
        AND (recorded_at <= $until OR strftime(occurred_at AT TIME ZONE 'UTC', '%Y-%m') <> $month)
), charges AS (
    SELECT c.*, strftime(c.occurred_at AT TIME ZONE 'UTC', '%Y-%m') AS used_in,
        CASE WHEN c.plane = 'provider' THEN c.amount_usd IS NULL ELSE c.amount_micro_ecu IS NULL END AND k.corrects IS NULL AS unpriced
    FROM v1.charges c LEFT JOIN corrected k ON k.corrects = c.charge_id
    WHERE c.org_id = $org AND c.billing_month = $month
        AND (c.recorded_at <= $until OR strftime(c.occurred_at AT TIME ZONE 'UTC', '%Y-%m') <> $month)
)
"""

_LINES = (
    _CHARGES
    + """
SELECT c.plane,
    CASE $by WHEN 'model' THEN c.model_key WHEN 'member' THEN r.member_id WHEN 'job' THEN c.run_id
        ELSE strftime(c.occurred_at AT TIME ZONE 'UTC', '%Y-%m-%d') END AS name,
    c.charge_class, c.used_in, count(*) AS charges,
    CAST(sum(c.quantity) FILTER (WHERE c.unit = 'token' AND c.corrects IS NULL) AS BIGINT) AS tokens,
    CAST(sum(c.quantity) FILTER (WHERE c.unit = 'call' AND c.corrects IS NULL) AS BIGINT) AS calls,
    sum(c.amount_usd) AS amount_usd, CAST(sum(c.amount_micro_ecu) AS BIGINT) AS amount_micro_ecu,
    count(*) FILTER (WHERE c.unpriced) AS unpriced,
    CASE $by WHEN 'job' THEN any_value(r.model_key) END AS model_key,
    CASE $by WHEN 'job' THEN any_value(r.dataset_name) END AS dataset_name,
    CASE $by WHEN 'job' THEN any_value(r.started_at) END AS started_at
FROM charges c LEFT JOIN v1.runs r ON r.org_id = c.org_id AND r.run_id = c.run_id
GROUP BY c.plane, name, c.charge_class, c.used_in
ORDER BY c.plane DESC, c.charge_class NULLS FIRST, c.used_in, started_at NULLS FIRST, name NULLS LAST
"""
)

_TOTALS = (
    _CHARGES
    + """
SELECT count(*), coalesce(sum(amount_usd), 0), count(*) FILTER (WHERE unpriced AND plane = 'provider'),
    CAST(coalesce(sum(amount_micro_ecu), 0) AS BIGINT)
FROM charges
"""
)

_UNPRICED = (
    _CHARGES
    + """
SELECT model_id, used_in, CASE WHEN quantity IS NULL THEN 'no_usage' ELSE 'no_price' END AS reason,
    any_value(model_key), count(*)
FROM charges WHERE unpriced AND plane = 'provider' GROUP BY model_id, used_in, reason ORDER BY reason, used_in
"""
)

_FIXES = "SELECT model_id, month, reason, min_by(fix, first_at) FROM v1.unpriced_usage WHERE org_id = ? GROUP BY model_id, month, reason"

_NEVER = datetime(9999, 1, 1, tzinfo=UTC)

_CLOSED = """
SELECT closed_at, member_id, charges, provider_usd, unpriced_charges, micro_ecu FROM v1.closed_months WHERE org_id = ? AND month = ?
"""


def month_totals(results: Queries, org_id: str, month: Month, *, closed_at: datetime | None = None) -> Totals:
    """What a month comes to, as its statement has it, or would have it if the month had been closed at a moment."""
    (totals,) = results.query(_TOTALS, _who(org_id, month, closed_at)).rows
    return Totals(*totals)


def month_statement(results: Queries, org_id: str, month: Month, by: By, members: Mapping[str, str]) -> Statement:
    """The statement of a month.

    Args:
        results: One state of the warehouse.
        org_id: Whose.
        month: Which one.
        by: What each line is for.
        members: Addresses of members by id; one that is not in it is shown by its id.

    Raises:
        StatementDoesNotTie: Its lines do not add up to its totals, or its ledger does not add up.
    """
    who = _who(org_id, month)
    lines = [StatementLine(*row) for row in results.query(_LINES, who | {"by": by}).rows]
    if by == "member":
        lines = [_with_name(line, members) for line in lines]
    closed = results.query(_CLOSED, [org_id, str(month)]).rows
    made = Statement(
        month=month,
        by=by,
        lines=tuple(lines),
        unpriced=_unpriced(results, org_id, who),
        unpriced_ecu=sum(line.unpriced for line in lines if line.plane == "ecu"),
        credit=credit_month(results, org_id, month),
        closing=Closing(closed[0][0], members.get(closed[0][1], closed[0][1]), Totals(*closed[0][2:])) if closed else None,
    )
    if made.totals != month_totals(results, org_id, month):
        raise StatementDoesNotTie(f"the lines of {month} do not add up to its total", hint="restore the warehouse from a backup")
    return made


def _who(org_id: str, month: Month, closed_at: datetime | None = None) -> Any:
    return {"org": org_id, "month": str(month), "until": closed_at or _NEVER}


def _unpriced(results: Queries, org_id: str, who: Any) -> tuple[Unpriced, ...]:
    """What is unknown on a statement and not corrected since, by model and reason; the earliest use says from when a price is needed."""
    fixes = {tuple(key): fix for *key, fix in results.query(_FIXES, [org_id]).rows}
    found: dict[tuple[str | None, str], Unpriced] = {}
    for model_id, used_in, reason, model_key, charges in results.query(_UNPRICED, who).rows:
        fix = fixes.get((model_id, used_in, reason))
        if fix is not None:
            before = found.get((model_id, reason))
            found[model_id, reason] = Unpriced(
                model_key, reason, charges + (before.charges if before else 0), before.fix if before else fix
            )
    return tuple(found.values())


def _with_name(line: StatementLine, members: Mapping[str, str]) -> StatementLine:
    return replace(line, name=line.name and members.get(line.name, line.name))
