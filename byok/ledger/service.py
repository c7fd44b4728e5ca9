"""The ledger as a service: credit in, holds before work, settlements after it. Integer micro-ECU, double entry, nothing is ever changed.

An operation is written once: whoever asks again for the same gets what was written, whoever asks for something else under its name is
refused. What time does (grants expire, holds lapse) is written down by whoever comes next.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import SQLAlchemyError

from byok.access import BILLING_WRITE, RUNS_WRITE, Actor, AuditLog, require
from byok.access.heads import Head, Heads, HeadsUnreadable
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import ledger_grant, ledger_hold, ledger_transaction
from byok.ids import natural_id, new_id
from byok.ledger.books import Books
from byok.ledger.chain import Leg, Terms, Transaction, body_of, hold_body
from byok.ledger.draw import Kind
from byok.ledger.errors import BadGrantOfCredit, BadLedgerSetting, BalanceTooLow, HoldClosed, NotReversible
from byok.ledger.reading import Balance, Hold, LedgerReader
from byok.ledger.reversing import mirrored
from byok.money import USD_PLACES, ecu

HOLD_LIFETIME = timedelta(days=30)
"""How long a hold stays that nobody settles. What is settled later is drawn like any other usage."""

WELCOME = "welcome"
"""The operation of an organisation's first credit."""

_log = logging.getLogger(__name__)


