"""What worker processes make of a run: `evaluate` in one process beside `evaluate-scaled` on Dask workers, on one machine.

    python benchmarks/scaling.py [--repeat 3] [--rows 4000] [--shard-size 500] [--concurrency 64] [--endpoints fast slow]

Every run goes through a real `byok up`; the ways take turns, once without counting and then `--repeat` times. The rate is what the mock
endpoint saw, from the first request for a row to the last reply; the flow's seconds are Prefect's, from its start to its end. Prints a
Markdown table with medians (and the least and the greatest); docs/scaling.md keeps one.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from engine import Endpoint, Installation, endpoint, installation, note

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "lib"))

from byok_testing.dask_cluster import DaskCluster
from byok_testing.stack import Stack, started, wait_up

LATENCIES = {"fast": 10.0, "slow": 500.0}
"""Milliseconds that the endpoints take for an answer."""

CLUSTERS = {"1 worker, 1 thread": (1, 1), "2 workers, 1 thread each": (2, 1), "2 workers, 2 threads each": (2, 2)}


@dataclass
class Cell:
    """The runs of one way against one endpoint."""

    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    most: list[int] = field(default_factory=list)


@contextlib.contextmanager
def clusters(byok: Installation, stack: Stack) -> Iterator[dict[str, DaskCluster]]:
    """All clusters at once, so that the ways can take turns; workers without work cost next to nothing."""
    home = byok.folder / "home"
    environment = byok.environment | {
        "BYOK_TOKEN_FILE": str(home / "keys" / "worker.token"),
        "PREFECT_API_URL": stack.api_url,
        "PREFECT_API_AUTH_STRING": stack.login,
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }
    with contextlib.ExitStack() as open_ones:
        yield {
            name: open_ones.enter_context(DaskCluster(byok.folder / f"dask-{number}", environment, workers=workers, threads=threads))
            for number, (name, (workers, threads)) in enumerate(CLUSTERS.items())
        }


def run(stack: Stack, model: str, asked: Endpoint, cluster: DaskCluster | None, options: argparse.Namespace, cell: Cell | None) -> None:
    """One run over all rows; counted when there is a cell for it."""
    asked.reset()
    sizes = {"shard_size": options.shard_size, "concurrency": options.concurrency}
    parameters: dict[str, object] = {"request": {"model": model, "dataset": "rows", "graders": ["numeric"], **sizes}}
    if cluster is not None:
        parameters["scheduler"] = cluster.address
    flow_run = stack.start("evaluate/ad-hoc" if cluster is None else "evaluate-scaled/scaled", parameters)
    state, counted = stack.end(flow_run), asked.stats()
    if state["type"] != "COMPLETED" or (counted["answered"], counted["again"]) != (options.rows, 0):
        raise SystemExit(f"a run ended {state}, with {counted}")
    told = stack.ask(f"flow_runs/{flow_run}")
    took = datetime.fromisoformat(told["end_time"]) - datetime.fromisoformat(told["start_time"])
    note(f"{model}, {told['name']}: {counted['window_s']:.1f} s of {took.total_seconds():.1f} s")
    if cell is not None:
        cell.rates.append(options.rows / counted["window_s"])
        cell.seconds.append(took.total_seconds())
        cell.most.append(counted["most_in_flight"])


def shown(values: list[float], digits: int) -> str:
    """The median, with the least and the greatest."""
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def main() -> None:
    """Read the options, let all ways take turns, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--shard-size", type=int, default=500)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--endpoints", nargs="+", choices=LATENCIES, default=list(LATENCIES))
    options = parser.parse_args()
    with contextlib.ExitStack() as open_ones:
        endpoints = {name: open_ones.enter_context(endpoint(LATENCIES[name])) for name in options.endpoints}
        byok = open_ones.enter_context(installation(options.rows, **endpoints))
        child = open_ones.enter_context(started([sys.executable, "-m", "byok.cli.main"], byok.environment))
        stack = wait_up(child, byok.folder / "home" / "logs")
        ways = {"one process": None, **open_ones.enter_context(clusters(byok, stack))}
        print("| endpoint | shards carried out by | rows/s | s, the whole flow | most at once |\n| --- | --- | --: | --: | --: |")
        for model, asked in endpoints.items():
            cells = {way: Cell() for way in ways}
            for turn in range(options.repeat + 1):
                for way in list(ways)[:: 1 if turn % 2 else -1]:
                    run(stack, model, asked, ways[way], options, cells[way] if turn else None)
            for way, cell in cells.items():
                print(
                    f"| {model}: {LATENCIES[model]:g} ms | {way} | {shown(cell.rates, 0)} | {shown(cell.seconds, 1)} | {max(cell.most)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
