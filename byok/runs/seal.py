"""Seal what a journal holds into a segment for the warehouse, once for every state of the journal."""

from __future__ import annotations

from collections.abc import Iterator

from byok.app import Services
from byok.engine.journal import Journal, read_journal
from byok.engine.plan import RunPlan
from byok.engine.replay import Replay, attempt_rows, replay
from byok.home import write_private
from byok.runs.folder import RunFolder
from byok.runs.journals import StageJournal, embed_stage, journals_of
from byok.runs.rows import answer_rows, embed_rows, judge_rows
from byok.warehouse.rows import Row


def seal(services: Services, plan: RunPlan, of: StageJournal) -> Replay:
    """Write a segment of all that a journal holds, unless there is one of this very state; nobody may be writing the journal.

    Returns:
        The journal's state.
    """
    state = replay(read_journal(of.path))
    mark, size = of.path.with_suffix(".sealed"), str(of.path.stat().st_size)
    if not mark.exists() or mark.read_text(encoding="ascii") != size:
        services.warehouse.write_segment(_rows(services, plan, of, state))
        write_private(mark, size)
    return state


def seal_all(services: Services, plan: RunPlan, folder: RunFolder) -> None:
    """Seal all journals of a run whose process died before it could.

    Raises:
        JournalBusy: A process is writing one of them.
    """
    for of in journals_of(plan, folder):
        if of.path.exists():
            with Journal(of.path):
                seal(services, plan, of)


def _rows(services: Services, plan: RunPlan, of: StageJournal, state: Replay) -> Iterator[Row]:
    if of.role == "candidate":
        return answer_rows(services, plan, of.shard, state)
    if of.role == "embedding":
        return embed_rows(plan, next(one for one in plan.embedders if embed_stage(one) == of.stage), state)
    if of.role == "judge":
        return judge_rows(plan, next(one for one in plan.judges if (one.name, one.version) == of.judge), state)
    return iter(attempt_rows(plan, state, role=of.role, model=of.model))
