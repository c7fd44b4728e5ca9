"""Nebius Token Factory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from starlette.requests import Request

from byok.sandbox.chats import Rules
from byok.sandbox.dialects.details import FORM_CODES, detail_entries
from byok.sandbox.dialects.deviations import NEBIUS, Deviation
from byok.sandbox.dialects.errors import said
from byok.sandbox.dialects.openai import OpenAI
from byok.sandbox.dialects.prices import per_token, prices
from byok.sandbox.dialects.turns import Turn
from byok.sandbox.faults import Fault
from byok.sandbox.reading import ChatReader
from byok.sandbox.refusals import Refused, refused
from byok.sandbox.settings import Settings

TIERS = ("auto", "default", "over-limit", "flex", "no-limit")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


class NebiusReader(ChatReader):
    """Reads a request: `service_tier` has more values, and thinking is switched off by the template's variable only."""

    def effort(self) -> str | None:
        if self.body.get("service_tier", "auto") not in TIERS:
            self.wrong("invalid_value", f"'service_tier' must be one of {', '.join(map(repr, TIERS))}.", "service_tier")
        asked = super().effort()
        template = self.body.get("chat_template_kwargs")
        off = isinstance(template, dict) and template.get("enable_thinking") is False
        return "none" if off and self.can.state("reasoning") == "on" else asked


class Nebius(OpenAI):
    """Nebius Token Factory."""

    name: ClassVar[str] = "nebius"
    rules: ClassVar[Rules] = Rules(efforts=EFFORTS, effort_refused=False)
    reader: ClassVar[type[ChatReader]] = NebiusReader
    deviations: ClassVar[tuple[Deviation, ...]] = NEBIUS

    def headers(self, turn: Turn) -> dict[str, str]:
        return {**super().headers(turn), "x-inference-id": turn.id, **_rates(59)}

    def embedding_headers(self) -> dict[str, str]:
        return {**super().embedding_headers(), **_rates(59)}

    def message(self, turn: Turn) -> dict[str, Any]:
        told = super().message(turn)
        return told | ({"content": None} if not turn.reply.pieces and turn.reply.reasoning else {})

    def completion(self, turn: Turn) -> dict[str, Any]:
        return super().completion(turn) | {"service_tier": _tier(turn.chat.body)}

    def chunk(self, turn: Turn, choices: list[Any]) -> dict[str, Any]:
        return super().chunk(turn, choices) | {"service_tier": _tier(turn.chat.body)}

    def models(self, settings: Settings, request: Request) -> Any:
        told = super().models(settings, request)
        if request.query_params.get("verbose") == "true":
            told["data"] = [_verbose(model, settings) for model in told["data"]]
        return told

    def embeddings(self, model: str, vectors: Sequence[list[float]], prompt_tokens: int, body: Mapping[str, Any]) -> dict[str, Any]:
        return super().embeddings(model, vectors, prompt_tokens, body) | {"service_tier": _tier(body)}

    def status(self, refusal: Refused) -> int:
        return 422 if refusal.status == 400 and refusal.first.code in FORM_CODES else refusal.status

    def error_body(self, refusal: Refused) -> Any:
        if self.status(refusal) != 422 or refusal.upstream:
            return {"detail": refusal.first.message}
        return {"detail": [entry for problem in refusal.problems for entry in _entries(problem)]}

    def error_headers(self, refusal: Refused) -> dict[str, str]:
        return {"x-inference-id": "sandbox-refused", **({**_rates(0), "retry-after": "1"} if refusal.status == 429 else {})}

    def failure(self, fault: Fault) -> Refused:
        return refused(fault.status, said(fault, f"simulated fault {fault.status}"), fault.code, fault.parameter, upstream=True)


def _entries(problem: Any) -> list[dict[str, Any]]:
    if problem.parameter == "reasoning_effort" and isinstance(problem.value, bool):
        return [
            {
                "type": "literal_error",
                "loc": ["body", "reasoning_effort", f"literal['{value}']"],
                "msg": f"Input should be '{value}'",
                "input": problem.value,
                "ctx": {"expected": f"'{value}'"},
            }
            for value in EFFORTS
        ]
    return detail_entries([problem], with_input=True)


def _tier(body: Mapping[str, Any]) -> str:
    asked = body.get("service_tier", "auto")
    return "default" if asked == "auto" else str(asked)


def _verbose(model: dict[str, Any], settings: Settings) -> dict[str, Any]:
    embeds = model["id"] == settings.embedding_model_id
    sees = settings.can.state("vision") == "on" and not embeds
    into, out = prices(embeds=embeds)
    features = [name for name in ("tools", "json_schema", "reasoning") if settings.can.state(name) == "on" and not embeds]
    return {
        **model,
        "name": model["id"],
        "context_length": settings.context_length,
        "architecture": {
            "modality": "text->embedding" if embeds else "text+image->text" if sees else "text->text",
            "tokenizer": "Other",
        },
        "quantization": "fp8",
        "regions": ["eu-north1"],
        "supported_features": features,
        "supported_sampling_parameters": [] if embeds else ["temperature", "top_p", "stop", "max_tokens"],
        "per_request_limits": None,
        "pricing": {"prompt": f"{per_token(into):f}", "completion": f"{per_token(out):f}", "image": "0", "request": "0"},
    }


def _rates(left: int) -> dict[str, str]:
    """Rate headers: limits for a minute, resets as Go durations, and the dynamic scale."""
    return {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-limit-tokens": "400000",
        "x-ratelimit-remaining-requests": str(left),
        "x-ratelimit-remaining-tokens": str(left * 6000),
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-reset-tokens": "1s",
        "x-ratelimit-dynamic-scale-requests": "1.00",
        "x-ratelimit-dynamic-scale-tokens": "1.00",
        "x-ratelimit-dynamic-period-remaining": "881s",
        "x-ratelimit-dynamic-period-usage-requests": "2%",
        "x-ratelimit-dynamic-period-usage-tokens": "2%",
    }
