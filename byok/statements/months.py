"""Months: what a statement is for, in UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from byok.clock import utcnow
from byok.errors import InputError


class BadMonth(InputError):
    """A text that is no month."""

    code = "bad_month"


@dataclass(frozen=True, order=True)
class Month:
    """A calendar month in UTC.

    Attributes:
        year: From 2000 to 9998.
        number: 1 is January.
    """

    year: int
    number: int

    @classmethod
    def of(cls, moment: datetime) -> Month:
        """The month of a moment."""
        moment = moment.astimezone(UTC)
        return cls(moment.year, moment.month)

    @classmethod
    def parse(cls, text: str | None) -> Month:
        """A month from `YYYY-MM`; None is the present one.

        Raises:
            BadMonth: It is none.
        """
        if text is None:
            return cls.of(utcnow())
        found = re.fullmatch(r"([2-9][0-9]{3})-(0[1-9]|1[0-2])", text.strip(), re.ASCII)
        if found is None or found[1] == "9999":
            raise BadMonth(f"{text[:40]!r} is not a month", hint="write year and month, for example 2026-11")
        return cls(int(found[1]), int(found[2]))

    @property
    def start(self) -> datetime:
        """Its first moment."""
        return datetime(self.year, self.number, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The first moment of the month after it."""
        return datetime(self.year + self.number // 12, self.number % 12 + 1, 1, tzinfo=UTC)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"
