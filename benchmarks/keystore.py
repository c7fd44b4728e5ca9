"""What the two key stores cost: single operations, and a whole evaluation.

    python benchmarks/keystore.py [--operations 1000] [--rows 1000] [--repeat 5]

Operations are done one after the other by one client, as tasks do them. The evaluation is the one that a run makes (probe, answer two
shards side by side, bill, finish), against a sandbox in a process of its own with 100 ms latency; runs of both stores take turns. Ratios
within one run on one machine are what counts; results stand in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from byok.app import Services, open_services
from byok.cli.init import initialise
from byok.datasets import Mapping
from byok.home import Home
from byok.ids import new_id
from byok.keystore import KeyStore, SealContext, VaultSettings
from byok.keystore.openbao import LocalOpenBao
from byok.keystore.setup import VaultSetup
from byok.registry import RegisterRequest
from byok.runs import EvaluationRequest, answer_shard, bill_run, finish_run, probe_models, start_run

KEY = "sk-bench-0123456789abcdefghijklmnopqrstuv"
STORES = ("local", "transit")
CONCURRENCY = 32
LATENCY_MS = 100


Opener = Callable[[], Services]


def installation(folder: Path, store: str, server: LocalOpenBao) -> Opener:
    """Make an installation on one of the stores; gives what opens it."""
    home = Home(folder / store)
    initialise(home, "bench", "owner@bench.example")
    if store == "local":
        return partial(open_services, home)
    operator = VaultSettings(address=server.address, credentials=home.vault_credentials, token=server.root_token)
    services = open_services(home)
    list(VaultSetup(operator).run(services.actor.org_id, "bench"))
    services.control.close()
    return partial(open_services, home, VaultSettings(address=server.address, credentials=home.vault_credentials))


def timed(count: int, act: Callable[[int], object]) -> list[float]:
    """Seconds of each call, after a few that are not counted."""
    for number in range(min(10, count)):
        act(number)
    times = []
    for number in range(count):
        started = time.perf_counter()
        act(number)
        times.append(time.perf_counter() - started)
    return times


def operations(store: KeyStore, org_id: str, count: int) -> Iterator[tuple[str, int, list[float]]]:
    """Name, keys in one call, and times of each kind of operation."""
    contexts = [SealContext(org_id, new_id(), 1, "https://api.example") for _ in range(count)]
    sealed = [store.seal(KEY, context) for context in contexts]
    yield "seal", 1, timed(count, lambda number: store.seal(KEY, contexts[number]))
    yield "open", 1, timed(count, lambda number: store.open(sealed[number], contexts[number]))
    pairs = list(zip(sealed, contexts, strict=True))
    chunks = [pairs[start : start + 100] for start in range(0, count, 100)]
    yield "rewrap, 100 at a time", 100, timed(max(50, len(chunks)), lambda number: store.rewrap(org_id, chunks[number % len(chunks)]))


@contextlib.contextmanager
def sandbox(answers: Path) -> Iterator[dict[str, Any]]:
    """A provider in a process of its own."""
    command = [sys.executable, "-m", "byok.cli.main", "sandbox", "serve", "--answers", str(answers), "--latency-ms", str(LATENCY_MS)]
    child = subprocess.Popen(
        [*command, "--api-key-env", "BENCH_KEY", "--json"], stdout=subprocess.PIPE, text=True, env=os.environ | {"BENCH_KEY": KEY}
    )
    assert child.stdout is not None
    try:
        yield json.loads(child.stdout.readline())["sandbox"]
    finally:
        child.terminate()
        child.wait()
        child.stdout.close()


def prepare(services: Services, provider: dict[str, Any], rows: Path) -> None:
    """Register the model and add the data set."""
    request = RegisterRequest(key="m", name="M", base_url=provider["base_url"], remote_id=provider["model_id"])
    asyncio.run(services.registry.register(services.actor, request, SecretStr(KEY)))
    services.datasets.add(services.actor, "rows", rows, Mapping())


async def evaluate(opener: Opener) -> tuple[float, float]:
    """Seconds of one evaluation, and how many of them the key store took; opened anew, so that a login to Vault counts."""
    services = opener()
    opening, open_key = 0.0, services.keystore.open

    def counted(sealed: str, context: SealContext) -> str:
        nonlocal opening
        started = time.perf_counter()
        try:
            return open_key(sealed, context)
        finally:
            opening += time.perf_counter() - started

    services.keystore.open = counted  # type: ignore[method-assign]
    try:
        request = EvaluationRequest(model="m", dataset="rows", graders=["numeric"], concurrency=CONCURRENCY)
        started = time.perf_counter()
        plan = start_run(services, request, new_id())
        await probe_models(services, plan.run_id)
        await asyncio.gather(*(answer_shard(services, plan.run_id, shard) for shard in range(plan.shards)))
        bill_run(services, plan.run_id)
        finished = finish_run(services, plan.run_id)
        took = time.perf_counter() - started
    finally:
        services.control.close()
    if finished.status != "completed":
        raise SystemExit(f"a run ended {finished.status}")
    return took, opening


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--operations", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        server = LocalOpenBao(folder / "openbao", folder / "openbao.json")
        server.start()
        stack.callback(server.stop)
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps({"question": f"{n} + {n}?", "answer": str(2 * n)}) + "\n" for n in range(options.rows)))
        provider = stack.enter_context(sandbox(rows))
        os.environ["BYOK_ENDPOINT_ALLOW"] = provider["host_port"]
        opened = {store: installation(folder, store, server) for store in STORES}

        print("| operation | store | keys/s | p50 ms | p99 ms |\n| --- | --- | --: | --: | --: |")
        for store, opener in opened.items():
            services = opener()
            for operation, keys, times in operations(services.keystore, services.actor.org_id, options.operations):
                cuts = statistics.quantiles(times, n=100, method="inclusive")
                rate = keys * len(times) / sum(times)
                print(f"| {operation} | {store} | {rate:,.0f} | {cuts[49] * 1000:.3f} | {cuts[98] * 1000:.3f} |")

        seconds: dict[str, list[tuple[float, float]]] = {store: [] for store in STORES}
        for opener in opened.values():
            prepare(opener(), provider, rows)
            asyncio.run(evaluate(opener))  # warms caches up; not counted
        for turn in range(options.repeat):
            for store in STORES if turn % 2 == 0 else reversed(STORES):
                seconds[store].append(asyncio.run(evaluate(opened[store])))
        median = {store: statistics.median(took for took, _ in seconds[store]) for store in STORES}
        print("\n| store | s for the evaluation (median) | s in the key store (median) | share |\n| --- | --: | --: | --: |")
        for store in STORES:
            inside = statistics.median(opening for _, opening in seconds[store])
            print(f"| {store} | {median[store]:.3f} | {inside:.4f} | {inside / median[store]:.2%} |")
        print(f"\nTransit against local: {median['transit'] / median['local'] - 1:+.2%} of the whole evaluation")


if __name__ == "__main__":
    main()
