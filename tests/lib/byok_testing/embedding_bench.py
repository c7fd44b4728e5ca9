"""Runs that score with embeddings, stage by stage, against a sandbox that chats and makes embeddings."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import numpy
import pytest
from pydantic import SecretStr

from byok.app import Services
from byok.datasets import Mapping
from byok.engine.plan import RunPlan
from byok.ids import new_id
from byok.registry import RegisterRequest
from byok.reporting import RunSummary, run_summary
from byok.reporting.summary import Score
from byok.runs import (
    EvaluationRequest,
    Finished,
    RunFolder,
    answer_shard,
    probe_models,
    start_run,
)
from byok.sandbox import Fault, Sandbox
from byok_testing.chain import carry_out

KEY = "sk-embed-3c4d5e6f708192a3b4c5d6e7f8091a2b"
SPEC = "embedding_similarity:model=emb"
_ANIMALS = ("parrot", "walrus", "hedgehog", "cormorant", "mongoose", "tortoise")
_PLACES = ("the northern islands", "a granite quarry", "some frozen harbour", "the railway museum")
QUESTIONS = [(f"What lives in {place}, number {n}?", f"a {animal} from {place}") for n, animal in enumerate(_ANIMALS) for place in _PLACES]
"""24 of them; the sandbox's right answers lie nearer than 0.8 to the expected ones, its wrong ones do not."""


class EmbeddingBench:
    """An installation whose models `model` (chat) and `emb` (embeddings) are one sandbox, right for half of the questions.

    Attributes:
        fault: What goes wrong with a request for embeddings from then on.
    """

    def __init__(self, services: Services, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.services, self._patch, self._folder = services, patch, folder
        self.fault: Callable[[int, str], Fault | int | None] = lambda number, text: None
        self._servers: list[Sandbox] = []
        self.add_rows("homes", QUESTIONS)

    def add_rows(self, name: str, rows: list[tuple[str, Any]]) -> None:
        """Add a data set; an expected answer may be None."""
        path = self._folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in rows))
        self.services.datasets.add(self.services.actor, name, path, Mapping())

    def serve(self, **options: Any) -> Sandbox:
        """Start the sandbox, and register both models with an input price alone."""
        options = {"accuracy": 0.5} | options
        server = Sandbox(QUESTIONS, api_key=KEY, embedding_faults=lambda number, text: self.fault(number, text), **options)
        self._servers.append(server.__enter__())
        self._patch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
        self.register("model", server, server.model_id, price_input=Decimal("0.13"))
        self.register("emb", server, server.embedding_model_id, tags=["embeddings"], price_input=Decimal("0.13"))
        return server

    def register(self, key: str, server: Sandbox, remote_id: str, **options: Any) -> None:
        """Register a model of the sandbox. (With the plain profile, whatever the server's dialect.)"""
        request = RegisterRequest(key=key, name=key, base_url=server.base_url, remote_id=remote_id, provider="openai", **options)
        asyncio.run(self.services.registry.register(self.services.actor, request, SecretStr(KEY)))

    def plan(self, **options: Any) -> RunPlan:
        """Plan a run."""
        request = EvaluationRequest(**({"model": "model", "dataset": "homes", "graders": [SPEC]} | options))
        return start_run(self.services, request, new_id())

    def carry_on(self, plan: RunPlan) -> Finished:
        """All stages of a run, from wherever it stands."""
        return carry_out(self.services, plan)

    def run(self, **options: Any) -> tuple[RunPlan, Finished]:
        """All stages of a run."""
        plan = self.plan(**options)
        return plan, self.carry_on(plan)

    def answer(self, plan: RunPlan) -> None:
        """The stages before the embeddings, of a run in one shard."""
        asyncio.run(probe_models(self.services, plan.run_id))
        asyncio.run(answer_shard(self.services, plan.run_id, 0))

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query on the snapshot."""
        return self.services.warehouse.query(sql, list(parameters)).rows

    def summary(self, plan: RunPlan) -> RunSummary:
        return run_summary(self.services.warehouse, self.services.actor.org_id, plan.run_id)

    def score(self, plan: RunPlan, grader: str = SPEC) -> Score:
        """The score of one grader."""
        return next(one for one in self.summary(plan).scores if one.grader == grader)

    def folder(self, plan: RunPlan) -> RunFolder:
        return RunFolder.of(self.services.home, plan.run_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for server in self._servers:
            server.close()


def cosine_served(server: Sandbox, one: str, other: str) -> float:
    """The cosine of what an endpoint serves for two texts, asked for and reckoned without any of our code."""
    body = json.dumps({"model": server.embedding_model_id, "input": [one, other], "encoding_format": "float"}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(f"{server.base_url}/embeddings", body, headers), timeout=30) as answer:
        left, right = (numpy.array(entry["embedding"]) for entry in json.load(answer)["data"])
    return float(left @ right / numpy.linalg.norm(left) / numpy.linalg.norm(right))


def reply(*vectors: list[float]) -> Fault:
    """These vectors, instead of true ones."""
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return Fault(body=json.dumps({"object": "list", "data": data, "usage": {"prompt_tokens": 5, "total_tokens": 5}}).encode())
