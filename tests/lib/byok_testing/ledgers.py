"""A ledger of ECU kept a second time, in plain Python, and what must hold of every ledger whatever was done to it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import pytest
from sqlalchemy import event, select

from byok.access import Actor
from byok.app import Services
from byok.clock import utcnow
from byok.control.tables import ledger_account, ledger_entry, ledger_grant, ledger_hold, ledger_transaction
from byok.ledger import Ledger


def unsynced(services: Services, patch: pytest.MonkeyPatch) -> None:
    """Let nothing wait for the disk, in tests that write thousands of transactions from one process and pull no plug."""

    @event.listens_for(services.control.engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    services.control.engine.dispose()
    patch.setattr(os, "fsync", lambda handle: None)


class Refused(Exception):
    """What the model would not do; the name of the error that the ledger must give."""


class Clock:
    """The time of the ledger, which a test moves.

    Args:
        patch: Where it is put in place.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = utcnow()
        for module in ("holds", "reading"):
            patch.setattr(f"byok.ledger.{module}.utcnow", lambda: self.now)

    def move(self, by: timedelta) -> None:
        """Let time pass."""
        self.now += by


@dataclass
class Purse:
    """A grant."""

    number: int
    kind: str
    priority: int
    amount: int
    left: int
    effective_at: datetime
    expires_at: datetime | None
    repaid: int = 0
    id: str = ""

    def precedes(self, other: Purse) -> bool:
        """Whether it is drawn on before another."""
        if self.kind != other.kind:
            return self.kind == "promotional"
        if self.expires_at != other.expires_at:
            return other.expires_at is None or (self.expires_at is not None and self.expires_at < other.expires_at)
        return (self.priority, self.number) < (other.priority, other.number)


@dataclass
class Kept:
    """A hold."""

    parts: list[tuple[Purse, int]]
    expires_at: datetime
    state: str = "open"


@dataclass
class Settled:
    """A settlement: what it took of each grant, what it left owed, and what was waived."""

    taken: list[tuple[Purse, int]]
    owed: int
    waived: int
    reversed: bool = False


@dataclass
class Model:
    """One organisation's credit, without a database, a journal or a signature."""

    now: datetime
    limit: int
    purses: list[Purse] = field(default_factory=list)
    holds: dict[Any, Kept] = field(default_factory=dict)
    settled: dict[Any, Settled] = field(default_factory=dict)
    owed: int = 0
    used: int = 0
    waived: int = 0
    expired: int = 0
    bought: int = 0

    def drawable(self) -> list[Purse]:
        """In the order of drawing: each time the one that all others follow."""
        able = [
            one
            for one in self.purses
            if one.left > 0 and one.effective_at <= self.now < (one.expires_at or datetime.max.replace(tzinfo=self.now.tzinfo))
        ]
        ordered = []
        while able:
            (first,) = [one for one in able if all(one is other or one.precedes(other) for other in able)]
            able.remove(first)
            ordered.append(first)
        return ordered

    def take(self, amount: int) -> tuple[list[tuple[Purse, int]], int]:
        """Draw an amount; what was drawn, and what is lacking."""
        parts = []
        for purse in self.drawable():
            if part := min(purse.left, amount):
                purse.left -= part
                amount -= part
                parts.append((purse, part))
        return parts, amount

    def repay(self) -> None:
        """Whatever happens, what is owed is paid first."""
        if self.owed:
            for purse, part in self.take(self.owed)[0]:
                purse.repaid += part
                self.owed -= part

    def pass_time(self) -> None:
        """Holds lapse, the oldest first; then grants expire."""
        for kept in self.holds.values():
            if kept.state == "open" and kept.expires_at <= self.now:
                self._give_back(kept)
                kept.state = "expired"
                self.repay()
        for purse in self.purses:
            if purse.left and purse.expires_at is not None and purse.expires_at <= self.now:
                self.expired += purse.left
                purse.left = 0
                self.repay()

    def top_up(self, amount: int, kind: str, priority: int, effective_at: datetime | None, expires_at: datetime | None) -> Purse:
        """Add credit."""
        made = Purse(len(self.purses), kind, priority, amount, amount, effective_at or self.now, expires_at)
        self.purses.append(made)
        self.bought += amount
        self.repay()
        return made

    def hold(self, name: Any, amount: int, lifetime: timedelta) -> None:
        """Keep credit."""
        if sum(purse.left for purse in self.drawable()) - self.owed < amount:
            raise Refused("BalanceTooLow")
        parts, lacking = self.take(amount)
        assert not lacking
        self.holds[name] = Kept(parts, self.now + lifetime)
        self.repay()

    def settle(self, name: Any, amount: int) -> None:
        """Use what was kept, then what is there, then what is not."""
        kept = self.holds[name]
        if kept.state == "released":
            raise Refused("HoldClosed")
        taken, rest = [], amount
        if kept.state == "open":
            for purse, part in kept.parts:
                used = min(part, rest)
                taken.append((purse, used))
                purse.left += part - used
                rest -= used
        more, lacking = self.take(rest)
        owed = min(lacking, max(0, self.limit - self.owed))
        self.owed += owed
        self.used += amount
        self.waived += lacking - owed
        kept.state = "settled"
        self.settled[name] = Settled(taken + more, owed, lacking - owed)
        self.repay()

    def release(self, name: Any) -> None:
        """Give back what was kept."""
        kept = self.holds[name]
        if kept.state != "open":
            raise Refused("HoldClosed")
        kept.state = "released"
        self._give_back(kept)
        self.repay()

    def reverse_top_up(self, purse: Purse) -> None:
        """Take credit back, if all of it is there."""
        if purse.left < purse.amount:
            raise Refused("NotReversible")
        purse.left = 0
        self.bought -= purse.amount
        self.repay()

    def reverse_settlement(self, name: Any) -> None:
        """Undo a settlement; what was paid of its debt meanwhile goes back to grants that paid, the last in the order first."""
        done = self.settled[name]
        done.reversed = True
        self.used -= sum(part for _, part in done.taken) + done.owed + done.waived
        self.waived -= done.waived
        for purse, part in done.taken:
            purse.left += part
        self.owed -= done.owed
        for purse in reversed(sorted(self.purses, key=lambda one: sum(other.precedes(one) for other in self.purses))):
            if self.owed < 0 and (part := min(purse.repaid, -self.owed)):
                purse.repaid -= part
                purse.left += part
                self.owed += part
        assert self.owed >= 0
        self.repay()

    def _give_back(self, kept: Kept) -> None:
        for purse, part in kept.parts:
            purse.left += part

    @property
    def held(self) -> int:
        """What open holds keep."""
        return sum(part for kept in self.holds.values() if kept.state == "open" for _, part in kept.parts)


