"""Run the shards of a stage side by side, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from byok.engine.plan import RunPlan
from byok.runs import ShardReport

if TYPE_CHECKING:
    from prefect import Task

AT_ONCE = 4
"""Shards under way at once: enough to hide the tail of one behind the head of the next, few enough to keep memory flat."""


class Stage:
    """The reports of a stage, or of several, gathered."""

    def __init__(self, reports: list[ShardReport]) -> None:
        self.reports = reports

    def then(self, other: Stage) -> Stage:
        """This stage and the one after it."""
        return Stage([*self.reports, *other.reports])

    @property
    def halted(self) -> bool:
        """Whether something stopped it: no further stage begins."""
        return any(report.stopped_by for report in self.reports)

    @property
    def stopped_by(self) -> str | None:
        """Code of the error that stopped the stage, if one did; `unknown_held` when it was only not allowed to send some rows again."""
        stopped = next((report.stopped_by for report in self.reports if report.stopped_by), None)
        return stopped or ("unknown_held" if any(report.held for report in self.reports) else None)

    @property
    def stopped_message(self) -> str | None:
        """What stopped the stage, in words."""
        held = sum(report.held for report in self.reports)
        told = next((report.stopped_message for report in self.reports if report.stopped_by), None)
        return told or (f"{held} row(s) are held back: an answer may have been paid for" if held else None)


class Spread(Protocol):
    """Carries out the shards of a stage."""

    async def __call__(self, plan: RunPlan, shard_task: Task[..., Any], *arguments: Any) -> Stage:
        """All shards of a run, by a task that takes the run's id, the arguments and the number of the shard.

        Raises:
            Exception: The first error of any shard, after those under way have ended.
        """
        ...


async def in_process(plan: RunPlan, shard_task: Task[..., Any], *arguments: Any) -> Stage:
    """Carry out the shards in this process (see `Spread`)."""
    return await side_by_side(shard_task(plan.run_id, *arguments, shard) for shard in range(plan.shards))


async def side_by_side(shards: Iterable[Awaitable[ShardReport]]) -> Stage:
    """Await all shards, at most `AT_ONCE` at a time.

    Once one has failed, no further one starts: a key store that is away would let each of them wait in vain.

    Args:
        shards: Read only as fast as they are worked off.

    Raises:
        Exception: The first error of any shard, after those under way have ended.
    """
    source = iter(shards)
    reports: list[ShardReport] = []
    failed: list[BaseException] = []

    async def work() -> None:
        while not failed and (shard := next(source, None)) is not None:
            try:
                reports.append(await shard)
            except BaseException as error:
                failed.append(error)
                raise

    await asyncio.gather(*(work() for _ in range(AT_ONCE)), return_exceptions=True)
    if failed:
        raise failed[0]
    return Stage(reports)
