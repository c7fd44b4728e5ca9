"""Check a ledger from its first transaction on, and name the first row that is not what was written."""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row, select

from byok.access.heads import Head
from byok.control.tables import ledger_entry, ledger_grant, ledger_hold, ledger_transaction
from byok.ledger.books import account_of, transaction_of
from byok.ledger.chain import FIRST, Leg, Terms, Transaction


@dataclass(frozen=True)
class Verified:
    """What was found.

    Attributes:
        transactions: How many are sound, from the first on.
        bad: The first row that is not: its table and what identifies it; None when all are.
        reason: What is wrong with it.
    """

    transactions: int
    bad: str | None = None
    reason: str | None = None


class _Totals:
    """Balances, added up from entries alone."""

    def __init__(self) -> None:
        self.accounts: dict[str, int] = defaultdict(int)
        self.grants: dict[str, int] = defaultdict(int)
        self.holds: dict[str, int] = defaultdict(int)

    def add(self, posted: Transaction) -> None:
        for leg in posted.legs:
            self.accounts[leg.account] += leg.micro_ecu
            if leg.account == "credit" and leg.grant_id is not None:
                self.grants[leg.grant_id] += leg.micro_ecu
            if leg.account == "held" and posted.hold_id is not None:
                self.holds[posted.hold_id] += leg.micro_ecu


def verify_ledger(connection: Connection, org_id: str, key: bytes, anchor: Head | None) -> Verified:
    """Check the chain of an organisation, then every balance against its entries.

    Args:
        connection: The control plane.
        org_id: Whose ledger.
        key: What its transactions are signed with.
        anchor: The head that was seen here last.
    """
    previous, sound, totals, asked = FIRST, 0, _Totals(), {}
    for posted in _transactions(connection, org_id):
        here = f"ledger_transaction {posted.seq}"
        if posted.seq != sound + 1:
            return Verified(sound, f"ledger_transaction {sound + 1}", "missing")
        if not hmac.compare_digest(posted.mac, posted.sign(key)):
            return Verified(sound, here, "it or one of its entries was changed, added or removed, or it was not written by byok")
        if posted.previous != previous:
            return Verified(sound, here, "does not follow the transaction before it")
        if sum(leg.micro_ecu for leg in posted.legs):
            return Verified(sound, here, "its entries do not add up to zero")
        previous, sound = posted.mac, posted.seq
        if anchor and anchor[0] == sound and anchor[1] != posted.mac:
            return Verified(sound - 1, here, "not the transaction that was seen here before")
        totals.add(posted)
        if posted.kind in ("top_up", "grant"):
            asked[posted.id] = posted
    if anchor and anchor[0] > sound:
        return Verified(sound, f"ledger_transaction {sound + 1}", f"missing: {anchor[0]} transactions were seen here before")
    return (
        _grants(connection, org_id, sound, totals, asked)
        or _holds(connection, org_id, sound, totals)
        or _account(connection, org_id, sound, previous, totals)
    )


def _transactions(connection: Connection, org_id: str) -> Iterator[Transaction]:
    rows = connection.execute(select(ledger_transaction).where(ledger_transaction.c.org_id == org_id).order_by(ledger_transaction.c.seq))
    entries = connection.execute(
        select(ledger_transaction.c.seq, ledger_entry)
        .join(ledger_transaction, ledger_transaction.c.id == ledger_entry.c.transaction_id)
        .where(ledger_transaction.c.org_id == org_id)
        .order_by(ledger_transaction.c.seq, ledger_entry.c.number)
    )
    grouped = groupby(entries, key=lambda entry: entry.seq)
    seq, legs = next(grouped, (None, iter(())))
    for row in rows:
        mine: tuple[Leg, ...] = ()
        if seq == row.seq:
            mine = tuple(Leg(entry.account, entry.micro_ecu, entry.grant_id) for entry in legs)
            seq, legs = next(grouped, (None, iter(())))
        yield transaction_of(row, mine)


def _grants(connection: Connection, org_id: str, sound: int, totals: _Totals, asked: dict[str, Transaction]) -> Verified | None:
    rows = connection.execute(select(ledger_grant).where(ledger_grant.c.org_id == org_id).order_by(ledger_grant.c.id)).all()
    for row in rows:
        here = f"ledger_grant {row.id}"
        made = asked.pop(row.transaction_id, None)
        if made is None:
            return Verified(sound, here, "no transaction made it")
        if made.body not in _bodies(row):
            return Verified(sound, here, "not what its top-up says")
        if row.left != totals.grants[row.id]:
            return Verified(sound, here, f"{row.left} micro-ECU are noted as left, and its entries add up to {totals.grants[row.id]}")
    if asked:
        return Verified(sound, f"ledger_grant of transaction {min(one.seq for one in asked.values())}", "missing")
    return None


def _bodies(row: Row[Any]) -> tuple[str, ...]:
    """What the top-up of a grant can have asked for: a grant that was to take effect at once has the time of its making."""
    told = (row.micro_ecu, row.kind, row.paid_usd, row.note, row.priority)
    at_once = (None,) if row.effective_at == row.created_at else ()
    return tuple(Terms(*told, effective, row.expires_at).body() for effective in (row.effective_at, *at_once))


def _holds(connection: Connection, org_id: str, sound: int, totals: _Totals) -> Verified | None:
    rows = connection.execute(select(ledger_hold).where(ledger_hold.c.org_id == org_id).order_by(ledger_hold.c.id)).all()
    for row in rows:
        held = totals.holds.pop(row.id, None)
        wanted = row.micro_ecu if row.state == "open" else 0
        if held is None or held != wanted:
            return Verified(sound, f"ledger_hold {row.id}", f"it is {row.state}, and its entries add up to {held or 0} micro-ECU held")
    gone = sorted(hold for hold, held in totals.holds.items() if held)
    return Verified(sound, f"ledger_hold {gone[0]}", "missing") if gone else None


def _account(connection: Connection, org_id: str, sound: int, mac: str, totals: _Totals) -> Verified:
    account = account_of(connection, org_id)
    if account is None:
        return Verified(sound, f"ledger_account {org_id}", "missing") if sound else Verified(0)
    told = (account.seq, account.mac, account.available, account.held, -account.overdrawn)
    if told != (sound, mac, *(totals.accounts[name] for name in ("credit", "held", "overdraft"))):
        return Verified(sound, f"ledger_account {org_id}", "its balances are not what the entries add up to")
    return Verified(sound)
