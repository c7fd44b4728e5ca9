"""Raw servers and clean ones, and the answers that they give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from byok_testing.clean_endpoint import Clean
from byok_testing.raw_server import RawServer, http, starting


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    """Starts raw servers that are stopped after the test."""
    yield from starting()


@pytest.fixture
def reply() -> Callable[..., bytes]:
    """Makes raw answers."""
    return http


def completion(
    content: Any = "OK", *, finish: str | None = "stop", message: dict[str, Any] | None = None, **members: Any
) -> dict[str, Any]:
    """A chat completion with usage, to be varied."""
    return {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content, **(message or {})}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        **members,
    }


@pytest.fixture
def chat_completion() -> Callable[..., dict[str, Any]]:
    """Makes chat completions."""
    return completion


@pytest.fixture(scope="module")
def server() -> Iterator[Clean]:
    """A server that does all as the reference says; the tests of a module share it, and change its answers."""
    made = Clean()
    yield made
    made.close()
