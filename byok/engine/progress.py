"""How far a stage of a run is, told through small files that any other process may read at any time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from byok.home import private_dir


@dataclass
class Progress:
    """Counts of one stage of one shard, or the sum over shards."""

    done: int = 0
    failed: int = 0
    total: int = 0


class ProgressFile:
    """Counts finished units and writes them out at most every `every_s` seconds.

    Args:
        path: One file for each stage and shard: `<stage>-<shard>.json`.
        total: How many units there will be.
        every_s: Least seconds between two writes.
        clock: Monotonic seconds.
    """

    def __init__(self, path: Path, total: int, *, every_s: float = 0.2, clock: Callable[[], float] = time.monotonic) -> None:
        private_dir(path.parent)
        self._path, self._every_s, self._clock = path, every_s, clock
        self._written_at = float("-inf")
        self.counts = Progress(total=total)
        self.flush()

    def add(self, *, failed: bool, count: int = 1) -> None:
        """Count finished units."""
        self.counts.done += count
        self.counts.failed += count if failed else 0
        if self._clock() - self._written_at >= self._every_s:
            self.flush()

    def flush(self) -> None:
        """Write the counts now."""
        part = self._path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(orjson.dumps(asdict(self.counts)))
        os.replace(part, self._path)
        self._written_at = self._clock()


def read_progress(folder: Path) -> dict[str, Progress]:
    """The counts of each stage, summed over its shards; stages in the order of their names."""
    stages: dict[str, Progress] = {}
    for path in sorted(folder.glob("*.json")):
        counts = Progress(**orjson.loads(path.read_bytes()))
        stage = stages.setdefault(path.stem.rsplit("-", 1)[0], Progress())
        stage.done += counts.done
        stage.failed += counts.failed
        stage.total += counts.total
    return stages
