"""The sandbox's HTTP routes, in the shapes of the OpenAI API."""

from __future__ import annotations

import asyncio
import hmac
import itertools
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from byok.sandbox.faults import Fault, FaultHook
from byok.sandbox.replies import Mind, Spoken


@dataclass
class Counters:
    """What the sandbox did. Tokens are those of answered chat requests, whether or not `usage` was sent."""

    requests: int = 0
    chat_requests: int = 0
    models_requests: int = 0
    answered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    wrong_keys: int = 0
    right: int = 0
    wrong: int = 0
    unmatched: int = 0
    judged: int = 0
    faults: int = 0


@dataclass
class Settings:
    """How the sandbox behaves; see `Sandbox`. Only `api_keys` changes while it serves."""

    mind: Mind
    model_id: str
    latency_ms: float
    api_keys: frozenset[str] = field(repr=False)
    """Keys that it takes; none means that it takes any request."""
    usage: bool
    json_schema: bool
    hook: FaultHook | None


class _Refused(Exception):
    """A request that gets an OpenAI error; internal to this module."""

    def __init__(self, status: int, message: str, code: str | None = None, parameter: str | None = None) -> None:
        self.status, self.message, self.code, self.parameter = status, message, code, parameter


class _CutResponse(Response):
    """Announces its whole body, sends half of it, and breaks the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2], "more_body": True})
        # The server answers an unfinished response by closing the connection.
        raise ConnectionAbortedError("cut as asked")


def make_app(settings: Settings, counters: Counters) -> Starlette:
    """The application; `counters` is what `GET /stats` tells."""
    routes = _Routes(settings, counters)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
            Route("/v1/models", routes.models, methods=["GET"]),
            Route("/stats", routes.stats, methods=["GET"]),
        ]
    )


class _Routes:
    def __init__(self, settings: Settings, counters: Counters) -> None:
        self.settings, self.counters = settings, counters
        self.numbers = itertools.count(1)

    async def stats(self, _request: Request) -> Response:
        return _json(stats_of(self.settings, self.counters))

    async def models(self, request: Request) -> Response:
        self.counters.requests += 1
        self.counters.models_requests += 1
        try:
            self._check_key(request)
        except _Refused as refused:
            return _error(refused)
        return _json({"object": "list", "data": [{"id": self.settings.model_id, "object": "model", "created": 0, "owned_by": "sandbox"}]})

    async def chat(self, request: Request) -> Response:
        self.counters.requests += 1
        self.counters.chat_requests += 1
        number = self.counters.chat_requests
        try:
            self._check_key(request)
            body = _read(await request.body())
            contents, limit, schema = self._check(body)
        except _Refused as refused:
            return _error(refused)
        fault = self._fault(number, contents)
        delay = self.settings.latency_ms + (fault.delay_ms if fault else 0)
        if delay:
            await asyncio.sleep(delay / 1000)
        if fault and (fault.status != 200 or fault.body is not None):
            self.counters.faults += 1
            return _faulty(fault)
        spoken = self.settings.mind.answer(contents, limit=limit, schema=schema)
        self._count(spoken)
        answer = self._completion(number, body, spoken, fault)
        if fault and fault.cut:
            self.counters.faults += 1
            return _CutResponse(orjson.dumps(answer), media_type="application/json")
        return _json(answer, headers={"x-request-id": answer["id"], **(fault.headers if fault else {})})

    def _check_key(self, request: Request) -> None:
        wanted = self.settings.api_keys
        if not wanted:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not any(hmac.compare_digest(given.encode(), key.encode()) for key in wanted):
            self.counters.wrong_keys += 1
            # Like the real ones, it says that the key is wrong and not what it was.
            raise _Refused(401, "Incorrect API key provided.", "invalid_api_key")

    def _check(self, body: dict[str, Any]) -> tuple[list[tuple[str, str]], int | None, Any]:
        model = body.get("model")
        if model != self.settings.model_id:
            raise _Refused(404, f"The model `{model}` does not exist.", "model_not_found", "model")
        if body.get("stream"):
            raise _Refused(400, "Unsupported parameter: 'stream'.", "unsupported_parameter", "stream")
        if body.get("n", 1) != 1:
            raise _Refused(400, "Only n=1 is supported.", "invalid_value", "n")
        given = body.get("messages")
        if not isinstance(given, list) or not given:
            raise _Refused(400, "'messages' must be a list with at least one message.", "invalid_type", "messages")
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            raise _Refused(400, "'max_tokens' must be at least 1.", "integer_below_min_value", "max_tokens")
        return [_content(message) for message in given], limit, self._schema(body.get("response_format"))

    def _schema(self, wanted: Any) -> Any:
        if wanted is None or (isinstance(wanted, dict) and wanted.get("type") == "text"):
            return None
        kind = wanted.get("type") if isinstance(wanted, dict) else None
        if kind != "json_schema" or not self.settings.json_schema:
            raise _Refused(400, f"'response_format' of type '{kind}' is not supported.", "unsupported_parameter", "response_format")
        described = wanted.get("json_schema")
        if not isinstance(described, dict) or not isinstance(described.get("name"), str) or not isinstance(described.get("schema"), dict):
            raise _Refused(400, "'response_format.json_schema' needs 'name' and 'schema'.", "missing_required_parameter", "response_format")
        return described["schema"]

    def _fault(self, number: int, contents: list[tuple[str, str]]) -> Fault | None:
        if self.settings.hook is None:
            return None
        last = next((content for role, content in reversed(contents) if role == "user"), "")
        found = self.settings.hook(number, last)
        return Fault(status=found) if isinstance(found, int) else found

    def _count(self, spoken: Spoken) -> None:
        counters = self.counters
        counters.answered += 1
        counters.prompt_tokens += spoken.prompt_tokens
        counters.completion_tokens += spoken.completion_tokens
        setattr(counters, spoken.kind, getattr(counters, spoken.kind) + 1)

    def _completion(self, number: int, body: dict[str, Any], spoken: Spoken, fault: Fault | None) -> dict[str, Any]:
        text: str | None = spoken.text
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if fault and fault.refusal is not None:
            message |= {"content": None, "refusal": fault.refusal}
        elif fault and fault.text is not None:
            message["content"] = fault.text
        answer: dict[str, Any] = {
            "id": f"chatcmpl-sandbox-{number}",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": (fault and fault.finish_reason) or spoken.finish_reason}],
        }
        if self.settings.usage:
            answer["usage"] = {
                "prompt_tokens": spoken.prompt_tokens,
                "completion_tokens": spoken.completion_tokens,
                "total_tokens": spoken.prompt_tokens + spoken.completion_tokens,
            }
        if fault and fault.usage is not None:
            answer["usage"] = dict(fault.usage)
        return answer


def stats_of(settings: Settings, counters: Counters) -> dict[str, int]:
    """The counters, with `rows` known and `right_rows` among them."""
    return {**vars(counters), "rows": len(settings.mind.expected), "right_rows": len(settings.mind.right)}


def _read(raw: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise _Refused(400, "The body is not a JSON object.", "invalid_json")
    return value


def _content(message: Any) -> tuple[str, str]:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    if not isinstance(content, str) or not isinstance(message.get("role"), str):
        raise _Refused(400, "Each message needs 'role' and 'content'.", "invalid_type", "messages")
    return message["role"], content


def _json(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status_code=status, headers=headers, media_type="application/json")


def _error(refused: _Refused) -> Response:
    kind = "authentication_error" if refused.status == 401 else "invalid_request_error" if refused.status < 500 else "server_error"
    error = {"message": refused.message, "type": kind, "param": refused.parameter, "code": refused.code}
    return _json({"error": error}, status=refused.status)


def _faulty(fault: Fault) -> Response:
    if fault.body is None:
        response = _error(_Refused(fault.status, fault.message, fault.code, fault.parameter))
        response.headers.update(fault.headers)
        return response
    kind = _CutResponse if fault.cut else Response
    return kind(fault.body, status_code=fault.status, headers=dict(fault.headers), media_type=fault.content_type)
