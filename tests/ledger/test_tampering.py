"""Whoever changes the ledger with SQL is named the first bad row: each column, deletions, insertions, swaps, cut tails, old copies."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from decimal import Decimal

import pytest

from byok.access import read_signing_key
from byok.access.heads import Heads
from byok.control.tables import ledger_entry, ledger_grant, ledger_hold, ledger_transaction
from byok.ledger import Ledger, Verified
from byok_testing.ledgers import Clock, check_books

MICRO = 1_000_000
PUT_BACK = "of the account too"


class Book:
    """A ledger with a little of everything in it, and the database under it."""

    def __init__(self, services, clock):
        self.services, self.actor, self.ledger, self.org = services, services.actor, services.ledger, services.actor.org_id
        act, later = services.ledger, clock.now + timedelta(days=90)
        act.top_up(self.actor, 5, kind="promotional", operation="a", expires_at=later, note="gift")
        self.gift = self.newest("ledger_grant")
        act.top_up(self.actor, 20, operation="b", paid_usd=Decimal("1.50"), effective_at=clock.now - timedelta(days=1))
        self.bought = self.newest("ledger_grant")
        act.top_up(self.actor, 7, operation="c", expires_at=clock.now + timedelta(hours=1), priority=3)
        self.spent = self.newest("ledger_grant")
        self.settled = act.hold(self.actor, "settled", 12, run_id="run-1").id
        act.settle(self.actor, self.settled, 9)
        self.released = act.hold(self.actor, "released", 2, run_id="run-2").id
        act.release(self.actor, self.released)
        self.lapsed = act.hold(self.actor, "lapsed", 2, lifetime=timedelta(hours=2)).id
        clock.move(timedelta(hours=3))
        self.open = act.hold(self.actor, "open", 3, run_id="run-3").id
        over = act.hold(self.actor, "over", 1).id
        act.reverse(self.actor, act.settle(self.actor, over, 4).id, "mistaken")
        self.last = act.balance(self.actor).seq
        check_books(services, act, self.actor)

    def sql(self, query, *values):
        with closing(sqlite3.connect(self.services.home.data / "control.db")) as db, db:
            return db.execute(query, values).fetchall()

    def newest(self, table):
        return self.sql(f"SELECT id FROM {table} ORDER BY rowid DESC LIMIT 1")[0][0]

    def transaction(self, seq):
        return self.sql("SELECT id FROM ledger_transaction WHERE org_id = ? AND seq = ?", self.org, seq)[0][0]

    def found(self):
        return self.ledger.verify(self.actor)

    def account_as_of(self, seq):
        """The account's row, made to fit the first transactions."""
        until = "FROM ledger_entry e JOIN ledger_transaction t ON t.id = e.transaction_id WHERE t.org_id = ?1 AND t.seq <= ?2"
        self.sql(
            "UPDATE ledger_account SET seq = ?2, mac = (SELECT mac FROM ledger_transaction WHERE org_id = ?1 AND seq = ?2), "
            + ", ".join(
                f"{column} = (SELECT {sign}coalesce(sum(micro_ecu), 0) {until} AND account = '{name}')"
                for column, sign, name in (("available", "", "credit"), ("held", "", "held"), ("overdrawn", "-", "overdraft"))
            )
            + " WHERE org_id = ?1",
            self.org,
            seq,
        )


@pytest.fixture(scope="module")
def written(installed, tmp_path_factory):
    """A book, and copies of its database and of its file of heads as it was written."""
    folder = tmp_path_factory.mktemp("book")
    with pytest.MonkeyPatch.context() as patch:
        made = Book(installed, Clock(patch))
        home = installed.home
        with closing(sqlite3.connect(home.data / "control.db")) as db, closing(sqlite3.connect(folder / "copy.db")) as copy:
            db.backup(copy)
        shutil.copy(home.ledger_heads, folder / "heads.json")
        yield made, folder


@pytest.fixture
def book(written):
    """The book, untouched."""
    made, folder = written
    home = made.services.home
    with closing(sqlite3.connect(home.data / "control.db")) as db, closing(sqlite3.connect(folder / "copy.db")) as copy:
        db.execute("PRAGMA synchronous=OFF")
        copy.backup(db)
    shutil.copy(folder / "heads.json", home.ledger_heads)
    return made


def test_an_untouched_ledger_is_whole(book):
    assert book.found() == Verified(book.last)


