"""What a probe notes: its requests, and what it found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from byok.clock import utcnow
from byok.endpoint.capabilities import Capability
from byok.endpoint.usage import Usage


@dataclass(frozen=True)
class ProbeAttempt:
    """One request of a probe to the model, as it is recorded and charged.

    Attributes:
        status: Whether an answer came.
        error_code: Code of the error, when none came.
        http_status: None when there was no HTTP answer.
        latency_ms: To the last byte, or to the failure.
        usage: Tokens; `missing` for an error.
        request_id: The provider's id.
        opened_at: Before the request left.
        closed_at: When the answer was complete.
        vectors: Whether embeddings were asked for.
    """

    status: Literal["ok", "error"]
    error_code: str | None
    http_status: int | None
    latency_ms: float
    usage: Usage
    request_id: str | None
    opened_at: datetime
    closed_at: datetime
    vectors: bool = False


@dataclass
class ProbeLog:
    """What a probe has asked so far. It outlives a probe that fails: what was asked may have cost tokens.

    Attributes:
        attempts: The requests to the model, in order.
        started_at: When the probe began.
        opening: Is awaited before each request leaves, for who must know of it even if its end is never seen.
        closing: Is told how it ended.
    """

    attempts: list[ProbeAttempt] = field(default_factory=list)
    started_at: datetime = field(default_factory=utcnow)
    opening: Callable[[datetime], Awaitable[None]] | None = None
    closing: Callable[[ProbeAttempt], None] | None = None


@dataclass(frozen=True)
class ProbeResult:
    """What a successful probe found.

    Attributes:
        models_listed: Whether the model is in the endpoint's list; None when there is no list to be read.
        attempts: The requests to the model, in order.
        latency_ms: Of the one that showed that the model answers.
        warnings: What is odd but no obstacle.
        token_parameter: What the endpoint calls the limit of the answer's tokens.
        answered: Which of the attempts that was, from 0; the last one by default.
        chat: Whether the model chats; False for a model that was asked for embeddings alone.
        dimensions: Of a vector of a model that makes embeddings.
        ttft_ms: Time to the first token, where a stream was asked for and was not held back on its way.
        capabilities: What a full probe found, in the order of `capabilities.NAMES`; None for a basic one.
        spent: Tokens of a full probe: as reported, or their upper bound where that is not known; None for a basic one.
    """

    models_listed: bool | None
    attempts: list[ProbeAttempt]
    latency_ms: float
    warnings: list[str]
    token_parameter: str
    answered: int = -1
    chat: bool = True
    dimensions: int | None = None
    ttft_ms: float | None = None
    capabilities: tuple[Capability, ...] | None = None
    spent: int | None = None

    @property
    def full(self) -> bool:
        """Whether the capabilities were probed."""
        return self.capabilities is not None

    @property
    def usage(self) -> Usage:
        """Tokens of the request that showed that the model answers."""
        return self.attempts[self.answered].usage