def totals(services: Services, org_id: str) -> dict[str, int]:
    """Sum of the entries of each account."""
    with services.control.read() as connection:
        rows = connection.execute(select(ledger_entry.c.account, ledger_entry.c.micro_ecu).where(ledger_entry.c.org_id == org_id)).all()
    summed: dict[str, int] = defaultdict(int)
    for account, micro in rows:
        summed[account] += micro
    return summed


def check_books(services: Services, ledger: Ledger, actor: Actor) -> None:
    """What holds of every ledger at every time, reckoned from the bare tables."""
    org = actor.org_id
    with services.control.read() as connection:
        account = connection.execute(select(ledger_account).where(ledger_account.c.org_id == org)).one()
        grants = connection.execute(select(ledger_grant).where(ledger_grant.c.org_id == org)).all()
        holds = connection.execute(select(ledger_hold).where(ledger_hold.c.org_id == org)).all()
        entries = connection.execute(
            select(ledger_entry, ledger_transaction.c.seq, ledger_transaction.c.hold_id, ledger_transaction.c.kind)
            .join(ledger_transaction, ledger_transaction.c.id == ledger_entry.c.transaction_id)
            .where(ledger_transaction.c.org_id == org)
            .order_by(ledger_transaction.c.seq, ledger_entry.c.number)
        ).all()
        seqs = connection.execute(select(ledger_transaction.c.seq).where(ledger_transaction.c.org_id == org)).scalars().all()
    assert sorted(seqs) == list(range(1, account.seq + 1))
    check_history(entries, account.overdraft_limit)
    each: dict[int, int] = defaultdict(int)
    of_account: dict[str, int] = defaultdict(int)
    of_grant: dict[str, int] = defaultdict(int)
    of_hold: dict[str, int] = defaultdict(int)
    for entry in entries:
        each[entry.seq] += entry.micro_ecu
        of_account[entry.account] += entry.micro_ecu
        if entry.account in ("credit", "held", "breakage"):
            assert entry.grant_id is not None, entry
        if entry.account == "credit":
            of_grant[entry.grant_id] += entry.micro_ecu
        if entry.account == "held":
            of_hold[entry.hold_id] += entry.micro_ecu
    assert set(each.values()) <= {0}
    assert (account.available, account.held, account.overdrawn) == tuple(
        sign * of_account[name] for sign, name in ((1, "credit"), (1, "held"), (-1, "overdraft"))
    )
    assert {grant.id: grant.left for grant in grants} == {grant.id: of_grant[grant.id] for grant in grants}
    assert all(0 <= grant.left <= grant.micro_ecu for grant in grants), grants
    assert {hold.id: hold.micro_ecu if hold.state == "open" else 0 for hold in holds} == {hold.id: of_hold[hold.id] for hold in holds}
    assert sum(grant.left for grant in grants) == account.available >= 0
    assert account.held >= 0 and account.overdrawn >= 0
    assert of_account["usage"] >= 0 and of_account["breakage"] >= 0 and of_account["waived"] <= 0
    found = ledger.verify(actor)
    assert (found.bad, found.transactions) == (None, account.seq), found


def check_history(entries: Sequence[Any], limit: int) -> None:
    """At no time was anything drawn that was not there, or more owed than may be; what is waived is beyond that."""
    credit: dict[str, int] = defaultdict(int)
    held: dict[tuple[str, str], int] = defaultdict(int)
    owed = 0
    for _, group in groupby(entries, key=lambda entry: entry.seq):
        waived = False
        for entry in group:
            if entry.account == "credit":
                credit[entry.grant_id] += entry.micro_ecu
            elif entry.account == "held":
                held[entry.hold_id, entry.grant_id] += entry.micro_ecu
            elif entry.account == "overdraft":
                owed -= entry.micro_ecu
            elif entry.account == "waived" and entry.kind == "settle":
                waived = True
        assert min(credit.values(), default=0) >= 0 and min(held.values(), default=0) >= 0, entry
        assert 0 <= owed <= limit and (owed == limit or not waived), entry
