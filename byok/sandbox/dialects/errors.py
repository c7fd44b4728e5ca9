"""Errors in the shapes of the OpenAI API."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from byok.sandbox.faults import DEFAULT_MESSAGE, Fault
from byok.sandbox.refusals import Refused, refused
from byok.sandbox.wire import as_json


class Errors:
    """How a provider says that something went wrong."""

    def error_type(self, status: int, _code: str | None) -> str:
        """The `type` of an error."""
        return "authentication_error" if status == 401 else "invalid_request_error" if status < 500 else "server_error"

    def status(self, refusal: Refused) -> int:
        """The HTTP status of a refusal."""
        return refusal.status

    def error_body(self, refusal: Refused) -> Any:
        """The body of a refusal."""
        first, status = refusal.first, self.status(refusal)
        kind = self.error_type(status, first.code)
        return {"error": {"message": first.message, "type": kind, "param": first.parameter, "code": first.code}}

    def error_headers(self, _refusal: Refused) -> dict[str, str]:
        """The headers of a refusal."""
        return {"x-request-id": "sandbox-refused"}

    def refuse(self, refusal: Refused, *, stream: bool) -> Response:
        """The answer to a request that is refused, and whether it asked for a stream."""
        headers = {**self.error_headers(refusal), **refusal.headers}
        return as_json(self.error_body(refusal), status=self.status(refusal), headers=headers)

    def failure(self, fault: Fault) -> Refused:
        """A fault's status as this provider reports it."""
        return refused(fault.status, fault.message, fault.code, fault.parameter, upstream=True)

    def fail(self, fault: Fault, *, stream: bool) -> Response:
        """The answer of a fault that has a status and no body of its own."""
        response = self.refuse(self.failure(fault), stream=stream)
        response.headers.update(fault.headers)
        return response

    def error_frame(self, fault: Fault) -> bytes:
        """The event with which a running stream tells of an error."""
        return b"data: " + bytes(self.refuse(self.failure(fault), stream=False).body) + b"\n\n"

    def no_route(self, _request: Request, status: int) -> Response:
        """The answer to a path or a method that does not exist."""
        return PlainTextResponse("Not Found" if status == 404 else "Method Not Allowed", status)

    def no_embeddings(self, request: Request) -> Response:
        """The answer to a request for embeddings where no model makes any."""
        return self.refuse(refused(404, f"Invalid URL (POST {request.url.path})"), stream=False)


def said(fault: Fault, otherwise: str) -> str:
    """The message of a fault; `otherwise` when the fault says nothing itself."""
    return otherwise if fault.message == DEFAULT_MESSAGE else fault.message
