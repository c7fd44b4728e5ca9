"""Streams through a real nginx: buffered, compressed, cut (facts 51 and 52)."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from byok.endpoint import ChatAnswer
from byok.sandbox import Fault, Sandbox
from byok_testing.egress import KEY, MESSAGES, PROMPT
from byok_testing.nginx import Certificates, Nginx, ask, fails, location

Start = Callable[..., Nginx]
Shown = Callable[..., str]
Talking = Callable[..., Sandbox]

WORDS = " ".join(f"word{number}" for number in range(12))
COMPRESSING = "gzip on; gzip_types text/event-stream application/json; gzip_min_length 1; gzip_proxied any;"


@pytest.fixture
def talking() -> Iterator[Talking]:
    """Starts sandboxes that stream a dozen words, with a pause before each."""
    with ExitStack() as running:

        def start(fault: Fault | None = None) -> Sandbox:
            options: dict[str, Any] = {"api_key": KEY, "model_id": "org/remote#1", "chunk_latency_ms": 30}
            return running.enter_context(Sandbox([(PROMPT, WORDS)], faults=[fault], **options))

        yield start


def read_whole(answer: ChatAnswer, sandbox: Sandbox) -> None:
    """The answer is the one that was sent, with the tokens that the sandbox counted."""
    told = sandbox.stats()
    assert answer.text == f"The answer is {WORDS}"
    assert answer.finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (told["prompt_tokens"], told["completion_tokens"])
    assert (answer.usage.usage_class, answer.streamed, told["answered"]) == ("reported", True, 1)


def test_52_the_first_token_through_a_buffer_is_no_first_token(proxied: Start, talking: Talking, shown: Shown) -> None:
    sandbox = talking()
    answer = ask(proxied(location(sandbox.host_port)), shown(), stream=True)
    read_whole(answer, sandbox)
    assert answer.ttft_reliable is False


@pytest.mark.parametrize(
    ("rules", "headers"),
    [("proxy_buffering off;", {}), ("", {"x-accel-buffering": "no"}), (f"proxy_buffering off; {COMPRESSING}", {})],
    ids=["unbuffered", "as-the-server-wants", "where-others-get-gzip"],
)
def test_52_without_the_buffer_it_is(proxied: Start, talking: Talking, shown: Shown, rules: str, headers: dict[str, str]) -> None:
    sandbox = talking(Fault(headers=headers))
    answer = ask(proxied(location(sandbox.host_port, rules)), shown(), stream=True)
    read_whole(answer, sandbox)
    assert answer.ttft_reliable is True
    assert answer.ttft_ms is not None and 0 < answer.ttft_ms < answer.latency_ms


def test_nothing_comes_compressed_since_nothing_else_than_identity_is_asked_for(
    proxied: Start, sandbox: Sandbox, shown: Shown, certificates: Certificates
) -> None:
    nginx = proxied(location(sandbox.host_port, COMPRESSING))

    assert ask(nginx, shown()).text == "The answer is OK"
    # Whoever asks for gzip gets it here.
    connection = http.client.HTTPSConnection(
        "127.0.0.1", nginx.port, timeout=20, context=ssl.create_default_context(cafile=str(certificates.ca))
    )
    body = json.dumps({"model": sandbox.model_id, "messages": MESSAGES})
    connection.request("POST", "/serve/v1/chat/completions", body, {"Authorization": f"Bearer {KEY}", "Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("content-encoding")) == (200, "gzip")
    answer.read()
    connection.close()


@pytest.mark.parametrize("buffering", ["on", "off"])
@pytest.mark.parametrize(("version", "noticed"), [("1.0", False), ("1.1", True)])
def test_51_a_stream_that_the_server_cuts_is_no_answer(
    proxied: Start, talking: Talking, shown: Shown, version: str, noticed: bool, buffering: str
) -> None:
    """By HTTP/1.0, which nginx speaks unless told otherwise, the end of the connection ends the body: it mends the cut into a clean end."""
    rules = f"proxy_http_version {version}; proxy_set_header Connection ''; proxy_buffering {buffering};"
    nginx = proxied(location(talking(Fault(cut=True, after_chunks=5)).host_port, rules))
    error = fails(nginx, shown(), stream=True)
    assert (error.code, error.retryable) == ("response_truncated", True)
    assert "bill" in error.hint
    assert ("prematurely closed" in nginx.errors()) == noticed


def test_51_an_answer_that_is_shorter_than_announced_is_one_too(proxied: Start, talking: Talking, shown: Shown) -> None:
    nginx = proxied(location(talking(Fault(cut=True)).host_port))
    error = fails(nginx, shown())
    assert (error.code, error.retryable) == ("response_truncated", True)
    assert "prematurely closed" in nginx.errors()
