"""One shard of one stage under way: its journal, its progress, its way out to the endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from byok.app import Services
from byok.engine.attempts import Asker, Outcome, Unit, attempt_unit, work_off, workers_for
from byok.engine.control import LOOK_S
from byok.engine.gate import Gate, shared_gate
from byok.engine.journal import Journal, read_journal
from byok.engine.limiter import shared_limiter
from byok.engine.plan import RunPlan
from byok.engine.progress import ProgressFile
from byok.engine.replay import Attempt, Replay, replay
from byok.engine.retry import RetryPolicy
from byok.runs.folder import RunFolder
from byok.runs.interpreter import tuned_for_requests
from byok.runs.journals import StageJournal
from byok.runs.spending import Tariff, open_budget


@dataclass(frozen=True)
class ShardReport:
    """What one task run achieved.

    Attributes:
        shard: Its number.
        planned: Units that it had to finish.
        finished: Units that are finished, those of earlier tries included.
        stopped_by: Code of the error that stopped the run, or None.
        stopped_message: What that error said.
        held: Units that are not sent again because an attempt of theirs was left open by a crash, and may have been paid for.
    """

    shard: int
    planned: int
    finished: int
    stopped_by: str | None
    stopped_message: str | None = None
    held: int = 0


@dataclass
class Stage:
    """What a shard works with.

    Attributes:
        shard: Its number.
        journal: Where it writes.
        before: What the journal held when it began.
        progress: What it tells of itself.
        gate: The way out.
    """

    shard: int
    journal: Journal
    before: Replay
    progress: ProgressFile
    gate: Gate
    _asker: Asker
    _withheld: set[str]
    _held: int = 0

    def open(self, unit_id: str) -> bool:
        """Whether a unit is still to be asked for: it has no result, and no attempt of unknown outcome that the policy holds back."""
        if unit_id in self.before.results:
            return False
        if unit_id in self._withheld:
            self._held += 1
            return False
        return True

    async def attempt(self, unit: Unit, **options: Any) -> Outcome | None:
        """See `attempt_unit`; options are its `stops`."""
        return await attempt_unit(unit, self._asker, **options)

    def settle(self, result: dict[str, Any], *records: dict[str, Any], failed: bool) -> None:
        """Write a unit's result, together with the records of its last attempt."""
        self.journal.append(*records, result)
        self.progress.add(failed=failed)

    def take_over(self, result: dict[str, Any], *, failed: bool = False) -> None:
        """Write a unit's result for which nothing was asked, since an earlier run has it."""
        self.progress.counts.reused += 1
        self.settle(result, failed=failed)

    async def work_off(self, units: Iterable[Unit], answer: Callable[[Unit], Awaitable[None]]) -> None:
        """Work off units; see `byok.engine.attempts.work_off`."""
        await work_off(units, workers_for(self.gate.limit, self.progress.counts.total), answer)

    def report(self, state: Replay) -> ShardReport:
        """What came of it, from what the journal holds now."""
        stopped = self.gate.stopped_by
        code, message = (None, None) if stopped is None else (stopped.code, stopped.message)
        return ShardReport(self.shard, self.progress.counts.total, len(state.results), code, message, self._held)


@asynccontextmanager
async def open_stage(
    services: Services, plan: RunPlan, folder: RunFolder, of: StageJournal, planned: int, parts: int = 1
) -> AsyncIterator[Stage]:
    """Open what one shard of a stage works with.

    Args:
        services: The installation, and who asks.
        plan: The run.
        folder: Its folder.
        of: The journal of this stage and shard.
        planned: Units that it has to finish.
        parts: Processes that work on this run at the same time, each with its share of the limits.

    Raises:
        JournalBusy: Another process works on this shard.
        OutsideError: The key store does not open the model's key.
    """
    model, control = of.model, folder.control
    with Journal(of.path) as journal, tuned_for_requests():
        before = replay(read_journal(of.path))
        limiter = shared_limiter(
            await asyncio.to_thread(services.registry.pool, model, plan.org_id),
            requests_per_minute=_share(model.requests_per_minute, parts),
            tokens_per_minute=_share(model.tokens_per_minute, parts),
        )
        ceiling = _share(plan.concurrency, parts) or 1
        gate = shared_gate(f"{plan.run_id}:{of.stage}", lambda: Gate(ceiling, limiter, open_budget(plan, folder)))
        progress = folder.progress_file(of.stage, of.shard, planned)
        progress.remember((one.opened, one.closed) for one in before.attempts.values())
        if before.results:
            progress.add(failed=False, count=len(before.results))
        hold = (control.settings.on_unknown or plan.on_unknown) == "hold"
        async with (
            services.registry.client(model, plan.org_id, connections=gate.limit) as client,
            control.obeyed_by(gate),
            _telling(progress, gate),
        ):
            tariff = Tariff(plan, of, folder, services.control) if gate.budget is not None else None
            asker = Asker(client, journal, gate, RetryPolicy(deadline_s=plan.deadline_s), note=progress.note)
            if tariff is not None:
                asker = replace(asker, bound=tariff.bound, spent=partial(_spent, tariff))
            yield Stage(of.shard, journal, before, progress, gate, asker, before.lost if hold else set())


def _share(whole: int | None, parts: int) -> int | None:
    return None if whole is None else max(1, whole // parts)


def _spent(tariff: Tariff, opened: dict[str, Any], closed: dict[str, Any]) -> Any:
    return tariff.spent(Attempt(opened, closed))


@asynccontextmanager
async def _telling(progress: ProgressFile, gate: Gate) -> AsyncIterator[None]:
    """As long as this lasts, the progress says what the gate does, also while nothing is finished."""

    def tell() -> None:
        counts = progress.counts
        counts.limit, counts.paused, counts.held = min(gate.limit, int(gate.limiter.limit)), gate.paused, gate.limiter.held
        progress.flush()

    async def keep_telling() -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            tell()

    tell()
    telling = asyncio.create_task(keep_telling())
    try:
        yield
    finally:
        telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling
        tell()
