"""What comes through MLflow's gateway of its upstream's answers: whole ones and streams, good ones and broken ones.

All of it was seen with MLflow 3.17.2 (section 7 of the provider wire facts).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import responses
from typing import Any, ClassVar

from starlette.responses import PlainTextResponse, Response

from byok.sandbox.dialects.mlflow_answers import UNREADABLE, completion, error_frame, rewritten
from byok.sandbox.refusals import Problem, Refused
from byok.sandbox.wire import CutResponse, as_json

DURATION, OVERHEAD = "x-mlflow-gateway-duration-ms", "x-mlflow-gateway-overhead-duration-ms"
_UNSUPPORTED = "The returned data type from the route service is not supported. Received content type: "
_CUT = "Response payload is not completed: <TransferEncodingError: 400, message='Not enough data to satisfy transfer length header.'>"


class Told(Refused):
    """An error in the gateway's own words.

    Args:
        status: HTTP status.
        detail: Value of `detail`; None for the phrase of the status.
        plain: Whether the detail is told as bare text.
        headers: Of a plain answer.
    """

    def __init__(self, status: int, detail: Any, *, plain: bool = False, headers: dict[str, str] | None = None) -> None:
        self.detail = responses.get(status, "") if detail is None else detail
        self.plain = plain
        super().__init__(status, Problem(None, str(self.detail)), headers=headers)

    def answer(self, headers: Mapping[str, str] | None = None) -> Response:
        """It as an answer; the headers are for one that is not plain."""
        if self.plain:
            return PlainTextResponse(str(self.detail), self.status, self.headers)
        return as_json({"detail": self.detail}, status=self.status, headers=headers)


class Relay:
    """A gateway between the client and an upstream that speaks the OpenAI API."""

    rewrites: ClassVar[bool] = False
    """Whether it writes good answers anew, or hands them on."""
    stream_headers: ClassVar[dict[str, str]] = {DURATION: "1"}
    """Of every stream: its end is not waited for, so there is nothing to tell about the upstream's part."""

    def relay(self, answer: Response, *, stream: bool) -> Response:
        """What the client gets for an answer of the upstream; of the upstream's headers it gets none.

        Args:
            answer: The upstream's answer, `CutResponse` for one that breaks off.
            stream: Whether the client asked for a stream.
        """
        if stream:
            return self._relay_stream(answer)
        times = {DURATION: answer.headers.get(DURATION, "2"), OVERHEAD: "1"}
        try:
            value = _value_of(answer)
            if answer.status_code >= HTTPStatus.BAD_REQUEST:
                raise Told(answer.status_code, _detail(value, answer.status_code))
            return as_json(completion(value) if self.rewrites else value, headers=times)
        except Told as told:
            return told.answer(times)
        except (ConnectionError, *UNREADABLE):
            # What the gateway does not foresee.
            return PlainTextResponse("Internal Server Error", 500)

    def _relay_stream(self, answer: Response) -> Response:
        body, cut = bytes(answer.body), isinstance(answer, CutResponse)
        if answer.status_code >= HTTPStatus.BAD_REQUEST:
            said = "" if cut else _said(body, answer.headers.get("content-type", ""))
            message = f"{answer.status_code}: {said or responses.get(answer.status_code, '')}"
            events = [error_frame(message, "HTTPException")]
        else:
            events = self.relay_events([body[: len(body) // 2], b""] if cut else [body])
        return Response(b"".join(events), headers=self.stream_headers, media_type="text/event-stream")

    def relay_events(self, events: Sequence[bytes]) -> list[bytes]:
        """The events of a stream as the client gets them; one that breaks off ends in order for the client, with an error frame.

        Args:
            events: Of the upstream's stream; an empty last one is a broken connection.
        """
        cut = bool(events) and not events[-1]
        came = list(events[:-1] if cut else events)
        if self.rewrites:
            told, failed = rewritten(came, cut=cut)
            return told if failed or not cut else [*told, error_frame(_CUT, "ClientPayloadError")]
        if cut:
            # Lines are handed on when they are complete, and the blank one that ends the last event is lost.
            whole = b"".join(came[-1:])
            whole = whole[: whole.rfind(b"\n") + 1]
            came[-1:] = [whole[:-1] if whole.endswith(b"\n\n") else whole, error_frame(_CUT, "ClientPayloadError")]
        return [event for event in came if event]


def _value_of(answer: Response) -> Any:
    """The value of a whole answer.

    Raises:
        Told: It is of a kind that the gateway does not take.
        ConnectionError: It breaks off.
        ValueError: It is no JSON although it says so.
    """
    kind, body = answer.headers.get("content-type"), bytes(answer.body)
    if kind is None or not ("application/json" in kind or "text/plain" in kind):
        raise Told(502, f"{_UNSUPPORTED}{kind}")
    if isinstance(answer, CutResponse):
        raise ConnectionError
    if "text/plain" in kind:
        return {"message": body.decode()}
    return json.loads(body) if body.strip() else None


def _detail(value: Any, status: int) -> Any:
    # An error that is a text, as vLLM's own 401 has it, has no `get`: the gateway fails itself then.
    return value["error"].get("message", responses.get(status, "")) if "error" in value else value


def _said(body: bytes, kind: str) -> str:
    """What an error says, when the client asked for a stream."""
    text = body.decode(errors="replace")
    if not kind.partition(";")[0].endswith("json"):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    error = value.get("error") if isinstance(value, dict) else None
    for holder in (error, value):
        message = holder.get("message") if isinstance(holder, dict) else None
        if isinstance(message, str) and message:
            return message
    return str(value) if value else ""
