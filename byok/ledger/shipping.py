"""Bring the ledger's entries to the warehouse, where people query them."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select

from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import ledger_entry, ledger_grant, ledger_transaction
from byok.ids import natural_id
from byok.ledger.books import snapshot
from byok.warehouse import Warehouse
from byok.warehouse.query import SnapshotMissing
from byok.warehouse.rows import GrantRow, LedgerEntryRow


def ship(control: ControlPlane, warehouse: Warehouse, org_id: str) -> bool:
    """Write the grants and entries that the warehouse does not show yet; they are visible after the next drain.

    What another process ships at the same time arrives twice and is taken once.

    Returns:
        Whether there were any.
    """
    try:
        ((last,),) = warehouse.query("SELECT coalesce(max(seq), 0) FROM v1.ledger WHERE org_id = ?", [org_id]).rows
    except SnapshotMissing:
        last = 0
    return warehouse.write_segment(_rows(control, org_id, last)) is not None


def _rows(control: ControlPlane, org_id: str, last: int) -> Iterator[GrantRow | LedgerEntryRow]:
    now = utcnow()
    new = (ledger_transaction.c.org_id == org_id) & (ledger_transaction.c.seq > last)
    with snapshot(control) as connection:
        for row in connection.execute(
            select(ledger_grant).join(ledger_transaction, ledger_transaction.c.id == ledger_grant.c.transaction_id).where(new)
        ):
            yield GrantRow(
                org_id=org_id,
                grant_id=row.id,
                kind=row.kind,
                priority=row.priority,
                micro_ecu=row.micro_ecu,
                paid_usd=row.paid_usd,
                note=row.note,
                effective_at=row.effective_at,
                expires_at=row.expires_at,
                created_at=row.created_at,
                recorded_at=now,
            )
        entries = (
            select(
                ledger_transaction,
                ledger_entry.c.number,
                ledger_entry.c.account,
                ledger_entry.c.grant_id,
                ledger_entry.c.micro_ecu,
            )
            .join(ledger_entry, ledger_entry.c.transaction_id == ledger_transaction.c.id)
            .where(new)
            .order_by(ledger_transaction.c.seq, ledger_entry.c.number)
        )
        for row in connection.execute(entries):
            yield LedgerEntryRow(
                org_id=org_id,
                entry_id=natural_id("ledger_entry", row.id, row.number),
                transaction_id=row.id,
                seq=row.seq,
                number=row.number,
                kind=row.kind,
                operation=row.operation,
                account=row.account,
                grant_id=row.grant_id,
                hold_id=row.hold_id,
                run_id=row.run_id,
                micro_ecu=row.micro_ecu,
                reverses=row.reverses,
                member_id=row.member_id,
                mac=row.mac,
                occurred_at=row.at,
                recorded_at=now,
            )
