"""What takes a transaction back."""

from __future__ import annotations

from sqlalchemy import func, select

from byok.control.tables import ledger_entry, ledger_grant
from byok.ledger.books import Books, credit_of
from byok.ledger.chain import Leg, Transaction
from byok.ledger.draw import order
from byok.ledger.errors import NotReversible
from byok.money import ecu


def mirrored(books: Books, taken: Transaction) -> list[Leg]:
    """The entries that take a top-up, a grant or a settlement back.

    Raises:
        NotReversible: It is of another kind, or the credit of a top-up is no longer there.
    """
    if taken.kind in ("top_up", "grant"):
        (credit,) = [leg for leg in taken.legs if leg.account == "credit" and leg.micro_ecu > 0]
        left = next((one.left for one in books.credits() if one.id == credit.grant_id), 0)
        if left < credit.micro_ecu:
            raise NotReversible(f"of that credit, {ecu(left)} ECU are left", hint="what was used, held or has expired cannot be taken back")
        return [Leg("credit", -credit.micro_ecu, credit.grant_id), Leg("wash", credit.micro_ecu)]
    if taken.kind != "settle":
        raise NotReversible(f"a transaction of kind {taken.kind} cannot be taken back", hint="only top-ups, grants and settlements can")
    legs, owed = [], 0
    for leg in taken.legs:
        if leg.account == "usage" and leg.grant_id is not None:
            legs += [Leg("usage", -leg.micro_ecu, leg.grant_id), Leg("credit", leg.micro_ecu, leg.grant_id)]
        elif leg.account == "usage":
            legs.append(Leg("usage", -leg.micro_ecu))
        elif leg.account == "waived" or (leg.account == "overdraft" and leg.micro_ecu < 0):
            legs.append(Leg(leg.account, -leg.micro_ecu))
            owed -= leg.micro_ecu if leg.account == "overdraft" else 0
    return legs + _refunded(books, owed - books.account.overdrawn)


def _refunded(books: Books, paid: int) -> list[Leg]:
    """What was paid already of a debt that is no more goes back to grants that have paid debts: to the one that is drawn on last, first."""
    if paid <= 0:
        return []
    repaid = (
        select(ledger_entry.c.grant_id, func.sum(ledger_entry.c.micro_ecu).label("micro_ecu"))
        .where(ledger_entry.c.org_id == books.org_id, ledger_entry.c.account == "overdraft", ledger_entry.c.grant_id.is_not(None))
        .group_by(ledger_entry.c.grant_id)
        .subquery()
    )
    rows = books.connection.execute(
        select(ledger_grant, repaid.c.micro_ecu.label("repaid")).join(repaid, repaid.c.grant_id == ledger_grant.c.id)
    )
    able = {row.id: (credit_of(row), int(row.repaid)) for row in rows}
    legs = []
    for credit, most in sorted(able.values(), key=lambda one: order(one[0]), reverse=True):
        part = min(paid, most)
        paid -= part
        legs += [Leg("overdraft", -part, credit.id), Leg("credit", part, credit.id)]
    return legs
