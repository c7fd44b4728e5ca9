"""The ledger as a service: credit in, holds before work, settlements after it. Integer micro-ECU, double entry, nothing is ever changed.

An operation is written once: whoever asks again for the same gets what was written, whoever asks for something else under its name is
refused. What time does (grants expire, holds lapse) is written down by whoever comes next.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime
from decimal import Decimal

from sqlalchemy import insert

from byok.access import BILLING_WRITE, Actor, AuditLog, require
from byok.access.heads import Heads
from byok.control import ControlPlane
from byok.control.tables import ledger_grant
from byok.ids import natural_id, new_id
from byok.ledger.books import Books
from byok.ledger.chain import Leg, Terms, Transaction, body_of
from byok.ledger.draw import Kind
from byok.ledger.errors import BadGrantOfCredit, BadLedgerSetting, NotReversible
from byok.ledger.holds import LedgerHolds
from byok.ledger.reading import Balance
from byok.ledger.reversing import mirrored
from byok.money import USD_PLACES

WELCOME = "welcome"
"""The operation of an organisation's first credit."""


class Ledger(LedgerHolds):
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


def _storable(amount: Decimal) -> bool:
    """Whether the warehouse takes an amount as it is: one that it refuses would keep all entries from it."""
    return amount.is_finite() and 0 <= amount < 10**16 and amount == amount.quantize(USD_PLACES)


def _plain(text: str) -> bool:
    """Whether every database takes a text: no NUL, no half of a surrogate pair."""
    return not any(unicodedata.category(sign) in ("Cc", "Cs") for sign in text)


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
