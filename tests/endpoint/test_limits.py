"""Rate-limit headers: what each provider sends, what cannot be believed, and texts of any kind."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from byok.endpoint.limits import LONGEST_RESET_S, Limits, parse_amount, parse_reset, read_limits
from byok.endpoint.wire import Redactor

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EPOCH = int(NOW.timestamp())

NEBIUS = {
    "x-ratelimit-limit-requests": "600",
    "x-ratelimit-limit-tokens": "400000",
    "x-ratelimit-remaining-requests": "599",
    "x-ratelimit-remaining-tokens": "398834",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-reset-tokens": "2s",
    "x-ratelimit-dynamic-scale-requests": "1.00",
    "x-ratelimit-dynamic-scale-tokens": "1.44",
    "x-ratelimit-dynamic-period-remaining": "881s",
    "x-ratelimit-dynamic-period-usage-requests": "2%",
    "x-ratelimit-dynamic-period-usage-tokens": "0%",
}
TOGETHER = {
    "x-ratelimit-limit": "10",
    "x-ratelimit-remaining": "9",
    "x-ratelimit-reset": "0.1",
    "x-tokenlimit-limit": "2000",
    "x-tokenlimit-remaining": "1500",
    "x-ratelimit-limit-dynamic": "30",
    "x-ratelimit-remaining-dynamic": "29",
    "x-tokenlimit-limit-dynamic": "6000",
    "x-tokenlimit-remaining-dynamic": "5000",
}
FIREWORKS = {
    "X-Ratelimit-Limit-Tokens-Prompt": "21600000",
    "X-Ratelimit-Limit-Tokens-Cache-Adjusted-Prompt": "5400000",
    "X-Ratelimit-Limit-Tokens-Generated": "216000",
    "X-Ratelimit-Remaining-Tokens-Generated": "215000",
    "X-Ratelimit-Limit-Requests": "6000",
    "X-Ratelimit-Over-Limit": "yes",
}
SAMBANOVA = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "42",
    "x-ratelimit-reset-requests": str(EPOCH + 30),
    "x-ratelimit-limit-requests-day": "12000",
    "x-ratelimit-remaining-requests-day": "11958",
    "x-ratelimit-reset-requests-day": "4h17m",
}


def rows(found: Limits) -> list[tuple[Any, ...]]:
    """Each limit without its texts."""
    return [(one.kind, one.window_s, one.limit, one.remaining, one.reset_s) for one in found.limits]


def test_openai_and_nebius_tell_requests_and_tokens() -> None:
    windows = {"x-ratelimit-limit-requests": 60, "x-ratelimit-limit-tokens": 60}
    found = read_limits(NEBIUS, NOW, windows)
    assert rows(found) == [("requests", 60, 600, 599, 1), ("tokens", 60, 400_000, 398_834, 2)]
    assert found.over_limit is False
    assert found.limits[0].raw == (
        ("x-ratelimit-limit-requests", "600"),
        ("x-ratelimit-remaining-requests", "599"),
        ("x-ratelimit-reset-requests", "1s"),
    )


def test_nebius_tells_how_its_limits_move() -> None:
    dynamic = read_limits(NEBIUS, NOW).dynamic
    assert dynamic is not None
    assert (dynamic.scale_requests, dynamic.scale_tokens) == (1.0, 1.44)
    assert (dynamic.usage_requests, dynamic.usage_tokens, dynamic.period_remaining_s) == (0.02, 0.0, 881.0)
    assert ("x-ratelimit-dynamic-period-usage-requests", "2%") in dynamic.raw


def test_a_usage_without_its_sign_could_be_either_and_is_unknown() -> None:
    dynamic = read_limits({"x-ratelimit-dynamic-period-usage-requests": "80"}, NOW).dynamic
    assert dynamic is not None
    assert dynamic.usage_requests is None
    assert dynamic.raw == (("x-ratelimit-dynamic-period-usage-requests", "80"),)


def test_together_tells_two_sets_of_limits_per_second() -> None:
    windows = dict.fromkeys(("x-ratelimit-limit", "x-tokenlimit-limit", "x-ratelimit-limit-dynamic", "x-tokenlimit-limit-dynamic"), 1)
    assert rows(read_limits(TOGETHER, NOW, windows)) == [
        ("requests", 1, 10, 9, 0.1),
        ("tokens", 1, 2000, 1500, None),
        ("requests-dynamic", 1, 30, 29, None),
        ("tokens-dynamic", 1, 6000, 5000, None),
    ]


def test_a_window_that_nobody_tells_is_unknown() -> None:
    for headers in (TOGETHER, FIREWORKS, NEBIUS):
        assert {one.window_s for one in read_limits(headers, NOW).limits} == {None}


def test_a_window_may_be_given_by_the_kind_of_limit() -> None:
    found = read_limits(FIREWORKS, NOW, {"tokens-prompt": 60, "x-ratelimit-limit-tokens-generated": 1})
    assert {one.kind: one.window_s for one in found.limits} == {
        "tokens-prompt": 60,
        "tokens-cache-adjusted-prompt": None,
        "tokens-generated": 1,
        "requests": None,
    }


def test_fireworks_tells_three_kinds_of_tokens_and_that_it_served_beyond_the_limit() -> None:
    found = read_limits(FIREWORKS, NOW)
    assert rows(found) == [
        ("tokens-prompt", None, 21_600_000, None, None),
        ("tokens-cache-adjusted-prompt", None, 5_400_000, None, None),
        ("tokens-generated", None, 216_000, 215_000, None),
        ("requests", None, 6000, None, None),
    ]
    assert found.over_limit is True
    assert found.limits[0].raw == (("x-ratelimit-limit-tokens-prompt", "21600000"),)


@pytest.mark.parametrize(("text", "over"), [("yes", True), (" YES ", True), ("true", True), ("no", False), ("", False), ("maybe", False)])
def test_only_a_yes_is_over_the_limit(text: str, over: bool) -> None:
    assert read_limits({"x-ratelimit-over-limit": text}, NOW) == Limits((), over, None)


def test_sambanova_names_the_day_in_the_header() -> None:
    found = read_limits(SAMBANOVA, NOW, {"x-ratelimit-limit-requests": 60})
    assert rows(found) == [("requests", 60, 60, 42, 30), ("requests", 86_400, 12_000, 11_958, 4 * 3600 + 17 * 60)]


def test_the_name_of_a_header_outweighs_the_profile() -> None:
    found = read_limits({"x-ratelimit-limit-tokens-minute": "9"}, NOW, {"tokens": 1})
    assert rows(found) == [("tokens", 60, 9, None, None)]


def test_a_reset_alone_is_a_limit_with_the_window_of_its_kind() -> None:
    found = read_limits({"x-ratelimit-reset-tokens": "6m0s"}, NOW, {"x-ratelimit-limit-tokens": 60})
    assert rows(found) == [("tokens", 60, None, None, 360)]


@pytest.mark.parametrize(
    ("text", "limit", "window"),
    [
        ("100", 100, None),
        ("100, 100;w=60", 100, 60),
        ("10, 10;w=1, 50;w=60, 1000;w=3600", 10, 1),
        ("10;w=5", 10, 5),
        ("10, 50;w=60", 10, None),
        ("10, 10;w=1, 10;w=60", 10, None),
        ("10, 10;w=0", 10, None),
        ("10, 10", None, None),
    ],
)
def test_ietf_drafts_tell_the_window_in_the_value(text: str, limit: float | None, window: float | None) -> None:
    headers = {"RateLimit-Limit": text, "RateLimit-Remaining": "7", "RateLimit-Reset": "50"}
    assert rows(read_limits(headers, NOW)) == [("requests", window, limit, 7, 50)]


def test_no_headers_are_no_limits() -> None:
    assert read_limits({"x-mlflow-gateway-duration-ms": "12", "content-type": "application/json"}, NOW) == Limits()


@pytest.mark.parametrize("text", ["", "-1", "2%", "1e9", "1,000", "unlimited", "0x10", "nan", "inf", "٣", "6\x000", "9" * 500, "60, 60"])
def test_what_is_no_amount_is_unknown_and_its_text_is_kept(text: str) -> None:
    (found,) = read_limits({"x-ratelimit-limit-requests": text, "x-ratelimit-remaining-requests": "3"}, NOW).limits
    assert (found.limit, found.remaining) == (None, 3)
    kept = dict(found.raw)["x-ratelimit-limit-requests"]
    assert len(kept) <= 100
    assert kept.isprintable()
    assert kept[:5] == text[:5].replace("\0", " ")


def test_headers_of_other_names_are_not_read() -> None:
    others = ("x-ratelimit-limit-secret", "x-ratelimit-limit-requests-fortnight", "x-ratelimit-used", "x-ratelimit-limit-" + "a" * 1000)
    assert read_limits(dict.fromkeys(others, "1"), NOW) == Limits()


def test_an_echoed_key_is_taken_out_of_the_texts() -> None:
    key = "sk-test-0123456789abcdef"
    (found,) = read_limits({"x-ratelimit-limit-requests": f"{'9' * 90}{key}"}, NOW, redact=Redactor(key)).limits
    assert "0123" not in repr(found)
    assert "[key]" in repr(found)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("1h2m3.5s", 3723.5),
        ("880ms", 0.88),
        ("4h17m", 15_420),
        ("1d2h", 93_600),
        ("150us", 0.00015),
        ("150µs", 0.00015),
        ("0s", 0),
        ("0.1", 0.1),
        (".5", 0.5),
        ("12", 12),
        ("33011.382867", 33011.382867),
        (" 7 ", 7),
        ("0", 0),
        (str(EPOCH + 90), 90),
        (f"{EPOCH + 90}.25", 90.25),
        (str((EPOCH + 90) * 1000 + 500), 90.5),
        (str(EPOCH - 10), 0),
        (format_datetime(NOW + timedelta(seconds=45), usegmt=True), 45),
        ("2026-01-01T00:01:00Z", 60),
        ("2026-01-01T01:01:00+01:00", 60),
        ("2026-01-01T00:01:00", 60),
        ("2026-01-01 00:01:00.500000", 60.5),
        ("2025-12-31T23:59:59Z", 0),
        (str(int(LONGEST_RESET_S)), LONGEST_RESET_S),
    ],
)
def test_resets_of_every_kind(text: str, seconds: float) -> None:
    assert parse_reset(text, NOW) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "soon",
        "-1",
        "-1s",
        "1s1s",
        "1s2m",
        "1 m",
        "1M",
        "1m 2s",
        "s",
        "5%",
        "1e3",
        "nan",
        "inf",
        "٣s",
        str(int(LONGEST_RESET_S) + 1),
        "32d",
        "9" * 16 + "h",
        "9" * 30,
        "9" * 5000,
        "999999999",
        str(EPOCH - 86_400),
        str(EPOCH + 86_400 * 40),
        "100000000000000",
        "2026-13-01T00:00:00Z",
        "2020-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "0000-01-01T00:00:00Z",
        "Thu, 99 Jan 2026 00:00:30 GMT",
        "Thu, 01 Jan 1970 00:00:30 GMT",
        "Thu, 01 Jan 0000 00:00:30 GMT",
        "2026-W01-1",
        " " * 200 + "7",
    ],
)
def test_resets_that_are_not_believed(text: str) -> None:
    assert parse_reset(text, NOW) is None


@pytest.mark.parametrize(
    ("text", "amount"),
    [("60", 60), ("1.00", 1), ("0", 0), ("2%", 0.02), ("100 %", 1), (" 5 ", 5), ("999999999999999", 999_999_999_999_999)],
)
def test_amounts(text: str, amount: float) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize(
    "text", ["", "%", "-5", "+5", "5.", "1e2", "1_000", "1,5", "٣", "1000000000000000", "9" * 400, "5%%", "NaN", " " * 200 + "7"]
)
def test_texts_that_are_no_amounts(text: str) -> None:
    assert parse_amount(text) is None


@given(st.integers(0, 30), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_is_read_as_it_was_written(days: int, hours: int, minutes: int, seconds: int, millis: int) -> None:
    whole = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=millis)
    expected = pytest.approx(whole.total_seconds(), abs=1e-6)
    short = "".join(
        f"{number}{unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"), (millis, "ms")) if number
    )
    assert parse_reset(short or "0s", NOW) == expected
    assert parse_reset(f"{days * 24 + hours}h{minutes}m{seconds}.{millis:03}s", NOW) == expected
    assert parse_reset(f"{whole.total_seconds():.3f}", NOW) == expected


@given(st.integers(0, int(LONGEST_RESET_S) - 1), st.integers(EPOCH, EPOCH * 4))
def test_a_moment_is_as_far_away_as_it_is(seconds: int, at: int) -> None:
    now = datetime.fromtimestamp(at, UTC)
    moment = now + timedelta(seconds=seconds)
    for text in (
        str(int(moment.timestamp())),
        str(int(moment.timestamp()) * 1000),
        format_datetime(moment, usegmt=True),
        moment.isoformat(),
        moment.isoformat().replace("+00:00", "Z"),
    ):
        assert parse_reset(text, now) == pytest.approx(seconds, abs=1e-3)


TEXTS = (
    st.text()
    | st.text(string.digits + ".smhdunµ:%-+TZ ,;w=eE", max_size=40)
    | st.binary(max_size=40).map(lambda raw: raw.decode("latin-1"))
)


@given(TEXTS)
@example("1" * 90 + "s")
def test_any_text_is_within_bounds_or_unknown(text: str) -> None:
    reset, amount = parse_reset(text, NOW), parse_amount(text)
    assert reset is None or 0 <= reset <= LONGEST_RESET_S
    assert amount is None or 0 <= amount < 1e15


@given(st.dictionaries(st.sampled_from([*NEBIUS, *TOGETHER, *FIREWORKS, *SAMBANOVA, "x-ratelimit-", "ratelimit-limit"]) | st.text(), TEXTS))
def test_any_headers_are_read(headers: dict[str, str]) -> None:
    found = read_limits(headers, NOW)
    assert len(found.limits) <= len(headers)
    for one in found.limits:
        assert one.limit is None or one.limit >= 0
        assert one.remaining is None or one.remaining >= 0
        assert one.reset_s is None or 0 <= one.reset_s <= LONGEST_RESET_S
        assert one.raw
        assert all(len(text) <= 100 and (text.isprintable() or not text) for _, text in one.raw)
