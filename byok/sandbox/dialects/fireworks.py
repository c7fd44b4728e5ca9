"""Fireworks AI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from byok.sandbox.chats import Chat, Rules
from byok.sandbox.dialects.catalogue import served
from byok.sandbox.dialects.details import FORM_CODES, detail_entries
from byok.sandbox.dialects.deviations import FIREWORKS, Deviation
from byok.sandbox.dialects.errors import said
from byok.sandbox.dialects.openai import OpenAI, holds_key
from byok.sandbox.dialects.prices import CACHED, prices
from byok.sandbox.dialects.turns import Turn, steps
from byok.sandbox.faults import Fault
from byok.sandbox.logprobs import alternatives, logprob, openai_logprobs, token_id
from byok.sandbox.reading import ChatReader
from byok.sandbox.refusals import Refused, refused
from byok.sandbox.settings import Settings
from byok.sandbox.vectors import EmbeddingRules
from byok.sandbox.wire import as_json

_MESSAGE = frozenset({"role", "content", "reasoning_content", "tool_call_id", "tool_calls", "name"})
_EMBEDDING = frozenset({"input", "model", "prompt_template", "dimensions", "return_logits", "normalize"})


class FireworksReader(ChatReader):
    """Reads a request: thinking may be switched off, and excludes an effort."""

    def effort(self) -> str | None:
        asked = super().effort()
        thinking = self.body.get("thinking")
        if isinstance(thinking, dict) and "reasoning_effort" in self.body:
            self.wrong("invalid_value", "'thinking' and 'reasoning_effort' cannot be used together.", "thinking")
        off = isinstance(thinking, dict) and thinking.get("type") == "disabled"
        return "none" if off and self.can.state("reasoning") == "on" else asked


class Fireworks(OpenAI):
    """Fireworks AI."""

    name: ClassVar[str] = "fireworks"
    prefix: ClassVar[str] = "/inference/v1"
    rules: ClassVar[Rules] = Rules(
        most_top_logprobs=5,
        most_logprobs=5,
        limits_exclusive=True,
        efforts=("none", "low", "medium", "high"),
        effort_kinds=(bool, int),
        any_tool=True,
        tools_or_format=True,
        message_members=_MESSAGE,
    )
    embedding_rules: ClassVar[EmbeddingRules] = EmbeddingRules(most_texts=8, members=_EMBEDDING, encodings=())
    reader: ClassVar[type[ChatReader]] = FireworksReader
    deviations: ClassVar[tuple[Deviation, ...]] = FIREWORKS

    def fit(self, chat: Chat, settings: Settings) -> int:
        prompt, context = chat.prompt_tokens, settings.context_length
        if chat.body.get("context_length_exceeded_behavior") == "error":
            return super().fit(chat, settings)
        return max(1, min(chat.limit or context, context - prompt))

    def too_long(self, prompt: int, limit: int | None, context: int) -> Refused:
        message = f"The prompt is too long: {prompt + (limit or 0)}, model maximum context length: {context}"
        return refused(400, message, None, upstream=True)

    def writes_blanks(self, chat: Chat) -> bool:
        return chat.json_object and not any("json" in text.casefold() for _, text in chat.contents)

    def headers(self, turn: Turn) -> dict[str, str]:
        limits = {"x-request-id": turn.id, **_rates()}
        return limits if turn.chat.stream else limits | {f"fireworks-{name}": value for name, value in _performance(turn).items()}

    def usage(self, turn: Turn) -> dict[str, Any] | None:
        told = super().usage(turn)
        if told is None or turn.reply.usage is not None:
            return told
        told.pop("completion_tokens_details", None)
        return told | {"prompt_tokens_details": {"cached_tokens": 0}}

    def logprobs(self, turn: Turn, pieces: Sequence[str], start: int = 0) -> Any:
        offset = sum(map(len, (turn.reply.pieces or ())[:start]))
        offsets = [offset + sum(map(len, pieces[:number])) for number in range(len(pieces))]
        top, ids = turn.chat.top_logprobs, [token_id(piece) for piece in pieces]
        if turn.chat.legacy_logprobs:
            places = [(start + number, piece) for number, piece in enumerate(pieces)]
            return {
                "tokens": list(pieces),
                "token_logprobs": [logprob(number, piece) for number, piece in places],
                "top_logprobs": [dict(alternatives(number, piece, top)) for number, piece in places],
                "text_offset": offsets,
                "token_ids": ids,
            }
        found = openai_logprobs(pieces, top, start)["content"]
        for entry, place, number in zip(found, offsets, ids, strict=True):
            entry |= {"text_offset": place, "token_id": number}
            for other in entry["top_logprobs"]:
                other["token_id"] = token_id(other["token"])
        return {"content": found}

    def chunks(self, turn: Turn) -> Iterator[dict[str, Any]]:
        for step in steps(turn):
            told = self.chunk(turn, [self.stream_choice(turn, step)])
            if step.kind == "finish":
                told["usage"] = self.usage(turn)
                if turn.chat.body.get("perf_metrics_in_response") is True:
                    told["perf_metrics"] = _performance(turn)
            yield told

    def model(self, settings: Settings, model_id: str, *, embeds: bool) -> dict[str, Any]:
        return {
            **super().model(settings, model_id, embeds=embeds),
            "owned_by": "fireworks",
            "kind": "EMBEDDING_MODEL" if embeds else "HF_BASE_MODEL",
            "supports_chat": True,
            "supports_image_input": settings.can.state("vision") == "on" and not embeds,
            "supports_tools": settings.can.state("tools") == "on" and not embeds,
            "context_length": settings.context_length,
        }

    def status(self, refusal: Refused) -> int:
        return 422 if refusal.status == 400 and not refusal.upstream and refusal.first.code in FORM_CODES else refusal.status

    def error_body(self, refusal: Refused) -> Any:
        if self.status(refusal) == 422 and not refusal.upstream:
            return {"detail": detail_entries(refusal.problems, with_input=False)}
        return super().error_body(refusal)

    def error_headers(self, refusal: Refused) -> dict[str, str]:
        return {**super().error_headers(refusal), **(_rates() if refusal.status == 429 else {})}

    def failure(self, fault: Fault) -> Refused:
        scaling = fault.code == "DEPLOYMENT_SCALING_UP"
        message = said(fault, "The deployment is scaling up, try again later." if scaling else fault.message)
        return refused(fault.status, message, fault.code, fault.parameter, upstream=True)

    def routes(self, settings: Settings) -> list[BaseRoute]:
        async def catalogue(request: Request) -> Response:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if settings.api_keys and not holds_key(given, settings.api_keys):
                return as_json({"error": {"message": "Unauthorized", "code": "UNAUTHORIZED"}}, status=401)
            return as_json(_page(settings, request.query_params.get("pageSize", ""), request.query_params.get("pageToken", "")))

        return [Route("/v1/accounts/fireworks/models", catalogue)]


def _page(settings: Settings, size: str, token: str) -> dict[str, Any]:
    """One page of the control plane's list of models."""
    listed = served(settings)
    start = int(token) if token.isdigit() else 0
    end = start + min(int(size) if size.isdigit() and int(size) else 50, settings.page_size)
    models = [_described(settings, model, embeds=embeds) for model, embeds in listed[start:end]]
    return {"models": models, "nextPageToken": str(end) if end < len(listed) else "", "totalSize": len(listed)}


