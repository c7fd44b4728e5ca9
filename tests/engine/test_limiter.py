"""How many requests are under way, found by asking: in simulated time, against providers with limits of every kind."""

import asyncio

import pytest

from byok.engine.limiter import Ended, Limiter, Patience, shared_limiter
from byok_testing.simulated import Provider, drive, simulate

NO_LIMIT = {"rate": 1e9, "burst": 1e9}


def driven(seconds=300, workers=64, limiter=None, down=None, **provider):
    """A provider and a limiter after some time of workers that never run out of work."""

    async def scenario(loop):
        made = Provider(loop, **provider)
        if down is not None:
            made.down = down
        under_test = Limiter(clock=loop.time, jitter=lambda: 0.5, **(limiter or {}))
        await drive(made, under_test, seconds, concurrency=workers)
        return made, under_test

    return simulate(scenario)


def refused(provider):
    return provider.statuses[429] / sum(provider.statuses.values())


@pytest.mark.parametrize("retry_after", [True, False])
@pytest.mark.parametrize(("rate", "burst", "latency_s"), [(50, 50, 0.2), (500, 100, 0.2), (50, 3000, 0.2)])
def test_a_token_bucket_is_used_up_and_seldom_refuses(rate, burst, latency_s, retry_after):
    provider, _ = driven(rate=rate, burst=burst, latency_s=latency_s, retry_after=retry_after)
    ceiling = min(rate * 300 + burst, 64 / latency_s * 300)
    assert provider.statuses[200] >= 0.95 * ceiling
    assert refused(provider) < 0.02


@pytest.mark.parametrize(("rate", "burst"), [(50, 50), (500, 100), (50, 3000)])
def test_what_is_left_by_the_headers_is_heeded_before_the_limit_is_hit(rate, burst):
    told, _ = driven(rate=rate, burst=burst, headers=True)
    untold, _ = driven(rate=rate, burst=burst)
    assert told.statuses[200] >= 0.95 * min(rate * 300 + burst, 64 / 0.2 * 300)
    assert told.statuses[429] <= untold.statuses[429] and refused(told) < 0.02


@pytest.mark.parametrize(("per_minute", "latency_s"), [(6, 0.5), (60, 0.2), (600, 0.2), (3000, 0.2)])
def test_declared_requests_a_minute_are_used_and_never_exceeded_in_any_minute(per_minute, latency_s):
    provider, _ = driven(limiter={"requests_per_minute": per_minute}, latency_s=latency_s, **NO_LIMIT)
    times, start = provider.arrivals, 0
    for end, at in enumerate(times):
        while times[start] <= at - 60:
            start += 1
        assert end - start + 1 <= per_minute
    assert len(times) >= 0.8 * per_minute * 5


def test_declared_tokens_a_minute_are_kept():
    # Each answer uses 100 tokens; its bound is known beforehand.
    provider, _ = driven(limiter={"tokens_per_minute": 6000}, latency_s=0.5, tokens=100, **NO_LIMIT)
    started = sum(at < 300 for at in provider.arrivals)
    assert 0.8 * 60 * 5 <= started <= 60 * 5


def test_without_limits_all_workers_are_busy_almost_from_the_beginning():
    async def scenario(loop):
        provider, limiter, left = Provider(loop, latency_s=0.1, **NO_LIMIT), Limiter(clock=loop.time), [2000]

        async def worker():
            while left[0]:
                left[0] -= 1
                taken = await limiter.take()
                await provider.ask()
                limiter.end(taken, Ended("answered", latency_s=0.1))

        await asyncio.gather(*(worker() for _ in range(64)))
        return loop.time()

    assert simulate(scenario) <= 1.05 * 2000 / 64 * 0.1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("retry_after", [True, False])
def test_a_storm_is_waited_for_with_few_requests_and_over_at_once(status, retry_after):
    def storm(now):
        return status if 100 <= now < 110 else None

    provider, _ = driven(200, latency_s=0.2, retry_after=retry_after, down=storm, **NO_LIMIT)
    arrivals = provider.arrivals
    before = sum(90 <= at < 100 for at in arrivals)
    assert sum(101 <= at < 110 for at in arrivals) < 50
    # Without a hint of when to come back, the next trial may be some seconds away.
    assert sum(125 <= at < 135 for at in arrivals) >= 0.8 * before


def test_hints_that_come_again_and_again_do_not_freeze_the_limit():
    # Refused for a minute, each time with a wait; a cooldown that each hint extends would never end.
    provider, _ = driven(200, latency_s=0.2, down=lambda now: 429 if 50 <= now < 110 else None, **NO_LIMIT)
    assert sum(140 <= at < 150 for at in provider.arrivals) >= 0.8 * sum(40 <= at < 50 for at in provider.arrivals)


@pytest.mark.parametrize(("status", "patience_s"), [(503, 60), (429, 600)])
def test_an_endpoint_that_answers_nothing_is_given_up_and_nobody_waits_any_more(status, patience_s):
    provider, limiter = driven(5000, latency_s=0.2, retry_after=False, down=lambda now: status if now >= 10 else None, **NO_LIMIT)
    assert limiter.broken is not None and limiter.broken.code == "circuit_open" and "resume" in limiter.broken.hint
    assert 10 + patience_s <= provider.loop.time() <= 10 + 1.5 * patience_s + 20
    assert sum(at > 11 for at in provider.arrivals) < 40 + patience_s / 10
    limiter.mend()
    assert limiter.broken is None and not limiter.held


def test_patience_can_be_less():
    _, limiter = driven(100, limiter={"patience": Patience(failing_s=5)}, latency_s=0.2, down=lambda now: 500, **NO_LIMIT)
    assert limiter.broken is not None


def test_whoever_is_cancelled_while_waiting_or_just_after_gives_the_slot_back():
    async def scenario(loop):
        limiter = Limiter(clock=loop.time, first=1)
        first = await limiter.take()
        waiting = [asyncio.create_task(limiter.take()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        limiter.end(first, Ended("other"))
        waiting[1].cancel()  # it has been given the slot, and has not woken up yet
        await asyncio.sleep(0.1)
        assert waiting[2].done() and limiter.in_flight == 1
        return True

    assert simulate(scenario)


def test_a_limiter_is_shared_by_all_who_name_the_same_pool_and_keeps_the_smallest_declared_limit():
    async def scenario():
        first = shared_limiter("a", requests_per_minute=None, tokens_per_minute=None)
        again = shared_limiter("a", requests_per_minute=60, tokens_per_minute=None)
        other = shared_limiter("b", requests_per_minute=None, tokens_per_minute=None)
        await first.take()
        now = asyncio.get_running_loop().time()
        return first is again, first is other, first.pace.wait_s(0, now) > 0, other.pace.wait_s(0, now)

    assert asyncio.run(scenario()) == (True, False, True, 0.0)
