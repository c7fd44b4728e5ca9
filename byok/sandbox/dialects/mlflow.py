"""MLflow's AI gateway in its tracking server (3.17.2), before an OpenAI-compatible server."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from functools import cached_property
from typing import Any, ClassVar

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from byok.sandbox.chats import Chat
from byok.sandbox.dialects.catalogue import served
from byok.sandbox.dialects.deviations import MLFLOW, Deviation
from byok.sandbox.dialects.mlflow_relay import DURATION, Relay, Told
from byok.sandbox.dialects.mlflow_requests import sent_on
from byok.sandbox.dialects.openai import OpenAI, holds_key
from byok.sandbox.dialects.pages import plain_404
from byok.sandbox.dialects.turns import Turn
from byok.sandbox.faults import Fault
from byok.sandbox.refusals import Refused
from byok.sandbox.settings import Settings

_LOCAL = ("localhost", "127.0.0.1", "[::1]", "0.0.0.0")
_PRIVATE = ("192.168.*", "10.*", *(f"172.{number}.*" for number in range(16, 32)), "fc00:*", "fd00:*")
_HOST = "Invalid Host header - possible DNS rebinding attack detected"
_LOGIN = "You are not authenticated. Please see the documentation of the server."
_OWN_LOGIN = "x-mlflow-authorization"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def _upstream(model: Any) -> str:
    return f"upstream-{model}"


def _check_host(request: Request) -> None:
    host = request.headers.get("host", "")
    name, _, port = host.rpartition(":")
    if host not in _LOCAL and not (name in _LOCAL and port.isdigit()) and not any(fnmatch(host, pattern) for pattern in _PRIVATE):
        times = {DURATION: "0"} if request.url.path.startswith("/gateway/") else {}
        raise Told(403, _HOST, plain=True, headers={"content-type": "text/plain", **times})


def _check_login(header: str, keys: Collection[str]) -> None:
    """With keys `NAME:PASSWORD` the gateway has logins; without, it looks at no key."""
    wanted = [base64.b64encode(key.encode()).decode() for key in keys if ":" in key]
    if wanted and not (header.startswith("Basic ") and holds_key(header.removeprefix("Basic "), wanted)):
        raise Told(401, _LOGIN, plain=True, headers={"www-authenticate": 'Basic realm="mlflow"'})


class MlflowPassthrough(Relay, OpenAI):
    """The gateway's route that hands the upstream's answers on."""

    prefix: ClassVar[str] = "/gateway/openai/v1"
    lists_models: ClassVar[bool] = False

    # --- what comes in

    def check_key(self, request: Request, keys: Collection[str]) -> None:
        _check_host(request)
        own = request.headers.get(_OWN_LOGIN)
        _check_login(request.headers.get("authorization", "") if own is None else own, keys)

    def read_body(self, request: Request, raw: bytes) -> dict[str, Any]:
        try:
            value = json.loads(raw)
        except ValueError as error:
            raise Told(400, f"Invalid JSON payload: {error}") from None
        if not isinstance(value, dict):
            raise Told(500, "Internal Server Error", plain=True)
        return value

    def read_chat(self, body: Mapping[str, Any], settings: Settings) -> Chat:
        model = body.get("model")
        if model not in (settings.model_id, settings.embedding_model_id):
            raise self.unknown_model(model)
        sent = self.sent(body)
        options = sent.get("stream_options")
        if sent.get("stream") and (options is None or isinstance(options, dict)):
            # Usage is asked for, unless the client says otherwise.
            sent["stream_options"] = {"include_usage": True} | (options or {})
        return replace(super().read_chat(sent | {"model": model}, settings), model=_upstream(model))

    def sent(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """What the upstream gets of a request.

        Raises:
            Told: The gateway refuses it itself.
        """
        return dict(body)

    def unknown_model(self, model: Any) -> Refused:
        if not model:
            return Told(400, "Missing required 'model' parameter in request body")
        return Told(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"GatewayEndpoint not found (name='{model}')"})

    # --- what goes out: here as the upstream says it, and `Relay` makes of it what the client gets

    def headers(self, turn: Turn) -> dict[str, str]:
        return {DURATION: f"{turn.seconds[1] * 1000:.0f}"}

    def error_headers(self, _refusal: Refused) -> dict[str, str]:
        return {}

    def embedding_headers(self) -> dict[str, str]:
        return {}

    def embeddings(self, model: str, vectors: Sequence[list[float]], prompt_tokens: int, body: Mapping[str, Any]) -> dict[str, Any]:
        return super().embeddings(_upstream(model), vectors, prompt_tokens, body)

    def refuse(self, refusal: Refused, *, stream: bool) -> Response:
        if isinstance(refusal, Told):
            return refusal.answer({DURATION: "1"})
        first = refusal.first
        if first.parameter == "model" and first.value is not None:
            # The upstream was asked for a model by its own name for it.
            message = first.message.replace(f"`{first.value}`", f"`{_upstream(first.value)}`")
            refusal = Refused(refusal.status, replace(first, message=message))
        return self.relay(super().refuse(refusal, stream=False), stream=stream)

    def fail(self, fault: Fault, *, stream: bool) -> Response:
        return super().refuse(self.failure(fault), stream=False)

    def error_frame(self, fault: Fault) -> bytes:
        return b"data: " + orjson.dumps(self.error_body(self.failure(fault))) + b"\n\n"

    def no_route(self, request: Request, status: int) -> Response:
        return plain_404()


class Mlflow(MlflowPassthrough):
    """The gateway's unified route, which writes requests and answers anew, and beside it the passthrough."""

    name: ClassVar[str] = "mlflow"
    prefix: ClassVar[str] = "/gateway/mlflow/v1"
    rewrites: ClassVar[bool] = True
    lists_models: ClassVar[bool] = True
    has_embeddings: ClassVar[bool] = False
    deviations: ClassVar[tuple[Deviation, ...]] = MLFLOW

    def sent(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return sent_on({name: value for name, value in body.items() if name != "model"})

    @cached_property
    def _made(self) -> int:
        """When the endpoints were made, in seconds since 1970."""
        return int(time.time())

    def models(self, settings: Settings, request: Request) -> Any:
        names = sorted(name for name, _ in served(settings))
        entries = [{"id": name, "object": "model", "created": self._made, "owned_by": "mlflow"} for name in names]
        return {"object": "list", "data": entries}

    def faces(self) -> tuple[OpenAI, ...]:
        return (self, MlflowPassthrough())

    def routes(self, settings: Settings) -> list[BaseRoute]:
        async def health(_request: Request) -> Response:
            return PlainTextResponse("OK")

        async def other(request: Request) -> Response:
            """Any other path or method is the tracking server's, which does not know the gateway's own header for logins."""
            path = request.url.path
            times = {DURATION: "1"} if path.startswith("/gateway/") else {}
            try:
                if times:
                    self.check_key(request, settings.api_keys)
                elif path != "/version":
                    _check_host(request)
            except Told as told:
                return told.answer()
            try:
                _check_login(request.headers.get("authorization", ""), settings.api_keys)
            except Told as told:
                return Response(str(told.detail), told.status, {**told.headers, **times}, "text/html")
            page = Response("3.17.2", media_type="text/html") if path == "/version" else plain_404()
            page.headers.update(times)
            return page

        return [Route("/health", health), Route("/{path:path}", other, methods=_METHODS)]
