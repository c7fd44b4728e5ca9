"""Compare what a provider tells with what was recorded, by day and model, and explain each difference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any

from byok.statements.reconcile.reading import Told
from byok.statements.reconcile.recorded import Recorded

MEASURES = ("requests", "input", "output", "usd")

TEXTS = {
    "unknown_requests": "requests whose end nobody saw, or of which the endpoint told no usage, would account for it",
    "day_boundary": "over neighbouring days it comes to nothing: the provider's day begins at another hour than UTC's",
    "price_differs": "usage is the same and the cost is not: another price holds than the one recorded (byok price set)",
    "unpriced": "usage is the same, and charges of it have no price here (byok price set)",
    "rounded": "the provider rounds its costs",
    "other_users": "more is told than was asked from here: others use the same key, or the export covers more than this key",
    "not_told": "more was asked from here than is told: the export is of another key, project or period, or not complete yet",
    "unknown_model": "no model of this name is registered here: others use the same account",
}
"""Explanations by name."""

EXPLAINED = frozenset({"unknown_requests", "day_boundary", "price_differs", "unpriced", "rounded"})
"""Explanations that account for a difference; the others say where to look."""


@dataclass(frozen=True)
class Line:
    """One day and model.

    Attributes:
        day: As the provider has it, and in UTC here.
        model: The provider's name.
        keys: Keys under which it is registered; none: it is not.
        recorded: None when nothing was.
        told: None when the file says nothing of it.
        explanations: Names out of `TEXTS`; none when there is no difference.
    """

    day: date
    model: str
    keys: tuple[str, ...]
    recorded: Recorded | None
    told: Told | None
    explanations: tuple[str, ...] = ()

    def difference(self, measure: str) -> Any:
        """What is told beyond what is recorded; None when the export does not tell the measure."""
        if self.told is not None and getattr(self.told, measure) is None:
            return None
        nothing = Decimal(0) if measure == "usd" else 0
        return (getattr(self.told, measure) if self.told else nothing) - (getattr(self.recorded, measure) if self.recorded else nothing)

    @property
    def differs(self) -> bool:
        """Whether anything is different."""
        return any(self.difference(one) for one in MEASURES)

    @property
    def explained(self) -> bool:
        """Whether there is no difference that nothing accounts for."""
        return EXPLAINED.issuperset(self.explanations)

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape of a line."""
        return {
            "day": self.day,
            "model": self.model,
            "keys": list(self.keys),
            "recorded": self.recorded
            and {name: getattr(self.recorded, name) for name in (*MEASURES, "unpriced", "uncertain", "unmeasured")},
            "told": self.told and {name: getattr(self.told, name) for name in MEASURES},
            "difference": {name: self.difference(name) for name in MEASURES},
            "explanations": [{"code": name, "text": TEXTS[name]} for name in self.explanations],
            "explained": self.explained,
        }


def compare(told: Sequence[Told], recorded: Sequence[Recorded], names: Iterable[tuple[str, str]], *, lone: str | None = None) -> list[Line]:
    """All days and models of both sides, with their differences explained.

    Args:
        told: What the provider's export says.
        recorded: What was recorded in the same period.
        names: The provider's name and our key of each model that is considered.
        lone: The provider's name of the model that a file without a column of models is about.
    """
    keys: dict[str, list[str]] = {}
    for remote, key in names:
        keys.setdefault(remote, []).append(key)
    ours: dict[tuple[date, str], Recorded] = {(one.day, one.model): one for one in recorded}
    theirs: dict[tuple[date, str], Told] = {}
    for one in told:
        model = (lone or "unknown") if one.model is None else _match(one.model, keys)
        before = theirs.get((one.day, model))
        theirs[one.day, model] = replace(one, model=model) if before is None else _together(before, one)
    blank = _blank(told)
    lines = [
        Line(day, model, tuple(keys.get(model, ())), ours.get((day, model)), theirs.get((day, model), replace(blank, day=day, model=model)))
        for day, model in sorted(ours.keys() | theirs.keys())
    ]
    shifted = _shifted(lines)
    return [replace(line, explanations=_explain(line, (line.day, line.model) in shifted)) for line in lines]


