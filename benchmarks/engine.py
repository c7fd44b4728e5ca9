"""What byok's evaluation engine makes of a machine, beside a bare loop over the same HTTP client.

    python benchmarks/engine.py [--cells latency overhead …] [--repeat 3] [--full] [--million] [--write | --json]

Cells: `latency` and `overhead` (the evaluate stage at 100 ms and at 0 ms), `command` (`byok evaluate` from its start to its end, beside a
running `byok up`), `faults`, `chain` (what probe, bill and report add), `memory` (with --full). Everything is asked of `mock_endpoint.py`;
byok and the bare loop run in processes of their own and take turns, medians are shown with the least and the greatest. Ratios within one
run on one machine are what counts. --write puts the tables into benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mock_endpoint import Faults, sum_of

HERE = Path(__file__).parent
README = HERE / "README.md"
BEGIN, END = "<!-- engine.py writes from here -->", "<!-- to here -->"
PACKAGES = ("byok", "httpx", "httpx-aiohttp", "aiohttp", "orjson", "duckdb", "prefect")

ROWS, CONCURRENCY, LATENCY_MS = 2_000, 64, 100
FAULTS = Faults(rate_429=0.10, rate_500=0.03, rate_reset=0.01, retry_after_s=1)

PEERS = {
    "deepeval 4.3.1": (7.6, 7.1, 1.2),
    "lm-eval 0.4.13": (13.6, 11.1, 5.9),
    "promptfoo 0.123.1": (14.5, 11.5, 1.7),
    "inspect_ai 0.3.285": (31.7, 30.0, 3.4),
    "mlflow 3.17.2, tuned": (148.8, 128.3, 4.2),
    "Prefect 3.8.8, a task run for 250 rows, nothing else": (11.8, 7.9, 7.1),
}
"""Seconds for the same 2,000 rows at 100 ms and at 0 ms, and for one row, each as a whole process; medians of 3 (mlflow: one run)."""
PEERS_NOTE = (
    "Peers were measured on another day (2026-11-23) and another machine of 2 cores (Intel Xeon), where the bare loop took 3.7 s and 0.9 s."
)


@dataclass(frozen=True)
class Figure:
    """One line of the table: the values of all repetitions, and what their median should reach."""

    cell: str
    what: str
    unit: str
    values: list[float]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def missed(self) -> bool:
        """Whether the median is on the wrong side of its target."""
        return (self.at_least is not None and self.median < self.at_least) or (self.at_most is not None and self.median > self.at_most)

    def line(self) -> str:
        """The line, as Markdown."""
        low, middle, high = (_shown(value, self.unit) for value in (min(self.values), self.median, max(self.values)))
        spread = f" ({low} to {high})" if low != high else ""
        target = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}" if self.at_most is not None else ""
        return f"| {self.cell} | {self.what} | {middle}{spread} | {target}{', missed' if self.missed else ''} |"


def _shown(value: float, unit: str) -> str:
    digits = 0 if unit in ("rows/s", "MB", "requests", "rows") else 1 if unit == "%" else 2
    return f"{value:,.{digits}f}" + (f" {unit}" if unit else "")


@dataclass(frozen=True)
class Options:
    """How often, and how much."""

    repeat: int
    full: bool
    million: bool


@dataclass(frozen=True)
class Done:
    """A child that has ended: what it printed, and what it took from its start to its end, children of its own included."""

    told: dict[str, Any]
    wall_s: float
    cpu_s: float


class Endpoint:
    """A running mock endpoint."""

    def __init__(self, port: int) -> None:
        self.host_port, self.base_url = f"127.0.0.1:{port}", f"http://127.0.0.1:{port}/v1"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def stats(self) -> dict[str, Any]:
        """What it has counted since the last reset."""
        with self._opener.open(f"http://{self.host_port}/stats") as answer:
            return dict(json.load(answer))

    def reset(self) -> None:
        """Let it count from zero, and forget which attempts there were."""
        self._opener.open(urllib.request.Request(f"http://{self.host_port}/reset", method="POST")).close()


@contextlib.contextmanager
def endpoint(latency_ms: float, faults: Faults | None = None) -> Iterator[Endpoint]:
    """A mock endpoint in a process of its own."""
    found = faults or Faults()
    options = {
        "latency-ms": latency_ms,
        "rate-429": found.rate_429,
        "rate-500": found.rate_500,
        "rate-reset": found.rate_reset,
        "retry-after": found.retry_after_s,
        "seed": found.seed,
    }
    command = [
        sys.executable,
        str(HERE / "mock_endpoint.py"),
        *(part for name, value in options.items() for part in (f"--{name}", str(value))),
    ]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield Endpoint(int(child.stdout.readline()))
    finally:
        child.terminate()
        child.wait()
        child.stdout.close()


class Installation:
    """byok in a folder of its own, with a model for each endpoint and a data set."""

    def __init__(self, folder: Path, rows: Path, **endpoints: Endpoint) -> None:
        self.folder, self.rows = folder, rows
        # Bytecode is kept, as wherever byok is installed; nothing of the caller's own installation is used.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BYOK_", "PREFECT_", "PYTHONDONTWRITE"))}
        allowed = ",".join(one.host_port for one in endpoints.values())
        self.environment = kept | {"BYOK_HOME": str(folder / "home"), "BYOK_ENDPOINT_ALLOW": allowed}
        models = [f"--model={key}={one.base_url}" for key, one in endpoints.items()]
        self.child(str(HERE / "engine_run.py"), "prepare", "--rows", str(rows), *models)

    def child(self, *arguments: str) -> Done:
        """Run Python to its end; the last line or object that it prints is JSON."""
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        # In a folder without a package of ours, so that it is the installed one, or PYTHONPATH's, that is measured.
        done = subprocess.run(
            [sys.executable, *arguments], env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return Done(json.loads(done.stdout), wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    def bare(self, one: Endpoint, concurrency: int, *more: str) -> Done:
        """The bare loop over all rows."""
        one.reset()
        arguments = ("--url", one.base_url, "--rows", str(self.rows), "--concurrency", str(concurrency), *more)
        return self.child(str(HERE / "bare_loop.py"), *arguments)

    def stages(self, one: Endpoint, concurrency: int) -> Done:
        """A run of byok over all rows, stage by stage, without Prefect; the endpoint counts the rows' requests alone."""
        one.reset()
        done = self.child(str(HERE / "engine_run.py"), "run", "--concurrency", str(concurrency))
        if done.told["status"] != "completed":
            raise SystemExit(f"a run ended {done.told['status']}")
        return done


