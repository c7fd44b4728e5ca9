"""How far a stage of a run is, told through small files that any other process may read at any time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from byok.home import private_dir


@dataclass
class Progress:
    """Counts of one stage of one shard, or the sum over shards.

    Attributes:
        done: Units that are finished.
        failed: Of those, without an answer or a verdict.
        total: Units that there will be.
        reused: Of those that are done, taken over from earlier runs.
        requests: Requests that have left.
        in_flight: Requests that are under way.
        limit: Requests that the limiter allows at once; None before the first.
        paused: Whether the run is paused.
        held: Whether the limiter holds requests back because nothing got through.
        errors: Failed requests by the error's code.
        prompt_tokens: Of all answers that told it.
        completion_tokens: Of all answers that told it.
        unknown: Requests of which the usage is not known.
        at: Seconds since 1970 of the last change.
    """

    done: int = 0
    failed: int = 0
    total: int = 0
    reused: int = 0
    requests: int = 0
    in_flight: int = 0
    limit: int | None = None
    paused: bool = False
    held: bool = False
    errors: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unknown: int = 0
    at: float = 0.0

    def add(self, other: Progress) -> None:
        """Add another shard's counts."""
        for name in ("done", "failed", "total", "reused", "requests", "in_flight", "prompt_tokens", "completion_tokens", "unknown"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for code, count in other.errors.items():
            self.errors[code] = self.errors.get(code, 0) + count
        self.at = max(self.at, other.at)
        self.paused, self.held = self.paused or other.paused, self.held or other.held
        if other.limit is not None:
            # Shards of one process share a limiter: its limit is no sum.
            self.limit = max(self.limit or 0, other.limit)


class ProgressFile:
    """Counts what happens and writes it out at most every `every_s` seconds.

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
        self._changed()

    def remember(self, attempts: Iterable[tuple[dict[str, Any], dict[str, Any] | None]]) -> None:
        """Count what an earlier process did: the records of its attempts; one that was never closed is of unknown usage."""
        for opened, closed in attempts:
            self.note(opened)
            if closed is not None:
                self.note(closed)
            else:
                self.counts.in_flight -= 1
                self.counts.unknown += 1

    def note(self, record: dict[str, Any]) -> None:
        """Count what the record of an attempt tells (see `byok.engine.journal`)."""
        counts = self.counts
        if record["k"] == "opened":
            counts.requests += 1
            counts.in_flight += 1
            return
        counts.in_flight -= 1
        if record["status"] != "ok":
            code = record["error_code"]
            counts.errors[code] = counts.errors.get(code, 0) + 1
            self._changed()
            return
        usage = record["usage"]
        if usage[4] != "reported":
            counts.unknown += 1
        else:
            counts.prompt_tokens += usage[0]
            counts.completion_tokens += usage[1]
        self._changed()

    def _changed(self) -> None:
        if self._clock() - self._written_at >= self._every_s:
            self.flush()

    def flush(self) -> None:
        """Write the counts now."""
        self.counts.at = time.time()
        part = self._path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(orjson.dumps(asdict(self.counts)))
        os.replace(part, self._path)
        self._written_at = self._clock()


def read_progress(folder: Path) -> dict[str, Progress]:
    """The counts of each stage, summed over its shards; stages in the order of their names."""
    stages: dict[str, Progress] = {}
    for path in sorted(folder.glob("*.json")):
        counts = Progress(**orjson.loads(path.read_bytes()))
        stages.setdefault(path.stem.rsplit("-", 1)[0], Progress()).add(counts)
    return stages
