"""A chat request in the sandbox's own terms, and the rules that a provider sets for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from byok.sandbox import tokens

IMAGE_TOKENS = 64
"""What an image counts in a prompt."""


@dataclass(frozen=True)
class Message:
    """One message: its role, its text parts joined by line ends, and how many images it shows."""

    role: str
    text: str
    images: int = 0


@dataclass(frozen=True)
class Tool:
    """A function that the model may call: its name, and the JSON schema of its arguments."""

    name: str
    parameters: Any = None


@dataclass(frozen=True)
class Chat:
    """A chat request that was found to be right.

    Attributes:
        model: As asked for.
        messages: The conversation.
        limit: Most tokens of the answer, None when it is open.
        stop: Texts that end the answer.
        stream: Whether the answer comes in chunks.
        include_usage: Whether a stream ends with its usage.
        continuous_usage: Whether each chunk of a stream has usage.
        logprobs: Whether log probabilities are asked for.
        top_logprobs: How many alternatives for each token.
        legacy_logprobs: Whether they were asked for with a number, in the way of the older completions API.
        json_object: Whether the answer has to be JSON.
        schema: JSON schema that the answer has to follow, or None.
        tools: What may be called.
        tool_choice: `none`, `auto`, `required`, or `named`.
        named_tool: The tool of `named`.
        effort: Reasoning effort as asked for, `none` for no reasoning, None when it is open.
        body: The request as it came.
    """

    model: str
    messages: tuple[Message, ...]
    limit: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    logprobs: bool = False
    top_logprobs: int = 0
    legacy_logprobs: bool = False
    json_object: bool = False
    schema: Any = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "none"
    named_tool: str | None = None
    effort: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def contents(self) -> list[tuple[str, str]]:
        """Role and text of each message."""
        return [(message.role, message.text) for message in self.messages]

    @property
    def question(self) -> str:
        """The last text of the user, "" without one."""
        return next((message.text for message in reversed(self.messages) if message.role == "user"), "")

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all messages and images."""
        return tokens.count_messages(message.text for message in self.messages) + IMAGE_TOKENS * sum(
            message.images for message in self.messages
        )


@dataclass(frozen=True)
class Rules:
    """What a provider takes in a chat request; the OpenAI API's where nothing else is said.

    Attributes:
        temperature: Least and greatest.
        least_top_p: Least `top_p` that is refused, 0 when 0 is taken.
        most_stops: Most stop texts.
        stop_as_text: Whether one stop text may come without a list.
        most_top_logprobs: Greatest `top_logprobs`.
        logprobs_flag: Whether `logprobs` may be true or false.
        most_logprobs: Greatest number that `logprobs` may be; None when it may be no number.
        limits: Names of the limit of the answer, the one that wins first.
        limits_exclusive: Whether both limits at once are refused.
        model_needed: Whether a request has to name its model.
        efforts: Values of `reasoning_effort`.
        effort_kinds: Types that `reasoning_effort` may have besides text.
        effort_refused: Whether a model that does not reason refuses `reasoning_effort`, or ignores it.
        auto_tools_flag: Whether tools without a fixed choice need a server that was started for them (`auto_tools`).
        any_tool: Whether `tool_choice` may be `any`, which means `required`.
        tools_or_format: Whether tools and a response format exclude each other.
        message_members: Members that a message may have; None when any other one is ignored.
        web_images: Whether an image may be given by an address (which the sandbox then cannot fetch) and not only by its bytes.
    """

    temperature: tuple[float, float] = (0, 2)
    least_top_p: float | None = None
    most_stops: int = 4
    stop_as_text: bool = True
    most_top_logprobs: int = 20
    logprobs_flag: bool = True
    most_logprobs: int | None = None
    limits: tuple[str, ...] = ("max_completion_tokens", "max_tokens")
    limits_exclusive: bool = False
    model_needed: bool = True
    efforts: tuple[str, ...] = ("none", "minimal", "low", "medium", "high", "xhigh")
    effort_kinds: tuple[type, ...] = ()
    effort_refused: bool = True
    auto_tools_flag: bool = False
    any_tool: bool = False
    tools_or_format: bool = False
    message_members: frozenset[str] | None = None
    web_images: bool = True
