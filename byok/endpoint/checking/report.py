"""The report of a check: JSON of a stable shape, and Markdown for a ticket."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from byok.clock import iso
from byok.endpoint.checking.judge import Finding
from byok.endpoint.checking.look import Look
from byok.endpoint.checking.verdict import Outcome
from byok.text import markdown

OUTCOMES: Final[tuple[Outcome, ...]] = ("fail", "pass", "n/a")
"""What fails comes first."""

MEANING: Final = (
    "pass: what was seen is what the OpenAI reference says, or differs at no cost to who uses byok, and the text says how. "
    "fail: something is lost or wrong. n/a: not seen on this endpoint, for the reason given."
)


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        url: Base URL.
        model: What the endpoint calls the model.
        provider: Name of the profile by which it was asked.
        at: When the check began.
        version: Of byok.
        looks: The requests.
        bound: Most tokens that were announced.
        findings: One for each fact, by number.
    """

    url: str
    model: str
    provider: str
    at: datetime
    version: str
    looks: tuple[Look, ...]
    bound: int
    findings: tuple[Finding, ...]

    @property
    def reported(self) -> int:
        """Tokens that the endpoint reported."""
        return sum(look.tokens or 0 for look in self.looks)

    @property
    def estimated(self) -> int:
        """Upper bound of the tokens beside the reported ones: of answers that reported none, or what does not add up."""
        return sum(look.estimate for look in self.looks)

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many facts have which outcome."""
        return {outcome: sum(one.outcome == outcome for one in self.findings) for outcome in ("pass", "fail", "n/a")}

    @property
    def lost(self) -> bool:
        """Whether the endpoint could not be reached, from the beginning or any more."""
        return all(look.status is None for look in self.looks) or all(look.lost for look in self.looks[-2:])

    @property
    def exit_code(self) -> int:
        """0 when no fact fails, 1 when some do, 4 when the endpoint was not, or no longer, there."""
        return 4 if self.lost else 1 if self.counts["fail"] else 0

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape."""
        return {
            "url": self.url,
            "model": self.model,
            "provider": self.provider,
            "at": iso(self.at),
            "version": self.version,
            "requests": [
                {
                    "number": look.number,
                    "what": look.what,
                    "method": look.method,
                    "route": look.route,
                    "status": look.status,
                    "ms": round(look.ms, 1),
                    "request_id": look.request_id,
                    "tokens": look.tokens,
                }
                for look in self.looks
            ],
            "tokens": {"announced": self.bound, "reported": self.reported, "estimated": self.estimated},
            "facts": [one.as_dict() for one in self.findings],
            "counts": dict(self.counts),
        }

    def head(self) -> list[tuple[str, str]]:
        """Names and values that stand above the findings."""
        counts = self.counts
        return [
            ("base URL", self.url),
            ("model", self.model),
            ("date", f"{self.at:%Y-%m-%d %H:%M} UTC"),
            ("byok", self.version),
            ("profile", self.provider),
            ("requests", str(len(self.looks))),
            ("tokens", f"{self.reported} reported, {self.estimated} estimated where none were reported"),
            ("facts", f"{counts['fail']} fail, {counts['pass']} pass, {counts['n/a']} n/a"),
        ]

    def markdown(self) -> str:
        """The report as GitHub renders it; nothing that the endpoint wrote is more than text."""
        lines = ["# Endpoint check", ""]
        lines += [f"- {name}: {markdown(value)}" for name, value in self.head()]
        lines += ["", markdown(MEANING)]
        for outcome in OUTCOMES:
            found = [one for one in self.findings if one.outcome == outcome]
            if not found:
                continue
            hints = outcome == "fail"
            lines += ["", f"## {outcome} ({len(found)})", ""]
            lines += [
                f"| fact | what | seen | requests |{' what could change |' if hints else ''}",
                f"| --: | --- | --- | --- |{' --- |' if hints else ''}",
            ]
            lines += [_row(one, hints=hints) for one in found]
        lines += [
            "",
            "## Requests",
            "",
            "| number | what | request | status | ms | tokens | id |",
            "| --: | --- | --- | --: | --: | --: | --- |",
        ]
        for look in self.looks:
            told = (look.number, look.what, f"{look.method} {look.route}", look.status, f"{look.ms:.0f}", look.tokens, look.request_id)
            lines.append(f"| {' | '.join(map(markdown, told))} |")
        return "\n".join(lines) + "\n"


def _row(one: Finding, *, hints: bool) -> str:
    cells = [str(one.number), markdown(one.title), markdown(one.seen), ", ".join(map(str, one.requests)) or "-"]
    return f"| {' | '.join(cells + ([markdown(one.hint)] if hints else []))} |"
