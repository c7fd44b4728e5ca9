"""How long a model was busy, and each call's share of it: calls under way at the same time share that time in equal parts."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from datetime import datetime, timedelta
from math import lcm

_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MICROSECOND = timedelta(microseconds=1)

UNKNOWN = -1
"""In place of the end of a call that nobody saw, and of its share."""


def microseconds(moment: datetime) -> int:
    """A time as whole microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def busy_shares(opened: Sequence[int], closed: Sequence[int]) -> array[int]:
    """The share of each call, in whole microseconds; together they come to the time for which any call was under way, exactly.

    A call that began after all others had ended changes nothing about their shares.

    Args:
        opened: When each call was sent, in microseconds.
        closed: When its answer was complete; `UNKNOWN`: the call has no share. An end before the beginning (a clock was set back) counts as
            the beginning.

    Returns:
        A share for each call, in the same order; `UNKNOWN` where there is none.
    """
    shares = array("q", [UNKNOWN]) * len(opened)
    ends = array("q", (UNKNOWN if end == UNKNOWN else max(begin, end) for begin, end in zip(opened, closed, strict=True)))
    known = [number for number, end in enumerate(ends) if end != UNKNOWN]
    starting = array("q", sorted(known, key=lambda number: (opened[number], number)))
    ending = array("q", sorted(known, key=lambda number: (ends[number], opened[number], number)))
    # In units of 1/whole microseconds every share of a moment is a whole number, so that nothing is rounded before the end.
    whole = lcm(*_together(opened, ends, starting, ending))
    elapsed, given, last, next_start, under_way = 0, 0, 0, 0, 0
    exact, begun = 0, {}
    for number in ending:
        while next_start < len(starting) and opened[starting[next_start]] <= ends[number]:
            starter = starting[next_start]
            if under_way:
                elapsed += (opened[starter] - last) * (whole // under_way)
            last, under_way, next_start = opened[starter], under_way + 1, next_start + 1
            begun[starter] = elapsed
        elapsed += (ends[number] - last) * (whole // under_way)
        last, under_way = ends[number], under_way - 1
        exact += elapsed - begun.pop(number)
        shares[number] = exact // whole - given
        given += shares[number]
    return shares


def _together(opened: Sequence[int], ends: Sequence[int], starting: Sequence[int], ending: Sequence[int]) -> set[int]:
    """How many calls there are ever under way at the same time."""
    counts, under_way, next_start = {1}, 0, 0
    for number in ending:
        while next_start < len(starting) and opened[starting[next_start]] <= ends[number]:
            under_way, next_start = under_way + 1, next_start + 1
            counts.add(under_way)
        counts.add(under_way)
        under_way -= 1
    return counts - {0}
