"""What a simulated model can do, what it takes without effect, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NAMES = (
    "streaming",
    "stream_options",
    "embeddings",
    "json_object",
    "json_schema",
    "tools",
    "logprobs",
    "system",
    "vision",
    "reasoning",
    "auto_tools",
)
"""`auto_tools`: tools with `tool_choice: auto`, which vLLM takes only when it was started for it."""
UNUSUAL = frozenset({"vision", "reasoning"})
"""What a sandbox can do only when it is asked for."""
NEVER_IGNORED = frozenset({"embeddings", "auto_tools"})
State = Literal["on", "ignored", "off"]


@dataclass(frozen=True)
class Capabilities:
    """What happens to each feature.

    Attributes:
        supports: Features that work.
        ignores: Features that are accepted with status 200 and have no effect. `reasoning` in both sets: it reasons, and
            `reasoning_effort` changes nothing.
    """

    supports: frozenset[str]
    ignores: frozenset[str] = frozenset()

    def state(self, name: str) -> State:
        """Whether a feature works, is ignored, or is refused."""
        return "ignored" if name in self.ignores else "on" if name in self.supports else "off"
