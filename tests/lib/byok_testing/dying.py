"""A run in a process that kills itself at a chosen point: `python -m byok_testing.dying RUN POINT NUMBER`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from byok.app import open_services
from byok.endpoint import EndpointClient
from byok.engine.journal import Journal
from byok.runs import RunFolder
from byok.warehouse import Warehouse
from byok.warehouse.loader import Loader
from byok_testing import chain


def die() -> None:
    """End this process as a loss of power ends it."""
    os.kill(os.getpid(), signal.SIGKILL)


class Countdown:
    """Says when it is the time."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self) -> bool:
        self._left -= 1
        return self._left == 0


def _before_send(now: Countdown) -> None:
    real = EndpointClient.attempt

    async def attempt(self: Any, *arguments: Any, **options: Any) -> Any:
        if now():
            die()
        return await real(self, *arguments, **options)

    EndpointClient.attempt = attempt  # type: ignore[method-assign]


def _sent(now: Countdown) -> None:
    real = EndpointClient.attempt

    async def attempt(self: Any, *arguments: Any, **options: Any) -> Any:
        asked = asyncio.create_task(real(self, *arguments, **options))
        if now():
            await asyncio.sleep(0.1)  # the endpoint has it by now, and takes longer to answer
            die()
        return await asked

    EndpointClient.attempt = attempt  # type: ignore[method-assign]


def _received(now: Countdown) -> None:
    real = EndpointClient.attempt

    async def attempt(self: Any, *arguments: Any, **options: Any) -> Any:
        answer = await real(self, *arguments, **options)
        if now():
            die()
        return answer

    EndpointClient.attempt = attempt  # type: ignore[method-assign]


def _journalled(now: Countdown) -> None:
    real = Journal.append

    def append(self: Any, *records: Any) -> None:
        real(self, *records)
        if any(record["k"] == "result" for record in records) and now():
            die()

    Journal.append = append  # type: ignore[method-assign]


def _around(owner: Any, name: str, *, after: bool) -> Callable[[Countdown], None]:
    def patch(now: Countdown) -> None:
        real = getattr(owner, name)

        def called(*arguments: Any, **options: Any) -> Any:
            if not after and now():
                die()
            done = real(*arguments, **options)
            if after and now():
                die()
            return done

        setattr(owner, name, called)

    return patch


POINTS: dict[str, Callable[[Countdown], None]] = {
    "before_send": _before_send,
    "sent": _sent,
    "received": _received,
    "journalled": _journalled,
    "before_judge": _around(chain, "judge_shard", after=False),
    "before_bill": _around(chain, "bill_run", after=False),
    "before_report": _around(chain, "finish_run", after=False),
    "before_load": _around(Loader, "load_waiting", after=False),
    "loaded": _around(Loader, "load_waiting", after=True),
    "before_publish": _around(Warehouse, "_publish", after=False),
}


def main(run_id: str, point: str, number: str) -> None:
    """Carry a run out until the point has come."""
    services = open_services()
    plan = RunFolder.of(services.home, run_id).plan()
    POINTS[point](Countdown(int(number)))
    chain.carry_out(services, plan)


if __name__ == "__main__":
    main(*sys.argv[1:])
