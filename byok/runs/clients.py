"""One client for all shards of a stage that one process works on, so that they share its connections and its key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType

from byok.app import Services
from byok.endpoint import EndpointClient
from byok.engine.plan import ModelRef, RunPlan
from byok.engine.shared import Shared


class SharedClient:
    """Opened by the first that enters, closed by the last that leaves.

    Args:
        make: Makes the client.
    """

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[EndpointClient]]) -> None:
        self._make = make
        self._users = 0
        self._changing = asyncio.Lock()
        self._open = AsyncExitStack()
        self._client: EndpointClient | None = None

    async def __aenter__(self) -> EndpointClient:
        """The client.

        Raises:
            ByokError: It cannot be made (see `Registry.client`); the next one tries again.
        """
        self._users += 1
        try:
            async with self._changing:
                if self._client is None:
                    self._client = await self._open.enter_async_context(self._make())
                return self._client
        except BaseException:
            self._users -= 1
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._users -= 1
        async with self._changing:
            if not self._users and self._client is not None:
                self._client = None
                await self._open.aclose()


_clients: Shared[SharedClient] = Shared()


def shared_client(services: Services, plan: RunPlan, model: ModelRef, connections: int) -> SharedClient:
    """The client for one model of a run, on this event loop.

    Args:
        services: The installation, and who asks.
        plan: The run.
        model: The model.
        connections: Most connections at a time.
    """
    return _clients.get(
        f"{plan.run_id}:{model.id}", lambda: SharedClient(lambda: services.registry.client(model, plan.org_id, connections=connections))
    )
