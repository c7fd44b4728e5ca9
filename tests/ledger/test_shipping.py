"""The warehouse shows the ledger that the control plane has: each entry once, whoever ships it and how often."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import select

from byok.access.heads import Heads
from byok.control.tables import ledger_entry, ledger_grant, ledger_transaction
from byok.ledger import Ledger, ship
from byok.ledger.books import snapshot
from byok_testing.ledger_workers import working
from byok_testing.ledgers import Clock, check_books, totals

ENTRY = ("transaction_id", "number", "account", "grant_id", "micro_ecu")
OF_TRANSACTION = ("seq", "kind", "operation", "hold_id", "run_id", "reverses", "member_id", "mac")
GRANT = ("kind", "priority", "micro_ecu", "paid_usd", "note", "effective_at", "expires_at", "created_at")


def shipped(services):
    """Ship and load."""
    any_new = ship(services.control, services.warehouse, services.actor.org_id)
    assert services.warehouse.drain().rejected == 0
    return any_new


def check_warehouse(services):
    """Entries, grants and balances are those of the control plane."""
    query, org = services.warehouse.query, services.actor.org_id
    with services.control.read() as connection:
        entries = connection.execute(
            select(ledger_entry, *(ledger_transaction.c[name] for name in (*OF_TRANSACTION, "at")))
            .join(ledger_transaction, ledger_transaction.c.id == ledger_entry.c.transaction_id)
            .order_by(ledger_transaction.c.seq, ledger_entry.c.number)
        ).all()
        grants = connection.execute(select(ledger_grant).order_by(ledger_grant.c.id)).all()
    names = (*ENTRY, *OF_TRANSACTION)
    there = query(f"SELECT {', '.join(names)}, occurred_at FROM v1.ledger WHERE org_id = ? ORDER BY seq, number", [org]).rows
    assert there == [(*(getattr(one, name) for name in names), one.at) for one in entries]
    assert query("SELECT transaction_id FROM v1.ledger GROUP BY ALL HAVING sum(micro_ecu) <> 0").rows == []
    assert query("SELECT count(*) - count(DISTINCT entry_id) FROM v1.ledger").rows == [(0,)]
    granted = query(f"SELECT grant_id, {', '.join(GRANT)}, available_micro_ecu FROM v1.grants ORDER BY grant_id").rows
    assert granted == [(one.id, *(getattr(one, name) for name in GRANT), one.left) for one in grants]
    told, summed = services.ledger.balance(services.actor), totals(services, org)
    (balance,) = query("SELECT * FROM v1.balance WHERE org_id = ?", [org]).dicts()
    assert balance["available_micro_ecu"] == told.available + told.pending
    assert (balance["held_micro_ecu"], balance["overdrawn_micro_ecu"]) == (told.held, told.overdrawn)
    assert (balance["used_micro_ecu"], balance["expired_micro_ecu"]) == (summed["usage"], summed["breakage"])
    assert balance["granted_micro_ecu"] == -summed["wash"]
    assert {one.id: one.left for one in told.grants} == {row[0]: row[-1] for row in granted if row[-1]}
    check_books(services, services.ledger, services.actor)


def test_what_is_shipped_is_what_was_written_however_often(services, monkeypatch):
    clock, actor, ledger = Clock(monkeypatch), services.actor, services.ledger
    hour = timedelta(hours=1)
    assert not shipped(services)  # the first credit was shipped when the installation was made
    check_warehouse(services)
    ledger.top_up(actor, 50, kind="promotional", expires_at=clock.now + 2 * hour, note="gift")
    ledger.top_up(actor, 30, effective_at=clock.now + 9 * hour)
    kept = ledger.hold(actor, "a", 20, run_id="run-1")
    assert shipped(services)
    check_warehouse(services)
    ledger.settle(actor, kept.id, 12)
    ledger.hold(actor, "b", 8, run_id="run-2")
    clock.move(3 * hour)
    ledger.settle(actor, ledger.hold(actor, "c", 1).id, 1_020_000_000)  # more than there is, and may be owed
    assert shipped(services) and not shipped(services)
    check_warehouse(services)
    ledger.reverse(actor, ledger.settlements(actor, "run-1")[0].id, "mistaken")
    ledger.change_settings(actor)
    # Twice before either is loaded.
    assert ship(services.control, services.warehouse, actor.org_id) and ship(services.control, services.warehouse, actor.org_id)
    assert services.warehouse.drain().segments == 2
    check_warehouse(services)


@pytest.mark.slow
def test_what_several_processes_ship_while_they_write_is_there_once(shared, tmp_path):
    shared.ledger.top_up(shared.actor, 15_000)
    with working(tmp_path / "told", 4, 25, also="ship"):
        pass
    shipped(shared)
    assert not shipped(shared)
    check_warehouse(shared)


@pytest.fixture
def unfinished(shared):
    """Lets a second writer in between two statements of whoever reads: after the first, it writes credit, once."""
    other = Ledger(shared.control, shared.audit, shared.ledger._key, Heads(shared.home.ledger_heads))
    real, done = shared.control.engine, []

    from sqlalchemy import event

    def after(connection, cursor, statement, *rest):
        if statement.lstrip().startswith("SELECT ledger_") and not done:
            done.append(statement)
            writer = threading.Thread(target=lambda: other.top_up(shared.actor, 7))
            writer.start()
            writer.join()

    shared.ledger.top_up(shared.actor, 1_000)
    event.listen(real, "after_cursor_execute", after)
    yield done
    event.remove(real, "after_cursor_execute", after)


def test_whoever_writes_meanwhile_is_no_forger(shared, unfinished):
    assert shared.ledger.verify(shared.actor).bad is None
    assert unfinished


def test_a_balance_is_of_one_time(shared, unfinished):
    told = shared.ledger.balance(shared.actor)
    assert unfinished and told.available == 1_000 and told.seq == shared.ledger.balance(shared.actor).seq - 1


def test_what_is_written_while_others_ship_is_shipped_next_with_its_grant(shared, unfinished):
    shipped(shared)
    assert unfinished and shipped(shared)
    check_warehouse(shared)
    with snapshot(shared.control) as connection:
        assert len(connection.execute(select(ledger_grant.c.id)).all()) == 2
