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
