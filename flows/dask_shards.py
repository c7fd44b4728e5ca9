"""The shards of a stage as tasks of a Dask cluster: given out, looked after, collected.

prefect-dask runs an asynchronous task in a thread of a worker, with an event loop of its own. Limiter and gate are shared within an event
loop, so there each shard keeps to its part of the run's limits by itself, and no more shards are under way than there are parts.

What goes to the cluster are ids. Each worker opens the installation from its own environment, and so asks the key store itself.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prefect.context import SettingsContext

from byok.engine.journal import JournalBusy
from byok.engine.plan import RunPlan
from byok.errors import ByokError, OutsideError
from byok.home import Home
from byok.runs import RunFolder, ShardReport
from byok.runs.seal import seal_all
from flows.parts import parts_of, rest_of
from flows.shards import Stage

if TYPE_CHECKING:
    from prefect import Task
    from prefect_dask import DaskTaskRunner

_DONE_S, _LOOK_S = 0.05, 1.0
"""Between two looks at whether a shard is done, and at how the cluster is."""

_ENDING_S = 120.0
"""How long shards that nobody waits for any more may take to end: their requests under way come to their end."""

_GO_ON = "go on with it by the deployment resume-scaled, or: byok run resume RUN"

_log = logging.getLogger("byok.flows")


class NoWorkers(OutsideError):
    """The cluster has no worker."""

    code = "dask_no_workers"
    retryable = True


class WorkerLost(OutsideError):
    """A worker went away in the middle of a shard: what it had under way may have been paid for."""

    code = "worker_lost"
    retryable = True


class _SettingsOfTheWorker(SettingsContext):
    """While a task is submitted: keeps this process's Prefect settings, and the login among them, out of what travels to the cluster.

    Without any, a worker takes those of its own environment.
    """

    def serialize(self, include_secrets: bool = True) -> dict[str, Any]:
        return {}


class DaskShards:
    """Has the workers of a cluster carry out the shards of a stage; see `Spread`.

    Args:
        runner: Prefect's way to the cluster, open.
        patience_s: How long to wait for a worker when there is none.
    """

    def __init__(self, runner: DaskTaskRunner, patience_s: float) -> None:
        self._runner, self._client, self._patience_s = runner, runner.client, patience_s
        self._under_way: dict[str, Any] = {}
        self._gone: NoWorkers | None = None
        self._rested_at: dict[int, float] = {}

    async def __call__(self, plan: RunPlan, shard_task: Task[..., Any], *arguments: Any) -> Stage:
        parts = parts_of(plan, sum((await asyncio.to_thread(self._client.nthreads)).values()))
        rest_s = rest_of(plan, parts)
        shards = iter(range(plan.shards))
        stage = Stage([])
        failed: list[BaseException] = []

        async def work(place: int) -> None:
            while not failed and not stage.halted and (shard := next(shards, None)) is not None:
                try:
                    await asyncio.sleep(self._rested_at.get(place, 0.0) - time.monotonic())
                    stage.reports.append(await self._carry_out(shard_task, plan.run_id, *arguments, shard, parts))
                except BaseException as error:
                    failed.append(error)
                    raise
                finally:
                    self._rested_at[place] = time.monotonic() + rest_s

        watching = asyncio.create_task(self._watch(plan))
        try:
            await asyncio.gather(*(work(place) for place in range(parts)), return_exceptions=True)
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        if failed:
            if any(isinstance(error, WorkerLost | NoWorkers | JournalBusy) for error in failed):
                await asyncio.to_thread(_end_shards, plan, failed[0])
            raise failed[0]
        return stage

    async def _carry_out(self, shard_task: Task[..., Any], *arguments: Any) -> ShardReport:
        """Have a worker carry out one shard.

        Raises:
            WorkerLost: Workers died of it, one after another, or the scheduler did.
            NoWorkers: There has been none for too long.
            Exception: What the shard raised.
        """
        from distributed import CancelledError, KilledWorker

        parameters = dict(inspect.signature(shard_task.fn).bind(*arguments).arguments)
        current = SettingsContext.get()
        assert current is not None
        with _SettingsOfTheWorker(profile=current.profile, settings=current.settings):
            future = self._runner.submit(shard_task, parameters)
        waited_for: Any = future.wrapped_future
        self._under_way[waited_for.key] = waited_for
        try:
            while not waited_for.done():
                await asyncio.sleep(_DONE_S)
            report: ShardReport = await asyncio.to_thread(future.result)
        except (KilledWorker, CancelledError):
            raise self._gone or WorkerLost("the Dask cluster gave up a shard of the run", hint=_GO_ON) from None
        finally:
            del self._under_way[waited_for.key]
        return report

    async def _watch(self, plan: RunPlan) -> None:
        """Look after what Dask does not: tell of a lost worker, and wait no longer than is of use for one in a cluster without any."""
        seen: dict[str, str] = {}
        there_at = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                workers = await asyncio.to_thread(self._client.processing)
            except OSError:
                continue  # the scheduler is away: the client gives the futures up when it does not come back
            lost = [key for key, worker in seen.items() if worker not in workers and self._is_open(key)]
            seen = {key: worker for worker, keys in workers.items() for key in keys if key in self._under_way}
            if lost:
                _log.warning("run %s: %d shard(s) lost their Dask worker", plan.run_id, len(lost))
            if workers:
                there_at = time.monotonic()
            elif time.monotonic() - there_at > self._patience_s and self._gone is None:
                self._gone = NoWorkers("the Dask cluster has lost all its workers", hint=_GO_ON)
                await asyncio.to_thread(self._client.cancel, list(self._under_way.values()))

    def _is_open(self, key: str) -> bool:
        return key in self._under_way and not self._under_way[key].done()


def _end_shards(plan: RunPlan, reason: BaseException) -> None:
    """Stop the shards that still go on somewhere, and seal what they leave, and what those have left that died.

    Args:
        plan: The run.
        reason: Why it stops.
    """
    from tasks.opening import open_services  # opens the block of the key store, which needs Prefect's API

    folder = RunFolder.of(Home.from_environment(), plan.run_id)
    if isinstance(reason, ByokError):
        folder.control.tell_stopped(reason)
    services, until = open_services(), time.monotonic() + _ENDING_S
    while True:
        try:
            return seal_all(services, plan, folder)
        except JournalBusy as busy:
            if time.monotonic() > until:
                _log.warning("run %s is reported while a shard of it goes on: %s", plan.run_id, busy.message)
                return None
            time.sleep(_LOOK_S)
