"""How many pairs of hold and settle a second the ledger of one organisation takes, from one process and from eight.

    python benchmarks/ledger.py [--seconds 3] [--repeat 3] [--write]

The control plane is a SQLite file or a PostgreSQL of Debian's package, which the script starts and stops; both write as durably as they do
by default. A process holds and settles one pair after the other, each for a run of its own. `--write` puts the table into
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import platform
import re
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from byok.app import Services, open_services
from byok.cli.init import initialise
from byok.home import Home
from byok.ids import new_id

PROCESSES = (1, 8)
README = Path(__file__).resolve().parent / "README.md"
BEGIN, END = "<!-- ledger.py writes from here -->\n", "<!-- to here -->"


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[tuple[str, str]]:
    """The URL of a new database on a server with its default settings, and the server's version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        raise SystemExit("the package postgresql is not installed (make programs)")
    programs = found[-1]
    # The server does not run as root, and what it owns must lie where it may go.
    as_whom: dict[str, Any] = {"user": "nobody"} if os.getuid() == 0 else {}
    folder.mkdir()
    if as_whom:
        shutil.chown(folder, "nobody")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder} | as_whom
    data = folder / "data"
    subprocess.run([programs / "initdb", "-D", data, "-A", "trust", "-U", "byok", "--locale=C.UTF-8"], check=True, **quiet)
    server = subprocess.Popen([programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", port, "-k", folder], **quiet)
    try:
        ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", port]
        while subprocess.run(ready, stdout=subprocess.DEVNULL).returncode:
            time.sleep(0.05)
        told = subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
        yield f"postgresql+psycopg://byok@127.0.0.1:{port}/postgres", told.split()[2]
    finally:
        server.send_signal(signal.SIGINT)  # without waiting for whoever is connected
        server.wait(20)


def work(home: Home, ready: Any, seconds: float, counts: Any) -> None:
    """One process: pairs until the time is up."""
    services = open_services(home)
    pair(services)  # what is prepared once
    ready.wait()
    number, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        pair(services)
        number += 1
    services.control.close()
    counts.put(number)


def pair(services: Services) -> None:
    """A hold, and its settlement with half of it."""
    name = new_id()
    kept = services.ledger.hold(services.actor, name, 100, run_id=name)
    services.ledger.settle(services.actor, kept.id, 50)


def rate(home: Home, processes: int, seconds: float) -> float:
    """Pairs a second of all processes together."""
    context = multiprocessing.get_context("spawn")
    ready, counts = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=work, args=(home, ready, seconds, counts)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    total = sum(counts.get(timeout=seconds + 120) for _ in workers)
    for worker in workers:
        worker.join()
    return total / seconds


def installation(folder: Path, url: str | None) -> Home:
    """An installation with much credit, and processes that find it by the environment."""
    home = Home(folder)
    os.environ.pop("BYOK_DATABASE_URL", None)
    if url is not None:
        os.environ["BYOK_DATABASE_URL"] = url
    initialise(home, "bench", "owner@bench.example")
    services = open_services(home)
    services.ledger.top_up(services.actor, 10**12)
    services.control.close()
    return home


def check(home: Home) -> None:
    """Stop when anything was lost or changed."""
    services = open_services(home)
    found = services.ledger.verify(services.actor)
    services.control.close()
    if found.bad is not None:
        raise SystemExit(f"{found.bad}: {found.reason}")


def main() -> None:
    """Measure, print a table, and write it down if told to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    rows = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        # Not private, since the server is another user's.
        Path(name).chmod(0o755)
        url, server = stack.enter_context(postgresql(Path(name) / "postgresql"))
        for store, where in (("SQLite", None), ("PostgreSQL", url)):
            home = installation(Path(name) / store, where)
            for processes in PROCESSES:
                rates = sorted(rate(home, processes, options.seconds) for _ in range(options.repeat))
                middle = statistics.median(rates)
                rows.append(
                    f"| {store} | {processes} | {middle:,.0f} | {rates[0]:,.0f} to {rates[-1]:,.0f} | {1000 * processes / middle:,.1f} |"
                )
            check(home)
    told = (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, byok {version('byok')}, SQLAlchemy {version('sqlalchemy')}, SQLite "
        f"{sqlite3.sqlite_version}, PostgreSQL {server} with psycopg {version('psycopg')}, {datetime.now(UTC):%Y-%m-%d}; load average "
        f"{load:.1f} at the start; {options.seconds:g} s a cell, medians of {options.repeat}.\n\n"
        "| control plane | processes | pairs/s | least to greatest | ms for a pair |\n| --- | --: | --: | --: | --: |\n"
    )
    text = told + "\n".join(rows) + "\n"
    print(text)
    if options.write:
        page = README.read_text(encoding="utf-8")
        README.write_text(re.sub(f"(?<={re.escape(BEGIN)}).*?(?={END})", lambda _: text, page, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
