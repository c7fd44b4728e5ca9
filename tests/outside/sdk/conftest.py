"""Sandboxes as processes of their own, started from the command that BYOK_BIN names: this environment has no byok."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

QUESTION = "What is the capital of France, asked in full length?"


@dataclass(frozen=True)
class Answer:
    """An answer: its status, and its body as text."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def events(self) -> list[str]:
        """The data of a stream's events, without the closing one."""
        found = [line.removeprefix("data: ") for line in self.text.split("\n") if line.startswith("data: ")]
        return [event for event in found if event != "[DONE]"]


class Served:
    """One running sandbox."""

    question = QUESTION

    def __init__(self, told: dict[str, Any]) -> None:
        self.base_url: str = told["base_url"]
        self.model: str = told["model_id"]
        self.embedder: str = told["embedding_model_id"]

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Answer:
        """A request to a path below the base URL, or to a path of the server when it starts with two slashes."""
        parts = urlsplit(self.base_url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        try:
            target = path[1:] if path.startswith("//") else parts.path + path
            raw = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", target, raw, {"content-type": "application/json"})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode())
        finally:
            connection.close()

    def chat(self, prompt: str = QUESTION, **members: Any) -> Answer:
        return self.ask("/chat/completions", {"model": self.model, "messages": [{"role": "user", "content": prompt}], **members})

    def embed(self, given: Any, **members: Any) -> Answer:
        return self.ask("/embeddings", {"model": self.embedder, "input": given, **members})


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Starts a sandbox with a profile and further options; one for each set of options."""
    command = os.environ.get("BYOK_BIN")
    if not command:
        raise pytest.UsageError("BYOK_BIN has to name the byok command")
    answers: Path = tmp_path_factory.mktemp("sandbox") / "answers.jsonl"
    answers.write_text(json.dumps({"question": QUESTION, "answer": "Paris"}) + "\n", encoding="utf-8")
    processes: dict[tuple[str, ...], subprocess.Popen[str]] = {}
    served: dict[tuple[str, ...], Served] = {}

    def start(profile: str, *options: str) -> Served:
        name = (profile, *options)
        if name not in served:
            words = [command, "sandbox", "serve", "--answers", str(answers), "--profile", profile, *options, "--json"]
            processes[name] = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            assert processes[name].stdout is not None
            served[name] = Served(json.loads(processes[name].stdout.readline())["sandbox"])
        return served[name]

    yield start
    for process in processes.values():
        process.terminate()
        process.communicate(timeout=30)
