"""Group commit: whoever holds the lock loads all segments that wait, in batches of one transaction each.

Loading is idempotent by natural key: facts keep their first arrival, rows with a `revision` their highest. So a loader that dies
after its commit, before it could remove the segments, does no harm: they are loaded again and change nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from byok.home import private_dir
from byok.ids import new_id
from byok.warehouse.batch import Unloadable, load_batch
from byok.warehouse.segments import SegmentBroken, copy_rows, sync_dir

BATCH_BYTES = 64 * 1024 * 1024
"""Text in one transaction: bounds the memory of a loader that finds a long queue."""


@dataclass(frozen=True)
class LoadReport:
    """What a drain did.

    Attributes:
        segments: Segments loaded.
        rows: Rows in them (those that were there already included).
        rejected: Segments set aside because they are broken.
        published: Whether a new snapshot was published.
    """

    segments: int = 0
    rows: int = 0
    rejected: int = 0
    published: bool = False


class Loader:
    """Loads what waits, and counts what became of it.

    Args:
        waiting: Where segments wait.
        rejected: Where broken ones are set aside.
    """

    def __init__(self, waiting: Path, rejected: Path) -> None:
        self._waiting, self._rejected = waiting, rejected
        self._most = BATCH_BYTES
        self._segments = self._rows = self._broken = 0

    @property
    def report(self) -> LoadReport:
        """What was done so far."""
        return LoadReport(self._segments, self._rows, self._broken)

    def load_waiting(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Load all waiting segments; the caller holds the lock.

        Raises:
            duckdb.Error: DuckDB cannot go on. What was not loaded still waits, and another connection may go on with it.
        """
        while paths := sorted(self._waiting.glob("*.ndjson")):
            for batch in self._batches(paths):
                self._load(connection, batch)
        connection.execute("CHECKPOINT")

    def _batches(self, paths: Iterable[Path]) -> Iterator[list[Path]]:
        """Segments in their order, so many at a time as one transaction takes."""
        batch: list[Path] = []
        size = 0
        for path in paths:
            one = path.stat().st_size
            if batch and size + one > self._most:
                yield batch
                batch, size = [], 0
            batch.append(path)
            size += one
        if batch:
            yield batch

    def _load(self, connection: duckdb.DuckDBPyConnection, paths: list[Path]) -> None:
        """Load segments in one transaction and remove them once it is committed; those that cannot be loaded are set aside."""
        # One file for all: DuckDB reads one large file far faster than many small ones.
        source = self._waiting / f".{new_id()}.staging"
        try:
            whole, rows, longest = self._stage(paths, source)
            if whole:
                load_batch(connection, source, longest)
        except Unloadable as problem:
            if len(whole) == 1:
                self._set_aside(whole[0], str(problem))
            else:
                # One of them holds what no table takes: halved until it is found, it does not block the others for ever.
                self._load_halves(connection, whole)
            return
        except duckdb.OutOfMemoryException:
            if len(whole) == 1:
                raise
            # Rows far longer than usual, of which DuckDB works on up to 2,048 at a time. The batches that follow are smaller too.
            self._most //= 2
            self._load_halves(connection, whole)
            return
        finally:
            source.unlink(missing_ok=True)
        for path in whole:
            path.unlink()
        sync_dir(self._waiting)
        self._segments += len(whole)
        self._rows += rows

    def _load_halves(self, connection: duckdb.DuckDBPyConnection, paths: list[Path]) -> None:
        middle = len(paths) // 2
        self._load(connection, paths[:middle])
        self._load(connection, paths[middle:])

    def _stage(self, paths: list[Path], source: Path) -> tuple[list[Path], int, int]:
        """Put the rows of all whole segments into one file; return those segments, their rows and the longest line."""
        whole, rows, longest = [], 0, 0
        with os.fdopen(os.open(source, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
            for path in paths:
                try:
                    content = copy_rows(path, target)
                except SegmentBroken as problem:
                    self._set_aside(path, str(problem))
                    continue
                whole.append(path)
                rows += content.rows
                longest = max(longest, content.longest)
        return whole, rows, longest

    def _set_aside(self, path: Path, reason: str) -> None:
        private_dir(self._rejected)
        (self._rejected / f"{path.stem}.reason").write_text(reason + "\n", encoding="utf-8")
        os.rename(path, self._rejected / path.name)
        sync_dir(self._rejected)
        self._broken += 1


def remove_stale(waiting: Path) -> None:
    """Remove what dead writers and loaders left: staging files. (Parts of segments may belong to a living writer.)"""
    for path in waiting.glob(".*.staging"):
        path.unlink(missing_ok=True)
