"""The warehouse of one installation: segments in, snapshot out."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import duckdb

from byok.errors import OutsideError
from byok.home import private_dir
from byok.warehouse.loader import Loader, LoadReport, remove_stale
from byok.warehouse.lookup import Kind, newest
from byok.warehouse.query import Reading, Result, reading, run_query
from byok.warehouse.rows import Row
from byok.warehouse.schema import apply_migrations
from byok.warehouse.segments import sync_dir, write_segment

_MEMORY = ("100MB", "400MB", "")
"""What DuckDB may use while it loads, and then when that is not enough; the last is its own default. Rows of some kB need no more than the
first, however many there are; what DuckDB does not count comes to as much again."""

_ROW_GROUP = 16_384
"""Rows that DuckDB packs together. A checkpoint packs the last group of a table anew: at the usual 122,880 rows that takes longer and more
memory than all else."""


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
        """Bring the warehouse to this version (making it when there is none), load what waits, publish what is new; see `drain`."""
        return self._drain(always=True)

    def drain(self) -> LoadReport:
        """Load all waiting segments and publish the snapshot; when it returns, what was sealed before is visible.

        Raises:
            WarehouseVersion: The file is of another version.
            WarehouseBroken: DuckDB refuses the file or the rows.
        """
        return self._drain(always=False)

    def _drain(self, *, always: bool) -> LoadReport:
        private_dir(self._waiting)
        with self._locked():
            remove_stale(self._waiting)
            if not always and self.snapshot.exists() and not any(self._waiting.glob("*.ndjson")) and self._fresh():
                return LoadReport()
            loader = Loader(self._waiting, self._rejected)
            migrated = self._load(loader)
            report = loader.report
            if report.segments or migrated or not self._fresh():
                self._publish()
                return LoadReport(report.segments, report.rows, report.rejected, published=True)
            return report

    def query(self, sql: str, parameters: list[Any] | None = None) -> Result:
        """Run one read-only query on the snapshot; see `run_query`."""
        return run_query(self.snapshot, sql, parameters)

    def reading(self) -> AbstractContextManager[Reading]:
        """Open one state of the snapshot for several queries; see `byok.warehouse.query.reading`."""
        return reading(self.snapshot)

    def newest(self, kind: Kind, org_id: str, hashes: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The newest usable sample or verdict for each hash of what was asked; see `byok.warehouse.lookup.newest`."""
        return newest(self.snapshot, kind, org_id, hashes)

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

    def _load(self, loader: Loader) -> int:
        """Migrate and load; return how many migrations were applied."""
        migrated = 0
        for memory in _MEMORY:
            try:
                with self._connected(memory) as connection:
                    migrated += apply_migrations(connection)
                    loader.load_waiting(connection)
                    return migrated
            except duckdb.Error as problem:
                # A checkpoint that lacks memory closes the database, so that the error does not tell; nothing is lost by trying again.
                if memory == _MEMORY[-1]:
                    raise WarehouseBroken(
                        f"the warehouse does not load ({type(problem).__name__})",
                        hint="run byok doctor; nothing is lost, segments wait in the spool",
                    ) from problem
        return migrated

    @contextmanager
    def _connected(self, memory: str) -> Iterator[duckdb.DuckDBPyConnection]:
        new = not self._file.exists()
        spilled = self._file.with_suffix(".duckdb.tmp")
        shutil.rmtree(spilled, ignore_errors=True)  # of a loader that was killed
        limit = {"memory_limit": memory} if memory else {}
        # One thread, since each has buffers of its own, and a checkpoint after two batches.
        connection = duckdb.connect(config={"temp_directory": str(spilled), "threads": 1, "wal_autocheckpoint": "128MB", **limit})
        try:
            path = str(self._file).replace("'", "''")
            connection.execute(f"ATTACH '{path}' AS warehouse (ROW_GROUP_SIZE {_ROW_GROUP})")
            connection.execute("USE warehouse")
            if new:
                self._file.chmod(0o600)
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET enable_progress_bar = false")  # on, in a process that was started without a file
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
