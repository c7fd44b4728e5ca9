"""The ways to chat with one endpoint of the real gateways, without our client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

ROUTES = {
    "unified": ("tracking", "/gateway/mlflow/v1/chat/completions"),
    "invocations": ("tracking", "/gateway/raw/mlflow/invocations"),
    "passthrough": ("tracking", "/gateway/openai/v1/chat/completions"),
    "proxy": ("tracking", "/gateway/proxy/raw/v1/chat/completions"),
    "legacy": ("legacy", "/v1/chat/completions"),
    "legacy-endpoint": ("legacy", "/endpoints/raw/invocations"),
}


@dataclass(frozen=True)
class Stream:
    """What came of a stream: `whole` says whether it ended as HTTP wants it to."""

    status: int
    kind: str
    text: str
    whole: bool

    @property
    def frames(self) -> list[str]:
        """What stands behind `data:`, line by line."""
        return [line[5:].strip() for line in self.text.splitlines() if line.startswith("data:")]


@dataclass(frozen=True)
class Route:
    """One way to chat with the endpoint `raw`."""

    name: str
    gateway: Any
    path: str

    def body(self, **more: Any) -> dict[str, Any]:
        """A request; the routes that hold an endpoint's name take no model."""
        named = {} if self.name in ("invocations", "legacy-endpoint") else {"model": "raw"}
        return {"messages": [{"role": "user", "content": "hi"}], **named, **more}

    def ask(self, **more: Any) -> httpx.Response:
        return self.gateway.ask("POST", self.path, self.body(**more))

    def stream(self, **more: Any) -> Stream:
        body = self.body(stream=True, **more)
        text = ""
        with httpx.Client(trust_env=False, timeout=60) as client, client.stream("POST", self.gateway.origin + self.path, json=body) as got:
            try:
                for part in got.iter_text():
                    text += part
            except httpx.RemoteProtocolError:
                return Stream(got.status_code, got.headers["content-type"], text, False)
        return Stream(got.status_code, got.headers["content-type"], text, True)


@pytest.fixture
def route(request: pytest.FixtureRequest) -> Route:
    """One of `ROUTES`, named by an indirect parameter."""
    gateway, path = ROUTES[request.param]
    return Route(request.param, request.getfixturevalue(gateway), path)