class Ledger(LedgerReader):
    """The ECU ledgers of all organisations of a control plane.

    Args:
        control: Where they are.
        audit: Where top-ups, reversals and settings are recorded.
        key: What transactions are signed with.
        heads: Where their last signatures are remembered.
    """

    def __init__(self, control: ControlPlane, audit: AuditLog, key: bytes, heads: Heads) -> None:
        super().__init__(control, key, heads)
        self._audit = audit

    def __repr__(self) -> str:
        return "Ledger()"

    def top_up(
        self,
        actor: Actor,
        micro_ecu: int,
        *,
        kind: Kind = "paid",
        operation: str | None = None,
        paid_usd: Decimal | None = None,
        note: str = "",
        priority: int = 10,
        effective_at: datetime | None = None,
        expires_at: datetime | None = None,
    ) -> Transaction:
        """Add credit.

        Args:
            actor: Who adds it.
            micro_ecu: How much.
            kind: paid (a purchase) or promotional (a gift, drawn first).
            operation: Name by which asking again is told from asking twice; by default each call is one of its own.
            paid_usd: What was paid for it, in US dollars.
            note: What it is for.
            priority: From 1 to 1000; the lower is drawn first among what expires together.
            effective_at: From when it can be drawn; by default at once.
            expires_at: When what is left of it is lost; by default never.

        Raises:
            NotPermitted: The actor lacks `billing:write`.
            BadGrantOfCredit: An amount, a time or a priority that cannot be.
            OperationConflict: The operation was written before, for something else.
        """
        require(actor, BILLING_WRITE, "ledger.top_up")
        if not 0 < micro_ecu < 10**15:
            raise BadGrantOfCredit("credit must be more than nothing, and less than 1,000,000,000 ECU", hint="give an amount such as 100")
        if not 1 <= priority <= 1000:
            raise BadGrantOfCredit(f"priority {priority} is not from 1 to 1000", hint="10 is usual; the lower is drawn first")
        if paid_usd is not None and not _storable(paid_usd):
            raise BadGrantOfCredit("what was paid cannot be stored exactly", hint="use at most 16 whole digits and 12 decimals")
        if len(operation or "") > 150 or not all(map(_plain, (operation or "", note))):
            raise BadGrantOfCredit(
                "the name of an operation has at most 150 characters, and it and the note no control characters", hint="write plain text"
            )
        operation = f"top_up:{operation or new_id()}"
        terms = Terms(micro_ecu, kind, paid_usd, note, priority, effective_at, expires_at)
        with self._audit.act(actor, "ledger.top_up", operation, micro_ecu=micro_ecu, kind=kind) as connection:
            posted = _add(self._books(connection, actor.org_id, actor.member_id), operation, terms)
        self._remember(posted)
        return posted

    def welcome(self, org_id: str, micro_ecu: int) -> None:
        """Give a new organisation its first credit; once, whoever asks how often. Making the organisation is audited, and this with it."""
        with self._control.write(queue=org_id) as connection:
            books = self._books(connection, org_id, None)
            if books.named(WELCOME) is not None:
                return
            posted = _add(books, WELCOME, Terms(micro_ecu, "promotional", None, "welcome", 10, None, None))
        self._remember(posted)

    def hold(self, actor: Actor, operation: str, micro_ecu: int, *, run_id: str | None = None, lifetime: timedelta = HOLD_LIFETIME) -> Hold:
        """Keep credit for work that is about to begin.

        Args:
            actor: For whom.
            operation: Name of the hold; the same one again gives the same hold.
            micro_ecu: The most that the work can cost.
            run_id: The run.
            lifetime: After which it lapses.

        Raises:
            NotPermitted: The actor lacks `runs:write`.
            BalanceTooLow: There is less.
            OperationConflict: The operation was written before, for something else.
        """
        require(actor, RUNS_WRITE, "ledger.hold")
        if micro_ecu <= 0:
            raise ValueError("a hold is for more than nothing")
        operation, body = f"hold:{operation}", hold_body(micro_ecu, run_id, lifetime)
        hold_id = natural_id("hold", actor.org_id, operation)
        with self._writing(actor) as books:
            if books.written(operation, body) is not None:
                row = self._row(books.connection, actor.org_id, hold_id)
                return Hold(row.id, row.run_id, row.micro_ecu, row.state)
            # What is owed comes first, also where credit has taken effect since.
            if (available := books.drawable() - books.account.overdrawn) < micro_ecu:
                raise BalanceTooLow(
                    f"the work may cost {ecu(micro_ecu)} ECU, and {ecu(available)} ECU are available",
                    hint="byok bill topup ECU, wait for runs under way to end, or ask for less (--limit, --max-ecu)",
                    needed_micro_ecu=micro_ecu,
                    available_micro_ecu=available,
                )
            facts = {"id": hold_id, "org_id": actor.org_id, "run_id": run_id, "micro_ecu": micro_ecu, "state": "open"}
            books.connection.execute(insert(ledger_hold).values(facts | {"created_at": books.now, "expires_at": books.now + lifetime}))
            parts, _ = books.drawn(micro_ecu)
            legs = [leg for grant, part in parts for leg in (Leg("credit", -part, grant), Leg("held", part, grant))]
            books.post("hold", operation, body, legs, hold_id=hold_id, run_id=run_id)
        return Hold(hold_id, run_id, micro_ecu, "open")

    def settle(self, actor: Actor, hold_id: str, micro_ecu: int) -> Transaction:
        """Turn a hold into what the work did cost; the rest becomes available again.

        What the work cost beyond its hold is drawn from what is available, then owed up to the limit of the overdraft; the platform bears
        what comes on top.

        Args:
            actor: For whom.
            hold_id: The hold. One that has lapsed is settled too: nothing is kept for it any more.
            micro_ecu: What the work did cost.

        Raises:
            NotPermitted: The actor lacks `runs:write`.
            HoldNotFound: There is none.
            HoldClosed: It was released.
            OperationConflict: It was settled with another amount.
        """
        require(actor, RUNS_WRITE, "ledger.settle")
        if micro_ecu < 0:
            raise ValueError("work cannot cost less than nothing")
        operation, body = f"settle:{hold_id}", body_of(micro_ecu)
        with self._writing(actor) as books:
            if (before := books.written(operation, body)) is not None:
                return before
            row = self._row(books.connection, actor.org_id, hold_id)
            if row.state == "released":
                raise HoldClosed(f"hold {hold_id} was released", hint="take a new one")
            parts = books.parts_of(hold_id) if row.state == "open" else []
            legs, rest = [], micro_ecu
            for grant, part in parts:
                used = min(part, rest)
                rest -= used
                legs += [Leg("held", -part, grant), Leg("usage", used, grant), Leg("credit", part - used, grant)]
            books.close_hold(row, "settled", micro_ecu)
            legs += _unheld(books, rest)
            posted = books.post("settle", operation, body, legs, hold_id=hold_id, run_id=row.run_id)
            books.warn(row.run_id)
        self._remember(posted)
        return posted

    def spend(self, org_id: str, operation: str, micro_ecu: int) -> Transaction:
        """Draw what work did cost for which nothing was held, such as a probe; for a program that has asked already.

        Args:
            org_id: Whose credit.
            operation: What it is for; written once.
            micro_ecu: What it did cost.

        Raises:
            OperationConflict: The operation was written before, with another amount.
        """
        operation, body = f"spend:{operation}", body_of(micro_ecu)
        with self._control.write(queue=org_id) as connection:
            books = self._books(connection, org_id, None)
            if (before := books.written(operation, body)) is not None:
                return before
            posted = books.post("settle", operation, body, _unheld(books, micro_ecu))
            books.warn(None)
        self._remember(posted)
        return posted

    def release(self, actor: Actor, hold_id: str) -> Transaction:
        """Give up a hold whose work was not done.

        Raises:
            NotPermitted: The actor lacks `runs:write`.
            HoldNotFound: There is none.
            HoldClosed: It was settled, or has lapsed.
        """
        require(actor, RUNS_WRITE, "ledger.release")
        operation, body = f"release:{hold_id}", body_of()
        with self._writing(actor) as books:
            if (before := books.written(operation, body)) is not None:
                return before
            row = self._row(books.connection, actor.org_id, hold_id)
            if row.state != "open":
                raise HoldClosed(f"hold {hold_id} is {row.state}", hint="only an open hold can be released")
            books.close_hold(row, "released")
            return books.post("release", operation, body, books.back(books.parts_of(hold_id)), hold_id=hold_id, run_id=row.run_id)

    def reverse_credit(self, actor: Actor, transaction_id: str, reason: str) -> Transaction:
        """Take a top-up or a grant back (see `reverse`), and nothing else: a settlement alone would leave the bill of its run as it is.

        Raises:
            NotPermitted: The actor lacks `billing:write`.
            TransactionNotFound: There is none.
            NotReversible: It is of another kind, or its credit is no longer there.
        """
        require(actor, BILLING_WRITE, "ledger.reverse")
        with self._control.read() as connection:
            kind = self._transaction(connection, actor.org_id, transaction_id).kind
        if kind == "settle":
            raise NotReversible("this is what a run was charged", hint="byok bill refund RUN takes it back, with the lines of its bill")
        return self.reverse(actor, transaction_id, reason)

    def reverse(self, actor: Actor, transaction_id: str, reason: str) -> Transaction:
        """Take a top-up or a settlement back, by entries that mirror it.

        Args:
            actor: Who takes it back.
            transaction_id: The transaction.
            reason: Why, for the audit log.

        Raises:
            NotPermitted: The actor lacks `billing:write`.
            TransactionNotFound: There is none.
            NotReversible: It is of another kind, or the credit of a top-up is no longer there.
        """
        require(actor, BILLING_WRITE, "ledger.reverse")
        operation, body = f"reverse:{transaction_id}", body_of()
        with self._audit.act(actor, "ledger.reverse", transaction_id, reason=reason) as connection:
            books = self._books(connection, actor.org_id, actor.member_id)
            if (before := books.written(operation, body)) is not None:
                return before
            taken = self._transaction(connection, actor.org_id, transaction_id)
            legs = mirrored(books, taken)
            posted = books.post("reverse", operation, body, legs, hold_id=taken.hold_id, run_id=taken.run_id, reverses=taken.id)
        self._remember(posted)
        return posted

    def change_settings(
        self, actor: Actor, *, overdraft_limit: int | None = None, thresholds: tuple[int, ...] | None = None, webhook: str | None = None
    ) -> Balance:
        """Change the limit of the overdraft, the thresholds of the warnings, or where they are posted to; None leaves one as it is.

        Args:
            actor: Who changes them.
            overdraft_limit: Micro-ECU that work under way may cost beyond all credit.
            thresholds: Percents of what there was after the last top-up.
            webhook: URL; an empty text for none.

        Raises:
            NotPermitted: The actor lacks `billing:write`.
            BadLedgerSetting: One that cannot be.
        """
        require(actor, BILLING_WRITE, "ledger.settings")
        if overdraft_limit is not None and not 0 <= overdraft_limit < 10**15:
            raise BadLedgerSetting("an overdraft is limited to nothing or more", hint="give ECU, such as 10")
        if thresholds is not None and not all(0 < one < 100 for one in thresholds):
            raise BadLedgerSetting("thresholds are percents between 1 and 99", hint="give them like --warn 20 --warn 5")
        changes: dict[str, object] = {} if overdraft_limit is None else {"overdraft_limit": overdraft_limit}
        if thresholds is not None:
            changes["thresholds"] = tuple(sorted(set(thresholds), reverse=True))
        if webhook is not None:
            changes["webhook"] = webhook or None
        told = {name: list(value) if isinstance(value, tuple) else value for name, value in changes.items() if name != "webhook"}
        with self._audit.act(actor, "ledger.settings", actor.org_slug, **told) as connection:
            self._books(connection, actor.org_id, actor.member_id).change(**changes)
        return self.balance_of(actor.org_id)

    @contextmanager
    def _writing(self, actor: Actor) -> Iterator[Books]:
        with self._control.write(queue=actor.org_id) as connection:
            yield self._books(connection, actor.org_id, actor.member_id)

    def _books(self, connection: Connection, org_id: str, member_id: str | None) -> Books:
        books = Books(connection, org_id, self._key, utcnow(), member_id)
        books.sweep()
        return books

    def _remember(self, posted: Transaction) -> None:
        """Keep the head of a chain; holds and releases are covered by what follows them."""

        def holds(seen: Head) -> bool:
            if seen == (posted.seq - 1, posted.previous):
                return True
            with self._control.read() as connection:
                mac = connection.execute(
                    select(ledger_transaction.c.mac).where(
                        ledger_transaction.c.org_id == posted.org_id, ledger_transaction.c.seq == seen[0]
                    )
                ).scalar()
            return mac == seen[1]

        try:
            self._heads.keep(posted.org_id, (posted.seq, posted.mac), holds)
        except (OSError, HeadsUnreadable, SQLAlchemyError) as error:
            # The entries are committed, and must not look as if they were not; `verify` says that the file is damaged.
            _log.warning("the head of the ledger was not kept in %s: %s", self._heads.path, type(error).__name__)