FALSE = {
    "org_id": "somebody-else",
    "seq": 99,
    "at": "2020-01-01T00:00:00.000000+00:00",
    "effective_at": "2031-01-01T00:00:00.000000+00:00",
    "created_at": "2020-01-01T00:00:00.000000+00:00",
    "expires_at": "2032-01-01T00:00:00.000000+00:00",
    "priority": 1,
    "number": 99,
    "micro_ecu": 1_000,
    "left": 1_000,
    "used": 1,
    "paid_usd": "0.01",
    "kind": "other",
    "state": "other",
}


def edits(table):
    return [(column.name, FALSE.get(column.name, "forged")) for column in table.columns]


FIFTH = 5  # the settlement


@pytest.mark.parametrize(("column", "value"), edits(ledger_transaction))
def test_a_transaction_whose_column_was_edited_is_named(book, column, value):
    book.sql(f"UPDATE ledger_transaction SET {column} = ? WHERE org_id = ? AND seq = ?", value, book.org, FIFTH + 2)
    found = book.found()
    assert (found.bad, found.transactions) == (f"ledger_transaction {FIFTH + 2}", FIFTH + 1) and found.reason


@pytest.mark.parametrize(("column", "value"), edits(ledger_entry))
@pytest.mark.parametrize("last", [False, True])
def test_the_transaction_whose_entry_was_edited_is_named(book, column, value, last):
    number = "(SELECT max(number) FROM ledger_entry WHERE transaction_id = ?2)" if last else "1"
    ((count,),) = book.sql("SELECT count(*) FROM ledger_entry WHERE transaction_id = ?", book.transaction(FIFTH))
    found_one = f"UPDATE ledger_entry SET {column} = ?1 WHERE transaction_id = ?2 AND number = {number}"
    book.sql(found_one, value, book.transaction(FIFTH))
    found = book.found()
    assert found.bad in (f"ledger_transaction {FIFTH}", f"ledger_entry {FIFTH}/{count if last else 1}"), found
    assert found.transactions == FIFTH - 1


def test_an_edit_that_leaves_the_sum_at_zero_is_named(book):
    for number, change in ((1, 1), (2, -1)):
        book.sql(
            "UPDATE ledger_entry SET micro_ecu = micro_ecu + ? WHERE transaction_id = ? AND number = ?", change, book.transaction(2), number
        )
    assert book.found().bad == "ledger_transaction 2"


def delete(book):
    book.sql("DELETE FROM ledger_entry WHERE transaction_id = ?", book.transaction(FIFTH))
    book.sql("DELETE FROM ledger_transaction WHERE org_id = ? AND seq = ?", book.org, FIFTH)


def delete_and_close_up(book):
    delete(book)
    for seq in range(FIFTH + 1, book.last + 1):
        book.sql("UPDATE ledger_transaction SET seq = ? WHERE org_id = ? AND seq = ?", seq - 1, book.org, seq)
    book.account_as_of(book.last - 1)


def swap(book):
    for old, new in ((FIFTH, 99), (FIFTH + 1, FIFTH), (99, FIFTH + 1)):
        book.sql("UPDATE ledger_transaction SET seq = ? WHERE org_id = ? AND seq = ?", new, book.org, old)


def swap_entries(book):
    one = book.transaction(FIFTH)
    for old, new in ((1, 99), (2, 1), (99, 2)):
        book.sql("UPDATE ledger_entry SET number = ? WHERE transaction_id = ? AND number = ?", new, one, old)


def swap_entries_of_two(book):
    one, other = book.transaction(FIFTH), book.transaction(FIFTH + 1)
    for old, new in ((one, "x"), (other, one), ("x", other)):
        book.sql("UPDATE ledger_entry SET transaction_id = ? WHERE transaction_id = ?", new, old)


def delete_entry(book):
    book.sql("DELETE FROM ledger_entry WHERE transaction_id = ? AND number = 2", book.transaction(FIFTH))


def delete_entries(book):
    book.sql("DELETE FROM ledger_entry WHERE transaction_id = ?", book.transaction(FIFTH))


def insert_entry(book, number=50):
    book.sql(
        "INSERT INTO ledger_entry (transaction_id, number, org_id, account, grant_id, micro_ecu) VALUES (?, ?, ?, 'credit', ?, 100)",
        *(book.transaction(FIFTH), number, book.org, book.gift),
    )


def insert_entry_of_zero(book):
    insert_entry(book)
    book.sql("UPDATE ledger_entry SET micro_ecu = 0 WHERE number = 50")


