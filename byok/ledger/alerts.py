"""Warnings that what is left of the credit has fallen below a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update

from byok.clock import iso, utcnow
from byok.control import ControlPlane
from byok.control.tables import ledger_account, ledger_alert
from byok.money import ecu


@dataclass(frozen=True)
class Alert:
    """One crossing of one threshold.

    Attributes:
        id: UUID.
        org_id: Whose credit.
        percent: The threshold, of what there was after the last top-up.
        left: Micro-ECU that were left; negative when overdrawn.
        reference: Micro-ECU that there were after the last top-up.
        run_id: Run whose settlement crossed it.
        at: When (UTC).
        webhook: Where it is to be posted to; None: nowhere.
    """

    id: str
    org_id: str
    percent: int
    left: int
    reference: int
    run_id: str | None
    at: datetime
    webhook: str | None

    @property
    def text(self) -> str:
        """The warning in words."""
        return f"{ecu(self.left)} ECU are left, {self.percent} % or less of the {ecu(self.reference)} ECU after the last top-up"

    def as_dict(self) -> dict[str, object]:
        """What an event and a webhook tell; never the address of the webhook."""
        return {
            "alert_id": self.id,
            "org_id": self.org_id,
            "percent": self.percent,
            "left_ecu": ecu(self.left),
            "reference_ecu": ecu(self.reference),
            "run_id": self.run_id,
            "at": iso(self.at),
            "text": self.text,
        }


def take_alerts(control: ControlPlane, org_id: str) -> list[Alert]:
    """The warnings that nobody has begun to tell; they are the caller's to tell from then on, so that each is told once."""
    query = (
        select(ledger_alert, ledger_account.c.webhook)
        .join(ledger_account, ledger_account.c.org_id == ledger_alert.c.org_id)
        .where(ledger_alert.c.org_id == org_id, ledger_alert.c.taken_at.is_(None))
        .order_by(ledger_alert.c.id)
    )
    with control.read() as connection:
        if connection.execute(query.limit(1)).first() is None:
            return []
    with control.write(queue=org_id) as connection:
        rows = connection.execute(query).all()
        connection.execute(update(ledger_alert).where(ledger_alert.c.id.in_([row.id for row in rows])).values(taken_at=utcnow()))
    return [Alert(row.id, row.org_id, row.percent, row.left, row.reference, row.run_id, row.at, row.webhook) for row in rows]
