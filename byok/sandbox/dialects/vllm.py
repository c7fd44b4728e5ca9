"""A self-hosted vLLM server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from byok.sandbox.chats import Chat, Rules
from byok.sandbox.dialects.deviations import VLLM, Deviation
from byok.sandbox.dialects.openai import OpenAI
from byok.sandbox.dialects.turns import Step, Turn, steps
from byok.sandbox.faults import Fault
from byok.sandbox.reading import ChatReader
from byok.sandbox.refusals import Refused, refused
from byok.sandbox.replies import Reply
from byok.sandbox.settings import Settings
from byok.sandbox.vectors import EmbeddingRules
from byok.sandbox.wire import as_json

_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    501: "NotImplementedError",
    503: "ServiceUnavailableError",
}
_FORM = ("invalid_type", "invalid_json", "missing_required_parameter")
"""Codes of problems that the server's own validation of the body finds."""


class VllmReader(ChatReader):
    """Reads a request: `structured_outputs` constrains, the removed `guided_*` have no effect, thinking may be switched off."""

    def response_format(self) -> tuple[bool, Any]:
        wanted = self.body.get("structured_outputs")
        schema = wanted.get("json") if isinstance(wanted, dict) else None
        if isinstance(schema, str):
            try:
                schema = orjson.loads(schema)
            except orjson.JSONDecodeError:
                self.wrong("invalid_value", "'structured_outputs.json' is not JSON.", "structured_outputs")
        return (False, schema) if isinstance(schema, dict) and self.can.state("json_schema") == "on" else super().response_format()

    def effort(self) -> str | None:
        asked = super().effort()
        template = self.body.get("chat_template_kwargs")
        off = isinstance(template, dict) and template.get("enable_thinking") is False
        return "none" if off and self.can.state("reasoning") == "on" else asked


