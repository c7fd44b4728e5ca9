"""What a ledger tells: balances, transactions, holds, and whether it is whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from byok.access import BILLING_READ, RUNS_WRITE, Actor, require
from byok.access.heads import Heads
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import ledger_entry, ledger_grant, ledger_hold, ledger_transaction
from byok.ledger.books import NOTHING, account_of, credit_of, read_transaction, snapshot
from byok.ledger.chain import Transaction
from byok.ledger.draw import Credit, in_order
from byok.ledger.errors import HoldNotFound, TransactionNotFound
from byok.ledger.verify import Verified, verify_ledger


@dataclass(frozen=True)
class Balance:
    """What an organisation has, in micro-ECU.

    Attributes:
        available: What new runs can hold.
        held: What runs under way hold.
        overdrawn: What was used beyond all credit, and is not paid yet.
        pending: What can be drawn later, when its grant takes effect.
        overdraft_limit: How much may be overdrawn.
        reference: What there was after the last top-up.
        thresholds: Percents of the reference at which to warn.
        webhook: Where warnings are posted to.
        grants: Of which something is left, in the order in which they are drawn.
        seq: Number of the last transaction.
    """

    available: int
    held: int
    overdrawn: int
    pending: int
    overdraft_limit: int
    reference: int
    thresholds: tuple[int, ...]
    webhook: str | None
    grants: tuple[Credit, ...]
    seq: int

    @property
    def left(self) -> int:
        """What is not spent: available and held, less what is owed."""
        return self.available + self.pending + self.held - self.overdrawn

    def below(self, percent: int) -> bool:
        """Whether no more is left than a share of what there was after the last top-up."""
        return self.reference > 0 and self.left * 100 <= percent * self.reference


@dataclass(frozen=True)
class Hold:
    """Credit that is kept for a run.

    Attributes:
        id: UUID.
        run_id: The run.
        micro_ecu: How much.
        state: open, settled, released or expired.
    """

    id: str
    run_id: str | None
    micro_ecu: int
    state: str


class LedgerReader:
    """The part of `Ledger` that writes nothing.

    Args:
        control: Where the ledgers are.
        key: What transactions are signed with.
        heads: Where their last signatures are remembered.
    """

    def __init__(self, control: ControlPlane, key: bytes, heads: Heads) -> None:
        self._control, self._key, self._heads = control, key, heads

    def settlements(self, actor: Actor, run_id: str) -> list[Transaction]:
        """The settlements of a run that were not taken back.

        Raises:
            NotPermitted: The actor lacks `billing:read`.
        """
        require(actor, BILLING_READ, "ledger.settlements")
        found = self._found(actor.org_id, ledger_transaction.c.run_id == run_id, ledger_transaction.c.kind.in_(("settle", "reverse")))
        back = {one.reverses for one in found}
        return [one for one in found if one.kind == "settle" and one.id not in back]

    def settled(self, actor: Actor, run_id: str) -> int:
        """Micro-ECU that a run was settled with by now. What was taken back counts too: it is not due again.

        Raises:
            NotPermitted: The actor lacks `runs:write`.
        """
        require(actor, RUNS_WRITE, "ledger.settled")
        used = (
            select(func.coalesce(func.sum(ledger_entry.c.micro_ecu), 0))
            .join(ledger_transaction, ledger_transaction.c.id == ledger_entry.c.transaction_id)
            .where(ledger_transaction.c.org_id == actor.org_id, ledger_transaction.c.run_id == run_id)
            .where(ledger_transaction.c.kind == "settle", ledger_entry.c.account == "usage")
        )
        with self._control.read() as connection:
            return int(connection.execute(used).scalar_one())

    def holds(self, actor: Actor, run_id: str) -> list[Hold]:
        """All holds of a run, in their order.

        Raises:
            NotPermitted: The actor lacks `runs:write`.
        """
        require(actor, RUNS_WRITE, "ledger.holds")
        return self._holds(actor.org_id, run_id)

    def balance(self, actor: Actor) -> Balance:
        """What there is, after what time has done.

        Raises:
            NotPermitted: The actor lacks `billing:read`.
        """
        require(actor, BILLING_READ, "ledger.balance")
        return self.balance_of(actor.org_id)

    def balance_of(self, org_id: str) -> Balance:
        """The same for a program that has asked already; writes nothing."""
        now = utcnow()
        with snapshot(self._control) as connection:
            account = account_of(connection, org_id) or replace(NOTHING, org_id=org_id)
            rows = connection.execute(select(ledger_grant).where(ledger_grant.c.org_id == org_id, ledger_grant.c.left > 0)).all()
        credits = [credit_of(row) for row in rows]
        able = in_order(credits, now)
        later = [one for one in credits if one.effective_at > now]
        return Balance(
            available=sum(one.left for one in able) - account.overdrawn,
            held=account.held,
            overdrawn=account.overdrawn,
            pending=sum(one.left for one in later),
            overdraft_limit=account.overdraft_limit,
            reference=account.reference,
            thresholds=account.thresholds,
            webhook=account.webhook,
            grants=(*able, *later),
            seq=account.seq,
        )

    def transactions(self, actor: Actor, *, limit: int | None = None, run_id: str | None = None) -> list[Transaction]:
        """The transactions, the newest first.

        Raises:
            NotPermitted: The actor lacks `billing:read`.
        """
        require(actor, BILLING_READ, "ledger.list")
        wanted: list[ColumnElement[bool]] = [] if run_id is None else [ledger_transaction.c.run_id == run_id]
        return list(reversed(self._found(actor.org_id, *wanted, newest=limit)))

    def verify(self, actor: Actor) -> Verified:
        """Check the whole ledger of the actor's organisation, from its first transaction on; name the first bad row.

        Raises:
            NotPermitted: The actor lacks `billing:read`.
            HeadsUnreadable: The file with the heads is damaged.
        """
        require(actor, BILLING_READ, "ledger.verify")
        return self.check(actor.org_id)

    def check(self, org_id: str) -> Verified:
        """The same for a program that shows nothing of what is in it; see `verify`."""
        anchor = self._heads.read().get(org_id)
        with snapshot(self._control) as connection:
            return verify_ledger(connection, org_id, self._key, anchor)

    def _transaction(self, connection: Connection, org_id: str, transaction_id: str) -> Transaction:
        row = connection.execute(
            select(ledger_transaction).where(ledger_transaction.c.org_id == org_id, ledger_transaction.c.id == transaction_id)
        ).first()
        if row is None:
            raise TransactionNotFound(f"no transaction {transaction_id}", hint="byok bill ledger")
        return read_transaction(connection, row)

    def _row(self, connection: Connection, org_id: str, hold_id: str) -> Row[Any]:
        row = connection.execute(select(ledger_hold).where(ledger_hold.c.org_id == org_id, ledger_hold.c.id == hold_id)).first()
        if row is None:
            raise HoldNotFound(f"no hold {hold_id}", hint="byok bill ledger")
        return row

    def _holds(self, org_id: str, run_id: str) -> list[Hold]:
        wanted = select(ledger_hold).where(ledger_hold.c.org_id == org_id, ledger_hold.c.run_id == run_id)
        with self._control.read() as connection:
            return [
                Hold(row.id, row.run_id, row.micro_ecu, row.state) for row in connection.execute(wanted.order_by(ledger_hold.c.created_at))
            ]

    def _found(self, org_id: str, *conditions: ColumnElement[bool], newest: int | None = None) -> list[Transaction]:
        query = select(ledger_transaction).where(ledger_transaction.c.org_id == org_id, *conditions)
        with snapshot(self._control) as connection:
            rows = connection.execute(query.order_by(ledger_transaction.c.seq.desc()).limit(newest)).all()
            return [read_transaction(connection, row) for row in reversed(rows)]
