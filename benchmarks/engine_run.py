"""One run of byok in a process of its own, each stage timed; a child of `engine.py`.

    python benchmarks/engine_run.py prepare --rows rows.jsonl --model m=http://127.0.0.1:8000/v1
    python benchmarks/engine_run.py run [--concurrency 64] [--profile stage.prof]

The installation is the one that BYOK_HOME names; `prepare` makes it, with models and a data set `rows`. `run` calls the stages of
`byok.runs` for model `m` as `flows.evaluation` does, but without Prefect. Both print one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from byok.app import Services, open_services
from byok.cli.init import initialise
from byok.datasets import Mapping
from byok.home import Home
from byok.ids import new_id
from byok.registry import RegisterRequest
from byok.runs import EvaluationRequest, answer_shard, bill_run, finish_run, probe_models, start_run
from flows.shards import side_by_side

KEY = "sk-bench-0123456789abcdefghijklmnopqrstuv"


def prepare(rows: Path, models: dict[str, str]) -> dict[str, Any]:
    """Make the installation, register the models (base URLs by key), add the data set."""
    # Enough for 100,000 verdicts, many times.
    initialise(Home.from_environment(), "bench", "owner@bench.example", "1000000")
    services = open_services()
    for key, base_url in models.items():
        request = RegisterRequest(key=key, name=key, base_url=base_url, remote_id="mock-model", price_input="1", price_output="2")
        asyncio.run(services.registry.register(services.actor, request, SecretStr(KEY)))
    report = services.datasets.add(services.actor, "rows", rows, Mapping())
    return {"rows": report.info.rows}


@dataclass
class Meter:
    """Seconds and CPU seconds of each stage, and how large the process had become by its end."""

    wall_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    _since: float = 0.0
    _cpu_since: float = 0.0

    def start(self) -> None:
        """Begin the first stage."""
        self._since, self._cpu_since = time.perf_counter(), cpu()
        self.peak_mb["opened"] = peak_mb()

    def end(self, stage: str) -> None:
        """End a stage, and begin the next."""
        now, used = time.perf_counter(), cpu()
        self.wall_s[stage], self.cpu_s[stage], self.peak_mb[stage] = now - self._since, used - self._cpu_since, peak_mb()
        self._since, self._cpu_since = time.perf_counter(), cpu()


def cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def peak_mb() -> float:
    """Most memory that this process has held; not `ru_maxrss`, which a child takes over from who started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def run(concurrency: int, around_stage: Callable[[Callable[[], Any]], Any]) -> dict[str, Any]:
    """All stages of one run."""
    services, meter = open_services(), Meter()
    request = EvaluationRequest(model="m", dataset="rows", graders=["exact"], concurrency=concurrency)
    meter.start()
    plan = start_run(services, request, new_id())
    meter.end("start")
    # One event loop for the probe and the shards, as in the flow.
    with asyncio.Runner() as runner:
        runner.run(probe_models(services, plan.run_id))
        meter.end("probe")
        stage = around_stage(lambda: runner.run(_evaluate(services, plan.run_id, plan.shards)))
        meter.end("evaluate")
    bill_run(services, plan.run_id)
    meter.end("bill")
    finished = finish_run(services, plan.run_id)
    meter.end("report")
    query = "SELECT scored, score FROM v1.scores WHERE run_id = ?"
    ((scored, score),) = services.warehouse.query(query, [plan.run_id]).rows
    return {
        "status": finished.status,
        "rows": sum(report.finished for report in stage.reports),
        "right": round(scored * score),
        "shards": plan.shards,
        "wall_s": meter.wall_s,
        "cpu_s": meter.cpu_s,
        "peak_mb": meter.peak_mb,
    }


async def _evaluate(services: Services, run_id: str, shards: int) -> Any:
    return await side_by_side(answer_shard(services, run_id, shard) for shard in range(shards))


def main() -> None:
    """Do what the command line says, and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("prepare", "run"))
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--model", action="append", default=[], help="KEY=BASE_URL, may be given again")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--profile", type=Path, help="write a profile of the evaluate stage here")
    options = parser.parse_args()
    if options.what == "prepare":
        told = prepare(options.rows, dict(text.split("=", 1) for text in options.model))
    elif options.profile:
        profile = cProfile.Profile()
        told = run(options.concurrency, profile.runcall)
        profile.dump_stats(options.profile)
    else:
        told = run(options.concurrency, lambda stage: stage())
    json.dump(told, sys.stdout)
    print()


if __name__ == "__main__":
    main()