def _match(name: str, keys: dict[str, list[str]]) -> str:
    """Our name of a model that the provider tells with a date, a vendor or in other letters; its own name when it is none of ours."""
    if name in keys:
        return name
    folded = name.casefold()
    found = [one for one in keys if one.casefold() == folded or one.rpartition("/")[2].casefold() == folded]
    found = found or [one for one in keys if folded.startswith(one.casefold() + "-") and folded[len(one) + 1 :].replace("-", "").isdigit()]
    found = found or [key_of for key_of, ones in keys.items() if name in ones]
    return found[0] if len(found) == 1 else name


def _together(one: Told, other: Told) -> Told:
    def add(a: Any, b: Any) -> Any:
        return a if b is None else b if a is None else a + b

    sums = {name: add(getattr(one, name), getattr(other, name)) for name in MEASURES}
    return replace(one, **sums, decimals=max(one.decimals, other.decimals))


def _blank(told: Sequence[Told]) -> Told:
    """What an export says of a day and model by leaving them out: nothing of what it tells at all."""
    measures: dict[str, Any] = {name: 0 if any(getattr(one, name) is not None for one in told) else None for name in MEASURES}
    if measures["usd"] is not None:
        measures["usd"] = Decimal(0)
    return Told(day=date.min, model=None, **measures, decimals=max((one.decimals for one in told), default=2))


def _shifted(lines: Sequence[Line]) -> set[tuple[date, str]]:
    """Days and models whose differences come to nothing over days in a row: one has too much, the next too little."""
    found: set[tuple[date, str]] = set()
    for model in {line.model for line in lines}:
        open_: list[Line] = []
        for line in (one for one in lines if one.model == model):
            if open_ and (line.day - open_[-1].day).days != 1:
                open_ = []
            if not open_ and not _usage(line):
                continue
            open_.append(line)
            if len(open_) > 1 and not any(sum(one.difference(name) or 0 for one in open_) for name in ("requests", "input", "output")):
                found |= {(one.day, one.model) for one in open_}
                open_ = []
    return found


def _usage(line: Line) -> bool:
    return any(line.difference(name) for name in ("requests", "input", "output"))


def _explain(line: Line, shifted: bool) -> tuple[str, ...]:
    if not line.differs:
        return ()
    if not line.keys:
        return ("unknown_model",)
    if _usage(line):
        return ("day_boundary",) if shifted else (_explain_usage(line),)
    return (_explain_cost(line),)


def _explain_usage(line: Line) -> str:
    ours = line.recorded
    requests, told = line.difference("requests"), [line.difference(name) or 0 for name in ("input", "output")]
    if (requests or 0) < 0 or any(one < 0 for one in told):
        return "not_told"
    if ours is not None and (ours.uncertain or ours.unmeasured):
        # As much as so many requests can have used, if none was larger than the largest that is known.
        most = [ours.most_input, ours.most_output]
        extra = ours.uncertain if requests is None else requests
        fits = all(size is None or one <= (extra + ours.unmeasured) * size for one, size in zip(told, most, strict=True))
        if (requests is None or requests <= ours.uncertain) and fits:
            return "unknown_requests"
    return "other_users"


def _explain_cost(line: Line) -> str:
    difference, ours = line.difference("usd"), line.recorded
    if line.told is not None and abs(difference) <= Decimal(1).scaleb(-line.told.decimals) / 2:
        return "rounded"
    return "unpriced" if ours is not None and ours.unpriced and difference > 0 else "price_differs"


def totals(lines: Sequence[Line]) -> dict[str, Any]:
    """Sums over all lines, by measure; None for what the export does not tell."""
    found: dict[str, Any] = {}
    for name in MEASURES:
        known = [one for one in (line.difference(name) for line in lines) if one is not None]
        ours = sum((getattr(line.recorded, name) for line in lines if line.recorded), Decimal(0) if name == "usd" else 0)
        told = [getattr(line.told, name) for line in lines if line.told and getattr(line.told, name) is not None]
        found[name] = {"recorded": ours, "told": sum(told) if told else None, "difference": sum(known) if known else None}
    return found
