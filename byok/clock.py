"""Time: always UTC, always aware."""

from __future__ import annotations

from datetime import UTC, datetime


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
