"""What runs do with credit: hold it before work, settle it afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import SQLAlchemyError

from byok.access import RUNS_WRITE, Actor, require
from byok.access.heads import Head, HeadsUnreadable
from byok.clock import utcnow
from byok.control.tables import ledger_hold, ledger_transaction
from byok.ids import natural_id
from byok.ledger.books import Books
from byok.ledger.chain import Leg, Transaction, body_of, hold_body
from byok.ledger.errors import HoldClosed, balance_too_low
from byok.ledger.reading import Hold, LedgerReader

HOLD_LIFETIME = timedelta(days=30)
"""How long a hold stays that nobody settles. What is settled later is drawn like any other usage."""

_log = logging.getLogger(__name__)


class LedgerHolds(LedgerReader):
    """The part of `Ledger` that runs use.

    Args:
        control: Where the ledgers are.
        key: What transactions are signed with.
        heads: Where their last signatures are remembered.
    """

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
                raise balance_too_low(micro_ecu, available)
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


def _unheld(books: Books, micro_ecu: int) -> list[Leg]:
    """Work for which nothing is held: drawn from what is available, then owed up to the limit; the platform bears the rest."""
    parts, lacking = books.drawn(micro_ecu)
    owed = min(lacking, books.account.room)
    drawn = [leg for grant, part in parts for leg in (Leg("credit", -part, grant), Leg("usage", part, grant))]
    return [*drawn, Leg("overdraft", -owed), Leg("waived", owed - lacking), Leg("usage", lacking)]
