"""Run the shards of a stage side by side, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable

from byok.runs import ShardReport

AT_ONCE = 4
"""Shards under way at once: enough to hide the tail of one behind the head of the next, few enough to keep memory flat."""


class Stage:
    """The reports of a stage, gathered."""

    def __init__(self, reports: list[ShardReport]) -> None:
        self.reports = reports

    @property
    def stopped_by(self) -> str | None:
        """Code of the error that stopped the stage, if one did."""
        return next((report.stopped_by for report in self.reports if report.stopped_by), None)


async def side_by_side(shards: Iterable[Awaitable[ShardReport]]) -> Stage:
    """Await all shards, at most `AT_ONCE` at a time.

    Raises:
        Exception: The first error of any shard, after all the others have ended.
    """
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(shard: Awaitable[ShardReport]) -> ShardReport:
        async with slots:
            return await shard

    outcomes = await asyncio.gather(*(one(shard) for shard in shards), return_exceptions=True)
    reports: list[ShardReport] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        reports.append(outcome)
    return Stage(reports)