@contextlib.contextmanager
def installation(count: int, *, padding: int = 0, **endpoints: Endpoint) -> Iterator[Installation]:
    """An installation with `count` rows, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="byok-bench-") as name:
        folder = Path(name)
        rows = folder / "rows.jsonl"
        with rows.open("w") as stream:
            for question, answer in questions(count):
                prompt = f"{question} Reply with the number." + " x" * (padding // 2)
                stream.write(json.dumps({"input": prompt, "expected": answer}) + "\n")
        yield Installation(folder, rows, **endpoints)


def questions(count: int) -> Iterator[tuple[str, str]]:
    """Questions that the endpoint answers, each another, with their right answers."""
    for number in range(count):
        question = f"What is {1_000_000 + number} + {1_000 + number * 7_919 % 99_000}?"
        found = sum_of(question)
        assert found is not None
        yield question, str(found[1])


def note(text: str) -> None:
    """Say how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def turns(repeat: int, cell: str, *acts: Callable[[], Done], warm: bool = True) -> list[list[Done]]:
    """Let acts take turns, each time in the opposite order; gives the done ones of each.

    Args:
        repeat: How often.
        cell: For the progress.
        *acts: What takes turns.
        warm: Whether they come once more before, without being counted.
    """
    counted: list[list[Done]] = [[] for _ in acts]
    for turn in range(0 if warm else 1, repeat + 1):
        order = list(enumerate(acts))
        for index, act in order if turn % 2 else reversed(order):
            done = act()
            note(f"{cell}: {f'turn {turn} of {repeat}' if turn else 'warming up'}, {done.wall_s:.1f} s")
            if turn:
                counted[index].append(done)
    return counted


