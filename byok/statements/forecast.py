"""On which day the ECU balance runs out, if it is used as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

LEAST_DAYS = 3
"""Days with usage that it takes: from fewer, nothing can be said."""

FARTHEST = timedelta(days=3652)
"""Beyond ten years no day is named."""


@dataclass(frozen=True)
class Forecast:
    """When the balance runs out, and how that was reckoned.

    Attributes:
        runs_out_on: The day (UTC); None when nothing can be said, or it is more than ten years away.
        left_micro_ecu: What is left, with what runs hold.
        used_micro_ecu: What was used in the days that were looked at.
        days: How many days that was, the present one as far as it has gone, in hundredths.
        days_with_usage: On how many of them something was used.
        micro_ecu_per_day: Used in a day on average, in whole micro-ECU, rounded down; None when nothing was used.
        how: The same in words.
    """

    runs_out_on: date | None
    left_micro_ecu: int
    used_micro_ecu: int
    days: str
    days_with_usage: int
    micro_ecu_per_day: int | None
    how: str


def forecast(usage: Mapping[date, int], left_micro_ecu: int, now: datetime, days: int) -> Forecast:
    """The day on which what is left is used up at the mean rate of the last days.

    The mean is over whole days back from the present moment's day, which counts as far as it has gone. Days before the first usage are not
    counted: who began a week ago has not used nothing for the three weeks before.

    Args:
        usage: Micro-ECU that were used, by day (UTC); days without usage may be missing.
        left_micro_ecu: What is left, with what runs hold; negative when overdrawn.
        now: The present moment.
        days: How many days to look back, the present one included; at least 1.
    """
    today = now.astimezone(UTC).date()
    used = {day: micro for day, micro in usage.items() if today - timedelta(days=days) < day <= today and micro > 0}
    total = sum(used.values())
    first = min(used, default=today)
    if any(micro > 0 and day < first for day, micro in usage.items()):
        first = today - timedelta(days=days - 1)
    passed = now - datetime.combine(first, time(), UTC)
    hundredths = passed * 100 // timedelta(days=1)
    shown = f"{hundredths // 100}.{hundredths % 100:02}"
    rate = total * _us(timedelta(days=1)) // max(_us(passed), 1) if total else None
    runs_out, how = None, ""
    if left_micro_ecu <= 0:
        runs_out, how = today, "nothing is left"
    elif len(used) < LEAST_DAYS:
        how = f"no forecast: there was usage on {len(used)} of the last {days} days, and it takes at least {LEAST_DAYS}"
    else:
        remaining = timedelta(microseconds=min(left_micro_ecu * _us(passed) // total, _us(FARTHEST) + 1))
        how = f"what is left, with what runs hold, divided by the mean usage of the last {shown} days (usage on {len(used)} of them)"
        if remaining > FARTHEST:
            how += ": it lasts more than ten years"
        else:
            runs_out = (now.astimezone(UTC) + remaining).date()
    return Forecast(runs_out, left_micro_ecu, total, shown, len(used), rate, how)


def _us(length: timedelta) -> int:
    return length // timedelta(microseconds=1)
