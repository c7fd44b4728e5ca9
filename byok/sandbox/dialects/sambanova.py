"""SambaNova Cloud."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from byok.sandbox.chats import Chat, Rules
from byok.sandbox.dialects.deviations import SAMBANOVA, Deviation
from byok.sandbox.dialects.errors import said
from byok.sandbox.dialects.openai import OpenAI
from byok.sandbox.dialects.prices import per_token, prices
from byok.sandbox.dialects.turns import Turn, steps
from byok.sandbox.faults import Fault
from byok.sandbox.logprobs import openai_entry
from byok.sandbox.reading import ChatReader
from byok.sandbox.refusals import Refused, refused
from byok.sandbox.settings import Settings

_CREATED = 1735689600.25
_CODES = {
    401: "invalid_authentication",
    408: "request_timeout",
    410: "model_deprecated",
    429: "insufficient_quota",
    500: "internal_server_error",
    503: "maintenance",
}


class SambaNovaReader(ChatReader):
    """Reads a request: thinking may be switched off by the template's variable."""

    def effort(self) -> str | None:
        asked = super().effort()
        template = self.body.get("chat_template_kwargs")
        off = isinstance(template, dict) and template.get("enable_thinking") is False
        return "none" if off and self.can.state("reasoning") == "on" else asked


class SambaNova(OpenAI):
    """SambaNova Cloud."""

    name: ClassVar[str] = "sambanova"
    rules: ClassVar[Rules] = Rules(efforts=("low", "medium", "high"), effort_refused=False, web_images=False)
    reader: ClassVar[type[ChatReader]] = SambaNovaReader
    reasoning_as: ClassVar[str] = "reasoning"
    deviations: ClassVar[tuple[Deviation, ...]] = SAMBANOVA

    def read_chat(self, body: Mapping[str, Any], settings: Settings) -> Chat:
        chat = super().read_chat(body, settings)
        if (chat.json_object or chat.schema is not None) and not any("json" in text.casefold() for _, text in chat.contents):
            raise refused(400, "The model's answer is not the JSON that 'response_format' wants.", None, "response_format", upstream=True)
        return chat

    def unknown_model(self, model: Any) -> Refused:
        return refused(400, f"Model not found: {model}", "model_not_found", "model", model)

    def headers(self, turn: Turn) -> dict[str, str]:
        return {**super().headers(turn), **_rates(59)}

    def usage(self, turn: Turn) -> dict[str, Any] | None:
        told = super().usage(turn)
        if told is None or turn.reply.usage is not None:
            return told
        first, whole = turn.seconds
        spoken = turn.reply.completion_tokens
        after = max(0, spoken - 1) / max(whole - first, 0.001)
        return {
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
            **told,
            "time_to_first_token": first,
            "total_latency": whole,
            "start_time": _CREATED,
            "end_time": _CREATED + whole,
            "completion_tokens_per_sec": spoken / whole,
            "completion_tokens_after_first_per_sec": after,
            "completion_tokens_after_first_per_sec_first_ten": after,
            "completion_tokens_after_first_per_sec_graph": after,
            "total_tokens_per_sec": told["total_tokens"] / whole,
            "acceptance_rate": 1.0,
            "is_last_response": True,
            "stop_reason": turn.reply.finish_reason,
        }

    def logprobs(self, turn: Turn, pieces: Sequence[str], start: int = 0) -> Any:
        if not pieces:
            return None
        entry = openai_entry(start, pieces[0], max(1, turn.chat.top_logprobs))
        return {"content": entry | {"top_logprobs": entry["top_logprobs"][0]}}

    def message(self, turn: Turn) -> dict[str, Any]:
        return {name: value for name, value in super().message(turn).items() if name != "refusal" or value is not None}

    def completion(self, turn: Turn) -> dict[str, Any]:
        return super().completion(turn) | {"created": _CREATED, "system_fingerprint": "fastcoe"}

    def chunk(self, turn: Turn, choices: list[Any]) -> dict[str, Any]:
        return super().chunk(turn, choices) | {"created": _CREATED, "system_fingerprint": "fastcoe"}

    def chunks(self, turn: Turn) -> Iterator[dict[str, Any]]:
        for step in steps(turn):
            yield self.chunk(turn, [self.stream_choice(turn, step)])
        usage = self.usage(turn)
        if usage is not None:
            yield self.chunk(turn, []) | {"usage": usage}

    def model(self, settings: Settings, model_id: str, *, embeds: bool) -> dict[str, Any]:
        into, out = prices(embeds=embeds)
        return {
            "id": model_id,
            "object": "model",
            "owned_by": "sandbox",
            "context_length": settings.context_length,
            "max_completion_tokens": max(1, settings.context_length * 3 // 8),
            "pricing": {"prompt": float(per_token(into)), "completion": float(per_token(out)), "duration_per_hour": 0.0},
            "sn_metadata": {},
        }

    def error_body(self, refusal: Refused) -> Any:
        told = super().error_body(refusal)
        if refusal.status == 401 and told["error"]["code"] in (None, "invalid_api_key"):
            told["error"]["code"] = _CODES[401]
        return told | {"request_id": "sandbox-refused"}

    def error_headers(self, refusal: Refused) -> dict[str, str]:
        return _rates(0) if refusal.status == 429 else {}

    def failure(self, fault: Fault) -> Refused:
        code = fault.code or _CODES.get(fault.status)
        message = said(fault, f"simulated fault: {(code or str(fault.status)).replace('_', ' ')}")
        return refused(fault.status, message, code, fault.parameter, upstream=True)


def _rates(left: int) -> dict[str, str]:
    """Rate headers: of a minute and of a day."""
    now = int(time.time())
    return {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": str(left),
        "x-ratelimit-reset-requests": str(now + 1),
        "x-ratelimit-limit-requests-day": "12000",
        "x-ratelimit-remaining-requests-day": "11000",
        "x-ratelimit-reset-requests-day": str(now + 3600),
    }
