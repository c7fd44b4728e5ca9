"""Bill a run: turn every attempt in its journals into lines of the two bills."""

from __future__ import annotations

from collections.abc import Iterator

from byok.app import Services
from byok.billing import charges_for, rate_card
from byok.engine.journal import read_journal
from byok.engine.plan import ModelRef, RunPlan
from byok.engine.replay import attempt_rows, replay
from byok.runs import answer as answering
from byok.runs import embed as embedding
from byok.runs import judge as judging
from byok.runs import probe as probing
from byok.runs.folder import RunFolder, open_run
from byok.warehouse.rows import AttemptRow, ChargeRow


def bill_run(services: Services, run_id: str) -> int:
    """Write the charges of all attempts of a run; billing it again writes the same lines, so nothing is billed twice.

    Returns:
        How many lines the two bills have together.

    Raises:
        RunUnknown: There is no such run.
        NoRateCard: No rate card is in force at the run's start.
    """
    folder, plan = open_run(services, run_id, "run.bill")
    charges = list(_charges(plan, folder))
    services.warehouse.write_segment(charges)
    return len(charges)


def _charges(plan: RunPlan, folder: RunFolder) -> Iterator[ChargeRow]:
    card = rate_card(plan.created_at)
    for attempt, model, vectors in attempts_of(plan, folder):
        yield from charges_for(attempt, model, card, vectors=vectors)


def attempts_of(plan: RunPlan, folder: RunFolder) -> Iterator[tuple[AttemptRow, ModelRef, bool]]:
    """Every attempt of a run (probes, answers, embeddings, judgements), the model that was asked, and whether it was for vectors."""
    for number, probed in enumerate(probing.probed_of(plan)):
        state = replay(read_journal(folder.journal(probing.STAGE, number)))
        for row in attempt_rows(plan, state, role="probe", model=probed.model):
            yield row, probed.model, probed.embeddings
    for shard in range(plan.shards):
        state = replay(read_journal(folder.journal(answering.STAGE, shard)))
        for row in attempt_rows(plan, state, role="candidate", model=plan.model):
            yield row, plan.model, False
        for embedder in plan.embedders:
            state = replay(read_journal(folder.journal(embedding.stage_of(embedder), shard)))
            for row in attempt_rows(plan, state, role="embedding", model=embedder.model):
                yield row, embedder.model, True
        for judge in plan.judges:
            state = replay(read_journal(folder.journal(judging.stage_of(judge), shard)))
            for row in attempt_rows(plan, state, role="judge", model=judge.model, judge=(judge.name, judge.version)):
                yield row, judge.model, False