def same_answers(bare: list[Done], byok: list[Done], count: int) -> None:
    """Stop when anybody lost a row, or came to another score."""
    found = {(done.told["rows"], done.told["right"]) for done in (*bare, *byok)}
    if len(found) != 1 or next(iter(found))[0] != count:
        raise SystemExit(f"rows and right answers differ: {found}, of {count} rows")


def evaluate_s(done: Done) -> float:
    """Seconds of the evaluate stage: all shards answered, graded, and sealed in segments."""
    return float(done.told["wall_s"]["evaluate"])


def latency(options: Options) -> Iterator[Figure]:
    """The evaluate stage where the endpoint's latency bounds it."""
    cell = f"latency: {ROWS:,} rows, {CONCURRENCY} at once, {LATENCY_MS} ms"
    ideal_s = ROWS / CONCURRENCY * LATENCY_MS / 1000
    kept: list[float] = []

    def stages() -> Done:
        done = byok.stages(one, CONCURRENCY)
        kept.append(one.stats()["latency_ms"])
        return done

    with endpoint(LATENCY_MS) as one, installation(ROWS, m=one) as byok:
        acts = (lambda: byok.bare(one, CONCURRENCY), stages, lambda: byok.bare(one, CONCURRENCY, "--floor"))
        bare, ours, floor = turns(options.repeat, "latency", *acts)
    same_answers(bare, [*ours, *floor], ROWS)
    yield Figure(cell, "latency that the endpoint kept", "ms", kept[1:])
    yield Figure("", "evaluate stage", "s", [evaluate_s(done) for done in ours])
    yield Figure("", f"share of the ideal rate ({ideal_s:g} s)", "", [ideal_s / evaluate_s(done) for done in ours], at_least=0.95)
    yield Figure("", "the bare loop's share", "", [ideal_s / done.told["window_s"] for done in bare])
    yield Figure("", "share of aiohttp alone: the most that can be reached here", "", [ideal_s / done.told["window_s"] for done in floor])


def overhead(options: Options) -> Iterator[Figure]:
    """The evaluate stage where only the client's own work bounds it."""
    cell = f"overhead: {ROWS:,} rows, {CONCURRENCY} at once, 0 ms"
    with endpoint(0) as one, installation(ROWS, m=one) as byok:
        bare, ours = turns(options.repeat, "overhead", lambda: byok.bare(one, CONCURRENCY), lambda: byok.stages(one, CONCURRENCY))
    same_answers(bare, ours, ROWS)
    pairs = list(zip(bare, ours, strict=True))
    yield Figure(cell, "evaluate stage", "rows/s", [ROWS / evaluate_s(done) for done in ours])
    yield Figure("", "bare loop", "rows/s", [ROWS / done.told["window_s"] for done in bare])
    yield Figure("", "share of the bare loop's rate", "", [one.told["window_s"] / evaluate_s(other) for one, other in pairs], at_least=0.70)
    by_cpu = [one.told["cpu_s"] / other.told["cpu_s"]["evaluate"] for one, other in pairs]
    yield Figure("", "the same by CPU time, which other processes disturb less", "", by_cpu)
    yield Figure("", "CPU of the stage, each row", "ms", [done.told["cpu_s"]["evaluate"] / ROWS * 1000 for done in ours], at_most=1.0)
    yield Figure("", "CPU of the bare loop, each row", "ms", [done.told["cpu_s"] / ROWS * 1000 for done in bare])


