"""A real PostgreSQL on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from byok.ids import new_id


@contextmanager
def serving_postgresql() -> Iterator[str]:
    """The SQLAlchemy URL of an empty server; each test makes a database of its own (`new_database`)."""
    (programs,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:] or [None]
    assert programs is not None, "the package postgresql is not installed (make programs)"
    # The server does not run as root, and what it owns must lie where it may go.
    as_whom: dict[str, Any] = {"user": "nobody"} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="byok-postgresql-"))
    if as_whom:
        shutil.chown(folder, "nobody")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    data = folder / "data"
    made = subprocess.run(
        [programs / "initdb", "-D", data, "-A", "trust", "-U", "byok", "--no-sync", "--locale=C.UTF-8"],
        capture_output=True,
        text=True,
        cwd=folder,
        **as_whom,
    )
    assert made.returncode == 0, made.stderr
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([programs / "postgres", "-D", data, *options], stdout=log, stderr=log, cwd=folder, **as_whom)
    try:
        for _ in range(200):
            if subprocess.run([programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], capture_output=True).returncode == 0:
                break
            time.sleep(0.05)
        yield f"postgresql+psycopg://byok@127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)  # without waiting for whoever is connected
        server.wait(20)
        shutil.rmtree(folder)


def new_database(server: str) -> str:
    """Make an empty database; gives its URL."""
    name = f"byok_{new_id().replace('-', '')}"
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{server}/{name}"
