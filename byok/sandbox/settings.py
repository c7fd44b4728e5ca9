"""How a sandbox behaves, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from byok.sandbox.capabilities import Capabilities
from byok.sandbox.faults import FaultHook
from byok.sandbox.replies import Mind


@dataclass
class Counters:
    """What the sandbox did. Tokens are those of answered requests, whether or not `usage` was sent.

    `chat_requests` are all of them, `stream_requests` those that asked for a stream; `prompt_tokens` and `completion_tokens` are of
    chats alone, and `embedding_tokens` of the answered requests for embeddings.
    """

    requests: int = 0
    chat_requests: int = 0
    models_requests: int = 0
    answered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    wrong_keys: int = 0
    right: int = 0
    wrong: int = 0
    unmatched: int = 0
    judged: int = 0
    faults: int = 0
    stream_requests: int = 0
    embedding_requests: int = 0
    embedding_tokens: int = 0


@dataclass
class Settings:
    """How the sandbox behaves; see `Sandbox`. Only `api_keys` changes while it serves."""

    mind: Mind
    model_id: str
    latency_ms: float
    api_keys: frozenset[str] = field(repr=False)
    """Keys that it takes; none means that it takes any request."""
    usage: bool
    can: Capabilities
    hook: FaultHook | None
    embedding_hook: FaultHook | None = None
    embedding_model_id: str = "sandbox-embedding"
    dimensions: int = 64
    context_length: int = 8192
    chunk_latency_ms: float = 0
    reasoning_as: str | None = None
    """Where the reasoning stands; None: where the provider puts it."""
    page_size: int = 200
    """Most models on one page of a paged list."""


def stats_of(settings: Settings, counters: Counters) -> dict[str, int]:
    """The counters, with `rows` known and `right_rows` among them."""
    return {**vars(counters), "rows": len(settings.mind.expected), "right_rows": len(settings.mind.right)}
