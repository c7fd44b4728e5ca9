"""Time that runs as fast as the machine can reckon, and providers that live in it."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine
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


class Meter:
    """What a provider lets through: a bucket that fills all the time, or a window that is full again at its end.

    Args:
        rate: Units a second.
        most: Units at once; of a window, units in all of it.
        window_s: Seconds of the window; None: a bucket.
    """

    def __init__(self, rate: float, most: float, window_s: float | None) -> None:
        self.rate, self.most, self.window_s = rate, most, window_s
        self.level, self._at = most, 0.0

    def fill(self, now: float) -> None:
        """Reckon up to now."""
        if self.window_s is None:
            self.level = min(self.most, self.level + (now - self._at) * self.rate)
        elif now // self.window_s > self._at // self.window_s:
            self.level = self.most
        self._at = now

    def wait_s(self, need: float) -> float:
        """Seconds until so much may be used."""
        if self.level >= need:
            return 0.0
        return (need - self.level) / self.rate if self.window_s is None else self._end_s

    def told(self, kind: str) -> dict[str, str]:
        """The headers that say so."""
        reset = (self.most - self.level) / self.rate if self.window_s is None else self._end_s
        values = {"limit": f"{int(self.most)}", "remaining": f"{int(self.level)}", "reset": f"{reset:.3f}s"}
        return {f"x-ratelimit-{part}-{kind}": value for part, value in values.items()}

    @property
    def _end_s(self) -> float:
        assert self.window_s is not None
        return self.window_s - self._at % self.window_s


@dataclass
class Provider:
    """A provider with limits of the requests' rate, of the tokens' rate, and of the number of requests.

    Attributes:
        loop: Its time.
        rate: Requests a second.
        burst: Requests at once after a quiet time.
        latency_s: Of an answer.
        spread: How much latencies differ: sigma of a log-normal distribution.
        refusal_s: Of a refusal; None: a tenth of an answer's.
        tokens: Tokens that each answer uses.
        token_rate: Tokens a second, a minute's at once; None: no such limit.
        window_s: Seconds of a fixed window, in which there are so many seconds' requests and tokens; None: both are continuous.
        most: Requests at once; more are refused too.
        noise: Share of requests that are refused for no reason.
        headers: Whether it says what is left.
        retry_after: Whether it says when to come back.
        down: What it answers to everything at a time; None: it is well.
    """

    loop: SimulatedLoop
    rate: float = 1e9
    burst: float = 1e9
    latency_s: float = 0.2
    spread: float = 0.0
    refusal_s: float | None = None
    tokens: int = 100
    token_rate: float | None = None
    window_s: float | None = None
    most: int = 10_000
    noise: float = 0.0
    headers: bool = False
    retry_after: bool = True
    down: Callable[[float], int | None] = lambda now: None
    statuses: Counter[int] = field(default_factory=Counter)
    log: list[tuple[float, int]] = field(default_factory=list)
    in_flight: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(1)
        most = self.burst if self.window_s is None else self.rate * self.window_s
        self.meters = {"requests": Meter(self.rate, most, self.window_s)}
        if self.token_rate is not None:
            self.meters["tokens"] = Meter(self.token_rate, self.token_rate * (self.window_s or 60), self.window_s)

    def turn(self, factor: float) -> None:
        """Let so many times more through from now on."""
        for meter in self.meters.values():
            meter.fill(self.loop.time())
            meter.rate *= factor

    def count(self, start: float, end: float, *statuses: int) -> int:
        """Requests that arrived within a time, of some statuses or of all."""
        return sum(start <= at < end and (not statuses or status in statuses) for at, status in self.log)

    def refused(self, since: float = 0.0) -> float:
        """Share of requests since a time that were refused for being too many."""
        return self.count(since, float("inf"), 429) / max(1, self.count(since, float("inf")))

    async def ask(self) -> tuple[int, float | None, Limits | None]:
        """Status, Retry-After, limits."""
        now = self.loop.time()
        status, after, limits = self._admit(now)
        self.statuses[status] += 1
        self.log.append((now, status))
        if status != 200:
            await asyncio.sleep(self.latency_s / 10 if self.refusal_s is None else self.refusal_s)
            return status, after, limits
        self.in_flight += 1
        try:
            await asyncio.sleep(self.latency_s * self._random.lognormvariate(-(self.spread**2) / 2, self.spread))
        finally:
            self.in_flight -= 1
        return status, after, limits

    def _admit(self, now: float) -> tuple[int, float | None, Limits | None]:
        broken = self.down(now)
        if broken is None and self.noise and self._random.random() < self.noise:
            broken = 429
        if broken is not None:
            return broken, 1.0 if broken == 429 and self.retry_after else None, None
        needs = {"requests": 1.0, "tokens": float(self.tokens)}
        for meter in self.meters.values():
            meter.fill(now)
        wait = max(meter.wait_s(needs[kind]) for kind, meter in self.meters.items())
        if wait > 0 or self.in_flight >= self.most:
            return 429, wait if self.retry_after else None, None
        told: dict[str, str] = {}
        for kind, meter in self.meters.items():
            meter.level -= needs[kind]
            told |= meter.told(kind)
        return 200, None, read_limits(told, datetime.now(UTC), {}) if self.headers else None


async def drive(provider: Provider, limiter: Limiter, seconds: float, *, workers: int = 64) -> None:
    """Ask a provider as fast as a limiter lets, for some time: workers that never run out of work."""
    end = provider.loop.time() + seconds

    async def worker() -> None:
        while True:
            slot = await limiter.take(provider.tokens)
            if limiter.broken is not None or provider.loop.time() >= end:
                limiter.end(slot, Ended("other"))
                return
            status, after, limits = await provider.ask()
            kind = {200: "answered", 429: "refused"}.get(status, "failed")
            tokens = provider.tokens if status == 200 else None
            limiter.end(slot, Ended(kind, tokens, limits, after))  # type: ignore[arg-type]
            if status != 200:
                await asyncio.sleep(after or 0.5)

    await asyncio.gather(*(worker() for _ in range(workers)))


def driven(
    seconds: float = 300.0,
    *,
    workers: int = 64,
    limiter: dict[str, Any] | None = None,
    then: Callable[[Provider], None] | None = None,
    then_at: float = 100.0,
    **provider: Any,
) -> tuple[Provider, Limiter]:
    """A provider and a limiter after some time of workers that never run out of work.

    Args:
        seconds: How long they ask.
        workers: How many there are.
        limiter: Options of the limiter.
        then: Changes the provider in the middle.
        then_at: When.
        **provider: Options of the provider.
    """

    async def scenario(loop: SimulatedLoop) -> tuple[Provider, Limiter]:
        made = Provider(loop, **provider)
        under_test = Limiter(clock=loop.time, jitter=lambda: 0.5, **(limiter or {}))
        if then is not None:
            loop.call_at(then_at, then, made)
        await drive(made, under_test, seconds, workers=workers)
        return made, under_test

    return simulate(scenario)