def _described(settings: Settings, model_id: str, *, embeds: bool) -> dict[str, Any]:
    into, out = prices(embeds=embeds)
    skus = (("input uncached", into), ("input cached", into if embeds else CACHED), ("output", out))
    return {
        "name": model_id if model_id.startswith("accounts/") else f"accounts/fireworks/models/{model_id}",
        "displayName": model_id,
        "kind": "EMBEDDING_MODEL" if embeds else "HF_BASE_MODEL",
        "state": "READY",
        "contextLength": settings.context_length,
        "supportsTools": settings.can.state("tools") == "on" and not embeds,
        "supportsImageInput": settings.can.state("vision") == "on" and not embeds,
        "supportsServerless": True,
        "serverlessModes": [
            {
                "skuInfos": [
                    {"sku": sku, "amount": {"currencyCode": "USD", "units": "0", "nanos": int(price * 10**9)}, "unit": "1M tokens"}
                    for sku, price in skus
                ]
            }
        ],
    }


def _performance(turn: Turn) -> dict[str, str]:
    first, whole = turn.seconds
    return {
        "prompt-tokens": str(turn.reply.prompt_tokens),
        "cached-prompt-tokens": "0",
        "server-time-to-first-token": f"{first:.3f}",
        "server-processing-time": f"{whole:.3f}",
    }


def _rates() -> dict[str, str]:
    limits = {"tokens-prompt": 60000, "tokens-cache-adjusted-prompt": 30000, "tokens-generated": 5000}
    found = {f"x-ratelimit-limit-{name}": str(limit) for name, limit in limits.items()}
    found |= {f"x-ratelimit-remaining-{name}": str(limit // 2) for name, limit in limits.items()}
    return found | {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "599"}
