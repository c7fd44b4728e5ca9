"""The ledger of one organisation within one transaction of the control plane: what it holds, and how entries get into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update
from sqlalchemy.engine import RowMapping

from byok.control import ControlPlane
from byok.control.tables import ledger_account, ledger_alert, ledger_entry, ledger_grant, ledger_hold, ledger_transaction
from byok.ids import natural_id, new_id
from byok.ledger.chain import FIRST, Kind, Leg, Transaction
from byok.ledger.draw import Credit, draw, in_order
from byok.ledger.errors import OperationConflict
from byok.money import MICRO

OVERDRAFT_LIMIT = 10 * MICRO
"""Micro-ECU that work under way may cost beyond all credit, unless the organisation has another limit."""

THRESHOLDS = (20, 5)
"""Percent of what was there after the last top-up, at which to warn, unless the organisation has others."""


@dataclass(frozen=True)
class Account:
    """What an organisation has and owes, in micro-ECU; see the table `ledger_account`."""

    org_id: str
    seq: int
    mac: str
    available: int
    held: int
    overdrawn: int
    reference: int
    warned: int | None
    overdraft_limit: int
    thresholds: tuple[int, ...]
    webhook: str | None

    @property
    def left(self) -> int:
        """What is not spent: available and held, less what is owed."""
        return self.available + self.held - self.overdrawn

    @property
    def room(self) -> int:
        """How much further it may go into the red."""
        return max(0, self.overdraft_limit - self.overdrawn)


NOTHING = Account("", 0, FIRST, 0, 0, 0, 0, None, OVERDRAFT_LIMIT, THRESHOLDS, None)
"""The account of an organisation before its first entry."""


def account_of(connection: Connection, org_id: str) -> Account | None:
    """The account of an organisation; None before its first entry."""
    row = connection.execute(select(ledger_account).where(ledger_account.c.org_id == org_id)).mappings().first()
    return None if row is None else _account(row)


def _account(row: RowMapping) -> Account:
    return Account(**(dict(row) | {"thresholds": tuple(row["thresholds"])}))


@contextmanager
def snapshot(control: ControlPlane) -> Iterator[Connection]:
    """A connection for several readings that must be of one time, while others write.

    SQLite gives no other; PostgreSQL would show each statement what was committed up to then.
    """
    with control.read() as connection:
        if connection.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


class Books:
    """Writes into one ledger; the caller holds the organisation's write lock.

    Args:
        connection: A write transaction in the organisation's queue.
        org_id: Whose ledger.
        key: What transactions are signed with.
        now: When this is.
        member_id: On whose behalf.
    """

    def __init__(self, connection: Connection, org_id: str, key: bytes, now: datetime, member_id: str | None) -> None:
        self.connection, self.org_id, self.now, self._key, self._member = connection, org_id, now, key, member_id
        found = account_of(connection, org_id)
        if found is None:
            found = replace(NOTHING, org_id=org_id)
            connection.execute(insert(ledger_account).values(_values(found)))
        self.account = found
        self._credits: list[Credit] | None = None

    def named(self, operation: str) -> Row[Any] | None:
        """The row of an operation, if it was written before, whatever it asked for."""
        of_mine = select(ledger_transaction).where(ledger_transaction.c.org_id == self.org_id)
        return self.connection.execute(of_mine.where(ledger_transaction.c.operation == operation)).first()

    def written(self, operation: str, body: str) -> Transaction | None:
        """The transaction of an operation, if it was written before.

        Raises:
            OperationConflict: It asked for something else then.
        """
        row = self.named(operation)
        if row is None:
            return None
        if row.body != body:
            raise OperationConflict(
                f"{operation} is in the ledger already, for something else",
                hint="give each operation a name of its own",
                operation=operation,
            )
        return read_transaction(self.connection, row)

    def credits(self) -> list[Credit]:
        """All grants of which something is left, the oldest first; read once, then kept as they change."""
        if self._credits is None:
            rows = self.connection.execute(
                select(ledger_grant).where(ledger_grant.c.org_id == self.org_id, ledger_grant.c.left > 0).order_by(ledger_grant.c.id)
            )
            self._credits = [credit_of(row) for row in rows]
        return self._credits

    def sweep(self) -> None:
        """Write down what time has done: grants that have expired, and holds that nobody settled."""
        stale = self.connection.execute(
            select(ledger_hold)
            .where(ledger_hold.c.org_id == self.org_id, ledger_hold.c.state == "open", ledger_hold.c.expires_at <= self.now)
            .order_by(ledger_hold.c.created_at, ledger_hold.c.id)
        ).all()
        for hold in stale:
            self.close_hold(hold, "expired")
            self.post("release", f"lapse:{hold.id}", "", self.back(self.parts_of(hold.id)), hold_id=hold.id, run_id=hold.run_id)
        for credit in self.credits():
            if credit.expires_at is not None and credit.expires_at <= self.now:
                legs = [Leg("credit", -credit.left, credit.id), Leg("breakage", credit.left, credit.id)]
                self.post("expire", f"expire:{credit.id}:{self.account.seq + 1}", "", legs)
                self.warn(None)

    def post(
        self,
        kind: Kind,
        operation: str,
        body: str,
        legs: Iterable[Leg],
        *,
        hold_id: str | None = None,
        run_id: str | None = None,
        reverses: str | None = None,
    ) -> Transaction:
        """Write a transaction; credit that comes in pays first what is owed.

        Raises:
            ValueError: Its entries do not add up to zero.
        """
        entries = [leg for leg in legs if leg.micro_ecu]
        self._apply(entries)
        if self.account.overdrawn:
            entries += self._repaid()
        if sum(leg.micro_ecu for leg in entries):
            raise ValueError("the entries of a transaction must add up to zero")
        unsigned = Transaction(
            id=natural_id("ledger", self.org_id, operation),
            org_id=self.org_id,
            seq=self.account.seq + 1,
            kind=kind,
            operation=operation,
            body=body,
            hold_id=hold_id,
            run_id=run_id,
            reverses=reverses,
            member_id=self._member,
            at=self.now,
            previous=self.account.mac,
            legs=tuple(entries),
        )
        posted = replace(unsigned, mac=unsigned.sign(self._key))
        facts = {column.name: getattr(posted, column.name) for column in ledger_transaction.columns}
        self.connection.execute(insert(ledger_transaction), facts)
        rows = [
            {"transaction_id": posted.id, "number": number, "org_id": self.org_id}
            | {"account": leg.account, "grant_id": leg.grant_id, "micro_ecu": leg.micro_ecu}
            for number, leg in enumerate(entries, 1)
        ]
        if rows:
            self.connection.execute(insert(ledger_entry), rows)
        self.change(seq=posted.seq, mac=posted.mac)
        return posted

    def change(self, **facts: object) -> None:
        """Change facts of the account; its balances are written with them."""
        self.account = replace(self.account, **facts)  # type: ignore[arg-type]
        balances = {name: getattr(self.account, name) for name in ("available", "held", "overdrawn")}
        told = {name: list(value) if isinstance(value, tuple) else value for name, value in facts.items()}
        self.connection.execute(_CHANGE, balances | told | {"of_org": self.org_id})

    def drawable(self) -> int:
        """What can be drawn now, in micro-ECU."""
        return sum(credit.left for credit in in_order(self.credits(), self.now))

    def drawn(self, micro: int) -> tuple[list[tuple[str, int]], int]:
        """How an amount would be drawn now, and what is lacking."""
        return draw(self.credits(), micro, self.now)

    def parts_of(self, hold_id: str) -> list[tuple[str, int]]:
        """What an open hold drew of each grant, in order."""
        rows = self.connection.execute(
            select(ledger_entry.c.grant_id, ledger_entry.c.micro_ecu)
            .join(ledger_transaction, ledger_transaction.c.id == ledger_entry.c.transaction_id)
            .where(ledger_transaction.c.hold_id == hold_id, ledger_transaction.c.kind == "hold", ledger_entry.c.account == "held")
            .order_by(ledger_entry.c.number)
        )
        return [(row.grant_id, row.micro_ecu) for row in rows]

    def back(self, parts: Iterable[tuple[str, int]]) -> list[Leg]:
        """The entries that give what was held back to its grants."""
        return [leg for grant, part in parts for leg in (Leg("held", -part, grant), Leg("credit", part, grant))]

    def close_hold(self, hold: Row[Any], state: str, used: int | None = None) -> None:
        """Note that a hold is no longer open."""
        self.connection.execute(update(ledger_hold).where(ledger_hold.c.id == hold.id).values(state=state, used=used))

    def warn(self, run_id: str | None) -> None:
        """Note each threshold that what is left has fallen below since the last top-up."""
        left, reference = self.account.left, self.account.reference
        for percent in sorted(self.account.thresholds, reverse=True):
            warned = self.account.warned
            if reference > 0 and left * 100 <= percent * reference and (warned is None or percent < warned):
                facts = {"id": new_id(), "org_id": self.org_id, "percent": percent, "left": left, "reference": reference}
                self.connection.execute(insert(ledger_alert).values(facts | {"run_id": run_id, "at": self.now}))
                self.change(warned=percent)

    def _repaid(self) -> list[Leg]:
        parts, _ = self.drawn(self.account.overdrawn)
        legs = [leg for grant, part in parts for leg in (Leg("credit", -part, grant), Leg("overdraft", part, grant))]
        self._apply(legs)
        return legs

    def _apply(self, legs: Iterable[Leg]) -> None:
        """Bring the balances to where the entries lead."""
        moved: dict[str, int] = {}
        grants: dict[str, int] = {}
        for leg in legs:
            moved[leg.account] = moved.get(leg.account, 0) + leg.micro_ecu
            if leg.account == "credit" and leg.grant_id is not None:
                grants[leg.grant_id] = grants.get(leg.grant_id, 0) + leg.micro_ecu
        changed = [{"of_grant": grant, "change": change} for grant, change in grants.items() if change]
        if changed:
            self.connection.execute(_MOVE, changed)
            left = {credit.id: credit.left + grants.get(credit.id, 0) for credit in self._credits or ()}
            # One that was empty is not among them: whoever asks next reads them anew.
            known = self._credits is not None and grants.keys() <= left.keys()
            self._credits = [replace(credit, left=left[credit.id]) for credit in self._credits or () if left[credit.id]] if known else None
        self.account = replace(
            self.account,
            available=self.account.available + moved.get("credit", 0),
            held=self.account.held + moved.get("held", 0),
            overdrawn=self.account.overdrawn - moved.get("overdraft", 0),
        )


_CHANGE = update(ledger_account).where(ledger_account.c.org_id == bindparam("of_org"))
_MOVE = update(ledger_grant).where(ledger_grant.c.id == bindparam("of_grant")).values(left=ledger_grant.c.left + bindparam("change"))


def credit_of(row: Row[Any]) -> Credit:
    """What is left of the grant of a row."""
    return Credit(row.id, row.kind, row.priority, row.left, row.effective_at, row.expires_at)


def read_transaction(connection: Connection, row: Row[Any]) -> Transaction:
    """The transaction of a row, with its entries."""
    entries = connection.execute(select(ledger_entry).where(ledger_entry.c.transaction_id == row.id).order_by(ledger_entry.c.number))
    legs = tuple(Leg(entry.account, entry.micro_ecu, entry.grant_id) for entry in entries)
    return transaction_of(row, legs)


def transaction_of(row: Row[Any], legs: tuple[Leg, ...]) -> Transaction:
    """The transaction of a row, whose entries are known."""
    return Transaction(**{column.name: getattr(row, column.name) for column in ledger_transaction.columns}, legs=legs)


def _values(account: Account) -> dict[str, object]:
    return {column.name: getattr(account, column.name) for column in ledger_account.columns} | {"thresholds": list(account.thresholds)}
