"""The OpenAI API as it is documented; the other dialects say only where they differ."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import orjson
from starlette.requests import Request
from starlette.routing import BaseRoute

from byok.sandbox.capabilities import NAMES, UNUSUAL
from byok.sandbox.chats import Chat, Rules
from byok.sandbox.dialects.catalogue import Catalogue
from byok.sandbox.dialects.deviations import Deviation
from byok.sandbox.dialects.errors import Errors
from byok.sandbox.dialects.turns import Step, Turn, steps
from byok.sandbox.logprobs import openai_logprobs
from byok.sandbox.reading import ChatReader
from byok.sandbox.refusals import Refused, refused
from byok.sandbox.replies import Reply
from byok.sandbox.settings import Settings
from byok.sandbox.vectors import EmbeddingRules


def holds_key(given: str, keys: Collection[str]) -> bool:
    """Whether a text is one of the keys."""
    return any(hmac.compare_digest(given.encode(), key.encode()) for key in keys)


class OpenAI(Errors, Catalogue):
    """How one provider speaks: what it takes, and the shapes of what it says."""

    name: ClassVar[str] = "openai"
    prefix: ClassVar[str] = "/v1"
    rules: ClassVar[Rules] = Rules()
    embedding_rules: ClassVar[EmbeddingRules] = EmbeddingRules()
    reader: ClassVar[type[ChatReader]] = ChatReader
    supports: ClassVar[frozenset[str]] = frozenset(NAMES) - UNUSUAL
    """What its models can do when nothing else is said."""
    reasoning_as: ClassVar[str] = "reasoning_content"
    """Member with the reasoning; `both` for `reasoning` and `reasoning_content`, `think` for tags inside the text."""
    lists_models: ClassVar[bool] = True
    has_embeddings: ClassVar[bool] = True
    buffers: ClassVar[bool] = False
    """Whether a stream is held back until it is complete."""
    deviations: ClassVar[tuple[Deviation, ...]] = ()

    # --- what comes in

    def check_key(self, request: Request, keys: Collection[str]) -> None:
        """Refuse a request without one of the keys, if there are any.

        Raises:
            Refused: It has none of them.
        """
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if keys and not holds_key(given, keys):
            # Like the real ones, it says that the key is wrong and not what it was.
            raise refused(401, "Incorrect API key provided.", "invalid_api_key")

    def read_body(self, request: Request, raw: bytes) -> dict[str, Any]:
        """The JSON object of a request.

        Raises:
            Refused: It is none.
        """
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            raise refused(400, "The body is not a JSON object.", "invalid_json")
        return value

    def read_chat(self, body: Mapping[str, Any], settings: Settings) -> Chat:
        """A chat request.

        Raises:
            Refused: The model is another one, or something is wrong with the request.
        """
        model = body.get("model")
        if model == settings.embedding_model_id:
            raise refused(400, f"The model `{model}` is not a chat model.", "invalid_value", "model", model, upstream=True)
        if model != settings.model_id and (model is not None or self.rules.model_needed):
            raise self.unknown_model(model)
        return self.reader(body, self.rules, settings.can, settings.model_id).read()

    def unknown_model(self, model: Any) -> Refused:
        """The refusal of a model that is not served."""
        return refused(404, f"The model `{model}` does not exist.", "model_not_found", "model", model)

    def fit(self, chat: Chat, settings: Settings) -> int:
        """The most tokens that the answer may have within the context.

        Raises:
            Refused: Prompt and limit together do not fit.
        """
        prompt, context = chat.prompt_tokens, settings.context_length
        if prompt + (chat.limit or 1) > context:
            raise self.too_long(prompt, chat.limit, context)
        return chat.limit or context - prompt

    def too_long(self, prompt: int, limit: int | None, context: int) -> Refused:
        """The refusal of a chat that does not fit into the context."""
        asked = f"you requested {prompt + limit} tokens ({prompt} in the messages, {limit} in the completion)" if limit else ""
        asked = asked or f"your messages resulted in {prompt} tokens"
        message = f"This model's maximum context length is {context} tokens. However, {asked}. Please reduce their length."
        return refused(400, message, "context_length_exceeded", "messages", upstream=True)

    def writes_blanks(self, chat: Chat) -> bool:
        """Whether the model writes line ends up to the limit instead of an answer."""
        return False

    # --- what goes out

    def ended(self, chat: Chat, reply: Reply) -> Reply:
        """The reply with the provider's own word for its end."""
        return reply

    def headers(self, turn: Turn) -> dict[str, str]:
        """Of an answer."""
        return {"x-request-id": turn.id}

    def usage(self, turn: Turn) -> dict[str, Any] | None:
        """Tokens of an answer; None when the endpoint does not tell them."""
        reply = turn.reply
        if reply.usage is not None:
            return dict(reply.usage)
        if not turn.settings.usage:
            return None
        told: dict[str, Any] = {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        }
        if "reasoning" in turn.settings.can.supports:
            told["completion_tokens_details"] = {"reasoning_tokens": reply.reasoning_tokens}
        return told

    def reasoning(self, turn: Turn, text: str | None) -> dict[str, Any]:
        """The member or members with reasoning; empty when there is none."""
        where = turn.settings.reasoning_as or self.reasoning_as
        if text is None or where == "think":
            return {}
        return dict.fromkeys(("reasoning", "reasoning_content") if where == "both" else (where,), text)

    def logprobs(self, turn: Turn, pieces: Sequence[str], start: int = 0) -> Any:
        """Log probabilities of some tokens of the text."""
        return openai_logprobs(pieces, turn.chat.top_logprobs, start)

    def tool_call(self, turn: Turn) -> dict[str, Any]:
        """The call of a tool, whole."""
        call = turn.reply.call
        function = {"name": call.name, "arguments": call.arguments} if call else {}
        return {"id": f"call_sandbox_{turn.number}", "type": "function", "function": function}

    def message(self, turn: Turn) -> dict[str, Any]:
        """The message of an answer."""
        reply = turn.reply
        told: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": reply.refusal}
        return told | self.reasoning(turn, reply.thoughts) | ({"tool_calls": [self.tool_call(turn)]} if reply.call else {})

    def choice(self, turn: Turn) -> dict[str, Any]:
        """The one choice of an answer."""
        told: dict[str, Any] = {"index": 0, "message": self.message(turn), "finish_reason": turn.reply.finish_reason}
        return told | ({"logprobs": self.logprobs(turn, turn.reply.pieces or ())} if turn.chat.logprobs else {})

    def completion(self, turn: Turn) -> dict[str, Any]:
        """An answer as a whole."""
        usage = self.usage(turn)
        told = {"id": turn.id, "object": "chat.completion", "created": 0, "model": turn.chat.model, "choices": [self.choice(turn)]}
        return told if usage is None else told | {"usage": usage}

    # --- streams

    def chunk(self, turn: Turn, choices: list[Any]) -> dict[str, Any]:
        """A chunk of a stream around its choices."""
        return {"id": turn.id, "object": "chat.completion.chunk", "created": 0, "model": turn.chat.model, "choices": choices}

    def delta(self, turn: Turn, step: Step) -> dict[str, Any]:
        """What one step adds to the message."""
        if step.kind == "role":
            return {"role": "assistant", "content": None if turn.reply.call else ""}
        if step.kind == "reasoning":
            return self.reasoning(turn, step.text)
        if step.kind == "text":
            return {"content": step.text}
        if step.kind == "refusal":
            return {"refusal": step.text}
        if step.kind == "call":
            return {"tool_calls": [{"index": 0, **self.tool_call(turn), "function": {"name": step.text, "arguments": ""}}]}
        return {"tool_calls": [{"index": 0, "function": {"arguments": step.text}}]} if step.kind == "arguments" else {}

    def stream_choice(self, turn: Turn, step: Step) -> dict[str, Any]:
        """The choice of one chunk."""
        finish = turn.reply.finish_reason if step.kind == "finish" else None
        told: dict[str, Any] = {"index": 0, "delta": self.delta(turn, step), "finish_reason": finish}
        if turn.chat.logprobs:
            told["logprobs"] = self.logprobs(turn, [step.text], step.position) if step.kind == "text" else None
        return told

    def chunks(self, turn: Turn) -> Iterator[dict[str, Any]]:
        """All chunks of a stream; with `include_usage` all but the last have `usage: null`, and the last one no choices."""
        usage = self.usage(turn) if turn.chat.include_usage else None
        for step in steps(turn):
            yield self.chunk(turn, [self.stream_choice(turn, step)]) | ({} if usage is None else {"usage": None})
        if usage is not None:
            yield self.chunk(turn, []) | {"usage": usage}

    def done(self, *, failed: bool) -> bool:
        """Whether a stream ends with `data: [DONE]`, when it failed or not."""
        return not failed

    # --- where

    def faces(self) -> tuple[OpenAI, ...]:
        """This dialect and others that the same server speaks under other paths."""
        return (self,)

    def routes(self, settings: Settings) -> list[BaseRoute]:
        """More routes of the server, such as one for its health."""
        return []
