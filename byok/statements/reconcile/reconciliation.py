"""Reconcile one file with the warehouse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from byok.errors import InputError
from byok.statements.months import Month
from byok.statements.reconcile.compare import Line, compare, totals
from byok.statements.reconcile.reading import read_usage
from byok.statements.reconcile.recorded import recorded_usage, remote_names
from byok.warehouse import Queries


class NothingToCompare(InputError):
    """The export has nothing of the month, or does not say of which model it is."""

    code = "nothing_to_compare"


@dataclass(frozen=True)
class Reconciliation:
    """What a provider's export and the records have of the same days.

    Attributes:
        layout: How the file was read: the name of a known layout, guessed or mapped.
        first: First day that was compared.
        last: Last day.
        lines: By day and model.
    """

    layout: str
    first: date
    last: date
    lines: tuple[Line, ...]

    @property
    def explained(self) -> bool:
        """Whether everything that differs is accounted for."""
        return all(line.explained for line in self.lines)

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape."""
        return {
            "layout": self.layout,
            "first_day": self.first,
            "last_day": self.last,
            "totals": totals(self.lines),
            "explained": self.explained,
            "lines": [line.as_dict() for line in self.lines],
        }


def reconcile(
    results: Queries, org_id: str, path: Path, *, mapping: Mapping[str, tuple[str, ...]], key: str | None, month: Month | None
) -> Reconciliation:
    """Compare a provider's usage export with what was recorded, over the days that the file spans, or those of a month.

    Args:
        results: One state of the warehouse.
        org_id: Whose records.
        path: The export: CSV, JSON, JSONL or Parquet.
        mapping: Columns by meaning, where they are not to be guessed.
        key: Compare only the model of this key; rows of other models are left out.
        month: Compare only the days of this month, all of them.

    Raises:
        UsageFileInvalid, LayoutUnknown, BadMap: The file is not understood; nothing was compared.
        ModelUnrecorded: There is no model of that key.
        NothingToCompare: The file has nothing of the month, or names no model while no key is given.
    """
    layout, told = read_usage(path, mapping)
    names = remote_names(results, org_id, key)
    if layout.model is None and key is None:
        raise NothingToCompare("the export does not say of which model it is", hint="name it: --model KEY, or its column: --map model=…")
    if month is not None:
        told = [one for one in told if month.start.date() <= one.day < month.end.date()]
        if not told:
            raise NothingToCompare(f"the export has nothing of {month}", hint="export that month, or leave --month out")
        first, last = month.start.date(), month.end.date() - timedelta(days=1)
    else:
        first, last = min(one.day for one in told), max(one.day for one in told)
    recorded = recorded_usage(results, org_id, _midnight(first), _midnight(last + timedelta(days=1)), key)
    lines = compare(told, recorded, names, lone=names[0][0] if layout.model is None and names else None)
    if key is not None:
        lines = [line for line in lines if key in line.keys]
    return Reconciliation(layout.name, first, last, tuple(lines))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