def faults(options: Options) -> Iterator[Figure]:
    """The evaluate stage where every seventh request or so goes wrong."""
    count, concurrency, latency_ms = 500, 32, 20
    cell = f"faults: {count} rows, {concurrency} at once, {latency_ms} ms; 10 % 429 with Retry-After 1 s, 3 % 500, 1 % resets"
    forced = sum(needed(question) for question, _ in questions(count))
    beyond: list[float] = []

    def ours() -> Done:
        done = byok.stages(one, concurrency)
        counted = one.stats()
        if counted["answered"] != count:
            raise SystemExit(f"{counted['answered']} of {count} rows were answered")
        beyond.append((counted["requests"] - forced) / forced * 100)
        return done

    with endpoint(latency_ms, FAULTS) as one, installation(count, m=one) as byok:
        bare, runs = turns(options.repeat, "faults", lambda: byok.bare(one, concurrency), ours)
    same_answers(bare, runs, count)
    yield Figure(cell, "rows answered", "rows", [float(done.told["rows"]) for done in runs], at_least=count)
    yield Figure("", f"requests beyond the {forced} that rows and faults force", "%", beyond[1:], at_most=2.0)
    yield Figure("", "evaluate stage", "s", [evaluate_s(done) for done in runs])
    ratios = [evaluate_s(other) / done.told["window_s"] for done, other in zip(bare, runs, strict=True)]
    yield Figure("", "time, over the bare loop's with retries", "", ratios, at_most=1.3)


def needed(question: str) -> int:
    """Requests that an answer to a question takes: one more than the faults that it meets first."""
    attempt = 1
    while FAULTS.of(question, attempt) is not None:
        attempt += 1
    return attempt


def chain(options: Options) -> Iterator[Figure]:
    """What comes before and after the evaluate stage, and how it grows."""
    first: float | None = None
    for count in (2_000, 10_000, *([100_000] if options.full else [])):
        with endpoint(0) as one, installation(count, m=one) as byok:
            large = count > 10_000
            (runs,) = turns(
                1 if large else options.repeat,
                f"chain of {count:,} rows",
                lambda byok=byok, one=one: byok.stages(one, CONCURRENCY),
                warm=not large,
            )
        added = [sum(seconds for stage, seconds in done.told["wall_s"].items() if stage != "evaluate") for done in runs]
        cell = f"chain: {count:,} rows, 0 ms"
        yield Figure(cell, "start, probe, bill and report", "s", added, at_most=5.0 if first is None else None)
        for stage in ("start", "probe", "bill", "report"):
            yield Figure("", stage, "s", [done.told["wall_s"][stage] for done in runs])
        each = statistics.median(added) / count
        if first is not None:
            yield Figure("", "time for each row, over that of 2,000 rows", "", [each / first], at_most=1.0)
        first = first or each


def memory(options: Options) -> Iterator[Figure]:
    """How large the process becomes with rows of 1 kB, which should not hang on their number."""
    first: float | None = None
    for count in (10_000, 100_000, *([1_000_000] if options.million else [])):
        with endpoint(0) as one, installation(count, padding=1_000, m=one) as byok:
            (runs,) = turns(1, f"memory of {count:,} rows", lambda byok=byok, one=one: byok.stages(one, CONCURRENCY), warm=False)
        told = runs[0].told["peak_mb"]
        yield Figure(f"memory: {count:,} rows of 1 kB, 0 ms", "at the start", "MB", [told["opened"]])
        yield Figure("", "most, up to the end of the evaluate stage", "MB", [told["evaluate"]])
        yield Figure("", "most, of the whole run", "MB", [told["report"]], at_most=500)
        if first is not None:
            yield Figure("", "the same, over that of 10,000 rows", "", [told["report"] / first])
        first = first or told["report"]


def command(options: Options) -> Iterator[Figure]:
    """`byok evaluate`, from its start to its end, beside a running `byok up`."""
    with endpoint(LATENCY_MS) as far, endpoint(0) as near, installation(ROWS, far=far, near=near) as byok, running_up(byok):

        def evaluate(model: str, *more: str) -> Done:
            arguments = ("evaluate", model, "rows", "--grader", "exact", "--concurrency", str(CONCURRENCY), "--yes", "--json", *more)
            done = byok.child("-m", "byok.cli.main", *arguments)
            if done.told["run"]["status"] != "completed":
                raise SystemExit(f"a run ended {done.told['run']['status']}")
            return done

        found = turns(
            options.repeat,
            "command",
            lambda: evaluate("far"),
            lambda: byok.bare(far, CONCURRENCY),
            lambda: evaluate("near"),
            lambda: byok.bare(near, CONCURRENCY),
            lambda: evaluate("near", "--limit", "1"),
        )
    cells = (f"command: {ROWS:,} rows, {LATENCY_MS} ms", f"command: {ROWS:,} rows, 0 ms", "command: 1 row, 0 ms")
    for cell, runs, bare, most in zip(cells, found[::2], (found[1], found[3], None), (7.0, None, 3.0), strict=True):
        yield Figure(cell, "`byok evaluate`, whole process", "s", [done.wall_s for done in runs], at_most=most)
        yield Figure("", "its CPU, without the server's", "s", [done.cpu_s for done in runs])
        if bare is not None:
            yield Figure("", "bare loop, whole process", "s", [done.wall_s for done in bare])