def _storable(amount: Decimal) -> bool:
    """Whether the warehouse takes an amount as it is: one that it refuses would keep all entries from it."""
    return amount.is_finite() and 0 <= amount < 10**16 and amount == amount.quantize(USD_PLACES)


def _plain(text: str) -> bool:
    """Whether every database takes a text: no NUL, no half of a surrogate pair."""
    return not any(unicodedata.category(sign) in ("Cc", "Cs") for sign in text)


def _unheld(books: Books, micro_ecu: int) -> list[Leg]:
    """Work for which nothing is held: drawn from what is available, then owed up to the limit; the platform bears the rest."""
    parts, lacking = books.drawn(micro_ecu)
    owed = min(lacking, books.account.room)
    drawn = [leg for grant, part in parts for leg in (Leg("credit", -part, grant), Leg("usage", part, grant))]
    return [*drawn, Leg("overdraft", -owed), Leg("waived", owed - lacking), Leg("usage", lacking)]


def _add(books: Books, operation: str, terms: Terms) -> Transaction:
    """Write new credit, unless it was written before."""
    body = terms.body()
    if (before := books.written(operation, body)) is not None:
        return before
    # After the look-up: what was written stays the answer, also when it has expired since.
    if terms.expires_at is not None and terms.expires_at <= max(terms.effective_at or books.now, books.now):
        raise BadGrantOfCredit("credit that expires before it takes effect", hint="give a later time of expiry")
    grant_id = new_id()  # in the order of their making, which is how those that are alike are drawn on
    books.connection.execute(
        insert(ledger_grant).values(
            id=grant_id,
            org_id=books.org_id,
            transaction_id=natural_id("ledger", books.org_id, operation),
            kind=terms.kind,
            priority=terms.priority,
            micro_ecu=terms.micro_ecu,
            left=0,
            paid_usd=terms.paid_usd,
            note=terms.note,
            effective_at=terms.effective_at or books.now,
            expires_at=terms.expires_at,
            created_at=books.now,
        )
    )
    legs = [Leg("wash", -terms.micro_ecu), Leg("credit", terms.micro_ecu, grant_id)]
    posted = books.post("top_up" if terms.kind == "paid" else "grant", operation, body, legs)
    books.change(reference=max(books.account.left, 0), warned=None)
    return posted
