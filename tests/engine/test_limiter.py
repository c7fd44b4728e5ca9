"""How many requests are under way, and how fast they follow, found by asking: in simulated time, against limits of every kind."""

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byok.engine.limiter import Ended, Limiter, Patience, shared_limiter
from byok_testing.simulated import Provider, driven, simulate

MINUTES = 300.0 / 60


def ceiling(provider, workers, seconds=300.0):
    """Answers that an endpoint can give to so many workers: what its limits let through, and what one worker after the other can ask."""
    most = [workers / provider.latency_s * seconds, provider.most / provider.latency_s * seconds]
    for kind, meter in provider.meters.items():
        each = 1 if kind == "requests" else provider.tokens
        most.append((meter.rate * seconds + (meter.most if meter.window_s is None else 0)) / each)
    return min(most)


def assert_well_used(provider, workers):
    assert provider.statuses[200] >= 0.95 * ceiling(provider, workers)
    # The first half minute after the first refusal is for learning, where little is asked; of much that is asked it does not matter.
    first = next((at for at, status in provider.log if status == 429), 0.0)
    assert min(provider.refused(), provider.refused(first + 30)) < 0.02


@pytest.mark.parametrize("headers", [False, True])
@pytest.mark.parametrize("retry_after", [True, False])
@pytest.mark.parametrize(
    ("rate", "burst", "latency_s"),
    [(50, 50, 0.2), (500, 100, 0.2), (50, 3000, 0.2), (50, 5, 0.2), (2, 5, 0.5), (8, 8, 1), (4, 60, 2), (100, 5, 1)],
)
def test_a_token_bucket_is_used_up_and_seldom_refuses(rate, burst, latency_s, retry_after, headers):
    provider, _ = driven(rate=rate, burst=burst, latency_s=latency_s, retry_after=retry_after, headers=headers)
    assert_well_used(provider, 64)


def logarithmic(least, most):
    return st.floats(math.log(least), math.log(most)).map(math.exp)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)  # what holds for nearly all is no property
@given(
    rate=logarithmic(3, 100),
    burst=logarithmic(5, 1000),
    latency_s=logarithmic(0.2, 3),
    spread=st.sampled_from([0.0, 0.3]),
    refusal_s=st.sampled_from([None, 0.03, 0.2]),
    workers=st.sampled_from([64, 128, 256]),
    retry_after=st.booleans(),
    headers=st.booleans(),
)
def test_any_token_bucket_is_used_up_and_seldom_refuses(workers, burst, **provider):
    assert_well_used(driven(workers=workers, burst=round(burst), **provider)[0], workers)


@pytest.mark.parametrize("headers", [False, True])
@pytest.mark.parametrize(("token_rate", "latency_s"), [(500, 0.5), (5_000, 0.2), (20_000, 1)])
def test_a_limit_of_tokens_is_used_up_and_seldom_refuses(token_rate, latency_s, headers):
    assert_well_used(driven(token_rate=token_rate, latency_s=latency_s, headers=headers)[0], 64)


@pytest.mark.parametrize(("rate", "window_s"), [(20, 60), (100, 10)])
def test_a_fixed_window_that_is_told_by_headers_is_used_up_and_seldom_refuses(rate, window_s):
    assert_well_used(driven(rate=rate, window_s=window_s, headers=True)[0], 64)


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "burst"), [(50, 50), (500, 100), (50, 3000)])
def test_what_is_left_by_the_headers_is_heeded_before_the_limit_is_hit(rate, burst):
    told, _ = driven(rate=rate, burst=burst, headers=True)
    untold, _ = driven(rate=rate, burst=burst)
    assert told.statuses[429] <= untold.statuses[429]


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.3])
@pytest.mark.parametrize("most", [2, 8, 20, 40, 60])
def test_a_limit_of_requests_at_once_is_found_and_used(most, spread):
    assert_well_used(driven(most=most, spread=spread)[0], 64)


@pytest.mark.parametrize(
    ("factor", "base"),
    [
        (3, {"rate": 50, "burst": 50, "latency_s": 0.2}),
        (3, {"rate": 10, "burst": 20, "latency_s": 0.5}),
        (0.25, {"rate": 50, "burst": 50, "latency_s": 0.2}),
        (0.25, {"rate": 20, "burst": 5, "latency_s": 1.0}),
    ],
)
def test_a_rate_that_is_raised_or_lowered_in_the_middle_is_found_again(factor, base):
    provider, _ = driven(260, **base, then=lambda made: made.turn(factor))
    assert provider.count(160, 260, 200) >= 0.95 * factor * base["rate"] * 100
    assert provider.count(160, 260, 429) <= 0.02 * provider.count(160, 260)


@pytest.mark.parametrize("most", [60, 5])
def test_a_number_that_is_raised_or_lowered_in_the_middle_is_found_again(most):
    provider, _ = driven(260, most=20, then=lambda made: setattr(made, "most", most))
    assert provider.count(160, 260, 200) >= 0.9 * most / 0.2 * 100
    assert provider.count(160, 260, 429) <= 0.02 * provider.count(160, 260)


@pytest.mark.parametrize(("per_minute", "latency_s"), [(6, 0.5), (60, 0.2), (600, 0.2), (3000, 0.2), (3000, 3.0)])
def test_declared_requests_a_minute_are_used_and_never_exceeded_in_any_minute(per_minute, latency_s):
    provider, _ = driven(limiter={"requests_per_minute": per_minute}, latency_s=latency_s)
    times, start = [at for at, _ in provider.log], 0
    for end, at in enumerate(times):
        while times[start] <= at - 60:
            start += 1
        assert end - start + 1 <= per_minute
    assert len(times) >= 0.95 * min(per_minute * MINUTES, 64 / latency_s * 300)


