"""A client for the sandbox that hides nothing, and sandboxes that are started once for a module."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from byok.sandbox import Sandbox

QUESTION, EXPECTED = "What is the capital of France, asked in full length?", "Paris"
ROWS = [(QUESTION, EXPECTED), ("What is 12 plus 12, asked in full length?", "24")]


@dataclass(frozen=True)
class Answer:
    """A raw answer; `cut` tells that its body ended early."""

    status: int
    headers: dict[str, str]
    raw: bytes
    cut: bool

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def choice(self) -> Any:
        return self.json["choices"][0]

    @property
    def text(self) -> str:
        return str(self.choice["message"]["content"])

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def events(self) -> list[str]:
        """The lines of a stream that are not empty."""
        return [line for line in self.raw.decode().split("\n") if line]

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(line.removeprefix("data: ")) for line in self.events if line.startswith("data: {")]

    @property
    def deltas(self) -> list[Any]:
        return [choice["delta"] for chunk in self.chunks for choice in chunk.get("choices", ())]

    def joined(self, name: str = "content") -> str:
        return "".join(delta.get(name) or "" for delta in self.deltas)

    @property
    def finishes(self) -> list[str]:
        return [found for chunk in self.chunks for choice in chunk.get("choices", ()) if (found := choice["finish_reason"])]

    @property
    def done(self) -> bool:
        return self.events[-1:] == ["data: [DONE]"]


class Client:
    """Talks to one sandbox.

    Args:
        sandbox: It.
        key: For the header `Authorization`; None sends none.
        base: Path before the calls; the sandbox's own when None.
    """

    question = QUESTION

    def __init__(self, sandbox: Sandbox, key: str | None = None, base: str | None = None) -> None:
        self.sandbox, self.key = sandbox, key
        self.base = base if base is not None else sandbox.base_url.removeprefix(f"http://{sandbox.host_port}")

    def at(self, base: str) -> Client:
        return Client(self.sandbox, self.key, base)

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Any request to a path of the server."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"content-type": "application/json"} if raw is not None else {}
        if self.key is not None:
            sent["authorization"] = f"Bearer {self.key}"
        connection = http.client.HTTPConnection("127.0.0.1", self.sandbox.port, timeout=60)
        try:
            connection.request(method, path, raw, sent | (headers or {}))
            answer = connection.getresponse()
            try:
                read, cut = answer.read(), False
            except http.client.IncompleteRead as error:
                read, cut = error.partial, True
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, read, cut)
        finally:
            connection.close()

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return self.send("GET", self.base + path, headers=headers)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        return self.send("POST", self.base + path, body, headers)

    def chat(self, prompt: str = QUESTION, *, headers: dict[str, str] | None = None, **members: Any) -> Answer:
        """A chat; a member that is `...` is left out."""
        body = {"model": self.sandbox.model_id, "messages": [{"role": "user", "content": prompt}], **members}
        return self.post("/chat/completions", {name: value for name, value in body.items() if value is not ...}, headers)

    def stream(self, prompt: str = QUESTION, **members: Any) -> Answer:
        return self.chat(prompt, stream=True, **members)

    def embed(self, given: Any, **members: Any) -> Answer:
        return self.post("/embeddings", {"model": self.sandbox.embedding_model_id, "input": given, **members})


Serve = Callable[..., Client]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Starts sandboxes; one without faults and with the same options is started once for all tests of a module."""
    started: dict[str, Sandbox] = {}

    def start(key: str | None = None, **options: Any) -> Client:
        name = repr(sorted(options.items())) if not options.keys() & {"faults", "embedding_faults"} else f"faults {len(started)}"
        if name not in started:
            started[name] = Sandbox(ROWS, **options)
            started[name].__enter__()
        return Client(started[name], key)

    yield start
    for sandbox in started.values():
        sandbox.close()
