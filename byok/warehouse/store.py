"""The warehouse of one installation: segments in, snapshot out."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from byok.errors import OutsideError
from byok.home import private_dir
from byok.warehouse.loader import LoadReport, load_waiting, remove_stale
from byok.warehouse.query import Result, run_query
from byok.warehouse.rows import Row
from byok.warehouse.schema import apply_migrations
from byok.warehouse.segments import sync_dir, write_segment


class WarehouseBroken(OutsideError):
    """The warehouse file does not open or does not take the rows."""

    code = "warehouse_broken"


class Warehouse:
    """DuckDB behind a lock, read through a snapshot.

    Args:
        directory: Where the database and its snapshot are.
        spool: Where segments wait.
    """

    def __init__(self, directory: Path, spool: Path) -> None:
        self._directory = directory
        self._waiting = spool / "segments" / "waiting"
        self._rejected = spool / "segments" / "rejected"
        self._file = directory / "byok.duckdb"
        self.snapshot = directory / "snapshot.duckdb"

    def write_segment(self, rows: Iterable[Row]) -> Path | None:
        """Write rows durably; they are visible after the next drain, whoever runs it."""
        return write_segment(self._waiting, rows)

    def migrate(self) -> LoadReport:
        """Bring the warehouse to this version (making it when there is none), load what waits, publish."""
        return self.drain()

    def drain(self) -> LoadReport:
        """Load all waiting segments and publish the snapshot; when it returns, what was sealed before is visible.

        Raises:
            WarehouseVersion: The file is of another version.
            WarehouseBroken: DuckDB refuses the file or the rows.
        """
        private_dir(self._waiting)
        with self._locked():
            remove_stale(self._waiting)
            if self.snapshot.exists() and not any(self._waiting.glob("*.ndjson")) and self._fresh():
                return LoadReport()
            try:
                with self._connected() as connection:
                    migrated = apply_migrations(connection)
                    report = load_waiting(connection, self._waiting, self._rejected)
                    connection.execute("CHECKPOINT")
            except duckdb.Error as problem:
                raise WarehouseBroken(
                    f"the warehouse does not load ({type(problem).__name__})",
                    hint="run byok doctor; nothing is lost, segments wait in the spool",
                ) from problem
            if report.segments or migrated or not self._fresh():
                self._publish()
                return LoadReport(report.segments, report.rows, report.rejected, published=True)
            return report

    def query(self, sql: str, parameters: list[Any] | None = None) -> Result:
        """Run one read-only query on the snapshot; see `run_query`."""
        return run_query(self.snapshot, sql, parameters)

    def _fresh(self) -> bool:
        """Whether the snapshot is not older than the database (a loader may have died between commit and publication)."""
        try:
            return self.snapshot.stat().st_mtime_ns >= self._file.stat().st_mtime_ns and not self._file.with_suffix(".duckdb.wal").exists()
        except FileNotFoundError:
            return False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the sidecar lock: its own file, its own descriptor, so that threads of one process wait for each other too."""
        private_dir(self._directory)
        handle = os.open(self._directory / ".writer.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def _connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        new = not self._file.exists()
        connection = duckdb.connect(str(self._file))
        if new:
            self._file.chmod(0o600)
        try:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        finally:
            connection.close()

    def _publish(self) -> None:
        """Copy the closed database and put the copy in the snapshot's place.

        The copy is made by a child process where there is `cp`: it can share the file's blocks, and no descriptor of ours on the
        database is closed, which would drop DuckDB's lock in a process that still held it.
        """
        part = self.snapshot.with_suffix(".part")
        part.unlink(missing_ok=True)
        copier = shutil.which("cp")
        if copier is None or subprocess.run([copier, "--reflink=auto", self._file, part], capture_output=True, check=False).returncode:
            shutil.copyfile(self._file, part)
        part.chmod(0o600)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(part, self.snapshot)
        sync_dir(self._directory)