def insert(book):
    for seq in range(book.last, FIFTH - 1, -1):
        book.sql("UPDATE ledger_transaction SET seq = ? WHERE org_id = ? AND seq = ?", seq + 1, book.org, seq)
    append(book, FIFTH, FIFTH - 1)


def append(book, seq=None, after=None):
    """A transaction that follows the one before it, but was not signed with the key."""
    names = "kind, operation, body, hold_id, run_id, reverses, member_id, at"
    book.sql(
        f"INSERT INTO ledger_transaction (id, org_id, seq, {names}, previous, mac) SELECT 'forged', org_id, ?, "
        f"{names.replace('operation', chr(39) + 'forged' + chr(39))}, mac, ? FROM ledger_transaction WHERE org_id = ? AND seq = ?",
        *(seq or book.last + 1, "ab" * 32, book.org, after or book.last),
    )


TRANSACTIONS = {
    "delete": (delete, FIFTH),
    "delete and close the gap": (delete_and_close_up, FIFTH),
    "reorder": (swap, FIFTH),
    "reorder entries": (swap_entries, FIFTH),
    "swap the entries of two": (swap_entries_of_two, FIFTH),
    "delete an entry": (delete_entry, FIFTH),
    "delete all entries of one": (delete_entries, FIFTH),
    "insert an entry": (insert_entry, FIFTH),
    "insert an entry of nothing": (insert_entry_of_zero, FIFTH),
    "insert": (insert, FIFTH),
    "append": (append, None),
}


@pytest.mark.parametrize(("tamper", "first"), TRANSACTIONS.values(), ids=TRANSACTIONS)
def test_the_first_transaction_that_is_not_what_was_written_is_named(book, tamper, first):
    tamper(book)
    found = book.found()
    first = first or book.last + 1
    assert (found.bad, found.transactions) == (f"ledger_transaction {first}", first - 1) and found.reason


def test_an_entry_without_a_transaction_is_named(book):
    book.sql("INSERT INTO ledger_entry VALUES ('nothing', 1, ?, 'credit', ?, 100)", book.org, book.gift)
    assert book.found().bad == "ledger_entry nothing/1"


@pytest.mark.parametrize("account", ["left as it was", PUT_BACK])
@pytest.mark.parametrize("cut", [1, 2, 4, 8])
def test_a_tail_that_was_cut_off_is_missing(book, account, cut):
    book.ledger.top_up(book.actor, 1, operation="the last")
    kept = book.last + 1 - cut
    gone = "(SELECT id FROM ledger_transaction WHERE org_id = ? AND seq > ?)"
    book.sql(f"DELETE FROM ledger_entry WHERE transaction_id IN {gone}", book.org, kept)
    book.sql("DELETE FROM ledger_transaction WHERE org_id = ? AND seq > ?", book.org, kept)
    if account == PUT_BACK:
        book.account_as_of(kept)
    found = book.found()
    assert (found.bad, found.transactions) == (f"ledger_transaction {kept + 1}", kept)


def test_a_ledger_that_was_emptied_is_missing(book):
    for table in ("ledger_entry", "ledger_transaction", "ledger_grant", "ledger_hold", "ledger_account"):
        book.sql(f"DELETE FROM {table}")
    assert book.found().bad == "ledger_transaction 1"


@pytest.mark.parametrize(("column", "value"), [one for one in edits(ledger_grant) if one[0] not in ("id", "org_id")])
@pytest.mark.parametrize("which", ["gift", "bought", "spent"])
def test_a_grant_whose_column_was_edited_is_named(book, which, column, value):
    grant = getattr(book, which)
    book.sql(f"UPDATE ledger_grant SET {column} = ? WHERE id = ?", value, grant)
    found = book.found()
    assert (found.bad, found.transactions) == (f"ledger_grant {grant}", book.last)


@pytest.mark.parametrize("which", ["gift", "spent"])
def test_a_grant_that_takes_effect_at_another_time_than_it_was_made_is_named(book, which):
    """Both times moved alike: it still looks as if it had been meant to take effect at once."""
    grant = getattr(book, which)
    book.sql("UPDATE ledger_grant SET effective_at = ?1, created_at = ?1 WHERE id = ?2", FALSE["effective_at"], grant)
    assert book.found().bad == f"ledger_grant {grant}"


@pytest.mark.parametrize(("change", "value"), [("id", "forged"), ("org_id", "somebody-else"), (None, None)])
@pytest.mark.parametrize("which", ["gift", "bought", "spent"])
def test_a_grant_that_is_gone_is_named(book, which, change, value):
    grant = getattr(book, which)
    if change is None:
        book.sql("DELETE FROM ledger_grant WHERE id = ?", grant)
    else:
        book.sql(f"UPDATE ledger_grant SET {change} = ? WHERE id = ?", value, grant)
    assert book.found().bad in (f"ledger_grant {grant}", "ledger_grant forged")


