"""What our client makes of the errors that the real gateways give, or hide."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time

import pytest

from byok.endpoint import (
    BadRequest,
    ContextLength,
    CreditExhausted,
    EndpointAuth,
    EndpointError,
    EndpointOverloaded,
    EndpointRateLimited,
    RemoteModelNotFound,
    ResponseTruncated,
)
from byok_testing.raw_server import http

MESSAGES = [{"role": "user", "content": "hi"}]
TOO_LONG = "This model's maximum context length is 10 tokens. However, your prompt contains 20 input tokens"


def failure(client, **options) -> EndpointError:
    async def ask():
        async with client:
            await client.attempt(MESSAGES, **options)

    with pytest.raises(EndpointError) as caught:
        asyncio.run(ask())
    return caught.value


def chunk(text: str, finish: str | None = None) -> dict:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (http(429, {"error": {"message": "slow down"}}, retry_after="7"), EndpointRateLimited),
        (http(401, {"error": {"message": "Incorrect API key provided."}}), EndpointAuth),
        (http(402, {"error": {"message": "no credit"}}), CreditExhausted),
        (http(404, {"error": {"message": "The model `x` does not exist"}}), RemoteModelNotFound),
        (http(400, {"error": {"message": TOO_LONG}}), ContextLength),
        (http(422, {"detail": [{"loc": ["body", "seed"], "msg": "too large", "type": "x"}]}), BadRequest),
        (http(503, "busy", kind="text/plain"), EndpointOverloaded),
        (http(502, "<html>bad</html>", kind="text/html"), EndpointOverloaded),
    ],
    ids=["429", "401", "402", "404", "context", "422", "503", "page"],
)
def test_an_error_of_the_upstream_keeps_its_meaning_but_in_the_old_gateways_streams(base, upstream, reply, kind, stream):
    name, make = base
    upstream.says(reply)
    error = failure(make("raw"), stream=stream)
    # The old gateway cuts such a stream before its first byte: all that is left to know is that it was cut.
    assert type(error) is (ResponseTruncated if name == "legacy" and stream else kind)
    assert error.retry_after_s is None
    assert len(upstream.requests) == 1


def test_a_plain_500_says_that_a_gateway_may_hide_a_refused_key(base, upstream):
    upstream.says(http(401, {"error": "Unauthorized"}))
    error = failure(base[1]("raw"))
    assert (type(error), error.retryable, error.status) == (EndpointOverloaded, True, 500)
    assert "gateway" in error.hint and "key" in error.hint


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_unknown_endpoint_is_an_unknown_model_here_and_a_failing_server_there(base, stream):
    name, make = base
    error = failure(make("nobody"), stream=stream)
    assert type(error) is (EndpointOverloaded if name == "legacy" else RemoteModelNotFound)
    assert "endpoint name" in error.hint if name == "legacy" else "GatewayEndpoint not found" in error.message


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_request_that_the_gateway_refuses_itself(base, upstream, stream):
    """The passthrough looks at no request, so there is nothing that it could refuse."""
    name, make = base
    upstream.says(http(400, {"error": {"message": "Invalid 'stop'", "param": "stop"}}))
    error = failure(make("raw"), stream=stream, more={"stop": "x"})
    assert type(error) is BadRequest
    assert "stop" in error.message
    assert len(upstream.requests) == (1 if name == "passthrough" else 0)


def test_an_error_in_the_middle_of_a_stream_can_be_tried_again(base, upstream):
    name, make = base
    upstream.streams(chunk("yes"), {"error": {"message": "the engine died", "code": 500}})
    error = failure(make("raw"), stream=True)
    assert type(error) is (ResponseTruncated if name == "legacy" else EndpointOverloaded)
    assert error.retryable
    assert ("the engine died" in error.message) is (name == "passthrough")


def test_a_stream_that_the_upstream_cuts_can_be_tried_again(base, upstream):
    upstream.streams(chunk("yes"), chunk(", sir"), done=False, cut=True)
    error = failure(base[1]("raw"), stream=True)
    assert type(error) is ResponseTruncated and error.retryable


@pytest.fixture
def halting():
    """A provider that breaks off between the line of a frame and the blank line that ends it, late enough for the line to be read."""
    listener = socket.create_server(("127.0.0.1", 0))
    line = f"data: {json.dumps(chunk('yes'))}\n".encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n"

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(head + line)
                    time.sleep(0.3)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


@pytest.mark.parametrize("path", ["/gateway/mlflow/v1", "/gateway/openai/v1"])
def test_an_error_frame_that_is_glued_to_a_cut_one_is_read(tracking, halting, path):
    """The passthrough sends its error frame without the blank line that the upstream did not come to: both are one event then."""
    name = f"halting-{path.split('/')[2]}"
    tracking.add(name, halting, "upstream-model")
    error = failure(tracking.client(path, name), stream=True)
    assert (type(error), error.retryable) == (ResponseTruncated, True)
    assert "Response payload is not completed" in error.message


def test_a_stream_that_ends_without_a_finish_reason_was_cut(base, upstream):
    upstream.streams(chunk("yes"), done=False)
    error = failure(base[1]("raw"), stream=True)
    assert (type(error), error.fields["pieces"]) == (ResponseTruncated, 1)


def test_a_stream_without_an_end_mark_but_with_a_finish_reason_is_whole(base, upstream):
    upstream.streams(chunk("yes"), chunk("", "stop"), done=False)

    async def ask():
        async with base[1]("raw") as client:
            return await client.attempt(MESSAGES, stream=True)

    answer = asyncio.run(ask())
    assert (answer.text, answer.finish_reason, answer.timing.done) == ("yes", "stop", False)
    assert answer.usage.usage_class == "missing"