class Vllm(OpenAI):
    """A self-hosted vLLM server, started with a chat model (and as if with an embedding model beside it)."""

    name: ClassVar[str] = "vllm"
    rules: ClassVar[Rules] = Rules(
        least_top_p=0,
        model_needed=False,
        efforts=("none", "minimal", "low", "medium", "high", "xhigh", "max"),
        effort_refused=False,
        auto_tools_flag=True,
    )
    embedding_rules: ClassVar[EmbeddingRules] = EmbeddingRules(takes_dimensions=None)
    reader: ClassVar[type[ChatReader]] = VllmReader
    supports: ClassVar[frozenset[str]] = OpenAI.supports - {"auto_tools"}
    reasoning_as: ClassVar[str] = "reasoning"
    deviations: ClassVar[tuple[Deviation, ...]] = VLLM

    def read_body(self, request: Request, raw: bytes) -> dict[str, Any]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise refused(400, "Unsupported Media Type: Only 'application/json' is allowed", "invalid_json")
        return super().read_body(request, raw)

    def fit(self, chat: Chat, settings: Settings) -> int:
        prompt, context = chat.prompt_tokens, settings.context_length
        if chat.limit is not None and chat.limit > context:
            name = "max_completion_tokens" if "max_completion_tokens" in chat.body else "max_tokens"
            raise refused(400, f"max_tokens={chat.limit} cannot be greater than max_model_len={context}.", "context", name, chat.limit)
        if prompt > context:
            raise self.too_long(prompt, chat.limit, context)
        return min(chat.limit or context, context - prompt)

    def too_long(self, prompt: int, limit: int | None, context: int) -> Refused:
        told = f"This model's maximum context length is {context} tokens. However, your prompt contains {prompt} input tokens."
        return refused(400, f"{told} Please shorten it.", "context", "input_tokens", prompt)

    def ended(self, chat: Chat, reply: Reply) -> Reply:
        named = chat.tool_choice == "named" and reply.finish_reason == "tool_calls"
        return replace(reply, finish_reason="stop") if named else reply

    def headers(self, turn: Turn) -> dict[str, str]:
        return {}

    def error_headers(self, _refusal: Refused) -> dict[str, str]:
        return {}

    def embedding_headers(self) -> dict[str, str]:
        return {}

    def usage(self, turn: Turn) -> dict[str, Any] | None:
        told = super().usage(turn)
        if told is None or turn.reply.usage is not None:
            return told
        return {"prompt_tokens_details": None, "completion_tokens_details": None} | told

    def logprobs(self, turn: Turn, pieces: Sequence[str], start: int = 0) -> Any:
        return {"content": super().logprobs(turn, pieces, start)["content"]}

    def message(self, turn: Turn) -> dict[str, Any]:
        empty = dict.fromkeys(("annotations", "audio", "function_call", "reasoning"))
        told = {**empty, **super().message(turn)}
        return told | ({"content": None} if not turn.reply.pieces and turn.reply.reasoning else {})

    def choice(self, turn: Turn) -> dict[str, Any]:
        return {"logprobs": None, **super().choice(turn), "stop_reason": turn.reply.stopped_by, "token_ids": None, "routed_experts": None}

    def completion(self, turn: Turn) -> dict[str, Any]:
        names = (
            "service_tier",
            "system_fingerprint",
            "prompt_logprobs",
            "prompt_token_ids",
            "prompt_text",
            "kv_transfer_params",
            "metrics",
        )
        return {"usage": None, **super().completion(turn), **dict.fromkeys(names)}

    def chunks(self, turn: Turn) -> Iterator[dict[str, Any]]:
        usage = self.usage(turn) if turn.chat.include_usage else None
        spoken = 0
        for step in steps(turn):
            spoken += step.kind in ("reasoning", "text")
            yield self.chunk(turn, [self.stream_choice(turn, step)]) | self._running(turn, spoken, usage)
        if usage is not None:
            yield self.chunk(turn, []) | {"usage": usage}

    def _running(self, turn: Turn, spoken: int, usage: dict[str, Any] | None) -> dict[str, Any]:
        if usage is None or not turn.chat.continuous_usage:
            return {}
        prompt = turn.reply.prompt_tokens
        return {"usage": {"prompt_tokens": prompt, "completion_tokens": spoken, "total_tokens": prompt + spoken}}

    def stream_choice(self, turn: Turn, step: Step) -> dict[str, Any]:
        told = {"logprobs": None, **super().stream_choice(turn, step), "token_ids": None}
        return told | ({"stop_reason": turn.reply.stopped_by} if step.kind == "finish" else {})

    def done(self, *, failed: bool) -> bool:
        return True

    def model(self, settings: Settings, model_id: str, *, embeds: bool) -> dict[str, Any]:
        names = ("allow_create_engine", "allow_sampling", "allow_logprobs", "allow_search_indices", "allow_view", "allow_fine_tuning")
        permission = {"id": "modelperm-sandbox", "object": "model_permission", "created": 0, "organization": "*", "group": None}
        return {
            **super().model(settings, model_id, embeds=embeds),
            "owned_by": "vllm",
            "root": model_id,
            "parent": None,
            "max_model_len": settings.context_length,
            "permission": [permission | dict.fromkeys(names, False) | {"is_blocking": False}],
        }

    def embeddings(self, model: str, vectors: Sequence[list[float]], prompt_tokens: int, body: Mapping[str, Any]) -> dict[str, Any]:
        told = super().embeddings(model, vectors, prompt_tokens, body)
        usage = {**told["usage"], "completion_tokens": 0, "prompt_tokens_details": None}
        return {"id": "embd-sandbox", "created": 0, **told, "usage": usage}

    def error_body(self, refusal: Refused) -> Any:
        if refusal.status == 401 and not refusal.upstream:
            return {"error": "Unauthorized"}
        first, status = refusal.first, refusal.status
        if first.code in _FORM and status == 400:
            listed = "; ".join(f"{problem.parameter or 'body'}: {problem.message}" for problem in refusal.problems[:10])
            message = f"{len(refusal.problems)} validation errors: {listed}"
            return {"error": {"message": message, "type": "Bad Request", "param": None, "code": status}}
        message, named = first.message, first.parameter not in (None, "model", "input_tokens") and first.value is not None
        message += f" (parameter={first.parameter}, value={first.value})" if named else ""
        kind = _TYPES.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
        return {"error": {"message": message, "type": kind, "param": first.parameter, "code": status}}

    def no_route(self, request: Request, status: int) -> Response:
        return as_json({"detail": "Not Found" if status == 404 else "Method Not Allowed"}, status=status)

    def no_embeddings(self, request: Request) -> Response:
        return self.no_route(request, 404)

    def failure(self, fault: Fault) -> Refused:
        found = super().failure(fault)
        return refused(found.status, found.first.message, None, fault.parameter, upstream=fault.status != 401)

    def routes(self, settings: Settings) -> list[BaseRoute]:
        async def health(_request: Request) -> Response:
            return Response()

        async def version(_request: Request) -> Response:
            return as_json({"version": "0.32.0"})

        async def metrics(_request: Request) -> Response:
            return Response(b"# HELP vllm:num_requests_running Requests now\nvllm:num_requests_running 0\n", media_type="text/plain")

        return [Route("/health", health), Route("/version", version), Route("/metrics", metrics)]
