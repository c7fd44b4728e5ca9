"""What a model can do at its endpoint: the names, the outcomes, and the tags by which an owner claims them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from byok.errors import InputError

Name = Literal[
    "chat",
    "streaming",
    "embeddings",
    "json_mode",
    "json_schema",
    "tools",
    "logprobs",
    "system_role",
    "vision",
    "context_length",
    "reasoning",
]
Outcome = Literal["supported", "unsupported", "ignored", "unknown", "untested"]

NAMES: Final[tuple[Name, ...]] = (
    *("chat", "streaming", "embeddings", "json_mode", "json_schema", "tools"),
    *("logprobs", "system_role", "vision", "context_length", "reasoning"),
)
"""In the order in which people are shown them."""

_SPELLINGS: dict[Name, tuple[str, ...]] = {
    "chat": ("chat",),
    "streaming": ("streaming", "stream"),
    "embeddings": ("embeddings", "embedding"),
    "json_mode": ("json-mode", "json", "json-object"),
    "json_schema": ("json-schema", "structured-output", "structured-outputs"),
    "tools": ("tools", "tool-use", "tool-calling", "function-calling", "functions"),
    "logprobs": ("logprobs", "log-probs"),
    "system_role": ("system-role", "system", "system-prompt"),
    "vision": ("vision", "image", "images", "image-input"),
    "context_length": ("context-length",),
    "reasoning": ("reasoning", "thinking"),
}
TAGS: Final[dict[str, Name]] = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
"""Tags that claim a capability, in lower case and with dashes. Any other tag claims nothing."""


class CapabilityMissing(InputError):
    """A tag claims what a full probe did not find."""

    code = "capability_missing"


@dataclass(frozen=True)
class Capability:
    """What a full probe found about one capability.

    Attributes:
        name: One of `NAMES`.
        outcome: `supported`: seen by its effect. `unsupported`: refused. `ignored`: accepted without effect, so not supported.
            `unknown`: the request failed for another reason. `untested`: nothing was asked.
        evidence: What was seen, in words: no key, and nothing that a model wrote.
        value: Tokens of context, or dimensions of a vector; None for the others.
        latency_ms: Of the request that showed it; None when none did.
        http_status: Of that request; None when it had no HTTP answer.
        error_code: Name of its error; None when it was answered.
        parameter: What of the request was refused: a member, or what stood in it (`system`, `image_url`).
    """

    name: Name
    outcome: Outcome
    evidence: str
    value: int | None = None
    latency_ms: float | None = None
    http_status: int | None = None
    error_code: str | None = None
    parameter: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape."""
        return {
            "capability": self.name,
            "outcome": self.outcome,
            "value": self.value,
            "evidence": self.evidence,
            "latency_ms": self.latency_ms,
            "http_status": self.http_status,
            "error_code": self.error_code,
            "parameter": self.parameter,
        }


def declared(tags: Iterable[str]) -> dict[Name, str]:
    """The capabilities that tags claim, each with the first tag that does."""
    found: dict[Name, str] = {}
    for tag in tags:
        name = TAGS.get(tag.lower().replace("_", "-"))
        if name is not None:
            found.setdefault(name, tag)
    return found


def embeds_only(tags: Iterable[str]) -> bool:
    """Whether tags say that a model makes embeddings and does not chat."""
    claimed = declared(tags)
    return "embeddings" in claimed and "chat" not in claimed


def missing(found: Iterable[Capability], tags: Iterable[str]) -> list[tuple[str, Capability]]:
    """The tags that claim what was not found, whatever the reason, each with what was found instead."""
    claimed = declared(tags)
    return [(claimed[one.name], one) for one in found if one.name in claimed and one.outcome != "supported"]


def gap(tag: str, one: Capability) -> str:
    """One line about a claim that was not found true."""
    verdict = {"unsupported": "not supported", "ignored": "accepted without effect", "unknown": "not known", "untested": "not tested"}
    return f"the tag {tag!r} claims {one.name}, which is {verdict.get(one.outcome, one.outcome)}: {one.evidence}"


def check_claims(found: Iterable[Capability], tags: Iterable[str]) -> None:
    """Refuse tags that claim what was not found.

    Raises:
        CapabilityMissing: Names each tag with outcome and evidence.
    """
    gaps = missing(found, tags)
    if gaps:
        raise CapabilityMissing(
            "; ".join(gap(tag, one) for tag, one in gaps),
            hint="take these tags away, or leave out --strict",
            tags=", ".join(tag for tag, _ in gaps),
            outcomes=", ".join(f"{one.name}: {one.outcome}" for _, one in gaps),
        )
