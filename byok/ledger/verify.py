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
from byok.ledger.chain import FIRST, Leg, Terms, Transaction, body_of, hold_body


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
    """What entries and transactions alone say of balances, grants and holds."""

    def __init__(self) -> None:
        self.accounts: dict[str, int] = defaultdict(int)
        self.grants: dict[str, int] = defaultdict(int)
        self.made: dict[str, Transaction] = {}
        self.held: dict[str, int] = defaultdict(int)
        self.holds: dict[str, dict[str, Transaction]] = defaultdict(dict)
        self.reference = 0

    def add(self, posted: Transaction) -> None:
        for leg in posted.legs:
            self.accounts[leg.account] += leg.micro_ecu
            if leg.account == "credit" and leg.grant_id is not None:
                self.grants[leg.grant_id] += leg.micro_ecu
            if leg.account == "held" and posted.hold_id is not None:
                self.held[posted.hold_id] += leg.micro_ecu
        if posted.kind in ("top_up", "grant"):
            (grant,) = [leg.grant_id for leg in posted.legs if leg.account == "credit" and leg.grant_id and leg.micro_ecu > 0]
            self.made[grant] = posted
            self.reference = max(0, sum(self.accounts[name] for name in ("credit", "held", "overdraft")))
        elif posted.hold_id is not None:
            self.holds[posted.hold_id][posted.operation.partition(":")[0]] = posted


def verify_ledger(connection: Connection, org_id: str, key: bytes, anchor: Head | None) -> Verified:
    """Check the chain of an organisation, then every grant, hold and balance against it.

    Args:
        connection: The control plane, as it was at one time.
        org_id: Whose ledger.
        key: What its transactions are signed with.
        anchor: The head that was seen here last.
    """
    previous, sound, totals = FIRST, 0, _Totals()
    for posted, odd in _transactions(connection, org_id):
        here = f"ledger_transaction {posted.seq}"
        if posted.seq != sound + 1:
            return Verified(sound, f"ledger_transaction {sound + 1}", "missing")
        if not hmac.compare_digest(posted.mac, posted.sign(key)):
            return Verified(sound, here, "it or one of its entries was changed, added or removed, or it was not written by byok")
        if odd is not None:
            return Verified(sound, f"ledger_entry {posted.seq}/{odd}", "its number or its organisation was changed")
        if posted.previous != previous:
            return Verified(sound, here, "does not follow the transaction before it")
        if sum(leg.micro_ecu for leg in posted.legs):
            return Verified(sound, here, "its entries do not add up to zero")
        previous, sound = posted.mac, posted.seq
        if anchor and anchor[0] == sound and anchor[1] != posted.mac:
            return Verified(sound - 1, here, "not the transaction that was seen here before")
        totals.add(posted)
    if anchor and anchor[0] > sound:
        return Verified(sound, f"ledger_transaction {sound + 1}", f"missing: {anchor[0]} transactions were seen here before")
    return (
        _strays(connection, org_id, sound)
        or _grants(connection, org_id, sound, totals)
        or _holds(connection, org_id, sound, totals)
        or _account(connection, org_id, sound, previous, totals)
    )


def _transactions(connection: Connection, org_id: str) -> Iterator[tuple[Transaction, int | None]]:
    """Each transaction, and the number of its first entry whose place or organisation, which are not signed, are not what they must be."""
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
        mine: list[Row[Any]] = []
        if seq == row.seq:
            mine = list(legs)
            seq, legs = next(grouped, (None, iter(())))
        odd = next((number for number, one in enumerate(mine, 1) if (one.number, one.org_id) != (number, org_id)), None)
        yield transaction_of(row, tuple(Leg(one.account, one.micro_ecu, one.grant_id) for one in mine)), odd


def _strays(connection: Connection, org_id: str, sound: int) -> Verified | None:
    """Entries of the organisation that belong to none of its transactions."""
    mine = select(ledger_transaction.c.id).where(ledger_transaction.c.org_id == org_id)
    stray = select(ledger_entry).where(ledger_entry.c.org_id == org_id, ledger_entry.c.transaction_id.not_in(mine)).limit(1)
    row = connection.execute(stray).first()
    return None if row is None else Verified(sound, f"ledger_entry {row.transaction_id}/{row.number}", "belongs to no transaction")


def _grants(connection: Connection, org_id: str, sound: int, totals: _Totals) -> Verified | None:
    rows = connection.execute(select(ledger_grant).where(ledger_grant.c.org_id == org_id).order_by(ledger_grant.c.id)).all()
    for row in rows:
        here = f"ledger_grant {row.id}"
        made = totals.made.pop(row.id, None)
        if made is None:
            return Verified(sound, here, "no transaction made it")
        if made.body not in _bodies(row) or (row.transaction_id, row.created_at) != (made.id, made.at):
            return Verified(sound, here, "not what its top-up says")
        if row.left != totals.grants[row.id]:
            return Verified(sound, here, f"{row.left} micro-ECU are noted as left, and its entries add up to {totals.grants[row.id]}")
    return Verified(sound, f"ledger_grant {min(totals.made)}", "missing") if totals.made else None


def _bodies(row: Row[Any]) -> tuple[str, ...]:
    """What the top-up of a grant can have asked for: a grant that was to take effect at once has the time of its making."""
    told = (row.micro_ecu, row.kind, row.paid_usd, row.note, row.priority)
    at_once = (None,) if row.effective_at == row.created_at else ()
    return tuple(Terms(*told, effective, row.expires_at).body() for effective in (row.effective_at, *at_once))


def _holds(connection: Connection, org_id: str, sound: int, totals: _Totals) -> Verified | None:
    rows = connection.execute(select(ledger_hold).where(ledger_hold.c.org_id == org_id).order_by(ledger_hold.c.id)).all()
    for row in rows:
        here, story = f"ledger_hold {row.id}", totals.holds.pop(row.id, {})
        made, settled = story.get("hold"), story.get("settle")
        if made is None:
            return Verified(sound, here, "no transaction made it")
        if made.body != hold_body(row.micro_ecu, row.run_id, row.expires_at - row.created_at) or row.created_at != made.at:
            return Verified(sound, here, "not what was asked for")
        ends = {"settle": "settled", "release": "released", "lapse": "expired"}
        state = next((ends[end] for end in ends if end in story), "open")
        if row.state != state:
            return Verified(sound, here, f"it is {row.state}, and its transactions say {state}")
        if (None if row.used is None else body_of(row.used)) != (None if settled is None else settled.body):
            return Verified(sound, here, "not what it was settled with")
        wanted = row.micro_ecu if state == "open" else 0
        if totals.held[row.id] != wanted:
            return Verified(sound, here, f"it is {state}, and its entries add up to {totals.held[row.id]} micro-ECU held")
    return Verified(sound, f"ledger_hold {min(totals.holds)}", "missing") if totals.holds else None


def _account(connection: Connection, org_id: str, sound: int, mac: str, totals: _Totals) -> Verified:
    account = account_of(connection, org_id)
    if account is None:
        return Verified(sound, f"ledger_account {org_id}", "missing") if sound else Verified(0)
    told = (account.seq, account.mac, account.available, account.held, -account.overdrawn, account.reference)
    if told != (sound, mac, *(totals.accounts[name] for name in ("credit", "held", "overdraft")), totals.reference):
        return Verified(sound, f"ledger_account {org_id}", "its balances are not what the entries add up to")
    return Verified(sound)
