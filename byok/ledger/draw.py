"""Which grants are drawn on first. Pure: no clock, no database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Kind = Literal["promotional", "paid"]

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Credit:
    """What is left of a grant of credit.

    Attributes:
        id: The grant.
        kind: promotional (given) or paid (bought).
        priority: Among those of a kind that expire together, the lower is drawn first.
        left: Micro-ECU that are neither held, nor used, nor expired.
        effective_at: From when it can be drawn.
        expires_at: When what is left is lost; None: never.
    """

    id: str
    kind: str
    priority: int
    left: int
    effective_at: datetime
    expires_at: datetime | None

    def drawable(self, now: datetime) -> bool:
        """Whether it can be drawn at a time."""
        return self.left > 0 and self.effective_at <= now and (self.expires_at is None or now < self.expires_at)


def in_order(credits: Iterable[Credit], now: datetime) -> list[Credit]:
    """The grants that can be drawn, in their order: promotional before paid, then by expiry, by priority, by id (so by age)."""
    return sorted([one for one in credits if one.drawable(now)], key=order)


def order(credit: Credit) -> tuple[bool, datetime, int, str]:
    """Where a grant stands among others, whether it can be drawn on or not."""
    return credit.kind != "promotional", credit.expires_at or _NEVER, credit.priority, credit.id


def draw(credits: Iterable[Credit], micro: int, now: datetime) -> tuple[list[tuple[str, int]], int]:
    """Draw an amount.

    Args:
        credits: What there is.
        micro: How much to draw, in micro-ECU.
        now: When.

    Returns:
        How much of each grant, in order, and what they fall short of.
    """
    parts = []
    for credit in in_order(credits, now):
        if micro == 0:
            break
        part = min(credit.left, micro)
        parts.append((credit.id, part))
        micro -= part
    return parts, micro
