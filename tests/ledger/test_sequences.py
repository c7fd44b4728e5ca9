"""Random sequences of everything that can be done to a ledger, against a model that keeps the same credit in plain Python."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from byok.access.members import create_org
from byok.errors import ByokError
from byok.ledger import OVERDRAFT_LIMIT, OperationConflict
from byok_testing.ledgers import Clock, Model, Refused, check_books, totals

AMOUNTS = st.integers(1, 60)
LATER = st.none() | st.sampled_from([timedelta(hours=hours) for hours in (1, 2, 5)])
LIFETIMES = st.sampled_from([timedelta(hours=hours) for hours in (1, 3, 400)])
NUMBERS = st.integers(0, 10**6)

_orgs = count(1)


def machine(services, clock):
    """A state machine over new organisations of an installation."""

    class Operations(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            slug = f"machine-{next(_orgs)}"
            created = create_org(services.control, slug, f"owner@{slug}.example", services.audit)
            self.actor = replace(services.actor, org_id=created.org_id, org_slug=slug, member_id=created.member_id)
            self.ledger, self.names = services.ledger, count(1)
            self.model = Model(clock.now, OVERDRAFT_LIMIT)
            self.credits, self.holds, self.reversed = [], [], set()
            self.done = []  # what can be asked again, and what it gave

        @initialize(limit=st.none() | st.integers(0, 40))
        def limit(self, limit):
            if limit is not None:
                self.ledger.change_settings(self.actor, overdraft_limit=limit)
                self.model.limit = limit

        def both(self, real, modelled):
            """Do something to both; what the ledger gave, or None where both refuse for the same reason."""
            self.model.now = clock.now
            try:
                before = self.model.expired, {name: kept.state for name, kept in self.model.holds.items()}
                self.model.pass_time()
                swept = before != (self.model.expired, {name: kept.state for name, kept in self.model.holds.items()})
                modelled()
                expected = None
            except Refused as refusal:
                expected = str(refusal)
            try:
                given = real()
            except ByokError as error:
                assert type(error).__name__ == expected, error
                # A refusal leaves nothing behind, not even what time has done; somebody else must write that down.
                if swept:
                    self.ledger.change_settings(self.actor, overdraft_limit=self.model.limit)
                return None
            assert expected is None, f"{expected} was expected"
            return given

        @rule(amount=AMOUNTS, kind=st.sampled_from(["paid", "promotional"]), priority=st.integers(1, 3), start=LATER, end=LATER)
        def top_up(self, amount, kind, priority, start, end):
            effective = None if start is None else clock.now + start
            expires = None if end is None else (effective or clock.now) + end
            operation, made = f"t{next(self.names)}", []
            terms = {"kind": kind, "operation": operation, "priority": priority, "effective_at": effective, "expires_at": expires}
            posted = self.both(
                lambda: self.ledger.top_up(self.actor, amount, **terms),
                lambda: made.append(self.model.top_up(amount, kind, priority, effective, expires)),
            )
            (made[0].id,) = {leg.grant_id for leg in posted.legs if leg.account == "credit" and leg.micro_ecu > 0}
            self.credits.append((posted, made[0]))
            self.done.append((lambda: self.ledger.top_up(self.actor, amount, **terms), posted))
            self.done.append((lambda: self.ledger.top_up(self.actor, amount + 1, **terms), OperationConflict))

        @rule(amount=AMOUNTS, lifetime=LIFETIMES)
        def hold(self, amount, lifetime):
            operation = f"h{next(self.names)}"
            ask = {"run_id": f"run-{operation}", "lifetime": lifetime}
            kept = self.both(
                lambda: self.ledger.hold(self.actor, operation, amount, **ask), lambda: self.model.hold(operation, amount, lifetime)
            )
            if kept is not None:
                self.holds.append((operation, kept, amount))
                self.done.append((lambda: replace(self.ledger.hold(self.actor, operation, amount, **ask), state="open"), kept))
                self.done.append((lambda: self.ledger.hold(self.actor, operation, amount + 1, **ask), OperationConflict))
                self.done.append((lambda: self.ledger.hold(self.actor, operation, amount, run_id="other"), OperationConflict))

        @precondition(lambda self: self.holds)
        @rule(which=NUMBERS, share=st.sampled_from([0, 1, 50, 99, 100, 101, 150, 400]))
        def settle(self, which, share):
            operation, kept, amount = self.holds[which % len(self.holds)]
            if operation in self.model.settled:
                return
            cost = amount * share // 100
            posted = self.both(lambda: self.ledger.settle(self.actor, kept.id, cost), lambda: self.model.settle(operation, cost))
            if posted is not None:
                self.model.settled[operation].transaction = posted
                self.done.append((lambda: self.ledger.settle(self.actor, kept.id, cost), posted))
                self.done.append((lambda: self.ledger.settle(self.actor, kept.id, cost + 1), OperationConflict))

        @precondition(lambda self: self.holds)
        @rule(which=NUMBERS)
        def release(self, which):
            operation, kept, _ = self.holds[which % len(self.holds)]
            if self.model.holds[operation].state == "released":
                return
            posted = self.both(lambda: self.ledger.release(self.actor, kept.id), lambda: self.model.release(operation))
            if posted is not None:
                self.done.append((lambda: self.ledger.release(self.actor, kept.id), posted))

        @precondition(lambda self: self.credits)
        @rule(which=NUMBERS)
        def reverse_top_up(self, which):
            taken, purse = self.credits[which % len(self.credits)]
            if taken.id in self.reversed:
                return
            posted = self.both(lambda: self.ledger.reverse(self.actor, taken.id, "mistaken"), lambda: self.model.reverse_top_up(purse))
            self.note_reversal(taken, posted)

        @precondition(lambda self: any(not one.reversed for one in self.model.settled.values()))
        @rule(which=NUMBERS)
        def reverse_settlement(self, which):
            able = [name for name, one in self.model.settled.items() if not one.reversed]
            operation = able[which % len(able)]
            taken = self.model.settled[operation].transaction
            posted = self.both(
                lambda: self.ledger.reverse(self.actor, taken.id, "mistaken"), lambda: self.model.reverse_settlement(operation)
            )
            self.note_reversal(taken, posted)

        def note_reversal(self, taken, posted):
            if posted is not None:
                self.reversed.add(taken.id)
                self.done.append((lambda: self.ledger.reverse(self.actor, taken.id, "again"), posted))

        @rule(hours=st.sampled_from([1, 2, 7]))
        def pass_time(self, hours):
            clock.move(timedelta(hours=hours))

        @precondition(lambda self: self.done)
        @rule(which=NUMBERS)
        def ask_again(self, which):
            again, given = self.done[which % len(self.done)]
            self.model.now = clock.now
            if given is OperationConflict:
                with pytest.raises(OperationConflict):
                    again()
                return
            assert again() == given
            self.model.pass_time()

        @invariant()
        def the_ledger_is_whole_and_the_model_agrees(self):
            model, told = self.model, self.ledger.balance(self.actor)
            if told.seq == 0:
                return
            check_books(services, self.ledger, self.actor)
            model.now = clock.now
            able = model.drawable()
            later = [one for one in model.purses if one.left and one.effective_at > model.now]
            assert [(one.id, one.left) for one in told.grants[: len(able)]] == [(one.id, one.left) for one in able]
            assert {(one.id, one.left) for one in told.grants[len(able) :]} == {(one.id, one.left) for one in later}
            assert told.available == sum(one.left for one in able) - model.owed
            assert (told.held, told.overdrawn, told.pending) == (model.held, model.owed, sum(one.left for one in later))
            assert model.owed <= model.limit
            summed = totals(services, self.actor.org_id)
            assert [summed[name] for name in ("usage", "waived", "breakage", "wash")] == [
                model.used,
                -model.waived,
                model.expired,
                -model.bought,
            ]

    return Operations


def test_any_sequence_leaves_what_a_plain_model_has(installed, monkeypatch):
    run_state_machine_as_test(
        machine(installed, Clock(monkeypatch)),
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
