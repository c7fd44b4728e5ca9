"""Time: always UTC, always aware."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from byok.errors import InputError

_DURATION = re.compile(r"(\d{1,6})\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class BadDuration(InputError):
    """A text that is no length of time."""

    code = "bad_duration"


def parse_duration(text: str, *, what: str) -> timedelta:
    """A length of time such as `30m`, `24h`, `90d` or `0`.

    Raises:
        BadDuration: It is none; the message names `what`.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None and text.strip() != "0":
        raise BadDuration(f"{what}: {text!r} is not a length of time", hint="a number with s, m, h, d or w: 30m, 24h, 90d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta(0)


def utcnow() -> datetime:
    """The time now, in UTC, aware, to the microsecond."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """`moment` as ISO 8601 in UTC with microseconds.

    Raises:
        ValueError: `moment` is naive.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without a zone was about to be stored")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
