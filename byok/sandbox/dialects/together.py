"""Together AI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from starlette.requests import Request

from byok.sandbox.chats import Chat, Rules
from byok.sandbox.dialects.catalogue import served
from byok.sandbox.dialects.deviations import TOGETHER, Deviation
from byok.sandbox.dialects.errors import said
from byok.sandbox.dialects.openai import OpenAI
from byok.sandbox.dialects.prices import CACHED, prices
from byok.sandbox.dialects.turns import Step, Turn, steps
from byok.sandbox.faults import Fault
from byok.sandbox.logprobs import alternatives, logprob, token_id
from byok.sandbox.reading import ChatReader
from byok.sandbox.refusals import Refused, refused
from byok.sandbox.replies import Reply
from byok.sandbox.settings import Settings
from byok.sandbox.vectors import EmbeddingRules

SEED = 15924764223251450000
"""A seed as one was recorded: it is greater than any signed integer of 64 bits."""


class TogetherReader(ChatReader):
    """Reads a request: `logprobs` is a number, `max_completion_tokens` is unknown, reasoning may be switched off."""

    def limit(self) -> int | None:
        if "max_completion_tokens" in self.body:
            self.wrong("unknown_parameter", "Unknown parameter: 'max_completion_tokens'. Use 'max_tokens'.", "max_completion_tokens")
        return super().limit()

    def effort(self) -> str | None:
        asked = super().effort()
        reasoning = self.body.get("reasoning")
        off = isinstance(reasoning, dict) and reasoning.get("enabled") is False
        return "none" if off and self.can.state("reasoning") == "on" else asked


class Together(OpenAI):
    """Together AI."""

    name: ClassVar[str] = "together"
    rules: ClassVar[Rules] = Rules(
        logprobs_flag=False,
        most_logprobs=20,
        limits=("max_tokens",),
        efforts=("low", "medium", "high"),
        effort_refused=False,
    )
    embedding_rules: ClassVar[EmbeddingRules] = EmbeddingRules(encodings=(), takes_dimensions=False)
    reader: ClassVar[type[ChatReader]] = TogetherReader
    reasoning_as: ClassVar[str] = "both"
    deviations: ClassVar[tuple[Deviation, ...]] = TOGETHER

    def fit(self, chat: Chat, settings: Settings) -> int:
        if chat.body.get("context_length_exceeded_behavior") == "truncate":
            room = max(1, settings.context_length - chat.prompt_tokens)
            return min(chat.limit or room, room)
        return super().fit(chat, settings)

    def too_long(self, prompt: int, limit: int | None, context: int) -> Refused:
        given = f"Given: {prompt} `inputs` tokens and {limit or 1} `max_new_tokens`"
        return refused(403, f"`inputs` tokens + `max_new_tokens` must be <= {context}. {given}")

    def ended(self, chat: Chat, reply: Reply) -> Reply:
        own_end = reply.finish_reason == "stop" and reply.stopped_by is None
        return replace(reply, finish_reason="eos") if own_end else reply

    def headers(self, turn: Turn) -> dict[str, str]:
        return {**super().headers(turn), "x-together-request-id": turn.id, "cf-ray": f"{turn.number:016x}-SBX", **_rates(9)}

    def usage(self, turn: Turn) -> dict[str, Any] | None:
        told = super().usage(turn)
        return told if told is None or turn.reply.usage is not None else told | {"cached_tokens": 0}

    def logprobs(self, turn: Turn, pieces: Sequence[str], start: int = 0) -> Any:
        places = [(start + number, piece) for number, piece in enumerate(pieces)]
        top = {word: value for number, piece in places for word, value in alternatives(number, piece, turn.chat.top_logprobs)}
        return {
            "token_ids": [token_id(piece) for piece in pieces],
            "tokens": list(pieces),
            "token_logprobs": [logprob(number, piece) for number, piece in places],
            "top_logprobs": top,
        }

    def tool_call(self, turn: Turn) -> dict[str, Any]:
        return {"index": 0, **super().tool_call(turn)}

    def message(self, turn: Turn) -> dict[str, Any]:
        told = super().message(turn)
        return {**told, "content": ""} if turn.reply.call else told

    def choice(self, turn: Turn) -> dict[str, Any]:
        return super().choice(turn) | {"text": turn.reply.text or "", "seed": 7}

    def completion(self, turn: Turn) -> dict[str, Any]:
        return super().completion(turn) | {"prompt": []}

    def chunks(self, turn: Turn) -> Iterator[dict[str, Any]]:
        for step in steps(turn):
            if step.kind != "call":
                yield self.chunk(turn, [self.stream_choice(turn, step)]) | self._closing(turn, step)

    def stream_choice(self, turn: Turn, step: Step) -> dict[str, Any]:
        text = step.text if step.kind == "text" else ""
        told: dict[str, Any] = {
            "index": 0,
            "delta": {"role": "assistant", "content": text, **self._added(turn, step)},
            "text": text,
            "logprobs": logprob(step.position, step.text) if turn.chat.logprobs and step.kind == "text" else None,
            "finish_reason": turn.reply.finish_reason if step.kind in ("finish", "arguments") else None,
        }
        return told | ({"seed": SEED} if step.kind == "finish" else {})

    def _added(self, turn: Turn, step: Step) -> dict[str, Any]:
        if step.kind == "reasoning":
            return self.reasoning(turn, step.text)
        if step.kind == "arguments":
            return {"tool_calls": [self.tool_call(turn)]}
        return {"token_id": token_id(step.text)} if step.kind == "text" else {}

    def _closing(self, turn: Turn, step: Step) -> dict[str, Any]:
        return {"usage": self.usage(turn) if step.kind == "finish" else None}

    def models(self, settings: Settings, request: Request) -> Any:
        if request.query_params.get("dedicated") == "true":
            return []
        return [self.model(settings, model, embeds=embeds) for model, embeds in served(settings)]

    def model(self, settings: Settings, model_id: str, *, embeds: bool) -> dict[str, Any]:
        into, out = prices(embeds=embeds)
        pricing = {"hourly": 0, "input": float(into), "output": float(out), "base": 0, "finetune": 0}
        return {
            "id": model_id,
            "object": "model",
            "created": 0,
            "type": "embedding" if embeds else "chat",
            "display_name": model_id,
            "organization": "Sandbox",
            "link": None,
            "license": None,
            "context_length": settings.context_length,
            "pricing": pricing if embeds else pricing | {"cached_input": float(CACHED)},
        }

    def embeddings(self, model: str, vectors: Sequence[list[float]], prompt_tokens: int, body: Mapping[str, Any]) -> dict[str, Any]:
        told = super().embeddings(model, vectors, prompt_tokens, {})
        return {name: value for name, value in told.items() if name != "usage"}

    def failure(self, fault: Fault) -> Refused:
        if fault.status == 429:
            return refused(429, said(fault, "The rate of requests is over its dynamic limit."), fault.code, fault.parameter)
        return super().failure(fault)

    def error_type(self, status: int, code: str | None) -> str:
        return "dynamic_request_limited" if status == 429 else super().error_type(status, code)

    def error_headers(self, refusal: Refused) -> dict[str, str]:
        return {"x-together-request-id": "sandbox-refused", **(_rates(0) if refusal.status == 429 else {})}


def _rates(left: int) -> dict[str, str]:
    """Rate headers: of requests and of tokens for a second, and the wait in seconds."""
    return {
        "x-ratelimit-limit": "10",
        "x-ratelimit-remaining": str(left),
        "x-ratelimit-reset": "0.1",
        "x-tokenlimit-limit": "3000",
        "x-tokenlimit-remaining": str(left * 300),
    }
