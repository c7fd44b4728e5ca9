"""One answered chat, and the steps in which a stream tells it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from byok.sandbox.chats import Chat
from byok.sandbox.replies import Reply
from byok.sandbox.settings import Settings

StepKind = Literal["role", "reasoning", "text", "refusal", "call", "arguments", "finish"]


@dataclass(frozen=True)
class Turn:
    """A chat and its answer.

    Attributes:
        number: Of the chat request, from 1.
        chat: The request.
        reply: The answer.
        settings: Of the sandbox.
    """

    number: int
    chat: Chat
    reply: Reply
    settings: Settings

    @property
    def id(self) -> str:
        """Id of the answer."""
        return f"chatcmpl-sandbox-{self.number}"

    @property
    def seconds(self) -> tuple[float, float]:
        """Seconds to the first token and to the last one, as the settings make them."""
        first = self.settings.latency_ms / 1000 + 0.001
        return first, first + self.reply.completion_tokens * (self.settings.chunk_latency_ms / 1000 + 0.001)


@dataclass(frozen=True)
class Step:
    """One piece of a stream.

    Attributes:
        kind: What it carries.
        text: The text of it.
        position: Number of the token in the text, from 0.
    """

    kind: StepKind
    text: str = ""
    position: int = 0


def steps(turn: Turn) -> Iterator[Step]:
    """The role, the reasoning, the text or refusal, the call, and the end."""
    reply = turn.reply
    yield Step("role")
    for piece in reply.reasoning or ():
        yield Step("reasoning", piece)
    for number, piece in enumerate(reply.pieces or ()):
        yield Step("text", piece, number)
    if reply.refusal is not None:
        yield Step("refusal", reply.refusal)
    if reply.call is not None:
        yield Step("call", reply.call.name)
        yield Step("arguments", reply.call.arguments)
    yield Step("finish")
