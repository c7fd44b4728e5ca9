"""Days and times as options."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from byok.errors import InputError


class BadTime(InputError):
    """A text that is no day and no time."""

    code = "bad_time"


def read_time(text: str, option: str) -> datetime:
    """A day (its beginning) or a time; without a zone it is UTC.

    Args:
        text: What was given.
        option: For the message.

    Raises:
        BadTime: It is neither.
    """
    try:
        # The library also takes forms without dashes, which nobody would read as a day.
        if re.match(r"\d{4}-\d\d-\d\d", text) is None:
            raise ValueError(text)
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadTime(f"{option}: {text!r} is no day and no time", hint="write 2026-11-01, or 2026-11-01T12:00Z") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
