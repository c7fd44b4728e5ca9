"""What a fact's judgement is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from byok.endpoint.bodies import read_error
from byok.endpoint.checking.look import Look, Seen
from byok.endpoint.checking.session import Target
from byok.endpoint.policy import BaseUrl
from byok.endpoint.wire import Redactor, excerpt

Outcome = Literal["pass", "fail", "n/a"]

ENVELOPE = 'send {"error": {"message", "type", "param", "code"}} as application/json'
"""What most errors lack."""


@dataclass(frozen=True)
class Verdict:
    """One judgement, before it is cleaned for the report.

    Attributes:
        outcome: `pass`: as the OpenAI reference says, or otherwise without cost for who uses the client. `fail`: something is lost or
            wrong. `n/a`: not seen.
        seen: What was seen, or why nothing was.
        hint: What the provider could change.
        looks: The requests that showed it.
    """

    outcome: Outcome
    seen: str
    hint: str = ""
    looks: tuple[Look, ...] = ()


@dataclass(frozen=True)
class Case:
    """What is judged.

    Attributes:
        seen: The requests.
        target: What was checked.
        base: Its base URL.
        redact: Takes the credentials out of texts.
    """

    seen: Seen
    target: Target
    base: BaseUrl
    redact: Redactor

    def quote(self, value: Any, limit: int = 60) -> str:
        """What an endpoint wrote, cleaned and short."""
        return excerpt(str(value), self.redact, limit)

    def outcome(self, look: Look) -> str:
        """How a request ended: the endpoint's own words, where it said some."""
        if look.reply is not None and look.status is not None and look.status >= 400:
            said = read_error(look.reply).message
            return self.quote(f"HTTP {look.status}: {said}" if said else f"HTTP {look.status}", 200)
        return self.quote(look.error.message, 200) if look.error is not None else f"HTTP {look.status}"

    def entry(self) -> tuple[Look | None, Mapping[str, Any] | None]:
        """The models list, and the model's own entry as it came."""
        look = self.seen.last("models")
        for entry in entries(look):
            if isinstance(entry, dict) and self.target.model_id in (entry.get("id"), entry.get("name")):
                return look, entry
        return look, None


def entries(look: Look | None) -> list[Any]:
    """The entries of a models list as they came."""
    if look is None or look.catalogue is None:
        return []
    value = look.value
    found = value if isinstance(value, list) else value.get("data", value.get("models")) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def good(seen: str, *looks: Look) -> Verdict:
    """As it should be, or otherwise at no cost."""
    return Verdict("pass", seen, looks=looks)


def bad(seen: str, hint: str, *looks: Look) -> Verdict:
    """Something is lost or wrong."""
    return Verdict("fail", seen, hint, looks)


def unseen(reason: str, *looks: Look) -> Verdict:
    """Not seen on this endpoint."""
    return Verdict("n/a", reason, looks=looks)


def unanswered(case: Case, ask: str) -> Verdict:
    """Not seen, because what would have shown it was not asked or not answered."""
    look = case.seen.last(ask)
    return unseen(case.seen.why(ask)) if look is None else unseen(f"not answered: {case.outcome(look)}", look)


def numbers(looks: Iterable[Look]) -> str:
    """`request 3`, or `requests 3, 5 and 7`; empty for none."""
    found = [str(look.number) for look in looks]
    if len(found) < 2:
        return f"request {found[0]}" if found else ""
    return f"requests {', '.join(found[:-1])} and {found[-1]}"
