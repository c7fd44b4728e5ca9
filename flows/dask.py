"""A Dask cluster, for as long as a flow works on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.settings import get_current_settings

from byok.errors import InputError, OutsideError
from flows.dask_shards import DaskShards, NoWorkers
from flows.shards import Spread

ADDRESS_VARIABLE = "BYOK_DASK_SCHEDULER"
"""Address of the scheduler, for flows that are not told one."""

_CONNECT_S = 15.0
"""How long the scheduler may take to answer."""

PATIENCE_S = 60.0
"""How long a run waits when no worker is there: time for those that died to be started again."""


class DaskMissing(InputError):
    """The packages for a Dask cluster are not installed here."""

    code = "dask_missing"


class SchedulerUnnamed(InputError):
    """Nobody said which Dask cluster is to be used."""

    code = "dask_scheduler_unnamed"


class SchedulerUnreachable(OutsideError):
    """No Dask scheduler answers at the address."""

    code = "dask_scheduler_unreachable"
    retryable = True


class WorkersUnfit(OutsideError):
    """A worker of the cluster could not do what is asked of it."""

    code = "dask_workers_unfit"


@contextmanager
def on_cluster(address: str | None = None, patience_s: float = PATIENCE_S) -> Iterator[Spread]:
    """A spread over the workers of a Dask cluster, for as long as this lasts.

    Args:
        address: Of its scheduler, such as tcp://127.0.0.1:8786; by default what the environment says.
        patience_s: How long to wait for a worker when there is none.

    Raises:
        DaskMissing: The packages are not installed.
        SchedulerUnnamed, SchedulerUnreachable: There is no scheduler.
        NoWorkers, WorkersUnfit: Its workers are not there, or not set up.
    """
    address = address or os.environ.get(ADDRESS_VARIABLE)
    if not address:
        raise SchedulerUnnamed("no Dask scheduler is named", hint=f"give the flow its address, or set {ADDRESS_VARIABLE}=tcp://HOST:8786")
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError:
        raise DaskMissing("prefect-dask is not installed", hint="pip install 'byok[dask]'") from None
    with DaskTaskRunner(address=address, client_kwargs={"timeout": min(_CONNECT_S, patience_s), "name": "byok"}) as runner:
        try:
            client = runner.client
        except (OSError, ValueError, TypeError, RuntimeError):
            raise SchedulerUnreachable(
                f"no Dask scheduler answers at {address}", hint="start one, with its workers: see docs/scaling.md"
            ) from None
        _check_workers(client, patience_s)
        yield DaskShards(runner, patience_s)


def _check_workers(client: Any, patience_s: float) -> None:
    try:
        client.wait_for_workers(1, timeout=patience_s)
    except TimeoutError:
        raise NoWorkers("the Dask cluster has no worker", hint="start workers for it: see docs/scaling.md") from None
    told = client.run(_reaches_prefect, on_error="return")
    unfit = sorted(worker for worker, fit in told.items() if fit is not True)
    if unfit:
        raise WorkersUnfit(
            f"{len(unfit)} of {len(told)} Dask workers cannot import byok's flows or do not know Prefect's server, the first at {unfit[0]}",
            hint="install byok[dask] for them, and set PREFECT_API_URL where they start: see docs/scaling.md",
        )


def _reaches_prefect() -> bool:
    """Whether this process knows Prefect's server; otherwise it would start one of its own."""
    return get_current_settings().api.url is not None
