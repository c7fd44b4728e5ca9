"""Close a month: from then on its statement stands, and what comes later is a correction on a later one."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select

from byok.access import BILLING_WRITE, require
from byok.app import Services
from byok.clock import utcnow
from byok.control.tables import closed_month
from byok.errors import InputError
from byok.money import plain
from byok.statements.months import Month
from byok.statements.statement import month_totals
from byok.warehouse import Queries
from byok.warehouse.rows import ClosedMonthRow


class MonthNotEnded(InputError):
    """The month is going on, or has not begun."""

    code = "month_not_ended"


class MonthIsClosed(InputError):
    """The month is closed already."""

    code = "month_is_closed"


class EarlierMonthOpen(InputError):
    """A month before it has charges and is open."""

    code = "earlier_month_open"


class RunsGoOn(InputError):
    """A run that began in the month, or before, has not ended."""

    code = "runs_go_on"


_EARLIER = """
SELECT min(billing_month) FROM v1.charges WHERE org_id = $org AND billing_month < $month
    AND billing_month NOT IN (SELECT month FROM v1.closed_months WHERE org_id = $org)
"""
_RUNNING = "SELECT run_id FROM v1.runs WHERE org_id = ? AND status = 'running' AND started_at < ? ORDER BY started_at"
_CLOSED = "SELECT 1 FROM v1.closed_months WHERE org_id = ? AND month = ?"


def close_month(services: Services, month: Month) -> ClosedMonthRow:
    """Close an ended month and keep its totals.

    A call that was cut off between the control plane and the warehouse is completed by the next one, with the time of the first.

    Raises:
        ScopeMissing: The actor lacks `billing:write`.
        MonthNotEnded, MonthIsClosed, EarlierMonthOpen, RunsGoOn: Nothing was changed.
    """
    actor, warehouse = services.actor, services.warehouse
    require(actor, BILLING_WRITE, "month.close")
    if month.end > utcnow():
        raise MonthNotEnded(f"{month} has not ended", hint="close it when it is over (UTC)", month=str(month))
    now = utcnow()  # what is recorded from here on is a correction, though it may be loaded below
    warehouse.drain()
    with services.control.read() as connection:
        begun = connection.execute(
            select(closed_month).where(closed_month.c.org_id == actor.org_id, closed_month.c.month == str(month))
        ).first()
    with warehouse.reading() as results:
        if results.query(_CLOSED, [actor.org_id, str(month)]).rows:
            raise MonthIsClosed(f"{month} is closed already", hint=f"byok bill statement --month {month}", month=str(month))
        if begun is None:
            _check(results, actor.org_id, month)
        closed_at, member_id = (begun.closed_at, begun.closed_by) if begun else (now, actor.member_id)
        totals = month_totals(results, actor.org_id, month, closed_at=closed_at)
    row = ClosedMonthRow(org_id=actor.org_id, month=str(month), closed_at=closed_at, member_id=member_id, recorded_at=now, **asdict(totals))
    if begun is None:
        _record(services, month, closed_at, row)
    warehouse.write_segment([row])
    warehouse.drain()
    return row


def _check(results: Queries, org_id: str, month: Month) -> None:
    """Refuse a month whose statement is not whole yet, or would not be the next."""
    who: Any = {"org": org_id, "month": str(month)}
    ((earlier,),) = results.query(_EARLIER, who).rows
    if earlier is not None:
        raise EarlierMonthOpen(f"{earlier} has charges and is open", hint=f"byok bill close {earlier}", month=str(earlier))
    running = [str(run_id) for (run_id,) in results.query(_RUNNING, [org_id, month.end]).rows]
    if running:
        raise RunsGoOn(
            f"{len(running)} run(s) that began in {month} or before have not ended, such as {running[0]}",
            hint=f"wait for them, or go on with one that was stopped: byok run resume {running[0]}",
            run=running[0],
        )


def _record(services: Services, month: Month, closed_at: datetime, row: ClosedMonthRow) -> None:
    told = {"charges": row.charges, "unpriced_charges": row.unpriced_charges, "micro_ecu": row.micro_ecu}
    actor = services.actor
    with services.audit.act(actor, "month.close", str(month), provider_usd=plain(row.provider_usd), **told) as connection:
        # Two at once: the second one waits for the first and finds it here.
        taken = select(closed_month.c.month).where(closed_month.c.org_id == actor.org_id, closed_month.c.month == str(month))
        if connection.execute(taken).first() is not None:
            raise MonthIsClosed(f"{month} is closed already", hint=f"byok bill statement --month {month}", month=str(month))
        connection.execute(
            insert(closed_month).values(org_id=actor.org_id, month=str(month), closed_at=closed_at, closed_by=actor.member_id)
        )
