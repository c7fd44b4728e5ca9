"""Time that runs as fast as the machine can reckon, and providers that live in it."""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from byok.endpoint import Limits
from byok.endpoint.limits import read_limits
from byok.engine.limiter import Ended, Limiter

T = TypeVar("T")


class _NoWaiting(selectors.SelectSelector):
    """Instead of waiting, moves the clock to where the waiting would end."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while anything can be done, and then jumps to the next timer."""

    def __init__(self) -> None:
        self._simulated = _NoWaiting()
        super().__init__(self._simulated)

    def time(self) -> float:
        return self._simulated.now


def simulate(scenario: Callable[[SimulatedLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a scenario in simulated time."""
    loop = SimulatedLoop()
    try:
        return loop.run_until_complete(scenario(loop))
    finally:
        loop.close()


@dataclass
class Provider:
    """A provider with a token bucket of requests, and optionally of tokens.

    Attributes:
        loop: Its time.
        rate: Requests a second.
        burst: Requests at once after a quiet time.
        latency_s: Of an answer; a refusal takes a tenth of it.
        tokens: Tokens that each answer uses.
        token_rate: Tokens a second; None: no such limit.
        headers: Whether it says what is left.
        retry_after: Whether it says when to come back.
        most: Requests at once; more are refused too.
    """

    loop: SimulatedLoop
    rate: float
    burst: float
    latency_s: float = 0.2
    tokens: int = 100
    token_rate: float | None = None
    headers: bool = False
    retry_after: bool = True
    most: int = 10_000
    statuses: Counter[int] = field(default_factory=Counter)
    in_flight: int = 0
    most_seen: int = 0
    arrivals: list[float] = field(default_factory=list)
    down: Callable[[float], int | None] = lambda now: None

    def __post_init__(self) -> None:
        self._level, self._token_level, self._at = self.burst, (self.token_rate or 0) * 60, 0.0

    async def ask(self) -> tuple[int, float | None, Limits | None]:
        """Status, Retry-After, limits."""
        now = self.loop.time()
        self.arrivals.append(now)
        self.in_flight += 1
        self.most_seen = max(self.most_seen, self.in_flight)
        try:
            status, after, limits = self._admit(now)
            self.statuses[status] += 1
            await asyncio.sleep(self.latency_s if status == 200 else self.latency_s / 10)
            return status, after, limits
        finally:
            self.in_flight -= 1

    def _admit(self, now: float) -> tuple[int, float | None, Limits | None]:
        self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        if self.token_rate is not None:
            self._token_level = min(self.token_rate * 60, self._token_level + (now - self._at) * self.token_rate)
        self._at = now
        broken = self.down(now)
        if broken is not None:
            return broken, 1.0 if broken == 429 and self.retry_after else None, None
        short = self.token_rate is not None and self._token_level < self.tokens
        if self._level < 1 or short or self.in_flight > self.most:
            wait = max(
                (1 - self._level) / self.rate, (self.tokens - self._token_level) / self.token_rate if self.token_rate and short else 0
            )
            return 429, max(wait, 0.0) if self.retry_after else None, None
        self._level -= 1
        self._token_level -= self.tokens
        return 200, None, self._limits() if self.headers else None

    def _limits(self) -> Limits:
        told = {
            "x-ratelimit-limit-requests": f"{int(self.burst)}",
            "x-ratelimit-remaining-requests": f"{int(self._level)}",
            "x-ratelimit-reset-requests": f"{(self.burst - self._level) / self.rate:.3f}s",
        }
        return read_limits(told, datetime.now(UTC), {})


@contextmanager
def limiter_in(loop: SimulatedLoop, **options: Any) -> Iterator[Limiter]:
    """A limiter that lives in simulated time."""
    yield Limiter(clock=loop.time, sleep=asyncio.sleep, jitter=lambda: 0.5, **options)


async def drive(provider: Provider, limiter: Limiter, seconds: float, *, concurrency: int = 64) -> None:
    """Ask a provider as fast as a limiter lets, for some time: `concurrency` workers that never run out of work."""
    end = provider.loop.time() + seconds

    async def worker() -> None:
        while provider.loop.time() < end and limiter.broken is None:
            reserved = await limiter.take(provider.tokens)
            if limiter.broken is not None:
                return
            started = provider.loop.time()
            status, after, limits = await provider.ask()
            kind = {200: "answered", 429: "refused"}.get(status, "failed")
            tokens = provider.tokens if status == 200 else None
            limiter.end(reserved, Ended(kind, tokens, limits, after, provider.loop.time() - started))  # type: ignore[arg-type]
            if status != 200:
                await asyncio.sleep(after or 0.5)

    await asyncio.gather(*(worker() for _ in range(concurrency)))