@settings(max_examples=20, deadline=None)
@given(per_minute=logarithmic(300, 100_000), used=st.integers(10, 200), bound=st.integers(0, 400), workers=st.integers(1, 64))
def test_declared_tokens_a_minute_are_used_and_never_exceeded_in_any_minute(per_minute, used, bound, workers):
    async def scenario(loop):
        limiter = Limiter(clock=loop.time, tokens_per_minute=round(per_minute))
        ended = []

        async def worker():
            while loop.time() < 300:
                slot = await limiter.take(used + bound)  # an upper bound, as prompt and max_tokens give one
                started = loop.time()
                await asyncio.sleep(0.5)
                ended.append(started)
                limiter.end(slot, Ended("answered", used))

        await asyncio.gather(*(worker() for _ in range(workers)))
        return sorted(ended)

    times, start = simulate(scenario), 0
    for end, at in enumerate(times):
        while times[start] <= at - 60:
            start += 1
        assert (end - start + 1) * used <= max(round(per_minute), used)
    if used + bound <= per_minute:
        assert len([at for at in times if at < 300]) >= 0.7 * min(per_minute * MINUTES / used, workers / 0.5 * 300) - workers


def test_without_limits_all_workers_are_busy_almost_from_the_beginning():
    async def scenario(loop):
        provider, limiter, left = Provider(loop, latency_s=0.1), Limiter(clock=loop.time), [2000]

        async def worker():
            while left[0]:
                left[0] -= 1
                slot = await limiter.take()
                await provider.ask()
                limiter.end(slot, Ended("answered"))

        await asyncio.gather(*(worker() for _ in range(64)))
        return loop.time()

    assert simulate(scenario) <= 1.05 * 2000 / 64 * 0.1


@pytest.mark.parametrize("rows", [500, 5000])
def test_refusals_by_chance_do_not_slow_it_down(rows):
    """One request in ten is refused with a wait of a second, whatever its rate: those who ask without any limiter are hardly faster."""

    async def scenario(loop, limiter):
        provider, few = Provider(loop, latency_s=0.02, noise=0.1, refusal_s=0.02), asyncio.Semaphore(32)

        async def ask_once():
            if limiter is None:
                async with few:
                    return await provider.ask()
            slot = await limiter.take()
            status, after, limits = await provider.ask()
            limiter.end(slot, Ended("answered" if status == 200 else "refused", None, limits, after))
            return status, after, limits

        async def one():
            while True:
                status, after, _ = await ask_once()
                if status == 200:
                    return
                await asyncio.sleep(after)

        await asyncio.gather(*(one() for _ in range(rows)))
        return loop.time()

    limited = simulate(lambda loop: scenario(loop, Limiter(clock=loop.time, jitter=lambda: 0.5)))
    assert limited <= 1.1 * simulate(lambda loop: scenario(loop, None))


@pytest.mark.parametrize(("noise", "rate", "burst", "latency_s"), [(0.05, 50, 50, 0.2), (0.1, 10, 5, 1.0), (0.2, 50, 50, 0.2)])
def test_refusals_by_chance_beside_a_limit_of_the_rate_do_not_starve_the_run(noise, rate, burst, latency_s):
    provider, _ = driven(noise=noise, rate=rate, burst=burst, latency_s=latency_s)
    assert provider.statuses[200] >= 0.7 * ceiling(provider, 64)


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("retry_after", [True, False])
@pytest.mark.parametrize("base", [{"latency_s": 0.2}, {"rate": 50, "burst": 50, "latency_s": 0.5}, {"latency_s": 0.1, "most": 40}])
def test_a_storm_is_waited_for_with_few_requests_and_over_at_once(status, retry_after, base):
    provider, _ = driven(200, retry_after=retry_after, down=lambda now: status if 100 <= now < 110 else None, **base)
    assert provider.count(101, 110) < 50
    # Without a hint of when to come back, the next trial may be some seconds away.
    assert provider.count(120, 130, 200) >= 0.8 * provider.count(90, 100, 200)


def test_hints_that_come_again_and_again_do_not_freeze_the_limit():
    # Refused for a minute, each time with a wait; a cooldown that each hint extends would never end.
    provider, _ = driven(200, down=lambda now: 429 if 50 <= now < 110 else None)
    assert provider.count(140, 150, 200) >= 0.8 * provider.count(40, 50, 200)


@pytest.mark.parametrize(("status", "patience_s"), [(503, 60), (429, 600)])
def test_an_endpoint_that_answers_nothing_is_given_up_and_nobody_waits_any_more(status, patience_s):
    provider, limiter = driven(5000, retry_after=False, down=lambda now: status if now >= 10 else None)
    assert limiter.broken is not None and limiter.broken.code == "circuit_open" and "resume" in limiter.broken.hint
    assert 10 + patience_s <= provider.loop.time() <= 10 + 1.5 * patience_s + 20
    assert provider.count(11, 5000) < 40 + patience_s / 10
    limiter.mend()
    assert limiter.broken is None and not limiter.held


def test_patience_can_be_less():
    _, limiter = driven(100, limiter={"patience": Patience(failing_s=5)}, down=lambda now: 500)
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


def test_another_loop_begins_anew():
    async def name():
        limiter = shared_limiter("a", requests_per_minute=None, tokens_per_minute=None)
        await limiter.take()
        return limiter

    kept = [asyncio.run(name()) for _ in range(3)]
    assert len(set(kept)) == 3 and [limiter.in_flight for limiter in kept] == [1, 1, 1]
