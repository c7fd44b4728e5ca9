"""Bill a run: turn every attempt in its journals into lines of the two bills."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat

from byok.app import Services
from byok.billing import RateCard, charges_for, rate_card
from byok.billing.charges import surely_free
from byok.clock import utcnow
from byok.engine.journal import read_journal
from byok.engine.plan import RunPlan
from byok.engine.replay import NO_USAGE, Replay, attempt_rows, replay
from byok.pricing import Prices
from byok.pricing.busy import UNKNOWN, busy_shares, microseconds
from byok.runs.credit import settle_credit
from byok.runs.folder import open_run
from byok.runs.journals import StageJournal, journals_of
from byok.runs.prices import BilledPrices, billed_prices, note_billing
from byok.warehouse.rows import AttemptRow, ChargeRow


def bill_run(services: Services, run_id: str) -> int:
    """Write the charges of all attempts of a run, and settle its platform bill; doing it again changes nothing.

    Returns:
        How many lines the two bills have together.

    Raises:
        RunUnknown: There is no such run.
        NoRateCard: No rate card is in force at the run's start.
    """
    folder, plan = open_run(services, run_id, "run.bill")
    card, lines, micro = rate_card(plan.created_at), 0, 0
    note_billing(folder)
    journals = list(journals_of(plan, folder))
    models = {journal.model.id: journal.model for journal in journals}
    prices = {key: billed_prices(services.control, plan.org_id, folder, model) for key, model in models.items()}
    busy = {key: _busy(plan, journals, key) for key in models if _by_gpu_hour(plan, prices[key])}
    for journal in journals:
        # A segment for each journal: a run of any size is billed in the memory of one shard.
        key = journal.model.id
        charges = list(_charges(plan, journal, card, prices[key], busy.get(key)))
        services.warehouse.write_segment(charges)
        lines += len(charges)
        micro += sum(charge.amount_micro_ecu or 0 for charge in charges)
    settle_credit(services, plan, micro)
    return lines


def _charges(
    plan: RunPlan, journal: StageJournal, card: RateCard, prices: Prices, busy: Iterator[int | None] | None
) -> Iterator[ChargeRow]:
    state = replay(read_journal(journal.path))
    rows = _rows(plan, journal, state)
    # Not strict: the shares go on with the next journal of the same model.
    for attempt, share in zip(rows, busy or repeat(None), strict=False):
        if _told_no_cost(state, attempt):
            # Recorded by an earlier version, which may have billed it already: in two lines, by the price of the plan.
            yield from charges_for(_unsplit(attempt), journal.model, card, vectors=journal.vectors)
        else:
            yield from charges_for(attempt, journal.model, card, prices, vectors=journal.vectors, busy_us=share)


def _rows(plan: RunPlan, journal: StageJournal, state: Replay) -> list[AttemptRow]:
    return attempt_rows(plan, state, role=journal.role, model=journal.model, judge=journal.judge)


def _told_no_cost(state: Replay, attempt: AttemptRow) -> bool:
    closed = state.attempts[attempt.attempt_id].closed or {}
    return len(closed.get("usage") or NO_USAGE) < len(NO_USAGE)


def _unsplit(attempt: AttemptRow) -> AttemptRow:
    return replace(attempt, cached_tokens=None, reasoning_tokens=None)


def _by_gpu_hour(plan: RunPlan, prices: BilledPrices) -> bool:
    return prices.by_gpu_hour(plan.created_at, utcnow())


def _busy(plan: RunPlan, journals: list[StageJournal], model_id: str) -> Iterator[int | None]:
    """Each attempt's share of the time for which a model was busy in a run, in the order of the journals; None is unknown."""
    opened, closed = array("q"), array("q")
    for journal in journals:
        if journal.model.id != model_id:
            continue
        for attempt in _rows(plan, journal, replay(read_journal(journal.path))):
            opened.append(microseconds(attempt.opened_at))
            # What was refused kept no GPU busy; it is on no bill.
            counts = attempt.closed_at is not None and not surely_free(attempt)
            closed.append(microseconds(attempt.closed_at) if counts and attempt.closed_at else UNKNOWN)
    return (None if share == UNKNOWN else share for share in busy_shares(opened, closed))
