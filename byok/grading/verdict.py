"""What a grader says of one answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """One verdict.

    Attributes:
        outcome: ok, unscored (a code grader cannot decide), unknown (the judge abstains), unparsable, refused, error or truncated.
        score: None unless the outcome is ok.
        passed: None unless the outcome is ok.
        label: The label that a labelling judge chose.
        reasoning: The reason that was given.
    """

    outcome: str
    score: float | None = None
    passed: bool | None = None
    label: str | None = None
    reasoning: str | None = None


def decided(passed: bool) -> Verdict:
    """A verdict that passes or fails."""
    return Verdict("ok", 1.0 if passed else 0.0, passed)


def unscored(reason: str) -> Verdict:
    """No verdict, and why."""
    return Verdict("unscored", reasoning=reason)