def test_a_grant_that_nobody_made_is_named(book):
    names = ", ".join(column.name for column in ledger_grant.columns if column.name != "id")
    book.sql(f"INSERT INTO ledger_grant (id, {names}) SELECT 'forged', {names} FROM ledger_grant WHERE id = ?", book.gift)
    assert book.found().bad == "ledger_grant forged"


@pytest.mark.parametrize(("column", "value"), [one for one in edits(ledger_hold) if one[0] not in ("id", "org_id")])
@pytest.mark.parametrize("which", ["settled", "released", "lapsed", "open"])
def test_a_hold_whose_column_was_edited_is_named(book, which, column, value):
    hold = getattr(book, which)
    book.sql(f"UPDATE ledger_hold SET {column} = ? WHERE id = ?", value, hold)
    assert book.found().bad == f"ledger_hold {hold}"


STATES = {"settled": "settled", "released": "released", "lapsed": "expired", "open": "open"}


@pytest.mark.parametrize("which", STATES)
@pytest.mark.parametrize("state", STATES.values())
def test_a_hold_in_another_state_is_named(book, which, state):
    hold = getattr(book, which)
    book.sql("UPDATE ledger_hold SET state = ? WHERE id = ?", state, hold)
    assert book.found().bad == (None if STATES[which] == state else f"ledger_hold {hold}")


@pytest.mark.parametrize("which", STATES)
def test_a_hold_that_is_gone_is_named(book, which):
    hold = getattr(book, which)
    book.sql("DELETE FROM ledger_hold WHERE id = ?", hold)
    assert book.found().bad == f"ledger_hold {hold}"


@pytest.mark.parametrize("column", ["seq", "mac", "available", "held", "overdrawn", "reference"])
def test_an_account_whose_balance_was_edited_is_named(book, column):
    book.sql(f"UPDATE ledger_account SET {column} = ? WHERE org_id = ?", "0" * 64 if column == "mac" else 999, book.org)
    found = book.found()
    assert (found.bad, found.transactions) == (f"ledger_account {book.org}", book.last)


def test_an_account_that_is_gone_is_named(book):
    book.sql("DELETE FROM ledger_account")
    assert book.found().bad == f"ledger_account {book.org}"


def test_an_old_copy_of_the_database_is_a_cut_tail(book, tmp_path):
    with (
        closing(sqlite3.connect(book.services.home.data / "control.db")) as db,
        closing(sqlite3.connect(tmp_path / "copy.db")) as copy,
    ):
        db.backup(copy)
        book.ledger.settle(book.actor, book.open, 3)
        copy.backup(db)
    found = book.found()
    assert (found.bad, found.transactions) == (f"ledger_transaction {book.last + 1}", book.last)
    # What is written on top of the old copy does not hide it: the head that was lost stays on record.
    book.ledger.settle(book.actor, book.open, 1)
    book.ledger.top_up(book.actor, 5)
    found = book.found()
    assert (found.bad, found.transactions) == (f"ledger_transaction {book.last + 1}", book.last)


def test_a_ledger_that_was_signed_with_another_key_is_not_ours(book):
    home = book.services.home
    other = Ledger(
        book.services.control, book.services.audit, read_signing_key(home.signing_key_file, "other-v1"), Heads(home.ledger_heads)
    )
    other.top_up(book.actor, 5)
    assert book.found().bad == f"ledger_transaction {book.last + 1}"
    assert other.verify(book.actor).bad == "ledger_transaction 1"


def test_a_transaction_of_another_organisation_is_not_ours(book):
    """Truly signed, and written in the place of one of ours."""
    book.sql("UPDATE ledger_transaction SET org_id = 'rival' WHERE org_id = ? AND seq = 2", book.org)
    found = book.found()
    assert (found.bad, found.transactions) == ("ledger_transaction 2", 1)


def test_without_the_file_of_heads_a_whole_ledger_is_whole_and_writes_a_new_one(book):
    home = book.services.home
    shutil.move(home.ledger_heads, home.ledger_heads.with_suffix(".away"))
    assert book.found().bad is None
    book.ledger.top_up(book.actor, 5)
    assert Heads(home.ledger_heads).read()[book.org][0] == book.last + 1
    assert book.found().bad is None
