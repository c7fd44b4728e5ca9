"""Ask a server through our client, as the tests of wire facts do."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from byok.endpoint import ChatAnswer, EgressPolicy, Embeddings, EndpointClient, EndpointError, profile
from byok_testing.leaks import hits

KEY = "sk-facts-5e4d3c2b1a0f9e8d7c6b5a4f3e2d1c0b"
MODEL = "org/Model#fast:1"
MESSAGES = [{"role": "user", "content": "hi"}]
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}

T = TypeVar("T")


def using(
    server: Any, use: Callable[[EndpointClient], Awaitable[T]], *, path: str = "/v1", provider: str | None = None, **options: Any
) -> T:
    """What `use` makes of a client for a server."""

    async def go() -> T:
        settings = {"credentials": KEY, "policy": EgressPolicy.parse(server.host_port), "timeout_s": 10.0} | options
        if provider is not None:
            settings["profile"] = profile(provider)
        async with EndpointClient(f"http://{server.host_port}{path}", MODEL, **settings) as client:
            return await use(client)

    return asyncio.run(go())


def chat(
    server: Any, *, client: dict[str, Any] | None = None, path: str = "/v1", provider: str | None = None, **options: Any
) -> ChatAnswer:
    """The answer to one question."""
    return using(server, lambda one: one.chat(MESSAGES, **options), path=path, provider=provider, **(client or {}))


def embed(server: Any, texts: list[str], *, provider: str | None = None, dimensions: int | None = None) -> Embeddings:
    """The vectors of some texts."""
    return using(server, lambda one: one.embed(texts, dimensions=dimensions), provider=provider)


def refused(call: Callable[[], Any]) -> EndpointError:
    """The error that a call ends with; nothing that hangs on it knows the key."""
    with pytest.raises(EndpointError) as caught:
        call()
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    assert not hits("".join(traceback.format_exception(error)) + repr((error.fields, error.hint)), [KEY])
    return error


def completion(content: Any = "OK", *, finish: Any = "stop", choice: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    """A chat completion; `message` members and the choice's own can be varied."""
    message = {"role": "assistant", "content": content} | members.pop("message", {})
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, **(choice or {})}],
        "usage": USAGE,
    } | members


def chunk(delta: dict[str, Any] | None = None, *, finish: Any = None, **members: Any) -> dict[str, Any]:
    """A chunk of a streamed completion; without a delta, one without choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices} | members