@contextlib.contextmanager
def running_up(byok: Installation) -> Iterator[None]:
    """`byok up`, until it is no longer wanted."""
    note("starting byok up")
    child = subprocess.Popen(
        [sys.executable, "-m", "byok.cli.main", "up", "--port", "0", "--json"],
        env=byok.environment,
        cwd=byok.folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        if not any(line.startswith("}") for line in child.stdout):
            raise SystemExit("byok up ended before all was up")
        yield
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(90)
        child.stdout.close()


CELLS: dict[str, Callable[[Options], Iterator[Figure]]] = {
    "latency": latency,
    "overhead": overhead,
    "command": command,
    "faults": faults,
    "chain": chain,
    "memory": memory,
}


def tables(figures: list[Figure], options: Options, load: float) -> str:
    """The results, as Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    about = (
        f"{os.cpu_count()} cores ({processor()}), Python {platform.python_version()}, {versions}, {datetime.now(UTC):%Y-%m-%d};"
        f" load average {load:.1f} at the start; medians of {options.repeat} (least to greatest)."
    )
    lines = [about, "", "| cell | measured | median | target |", "| --- | --- | --: | --: |", *(figure.line() for figure in figures)]
    walls = [figure.median for figure in figures if figure.what.startswith("`byok evaluate`")]
    if walls:
        peers = {"byok evaluate": tuple(walls)} | PEERS
        lines += ["", f"The same rows with other tools, each as a whole process. {PEERS_NOTE}", ""]
        lines += ["| tool | s at 100 ms | s at 0 ms | s for 1 row |", "| --- | --: | --: | --: |"]
        lines += [f"| {name} | {' | '.join(f'{seconds:.1f}' for seconds in three)} |" for name, three in peers.items()]
    return "\n".join(lines)


def processor() -> str:
    """What the machine's processor calls itself."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def write(text: str) -> None:
    """Put the results into the README, in place of those of before."""
    before, found, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise SystemExit(f"{README.name} lacks the lines that the results stand between")
    README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Measure the cells that are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", nargs="+", choices=CELLS, metavar="CELL", help=", ".join(CELLS))
    parser.add_argument("--repeat", type=int, default=3, help="counted repetitions of each")
    parser.add_argument("--full", action="store_true", help="also 100,000 rows, and memory")
    parser.add_argument("--million", action="store_true", help="also the memory of 1,000,000 rows")
    parser.add_argument("--write", action="store_true", help="into benchmarks/README.md")
    parser.add_argument("--json", action="store_true", help="print all values, not the tables")
    given = parser.parse_args()
    if given.write and given.cells:
        parser.error("--write takes all cells: it replaces the results of all")
    # Whatever ends this, the processes that it started are put away.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    options = Options(given.repeat, given.full, given.million)
    load = os.getloadavg()[0]
    names = given.cells or [name for name in CELLS if name != "memory" or options.full or options.million]
    figures: list[Figure] = []
    for name in names:
        for figure in CELLS[name](options):
            note(figure.line())
            figures.append(figure)
    if given.json:
        print(json.dumps([asdict(figure) | {"median": figure.median, "missed": figure.missed} for figure in figures], indent=1))
        return
    text = tables(figures, options, load)
    if given.write:
        write(text)
    print(text)


if __name__ == "__main__":
    main()
