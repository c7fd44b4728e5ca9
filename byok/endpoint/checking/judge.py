"""From what was seen to one finding for each fact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from byok.endpoint.checking import failing, listing, metering, obeying, reaching, refusing, speaking, streaming
from byok.endpoint.checking.facts import FACTS
from byok.endpoint.checking.session import Session
from byok.endpoint.checking.verdict import Case, Outcome, Verdict
from byok.endpoint.wire import excerpt

_LONGEST = 300
"""Characters of what was seen."""

JUDGES: Final[Mapping[int, Callable[[Case], Verdict]]] = {
    number: judged
    for module in (listing, reaching, failing, refusing, metering, speaking, streaming, obeying)
    for number, judged in module.FACTS.items()
}
"""Who judges which fact."""


@dataclass(frozen=True)
class Finding:
    """What a report says of one fact.

    Attributes:
        number: Of the fact.
        title: Of the fact.
        outcome: `pass`, `fail` or `n/a`.
        seen: What was seen, without the credentials, in at most some 300 characters.
        hint: What the provider could change; empty unless it fails.
        requests: Numbers of the requests that showed it.
    """

    number: int
    title: str
    outcome: Outcome
    seen: str
    hint: str
    requests: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape."""
        return {
            "number": self.number,
            "title": self.title,
            "outcome": self.outcome,
            "seen": self.seen,
            "hint": self.hint,
            "requests": list(self.requests),
        }


def judge(session: Session) -> tuple[Finding, ...]:
    """One finding for each fact, in their order."""
    case = Case(session.seen, session.target, session.base, session.redact)
    found = []
    for fact in FACTS:
        verdict = JUDGES[fact.number](case)
        looks = sorted({look.number: look for look in verdict.looks}.values(), key=lambda look: look.number)
        where = "; ".join(
            f"HTTP {look.status}, id {look.request_id}" for look in looks[:1] if verdict.outcome == "fail" and look.request_id
        )
        seen = excerpt(verdict.seen, session.redact, _LONGEST) + (f" ({excerpt(where, session.redact, 140)})" if where else "")
        hint = excerpt(verdict.hint, session.redact, _LONGEST) if verdict.outcome == "fail" else ""
        found.append(Finding(fact.number, fact.title, verdict.outcome, seen, hint, tuple(look.number for look in looks)))
    return tuple(found)
