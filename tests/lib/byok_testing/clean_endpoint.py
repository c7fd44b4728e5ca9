"""An endpoint that answers all that the check of one asks, as the reference says; a test changes some of its answers."""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from typing import Any

from byok_testing.raw_server import RawServer, Scripted, events, http

KEY = "sk-proof-7f3a9c51e2d84b60aa17c0de"
MODEL = "org/Model"
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
CALL = {"id": "call_1", "type": "function", "function": {"name": "note_number", "arguments": '{"n": 7}'}}


def completion(content: Any = "OK", finish: Any = "stop", **members: Any) -> dict[str, Any]:
    """A chat completion; `message` members and the answer's own can be varied."""
    message = {"role": "assistant", "content": content} | members.pop("message", {})
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice], "usage": USAGE} | members


def chunk(delta: dict[str, Any] | None = None, finish: Any = None, choice: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    """A chunk of a streamed completion; without a delta, one without choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, **(choice or {})}]
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices, "usage": None} | members


def refusal(status: int, message: str, code: Any = None, param: str | None = None, **headers: str) -> bytes:
    """A raw answer that is an error of the reference's form."""
    kind = "invalid_request_error"
    return ok({"error": {"message": message, "type": kind, "param": param, "code": code}}, status=status, **headers)


def ok(value: Any, status: int = 200, **headers: str) -> bytes:
    """A raw answer with the headers that the reference sends."""
    return http(status, value, x_request_id="req-1", x_ratelimit_limit_requests="60", x_ratelimit_reset_requests="1s", **headers)


def lp(token: str) -> dict[str, Any]:
    """Members of a choice: the log probability of one token."""
    return {"logprobs": {"content": [{"token": token, "logprob": -0.1, "bytes": None, "top_logprobs": []}]}}


CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    *(chunk({"content": text}, choice=lp(text)) for text in ("1", ",", " 2")),
    chunk({}, "stop"),
]
LAST = chunk(usage=USAGE)
STREAM = events(*CHUNKS, LAST, x_request_id="req-1")
CALL_CHUNKS = [chunk({"role": "assistant", "tool_calls": [{"index": 0, **CALL}]}), chunk({}, "tool_calls")]
LIST = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "o", "max_model_len": 4096}]}
LISTED = LIST["data"][0]
VECTORS = ((0.5, -0.25, 1.0), (0.25, 0.5, 0.0))


def embedded(coded: bool, order: tuple[int, ...] = (0, 1), byte_order: str = "<", **members: Any) -> dict[str, Any]:
    """An answer with both vectors, as numbers or in base64."""

    def written(vector: tuple[float, ...]) -> Any:
        return b64encode(struct.pack(f"{byte_order}3f", *vector)).decode() if coded else list(vector)

    data = [{"object": "embedding", "index": number, "embedding": written(VECTORS[number])} for number in order]
    return {"object": "list", "model": "e", "data": data, "usage": {"prompt_tokens": 2, "total_tokens": 2}} | members


CLEAN: dict[str, Scripted] = {
    "models": ok(LIST),
    "models_open": refusal(401, "No key.", "invalid_api_key"),
    "chat": ok(completion()),
    "stream": (STREAM[:-400], 0.02, STREAM[-400:]),
    "schema": ok(completion('{"tone": "dark"}')),
    "json": ok(completion('{"ok": true}')),
    "named": ok(completion(None, message={"tool_calls": [CALL]})),
    "required": events(*CALL_CHUNKS, LAST, x_request_id="req-1"),
    "unknown_parameter": refusal(400, "Unknown parameter: 'byok_check_unknown'.", "unknown_parameter", "byok_check_unknown"),
    "temperature": refusal(400, "Above 2.", "decimal_above_max_value", "temperature"),
    "other_limit": ok(completion("1, 2, 3", "length")),
    "unknown_model": refusal(404, "The model does not exist.", "model_not_found", "model"),
    "wrong_key": refusal(401, "Incorrect key.", "invalid_api_key"),
    "no_route": refusal(404, "Invalid URL."),
    "embeddings": ok(embedded(coded=False)),
    "base64": ok(embedded(coded=True)),
    "huge": refusal(400, "This model's maximum context length is 4096 tokens.", "context_length_exceeded", "max_tokens"),
}
"""The answer to each request of the check's plan, by what it asks."""


def sse(*frames: Any, done: bool = True) -> bytes:
    """A raw answer that is a stream of these frames."""
    return events(*frames, done=done, x_request_id="req-1")


def answer(**message: Any) -> bytes:
    """A raw chat completion whose message has these members."""
    return ok(completion(message=message))


def asked(first: str, headers: dict[str, str], body: bytes) -> str:
    """What of the check's plan a request asks."""
    path = first.split()[1].removeprefix("/v1")
    if path.startswith("/models"):
        return "page" if "pageToken" in path else "models" if "authorization" in headers else "models_open"
    if not path.startswith(("/chat", "/embeddings")):
        return "no_route"
    sent = json.loads(body)
    if path == "/embeddings":
        return "base64" if sent.get("encoding_format") == "base64" else "embeddings"
    if sent["model"] != MODEL:
        return "unknown_model"
    if headers.get("authorization") != f"Bearer {KEY}":
        return "wrong_key"
    form = (sent.get("response_format") or {}).get("type")
    limit = sent.get("max_tokens") or sent.get("max_completion_tokens")
    return next(
        name
        for name, true in (
            ("huge", limit > 10**6),
            ("temperature", "temperature" in sent),
            ("unknown_parameter", "byok_check_unknown" in sent),
            ("schema", form == "json_schema"),
            ("json", form == "json_object"),
            ("named", isinstance(sent.get("tool_choice"), dict)),
            ("required", sent.get("tool_choice") == "required"),
            ("stream", "stream" in sent),
            ("other_limit", "max_completion_tokens" in sent),
            ("chat", True),
        )
        if true
    )


class Clean(RawServer):
    """Answers each request by what it asks, as the reference says unless `answers` are changed."""

    def __init__(self, **options: Any) -> None:
        self.answers: dict[str, Any] = dict(CLEAN)
        self.asked: list[str] = []
        super().__init__([b""], **options)
        self.script = _ByRequest(self)


class _ByRequest(list[Scripted]):
    """In the place of a list of answers: one for each request."""

    def __init__(self, server: Clean) -> None:
        super().__init__([b""])
        self.server = server

    def __getitem__(self, _number: Any) -> Any:
        request = self.server.requests[-1]
        self.server.asked.append(asked(*request))
        answer = self.server.answers[self.server.asked[-1]]
        return answer(request) if callable(answer) else answer
