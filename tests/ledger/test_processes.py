"""Eight processes write into one ledger at once, on SQLite and on PostgreSQL, under names that collide; some of them are killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict

import pytest
from sqlalchemy import select

from byok.app import Services
from byok.control.tables import ledger_alert, ledger_transaction
from byok.errors import ByokError
from byok_testing.ledger_workers import ENDS, Ask, Told, working
from byok_testing.ledgers import check_books, totals

pytestmark = pytest.mark.slow

WORKERS = 8


def operations(services: Services) -> dict[str, str]:
    """Id of the transaction of each operation, top-ups of the installation itself left out."""
    with services.control.read() as connection:
        rows = connection.execute(select(ledger_transaction.c.operation, ledger_transaction.c.id)).all()
    assert len({row.operation for row in rows}) == len(rows)
    return {row.operation: row.id for row in rows if row.operation != "welcome"}


def check_answers(services: Services, told: list[Told], *, killed: bool) -> None:
    """Each acknowledged operation is there once, as it was acknowledged; nothing is there that nobody asked for."""
    org, written = services.actor.org_id, operations(services)
    acknowledged: dict[str, set[str]] = defaultdict(set)
    asked: dict[str, set[int]] = defaultdict(set)
    for one in told:
        operation = one.ask.operation(org)
        asked[operation].add(one.ask.micro_ecu)
        if one.answer is not None:
            acknowledged[operation].add(one.answer)
    refusals = {"BalanceTooLow", "HoldClosed", "HoldNotFound", "NotReversible", "TransactionNotFound", "OperationConflict"}
    assert {one.error for one in told if one.error is not None} <= refusals
    for operation, answers in acknowledged.items():
        (answer,) = answers  # whoever asked was told the same
        assert operation in written
        assert operation.startswith("hold:") or answer == written[operation]
    assert set(written) <= set(asked)
    if not killed:
        assert set(written) == set(acknowledged)
    settled = {}
    for one in told:
        if one.answer is not None and one.ask.act in ("settle", "reverse"):
            key = one.ask.act, one.ask.hold_id(org)
            assert settled.setdefault(key, one.ask.micro_ecu) == one.ask.micro_ecu or one.ask.act == "reverse"
    used = sum(micro for (act, hold), micro in settled.items() if act == "settle" and ("reverse", hold) not in settled)
    if not killed:
        assert totals(services, org)["usage"] == used


FIRST = (Ask("top_up", "t", 15_000), Ask("hold", "z0", 10), Ask("hold", "z1", 10))


def enough(services: Services) -> None:
    """Some credit and two holds to begin with, and a small overdraft."""
    services.ledger.change_settings(services.actor, overdraft_limit=3_000)
    for ask in FIRST:
        ask.do(services)


def test_what_eight_processes_write_at_once_is_there_once(shared, tmp_path):
    enough(shared)
    with working(tmp_path / "told", WORKERS, 30) as workers:
        pass
    told = workers.told()
    assert len(told) == WORKERS * (30 + len(ENDS)) and all(one.answer or one.error for one in told)
    assert {one.ask.act for one in told if one.answer} == {"top_up", "hold", "settle", "release", "reverse"}
    assert any(one.error == "OperationConflict" for one in told)
    told += [Told(ask, ask.do(shared), None) for ask in FIRST]  # again: what is there already
    check_answers(shared, told, killed=False)
    check_books(shared, shared.ledger, shared.actor)


def test_what_killed_processes_had_acknowledged_is_there_and_what_they_had_not_is_there_once_or_not_at_all(shared, tmp_path):
    enough(shared)
    chance = random.Random(7)
    with working(tmp_path / "told", WORKERS, 40) as workers:
        while len(workers.pids()) < WORKERS or workers.answers() < 40:
            assert workers.child.poll() is None
            time.sleep(0.02)
        for pid in workers.pids()[:5]:
            os.kill(pid, signal.SIGKILL)
            time.sleep(chance.random() / 10)
    told = workers.told()
    dying = [one for one in told if one.answer is None and one.error is None]
    assert dying and all(one.ask.operation(shared.actor.org_id) for one in dying)
    told += [Told(ask, ask.do(shared), None) for ask in FIRST]  # again: what is there already
    check_answers(shared, told, killed=True)
    check_books(shared, shared.ledger, shared.actor)
    # Whoever takes over asks again for what had no answer.
    before = operations(shared)
    for one in dying:
        try:
            answer = one.ask.do(shared)
        except ByokError:
            continue
        operation = one.ask.operation(shared.actor.org_id)
        assert one.ask.act == "hold" or answer == before.get(operation, answer)
    after = operations(shared)
    assert before.items() <= after.items() and set(after) - set(before) <= {one.ask.operation(shared.actor.org_id) for one in dying}
    check_books(shared, shared.ledger, shared.actor)


def test_a_crossing_is_warned_of_once_whoever_crosses_it(shared, tmp_path):
    """Holds for all that there is, settled by eight processes: each threshold has one row."""
    ledger, actor = shared.ledger, shared.actor
    credit = ledger.top_up(actor, 1_000_000, operation="ttt").legs[1].micro_ecu
    left = ledger.balance(actor).left
    asks = [Ask("hold", f"w{number}", left // 64) for number in range(64)]
    for ask in asks:
        ask.do(shared)
    with working(tmp_path / "told", WORKERS, 8, also="settle") as workers:
        pass
    assert credit and len(workers.told()) == 64
    check_books(shared, ledger, actor)
    with shared.control.read() as connection:
        warned = connection.execute(select(ledger_alert.c.percent, ledger_alert.c.left, ledger_alert.c.reference)).all()
    assert sorted(row.percent for row in warned) == [5, 20]
    assert all(row.left * 100 <= row.percent * row.reference and row.reference == left for row in warned)
