"""Consumption by day on both planes, and when the ECU balance runs out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from byok.errors import InputError
from byok.money import ecu
from byok.statements.forecast import Forecast, forecast
from byok.warehouse import Queries

MOST_DAYS = 3660


class BadDays(InputError):
    """Not a number of days to look back."""

    code = "bad_days"


@dataclass(frozen=True)
class ConsumedDay:
    """What one day came to.

    Attributes:
        day: In UTC, by use.
        charges: Lines of both planes; corrections count none.
        amount_usd: Known USD of the provider plane; None when there is none.
        unpriced: Charges of the provider plane whose amount is not known.
        micro_ecu: Micro-ECU; None when there is none.
    """

    day: date
    charges: int
    amount_usd: Decimal | None
    unpriced: int
    micro_ecu: int | None


@dataclass(frozen=True)
class Consumption:
    """The last days, and the forecast; without a ledger there is none."""

    days: tuple[ConsumedDay, ...]
    forecast: Forecast | None

    @property
    def total_usd(self) -> Decimal | None:
        """What is known of the provider plane; None when there is something, and nothing of it has an amount."""
        known = [one.amount_usd for one in self.days if one.amount_usd is not None]
        return None if not known and any(one.unpriced for one in self.days) else sum(known, Decimal(0))

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape."""
        told = self.forecast
        return {
            "days": [asdict(one) | {"ecu": None if one.micro_ecu is None else ecu(one.micro_ecu)} for one in self.days],
            "total_usd": self.total_usd,
            "unpriced_charges": sum(one.unpriced for one in self.days),
            "total_micro_ecu": sum(one.micro_ecu or 0 for one in self.days),
            "forecast": told and asdict(told) | {"left_ecu": ecu(told.left_micro_ecu)},
        }


_DAYS = """
SELECT day, CAST(sum(charges) AS BIGINT), sum(amount_usd), CAST(sum(unpriced_charges) FILTER (WHERE plane = 'provider') AS BIGINT),
    CAST(sum(amount_micro_ecu) AS BIGINT)
FROM v1.daily_cost WHERE org_id = ? AND day > ? AND day <= ? GROUP BY day ORDER BY day
"""
_BEFORE = "SELECT max(day) FROM v1.daily_cost WHERE org_id = ? AND day <= ? AND amount_micro_ecu > 0"
_LEFT = "SELECT available_micro_ecu + held_micro_ecu FROM v1.balance WHERE org_id = ?"
_EXPIRES = """
SELECT min(expires_at) FROM v1.grants WHERE org_id = ? AND expires_at > ? AND expires_at < ? AND available_micro_ecu + held_micro_ecu > 0
"""


def consumption(results: Queries, org_id: str, days: int, now: datetime) -> Consumption:
    """What the last days came to, the present one included, with a forecast from the same days.

    Raises:
        BadDays: Fewer than 1 or more than ten years.
    """
    if not 1 <= days <= MOST_DAYS:
        raise BadDays(f"--days {days}: not a number of days", hint=f"from 1 to {MOST_DAYS}")
    since = now.date() - timedelta(days=days)
    found = [ConsumedDay(row[0], row[1], row[2], row[3] or 0, row[4]) for row in results.query(_DAYS, [org_id, since, now.date()]).rows]
    left = results.query(_LEFT, [org_id]).rows
    if not left:
        return Consumption(tuple(found), None)
    usage = {one.day: one.micro_ecu or 0 for one in found}
    ((before,),) = results.query(_BEFORE, [org_id, since]).rows
    told = forecast(usage | ({before: 1} if before else {}), left[0][0], now, days)
    return Consumption(tuple(found), _with_expiry(results, org_id, told, now))


def _with_expiry(results: Queries, org_id: str, told: Forecast, now: datetime) -> Forecast:
    """Say so when credit expires before the forecast's day, which is reckoned as if it did not."""
    if told.runs_out_on is None or told.runs_out_on <= now.date():
        return told
    ((expires,),) = results.query(_EXPIRES, [org_id, now, datetime.combine(told.runs_out_on, now.timetz())]).rows
    if expires is None:
        return told
    return replace(told, how=f"{told.how}; credit that expires before then, from {expires.date()} on, is counted as if it lasted")
