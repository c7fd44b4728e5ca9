"""A Dask cluster of real processes on loopback; its scheduler records what it was given, and which worker did it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

_LIB = Path(__file__).resolve().parents[1]
_RECORD = "DASK_RECORD"
_HTTP = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")


@dataclass(frozen=True)
class Event:
    """Something that happened at the scheduler.

    Attributes:
        what: A worker `joined`; a task was `given` to it; the worker `ended` a task.
        worker: Its name.
        key: The task's, which begins with its name.
        at: Monotonic seconds.
    """

    what: str
    worker: str
    key: str
    at: float


class DaskCluster:
    """A scheduler and its workers, each a process of its own; stopped at the end.

    Args:
        folder: Where logs and records go.
        environment: Of the workers.
        workers: How many there are.
        threads: Of each worker.
    """

    def __init__(self, folder: Path, environment: dict[str, str], *, workers: int = 2, threads: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.workers = folder, dict[str, subprocess.Popen[bytes]]()
        self._count, self._threads, self._started = workers, threads, 0
        self._environment = environment | {"PYTHONPATH": str(_LIB), _RECORD: str(folder / "record")}

    def __enter__(self) -> Self:
        try:
            self._start_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_all(self) -> None:
        told = self.folder / "scheduler.json"
        place = ("--host", "127.0.0.1", "--port", "0", *_HTTP, "--scheduler-file", str(told))
        # The scheduler opens no key and runs no task: it gets nothing of byok's, and nothing of Prefect's.
        bare = {name: value for name, value in self._environment.items() if not name.startswith(("BYOK_", "PREFECT_"))}
        self.scheduler = self._start("scheduler", "scheduler", *place, "--preload", "byok_testing.dask_cluster", environment=bare)
        until = time.monotonic() + 60
        while not told.exists() or not told.read_text().rstrip().endswith("}"):
            assert time.monotonic() < until and self.scheduler.poll() is None, self.logs()
            time.sleep(0.05)
        self.address = str(json.loads(told.read_text())["address"])
        self.fill()

    def __exit__(self, *exc_info: object) -> None:
        # The workers first: they take leave of the scheduler.
        for children in ([*self.workers.values()], [self.scheduler]):
            for child in children:
                child.terminate()
            for child in children:
                try:
                    child.wait(30)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    def fill(self) -> None:
        """Start workers until there are as many as there should be, and wait until the scheduler knows them all."""
        self.workers = {name: child for name, child in self.workers.items() if child.poll() is None}
        while len(self.workers) < self._count:
            name = f"worker-{self._started}"
            place = (self.address, "--host", "127.0.0.1", *_HTTP, "--no-nanny", "--nthreads", str(self._threads), "--memory-limit", "0")
            scratch = ("--local-directory", str(self.folder / "scratch"), "--name", name)
            self.workers[name] = self._start(name, "worker", *place, *scratch, environment=self._environment)
        until = time.monotonic() + 60
        while self.workers.keys() - {event.worker for event in self.events() if event.what == "joined"}:
            assert time.monotonic() < until, self.logs()
            time.sleep(0.05)

    def _start(self, name: str, kind: str, *words: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        self._started += 1
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen([sys.executable, "-m", "dask", kind, *words], stdout=log, stderr=log, env=environment)

    def events(self) -> list[Event]:
        """What the scheduler has recorded, in its order."""
        path = self.folder / "record.ndjson"
        return [Event(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def graph(self) -> bytes:
        """All that the scheduler was given to pass on to workers."""
        return (self.folder / "record.graph").read_bytes()

    def logs(self) -> dict[str, str]:
        """The output of all processes."""
        return {path.name: path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))}


def dask_setup(scheduler: Any) -> None:
    """Called by the scheduler as it starts (`--preload`): record what happens."""
    import cloudpickle
    from distributed import SchedulerPlugin

    record = os.environ[_RECORD]
    names: dict[str, str] = {}

    class Recorder(SchedulerPlugin):
        """Writes down who joined, what was given to whom, and who ended what."""

        def add_worker(self, scheduler: Any, worker: str) -> None:
            names[worker] = str(scheduler.workers[worker].name)
            self.write("joined", worker, "")

        def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
            if finish == "processing":
                task = scheduler.tasks[key]
                with open(f"{record}.graph", "ab") as graph:
                    graph.write(cloudpickle.dumps(task.run_spec))
                self.write("given", task.processing_on.address, str(key))
            elif start == "processing" and finish in ("memory", "erred"):
                self.write("ended", str(kwargs.get("worker", "")), str(key))

        def write(self, what: str, worker: str, key: str) -> None:
            event = Event(what, names.get(worker, worker), key, time.monotonic())
            with open(f"{record}.ndjson", "a") as lines:
                lines.write(json.dumps(asdict(event)) + "\n")

    scheduler.add_plugin(Recorder())
