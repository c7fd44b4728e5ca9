"""An OpenAI-compatible server behind nginx, which puts it under a path, asks for a key of its own, and holds streams back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from byok.sandbox.dialects.deviations import PROXY, Deviation
from byok.sandbox.dialects.openai import OpenAI, holds_key
from byok.sandbox.dialects.pages import page
from byok.sandbox.faults import Fault
from byok.sandbox.refusals import Refused, refused
from byok.sandbox.settings import Settings

MOST_BYTES = 1024 * 1024
"""Of a request's body: nginx's own default."""
_OWN = (413, 502, 503, 504)
"""Statuses that the proxy gives itself."""


class Proxy(OpenAI):
    """nginx before an OpenAI-compatible server."""

    name: ClassVar[str] = "proxy"
    prefix: ClassVar[str] = "/serve/v1"
    buffers: ClassVar[bool] = True
    deviations: ClassVar[tuple[Deviation, ...]] = PROXY

    def check_key(self, request: Request, keys: Collection[str]) -> None:
        if keys and not holds_key(request.headers.get("x-api-key", ""), keys):
            raise refused(401, "No API key found in request")

    def read_body(self, request: Request, raw: bytes) -> dict[str, Any]:
        if len(raw) > MOST_BYTES:
            raise refused(413, "Request Entity Too Large")
        return super().read_body(request, raw)

    def refuse(self, refusal: Refused, *, stream: bool) -> Response:
        if refusal.status == 401 and not refusal.upstream:
            return Response(orjson.dumps({"message": refusal.first.message}), status_code=401, media_type="text/plain")
        return page(refusal.status) if refusal.status in _OWN else super().refuse(refusal, stream=stream)

    def error_frame(self, fault: Fault) -> bytes:
        # The event comes from behind the proxy, which does not look into a stream.
        return b"data: " + orjson.dumps(self.error_body(self.failure(fault))) + b"\n\n"

    def no_route(self, request: Request, status: int) -> Response:
        return page(status)

    def routes(self, settings: Settings) -> list[BaseRoute]:
        async def slash(request: Request) -> Response:
            return page(301, {"location": f"http://{request.headers.get('host', '')}{self.prefix}/"})

        return [Route(self.prefix, slash, methods=["GET", "POST"])]
