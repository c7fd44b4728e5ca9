"""Wire facts 31 to 35: how long to wait, and what is left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from byok_testing.asking import chat, completion, refused
from byok_testing.raw_server import http


def answered(serve, provider=None, **headers):
    return chat(serve(http(200, completion(), **headers)), provider=provider)


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry-after": "7"}, 7, 7),
        ({"retry-after-ms": "1500"}, 1.5, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25, 0.25),
        ({"retry-after": "99999999999"}, 86_400, 86_400),
        ({"retry-after": "-5"}, 0, 0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0, 0),
        ({"retry-after": "soon"}, None, None),
        ({}, None, None),
    ],
)
def test_fact_31_how_long_to_wait(serve, headers, least, most):
    wait = refused(lambda: chat(serve(http(429, {"error": "slow"}, **headers)))).retry_after_s
    assert wait is None if least is None else least <= wait <= most


def test_fact_31_a_date_to_wait_for(serve):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 20 <= refused(lambda: chat(serve(http(429, {"error": "slow"}, **{"retry-after": date})))).retry_after_s <= 100


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("6m0s", 360), ("0.1", 0.1), ("30", 30), ("880ms", 0.88), ("4h17m", 15_420), ("881s", 881), ("later", None)],
)
def test_fact_32_when_a_limit_is_whole_again(serve, text, seconds):
    (limit,) = answered(serve, **{"x-ratelimit-limit-requests": "60", "x-ratelimit-reset-requests": text}).limits.limits
    assert limit.reset_s == (None if seconds is None else pytest.approx(seconds))
    assert ("x-ratelimit-reset-requests", text) in limit.raw


def test_fact_32_seconds_since_1970(serve):
    moment = int((datetime.now(UTC) + timedelta(seconds=120)).timestamp())
    (limit,) = answered(serve, **{"x-ratelimit-reset-requests": str(moment)}).limits.limits
    assert 60 < limit.reset_s <= 121


@pytest.mark.parametrize(
    ("provider", "headers", "windows"),
    [
        ("together", {"x-ratelimit-limit": "10", "x-tokenlimit-limit": "3000"}, {"requests": 1, "tokens": 1}),
        ("nebius", {"x-ratelimit-limit-requests": "60", "x-ratelimit-limit-tokens": "400000"}, {"requests": 60, "tokens": 60}),
        (None, {"x-ratelimit-limit-requests": "60"}, {"requests": None}),
    ],
)
def test_fact_33_windows_come_from_the_provider_or_are_not_known(serve, provider, headers, windows):
    limits = answered(serve, provider, **headers).limits
    assert {limit.kind: limit.window_s for limit in limits.limits} == windows
    assert {pair for limit in limits.limits for pair in limit.raw} == set(headers.items())


def test_fact_33_a_day_is_told_by_the_headers_name_and_a_percentage_is_no_count(serve):
    limits = answered(
        serve,
        "sambanova",
        **{"x-ratelimit-limit-requests-day": "12000", "x-ratelimit-remaining-requests-day": "11999", "x-ratelimit-limit-requests": "2%"},
    ).limits
    by_window = {limit.window_s: limit for limit in limits.limits}
    assert (by_window[86_400].limit, by_window[86_400].remaining) == (12_000, 11_999)
    assert by_window[60].limit is None and ("x-ratelimit-limit-requests", "2%") in by_window[60].raw


def test_fact_34_an_answer_beyond_the_limit_is_marked(serve):
    assert answered(serve, "fireworks", **{"x-ratelimit-over-limit": "yes"}).low_priority is True
    assert answered(serve, "fireworks", **{"x-ratelimit-over-limit": "no"}).low_priority is False


def test_fact_35_no_headers_at_all(serve):
    assert answered(serve, "mlflow").limits.limits == ()
    error = refused(lambda: chat(serve(http(429, {"detail": "Rate limit exceeded"})), provider="mlflow"))
    assert (error.code, error.retry_after_s) == ("endpoint_rate_limited", None)
