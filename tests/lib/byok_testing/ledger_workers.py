"""Processes that write into one ledger at once, under operation names that collide, and tell what they asked and what they were answered.

    python -m byok_testing.ledger_workers FOLDER WORKERS OPERATIONS SEED WHAT

Each worker is a fork of one interpreter and writes a line before and after each operation to a file of its own, named by its process id.
WHAT is `settle` (the holds w0, w1, … in full, each by one worker), `ship` (random operations, and shipping) or nothing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byok.app import Services, open_services
from byok.errors import ByokError
from byok.ids import natural_id
from byok.ledger import ship

LIB = Path(__file__).resolve().parent.parent
NAMES = 40


@dataclass(frozen=True)
class Ask:
    """One operation; its amount may be another one than the same operation has elsewhere."""

    act: str
    name: str
    micro_ecu: int

    def do(self, services: Services) -> str:
        """Do it; the id of what was written."""
        ledger, actor = services.ledger, services.actor
        if self.act == "top_up":
            return ledger.top_up(actor, self.micro_ecu, kind="paid" if len(self.name) % 2 else "promotional", operation=self.name).id
        if self.act == "hold":
            return ledger.hold(actor, self.name, self.micro_ecu, run_id=f"run-{self.name}").id
        if self.act == "settle":
            return ledger.settle(actor, self.hold_id(actor.org_id), self.micro_ecu).id
        if self.act == "release":
            return ledger.release(actor, self.hold_id(actor.org_id)).id
        return ledger.reverse(actor, self.settlement_id(actor.org_id), "mistaken").id

    def hold_id(self, org_id: str) -> str:
        """The hold of its name."""
        return natural_id("hold", org_id, f"hold:{self.name}")

    def settlement_id(self, org_id: str) -> str:
        """The settlement of the hold of its name."""
        return natural_id("ledger", org_id, f"settle:{self.hold_id(org_id)}")

    def operation(self, org_id: str) -> str:
        """Its name in the ledger."""
        if self.act in ("top_up", "hold"):
            return f"{self.act}:{self.name}"
        return f"{self.act}:{self.settlement_id(org_id) if self.act == 'reverse' else self.hold_id(org_id)}"


ENDS = (Ask("settle", "z0", 7), Ask("reverse", "z0", 0), Ask("release", "z1", 0))
"""What all workers ask at their end, of holds that the test has made."""


def asks(seed: int, count: int) -> Iterator[Ask]:
    """Operations of one worker: few names, so that others use them too, and now and then another amount; then `ENDS`."""
    chance = random.Random(seed)
    for _ in range(count):
        number = chance.randrange(NAMES)
        other = chance.random() < 0.1
        act = chance.choices(["top_up", "hold", "settle", "release", "reverse"], [2, 8, 6, 2, 1])[0]
        amount = 1_000 + 37 * number
        if act == "top_up":
            yield Ask(act, "t" * (1 + number % 7), 20_000 + other)
        elif act == "settle":
            yield Ask(act, f"h{number}", amount * (number % 5) // 2 + other)
        else:
            yield Ask(act, f"h{number}", amount + other)
    yield from ENDS


@dataclass(frozen=True)
class Told:
    """What a worker said of an operation; `answer` is None where it died before it had one."""

    ask: Ask
    answer: str | None
    error: str | None


@dataclass
class Workers:
    """Workers that were started."""

    folder: Path
    child: subprocess.Popen[bytes]

    def pids(self) -> list[int]:
        """Those that have begun."""
        return [int(path.stem) for path in self.folder.glob("*.jsonl")]

    def answers(self) -> int:
        """How many operations were answered up to now."""
        return sum(path.read_bytes().count(b'"answer"') for path in self.folder.glob("*.jsonl"))

    def told(self) -> list[Told]:
        """All that they asked."""
        found = []
        for path in sorted(self.folder.glob("*.jsonl")):
            lines = [json.loads(line) for line in path.read_bytes().splitlines()]
            for number, line in enumerate(lines):
                if "ask" in line:
                    answered = lines[number + 1] if number + 1 < len(lines) else {}
                    found.append(Told(Ask(*line["ask"]), answered.get("answer"), answered.get("error")))
        return found


@contextmanager
def working(folder: Path, workers: int, operations: int, *, seed: int = 1, also: str = "") -> Iterator[Workers]:
    """Start workers on the installation that the environment names; they have ended when this ends."""
    folder.mkdir()
    command = [sys.executable, "-m", "byok_testing.ledger_workers", str(folder), str(workers), str(operations), str(seed), also]
    child = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(LIB)}, stderr=subprocess.PIPE)
    try:
        yield Workers(folder, child)
        _, problems = child.communicate(timeout=200)
        assert child.returncode == 0 and not problems, problems.decode()
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()


def _work(services: Services, folder: Path, ready: Any, seed: int, place: int, count: int, also: str) -> None:
    log = os.open(folder / f"{os.getpid()}.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def tell(**line: Any) -> None:
        os.write(log, json.dumps(line).encode() + b"\n")

    ready.wait()
    todo: Iterable[Ask] = asks(seed + place, count)
    if also == "settle":
        names = [f"w{place * count + each}" for each in range(count)]
        todo = [Ask("settle", name, services.ledger.holds(services.actor, f"run-{name}")[0].micro_ecu) for name in names]
    for number, ask in enumerate(todo):
        tell(ask=[ask.act, ask.name, ask.micro_ecu])
        try:
            tell(answer=ask.do(services))
        except ByokError as error:
            tell(answer=None, error=type(error).__name__)
        if also == "ship" and number % 5 == 0:
            ship(services.control, services.warehouse, services.actor.org_id)
            if number % 10 == 0:
                services.warehouse.drain()
    services.control.close()


def main() -> None:
    """Fork the workers, and wait for them; that some are killed from outside is no failure."""
    folder, workers, count, seed, also = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(workers)
    services = open_services()
    services.control.engine.dispose()  # no connection is shared with a fork
    children = [
        context.Process(target=_work, args=(services, folder, ready, seed * 1000, number, count, also)) for number in range(workers)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    sys.exit(any(child.exitcode not in (0, -9) for child in children))


if __name__ == "__main__":
    main()
