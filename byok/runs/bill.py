"""Bill a run: turn every attempt in its journals into lines of the two bills."""

from __future__ import annotations

from collections.abc import Iterator

from byok.app import Services
from byok.billing import RateCard, charges_for, rate_card
from byok.engine.journal import read_journal
from byok.engine.plan import RunPlan
from byok.engine.replay import attempt_rows, replay
from byok.runs.credit import settle_credit
from byok.runs.folder import open_run
from byok.runs.journals import StageJournal, journals_of
from byok.warehouse.rows import ChargeRow


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
    for journal in journals_of(plan, folder):
        # A segment for each journal: a run of any size is billed in the memory of one shard.
        charges = list(_charges(plan, journal, card))
        services.warehouse.write_segment(charges)
        lines += len(charges)
        micro += sum(charge.amount_micro_ecu or 0 for charge in charges)
    settle_credit(services, plan, micro)
    return lines


def _charges(plan: RunPlan, journal: StageJournal, card: RateCard) -> Iterator[ChargeRow]:
    state = replay(read_journal(journal.path))
    for attempt in attempt_rows(plan, state, role=journal.role, model=journal.model, judge=journal.judge):
        yield from charges_for(attempt, journal.model, card, vectors=journal.vectors)
