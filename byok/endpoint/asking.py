"""How an endpoint is asked: the request's members, by the endpoint's own names for them, and what was learnt from its refusals."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import orjson

from byok.endpoint.classify import TOKEN_PARAMETERS
from byok.endpoint.errors import BadRequest, EndpointError
from byok.endpoint.profiles import RESERVED, Profile

OPTIONAL = ("stream_options", "encoding_format")
"""Members that only ask for more than is needed: where one is refused, the request is sent without it."""

_AS_GIVEN: tuple[Literal["temperature", "response_format", "seed", "tools", "tool_choice"], ...] = (
    *("temperature", "response_format", "seed", "tools", "tool_choice"),
)


class ChatOptions(TypedDict, total=False):
    """What may be asked of a chat completion; what is left out, or None, is the endpoint's own choice."""

    max_tokens: int | None
    """Most tokens of the answer."""
    temperature: float | None
    response_format: dict[str, Any] | None
    """OpenAI `response_format`."""
    seed: int | None
    tools: list[dict[str, Any]] | None
    """OpenAI `tools`."""
    tool_choice: str | dict[str, Any] | None
    logprobs: int | None
    """Ask for log probabilities, with so many alternatives for each token."""
    stream: bool
    """Let the answer come piece by piece."""
    enough: int | None
    """Of a stream: stop after so many pieces."""
    more: dict[str, Any] | None
    """Further members, as they are."""


class Asking:
    """The members of requests to one model at one endpoint.

    Args:
        remote_id: What the endpoint calls the model. Sent as it is.
        profile: How its provider differs from the plain protocol.
        extra: Members that are merged last into every chat request, so that the owner's values win.
        token_parameter: What the endpoint calls the limit of the answer's tokens, where a probe has found that.

    Raises:
        BadRequest: The extra payload sets a reserved member.
    """

    def __init__(self, remote_id: str, profile: Profile, extra: dict[str, Any], token_parameter: str | None = None) -> None:
        taken = sorted(RESERVED & extra.keys())
        if taken:
            raise BadRequest(f"the extra payload may not set {', '.join(taken)}", hint="remove it from --extra-payload", parameter=taken[0])
        self.remote_id, self.profile, self.extra = remote_id, profile, extra
        self.token_parameter = token_parameter or profile.token_parameter
        self._left: set[str] = set()
        self.refused: set[str] = set()
        """Optional members that this endpoint does not take."""
        if not profile.encoding_format:
            self.refused.add("encoding_format")
        if profile.stream_usage == "unasked":
            self.refused.add("stream_options")

    def limit(self, max_tokens: int | None) -> int | None:
        """The limit of the answer's tokens that a request carries: the owner's own, where there is one, stands alone."""
        owners = [value for name in TOKEN_PARAMETERS if isinstance(value := self.extra.get(name), int)]
        limit = max(owners) if owners else max_tokens
        answers = self.extra.get("n")
        return limit * answers if limit is not None and isinstance(answers, int) and answers > 1 else limit

    def chat(self, messages: list[dict[str, Any]], options: ChatOptions) -> bytes:
        """The body of a chat request.

        Raises:
            BadRequest: It cannot be written as JSON.
        """
        asked: dict[str, Any] = {name: options[name] for name in _AS_GIVEN if options.get(name) is not None}
        # Two limits in one request are refused by some and read differently by others: the owner's stands alone.
        if options.get("max_tokens") is not None and not self.extra.keys() & set(TOKEN_PARAMETERS):
            asked[self.token_parameter] = options["max_tokens"]
        alternatives = options.get("logprobs")
        if alternatives is not None:
            most = min(alternatives, self.profile.most_logprobs)
            asked |= {"logprobs": max(1, most)} if self.profile.logprobs == "integer" else {"logprobs": True, "top_logprobs": most}
        if options.get("stream"):
            asked["stream"] = True
            if "stream_options" not in self.refused:
                asked["stream_options"] = {"include_usage": True}
        told = {self.profile.renames.get(name, name): value for name, value in asked.items() if name not in self.profile.drops}
        body = {"model": self.remote_id, "messages": messages} | self.profile.default_payload | told
        return _written(body | (options.get("more") or {}) | self.extra)

    def embeddings(self, texts: list[str], dimensions: int | None) -> bytes:
        """The body of an embeddings request. Floats are asked for by name: a client that leaves it open may get either.

        Raises:
            BadRequest: It cannot be written as JSON.
        """
        body: dict[str, Any] = {"model": self.remote_id, "input": texts}
        if "encoding_format" not in self.refused:
            body["encoding_format"] = "float"
        if dimensions is not None and "dimensions" not in self.profile.drops:
            body["dimensions"] = dimensions
        return _written(body)

    def adapt(self, error: EndpointError) -> bool:
        """Change how this endpoint is asked, if a refusal says how; True when another try makes sense."""
        wanted = error.fields.get("instead")
        if isinstance(wanted, str):
            if wanted in (self.token_parameter, *self._left, *self.profile.renames) or self.extra.keys() & set(TOKEN_PARAMETERS):
                return False
            self._left.add(self.token_parameter)
            self.token_parameter = wanted
            return True
        if not isinstance(error, BadRequest):
            return False
        named = next((name for name in OPTIONAL if name in (error.parameter or "")), None)
        if named is None or named in self.refused:
            return False
        self.refused.add(named)
        return True

    def state(self) -> tuple[str, frozenset[str]]:
        """How it is asked now: a request that was sent in another way may be sent anew."""
        return self.token_parameter, frozenset(self.refused)


def _written(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except (orjson.JSONEncodeError, TypeError):
        problem = BadRequest("the request cannot be written as JSON", hint="a text has broken characters, or the extra payload odd values")
    raise problem
