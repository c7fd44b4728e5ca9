"""Runs stage by stage, in this process, against sandboxes that misbehave in known ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import pytest
from pydantic import SecretStr

from byok.app import Services
from byok.datasets import Mapping
from byok.engine.plan import RunPlan
from byok.ids import new_id
from byok.registry import RegisterRequest
from byok.runs import EvaluationRequest, Finished, answer_shard, bill_run, finish_run, judge_shard, probe_models, start_run
from byok.sandbox import Fault, Sandbox

KEY = "sk-bench-5b6c7d8e9f0a1b2c3d4e5f6a7b8c9d0e"

Hook = Callable[[int, str], Fault | int | None]


class Bench:
    """An installation with a data set `questions` and sandboxes as its models.

    Attributes:
        faults: By key of the model: what goes wrong with a request from then on.
        sandboxes: By key of the model.
    """

    def __init__(self, services: Services, patch: pytest.MonkeyPatch, folder: Path, questions: list[tuple[str, str]]) -> None:
        self.services, self.questions, self._patch = services, questions, patch
        self.faults: dict[str, Hook] = {}
        self.sandboxes: dict[str, Sandbox] = {}
        path = folder / "questions.jsonl"
        path.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in questions))
        services.datasets.add(services.actor, "questions", path, Mapping())

    def serve(
        self, key: str = "model", *, price: str | None = "1", name: str | None = None, public: bool = False, **options: Any
    ) -> Sandbox:
        """Start a sandbox and register it as a model."""
        options = {"model_id": f"remote-{key}"} | options
        self.faults[key] = lambda number, question: None
        server = Sandbox(self.questions, api_key=KEY, faults=lambda number, question: self.faults[key](number, question), **options)
        self.sandboxes[key] = server.__enter__()
        self._patch.setenv("BYOK_ENDPOINT_ALLOW", ",".join(one.host_port for one in self.sandboxes.values()))
        usd = None if price is None else Decimal(price)
        request = RegisterRequest(
            key=key,
            name=name or key,
            base_url=server.base_url,
            remote_id=server.model_id,
            price_input=usd,
            price_output=usd,
            public=public,
        )
        asyncio.run(self.services.registry.register(self.services.actor, request, SecretStr(KEY)))
        return server

    def start(self, **options: Any) -> RunPlan:
        """Plan a run."""
        request = EvaluationRequest(**({"model": "model", "dataset": "questions", "graders": ["numeric"], "approved": True} | options))
        return start_run(self.services, request, new_id())

    def ask(self, plan: RunPlan) -> None:
        """Probe, answer and judge."""

        async def stages() -> None:
            await probe_models(self.services, plan.run_id)
            for shard in range(plan.shards):
                await answer_shard(self.services, plan.run_id, shard)
            for judge in plan.judges:
                for shard in range(plan.shards):
                    await judge_shard(self.services, plan.run_id, judge.name, shard)

        asyncio.run(stages())

    def run(self, **options: Any) -> tuple[RunPlan, Finished]:
        """All stages of a run."""
        plan = self.start(**options)
        self.ask(plan)
        bill_run(self.services, plan.run_id)
        return plan, finish_run(self.services, plan.run_id)

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query on the snapshot."""
        return self.services.warehouse.query(sql, list(parameters)).rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for server in self.sandboxes.values():
            server.close()
