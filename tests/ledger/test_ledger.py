"""What single operations do where a random sequence seldom comes: debts, late settlements, old names, bad amounts, warnings."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import count

import pytest
from sqlalchemy import select

from byok.access.members import create_org
from byok.control.tables import ledger_alert
from byok.errors import ByokError
from byok.ids import new_id
from byok.ledger import (
    BadGrantOfCredit,
    BadLedgerSetting,
    BalanceTooLow,
    HoldClosed,
    HoldNotFound,
    NotReversible,
    OperationConflict,
    TransactionNotFound,
    ship,
)
from byok_testing.ledgers import Clock, check_books, totals

HOUR = timedelta(hours=1)


_orgs = count(1)


@pytest.fixture
def desk(installed, monkeypatch):
    return Desk(installed, Clock(monkeypatch))


class Desk:
    """The ledger of a new organisation, whose owner need not be named."""

    def __init__(self, services, clock):
        self.services, self.ledger, self.clock = services, services.ledger, clock
        slug = f"org-{next(_orgs)}"
        created = create_org(services.control, slug, f"owner@{slug}.example", services.audit)
        self.actor = replace(services.actor, org_id=created.org_id, org_slug=slug, member_id=created.member_id)
        self.ledger.change_settings(self.actor, overdraft_limit=10)

    def __getattr__(self, name):
        return lambda *values, **named: getattr(self.ledger, name)(self.actor, *values, **named)

    def use(self, held, cost, run_id=None):
        """A hold and its settlement."""
        return self.settle(self.hold(new_id(), held, run_id=run_id).id, cost)

    def legs(self, posted):
        return [(leg.account, leg.micro_ecu) for leg in posted.legs]

    def check(self):
        check_books(self.services, self.ledger, self.actor)

    def warned(self):
        mine = select(ledger_alert.c.percent, ledger_alert.c.left).where(ledger_alert.c.org_id == self.actor.org_id)
        with self.services.control.read() as connection:
            return [tuple(row) for row in connection.execute(mine.order_by(ledger_alert.c.id))]


def test_credit_that_comes_in_pays_what_is_owed_first(desk):
    desk.top_up(20)
    posted = desk.use(20, 27)
    assert desk.legs(posted)[-2:] == [("overdraft", -7), ("usage", 7)]
    assert (desk.balance().available, desk.balance().overdrawn) == (-7, 7)
    with pytest.raises(BalanceTooLow):
        desk.hold("more", 1)
    paid = desk.top_up(5)
    assert desk.legs(paid) == [("wash", -5), ("credit", 5), ("credit", -5), ("overdraft", 5)]
    assert desk.balance().available == -2
    desk.top_up(30, kind="promotional")
    assert (desk.balance().available, desk.balance().overdrawn) == (28, 0)
    desk.check()


def test_what_costs_more_than_may_be_owed_is_waived(desk):
    desk.top_up(20)
    posted = desk.use(20, 100)
    assert desk.legs(posted)[-3:] == [("overdraft", -10), ("waived", -70), ("usage", 80)]
    assert desk.balance().overdrawn == 10
    assert totals(desk.services, desk.actor.org_id)["usage"] == 100
    desk.check()


def test_a_settlement_that_is_taken_back_after_its_debt_was_paid_gives_the_payment_back(desk):
    desk.top_up(20)
    posted = desk.use(20, 29)
    desk.top_up(4, expires_at=desk.clock.now + HOUR)
    last = desk.top_up(50)
    desk.reverse(posted.id, "mistaken")
    told = desk.balance()
    assert (told.available, told.overdrawn, [one.left for one in told.grants]) == (74, 0, [4, 20, 50])
    assert told.grants[-1].id == last.legs[1].grant_id
    desk.check()


def test_a_settlement_that_is_taken_back_while_its_debt_is_half_paid_cancels_the_rest(desk):
    desk.top_up(20)
    posted = desk.use(20, 29)
    desk.top_up(4)
    assert desk.balance().overdrawn == 5
    desk.reverse(posted.id, "mistaken")
    assert (desk.balance().available, desk.balance().overdrawn) == (24, 0)
    desk.check()


def test_grants_that_are_alike_are_drawn_on_in_the_order_of_their_making(desk):
    made = [desk.top_up(10, operation=f"o{number}").legs[1].grant_id for number in range(12)]
    assert [one.id for one in desk.balance().grants] == made


def test_credit_can_be_drawn_from_when_it_takes_effect(desk):
    desk.top_up(10, effective_at=desk.clock.now + HOUR)
    assert (desk.balance().available, desk.balance().pending) == (0, 10)
    with pytest.raises(BalanceTooLow):
        desk.hold("early", 1)
    desk.clock.move(HOUR)
    assert (desk.balance().available, desk.balance().pending) == (10, 0)
    assert desk.hold("due", 10).state == "open"
    desk.check()


def test_a_debt_comes_before_credit_that_has_taken_effect_since(desk):
    desk.top_up(20)
    desk.use(20, 25)
    desk.top_up(10, effective_at=desk.clock.now + HOUR)
    assert (desk.balance().available, desk.balance().pending) == (-5, 10)
    desk.clock.move(HOUR)
    assert desk.balance().available == 5
    with pytest.raises(BalanceTooLow):
        desk.hold("too much", 6)
    desk.hold("all", 5)
    assert (desk.balance().available, desk.balance().overdrawn, desk.balance().held) == (0, 0, 5)
    desk.check()


def test_what_is_held_outlives_its_grant_and_what_comes_back_is_lost(desk):
    desk.top_up(10, expires_at=desk.clock.now + HOUR)
    kept = desk.hold("long", 8)
    desk.clock.move(HOUR)
    assert (desk.balance().available, desk.balance().held) == (0, 8)
    desk.settle(kept.id, 5)
    assert (desk.balance().available, desk.balance().held) == (0, 0)
    desk.change_settings()  # whoever comes next writes down what time has done
    summed = totals(desk.services, desk.actor.org_id)
    assert (summed["usage"], summed["breakage"], summed["credit"]) == (5, 5, 0)
    desk.check()


def test_a_hold_that_lapsed_is_settled_from_what_is_there(desk):
    desk.top_up(10)
    kept = desk.hold("long", 8, lifetime=HOUR)
    desk.clock.move(HOUR)
    desk.use(9, 9)
    posted = desk.settle(kept.id, 4)
    assert desk.legs(posted) == [("credit", -1), ("usage", 1), ("overdraft", -3), ("usage", 3)]
    with pytest.raises(HoldClosed):
        desk.release(kept.id)
    assert desk.settle(kept.id, 4) == posted
    desk.check()


def test_a_hold_ends_once(desk):
    desk.top_up(30)
    settled, released = desk.hold("a", 5), desk.hold("b", 5)
    posted, back = desk.settle(settled.id, 5), desk.release(released.id)
    assert desk.settle(settled.id, 5) == posted and desk.release(released.id) == back
    with pytest.raises(OperationConflict):
        desk.settle(settled.id, 4)
    with pytest.raises(HoldClosed):
        desk.release(settled.id)
    with pytest.raises(HoldClosed):
        desk.settle(released.id, 0)
    assert [desk.hold("a", 5).state, desk.hold("b", 5).state] == ["settled", "released"]
    with pytest.raises(HoldNotFound):
        desk.settle(new_id(), 1)
    desk.check()


def test_work_that_cost_nothing_is_settled_too(desk):
    desk.top_up(10)
    lapsed = desk.hold("lapsed", 1, lifetime=HOUR)
    desk.clock.move(HOUR)
    assert desk.use(5, 0).legs and desk.settle(lapsed.id, 0).legs == ()
    assert desk.balance().available == 10
    desk.check()


def test_asking_again_for_credit_that_has_expired_since_gives_what_was_written(desk):
    terms = {"operation": "order 7", "expires_at": desk.clock.now + HOUR}
    posted = desk.top_up(10, **terms)
    desk.clock.move(2 * HOUR)
    assert desk.top_up(10, **terms) == posted
    with pytest.raises(OperationConflict):
        desk.top_up(11, **terms)
    assert desk.balance().left == 0
    desk.check()


TERMS = {
    "nothing": {"micro_ecu": 0},
    "too much": {"micro_ecu": 10**15},
    "no priority": {"priority": 0},
    "expired": {"expires_at": -HOUR},
    "expires before it takes effect": {"effective_at": 2 * HOUR, "expires_at": HOUR},
    "took effect and expired": {"effective_at": -2 * HOUR, "expires_at": -HOUR},
    "finer than the warehouse": {"paid_usd": Decimal("0.0000000000001")},
    "more than the warehouse": {"paid_usd": Decimal(10) ** 16},
    "less than nothing": {"paid_usd": Decimal(-1)},
    "no number": {"paid_usd": Decimal("NaN")},
    "without an end": {"paid_usd": Decimal("Infinity")},
    "a long name": {"operation": "x" * 151},
    "a name with NUL": {"operation": "a\0b"},
    "half a sign": {"note": "\ud800"},
}


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_credit_that_cannot_be_is_refused_and_leaves_nothing(desk, terms):
    before = desk.balance().seq
    times = {name: desk.clock.now + value for name, value in terms.items() if name.endswith("_at")}
    with pytest.raises(BadGrantOfCredit) as refused:
        desk.top_up(**({"micro_ecu": 5} | terms | times))
    assert refused.value.hint and desk.balance().seq == before


@pytest.mark.parametrize("paid", ["0", "0.00", "-0", "1E+3", "12.50", "9999999999999999.999999999999"])
def test_what_was_paid_comes_back_from_database_and_warehouse_as_it_was(desk, paid):
    posted = desk.top_up(5, operation="a", paid_usd=Decimal(paid), note="order “7”, 12 €")
    assert desk.top_up(5, operation="a", paid_usd=Decimal(paid), note="order “7”, 12 €") == posted
    desk.check()
    services = desk.services
    ship(services.control, services.warehouse, desk.actor.org_id)
    assert services.warehouse.drain().rejected == 0
    assert services.warehouse.query("SELECT paid_usd FROM v1.grants WHERE org_id = ?", [desk.actor.org_id]).rows == [(Decimal(paid),)]


SETTINGS = [{"overdraft_limit": -1}, {"overdraft_limit": 10**15}, {"thresholds": (0,)}, {"thresholds": (20, 100)}]


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_that_cannot_be_are_refused(desk, settings):
    with pytest.raises(BadLedgerSetting):
        desk.change_settings(**settings)


def test_a_lower_limit_calls_nothing_back(desk):
    desk.top_up(20)
    desk.use(20, 28)
    desk.change_settings(overdraft_limit=3)
    assert desk.balance().overdrawn == 8
    desk.top_up(8 + 5)
    assert desk.legs(desk.use(5, 12))[-3:] == [("overdraft", -3), ("waived", -4), ("usage", 7)]
    assert desk.ledger.verify(desk.actor).bad is None


@pytest.mark.parametrize("kind", ["hold", "release", "reverse", "expire"])
def test_what_cannot_be_taken_back(desk, kind):
    desk.top_up(10, expires_at=desk.clock.now + HOUR)
    desk.reverse(desk.top_up(1).id, "mistaken")
    desk.release(desk.hold("a", 5).id)
    desk.clock.move(HOUR)
    desk.change_settings()
    (one,) = [one for one in desk.transactions() if one.kind == kind]
    with pytest.raises(NotReversible):
        desk.reverse(one.id, "for fun")
    desk.check()


def test_credit_that_was_touched_stays(desk):
    posted = desk.top_up(10)
    kept = desk.hold("a", 1)
    with pytest.raises(NotReversible):
        desk.reverse(posted.id, "mistaken")
    desk.release(kept.id)
    back = desk.reverse(posted.id, "mistaken")
    assert desk.reverse(posted.id, "again") == back and desk.balance().left == 0
    with pytest.raises(TransactionNotFound):
        desk.reverse(new_id(), "mistaken")
    desk.check()


def test_a_refusal_leaves_nothing(desk):
    desk.top_up(10)
    before = desk.balance()
    for refused in (lambda: desk.hold("x", 11), lambda: desk.settle(new_id(), 1), lambda: desk.reverse(new_id(), "x")):
        with pytest.raises(ByokError):
            refused()
    assert desk.balance() == before
    assert desk.hold("x", 10).state == "open"  # the name was not taken


def test_two_organisations_share_nothing(desk):
    desk.top_up(10, operation="a")
    kept = desk.hold("a", 10)
    rival = Desk(desk.services, desk.clock)
    for refused in (lambda: rival.settle(kept.id, 1), lambda: rival.release(kept.id)):
        with pytest.raises(HoldNotFound):
            refused()
    with pytest.raises(BalanceTooLow):
        rival.hold("a", 1)
    rival.top_up(99, operation="a")
    assert rival.hold("a", 5).id != kept.id
    assert (desk.balance().left, rival.balance().left) == (10, 99)
    desk.check(), rival.check()


def test_each_threshold_is_warned_of_once_until_there_is_more_credit(desk):
    desk.top_up(1000)
    steps = [(100, []), (700, [(20, 200)]), (60, []), (80, []), (20, [(5, 40)]), (40, [])]
    for cost, told in steps:
        before = desk.warned()
        desk.use(cost, cost)
        assert desk.warned() == before + told, cost
    desk.top_up(100)
    for cost, told in ((79, []), (1, [(20, 20)]), (15, [(5, 5)]), (5, [])):
        before = desk.warned()
        desk.use(cost, cost)
        assert desk.warned() == before + told, cost
    desk.top_up(200)
    desk.use(200, 205)
    assert desk.warned()[-2:] == [(20, -5), (5, -5)]


def test_what_is_held_is_not_spent_yet(desk):
    desk.top_up(100)
    kept = desk.hold("a", 95)
    assert desk.warned() == []
    desk.settle(kept.id, 10)
    assert desk.warned() == []


def test_credit_that_is_lost_to_time_is_warned_of_too(desk):
    desk.top_up(10)
    desk.top_up(90, expires_at=desk.clock.now + HOUR)
    desk.clock.move(HOUR)
    desk.hold("a", 1)
    assert desk.warned() == [(20, 10)]


def test_other_thresholds_warn_of_nothing_twice(desk):
    desk.top_up(100)
    desk.use(85, 85)
    assert desk.warned() == [(20, 15)]
    desk.change_settings(thresholds=(50, 20, 10))
    desk.use(1, 1)
    assert desk.warned() == [(20, 15)]
    desk.use(4, 4)
    assert desk.warned() == [(20, 15), (10, 10)]
    desk.change_settings(thresholds=())
    desk.use(10, 10)
    assert len(desk.warned()) == 2


def test_the_settlements_of_a_run_are_those_that_stand(desk):
    desk.top_up(100)
    first, second = desk.use(5, 5, "run-1"), desk.use(6, 6, "run-1")
    desk.use(7, 7, "run-2")
    desk.reverse(first.id, "mistaken")
    assert [one.id for one in desk.settlements("run-1")] == [second.id]
    desk.clock.move(HOUR)
    desk.hold("late", 3, run_id="run-1")
    assert [one.micro_ecu for one in desk.holds("run-1") if one.state == "open"] == [3]
    assert [one.state for one in desk.holds("run-1")] == ["settled", "settled", "open"]
