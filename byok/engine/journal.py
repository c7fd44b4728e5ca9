"""The attempt journal: an append-only NDJSON file for one stage of one shard.

`opened` is on the disk before a request leaves (`commit`), `closed` is written after its answer is in, and `result` when the unit of work
it served is finished. What was written survives the death of the process; what was committed survives a loss of power too. After a crash
the last line may be torn: it is cut off before anything is appended. An attempt that was opened and never closed is *lost*: it may have
been paid for, and is counted as such.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from byok.errors import OutsideError
from byok.home import private_dir

_threads = ThreadPoolExecutor(4, thread_name_prefix="journal")


class JournalDamaged(OutsideError):
    """A line before the last one is not a record: the file was changed by something else."""

    code = "journal_damaged"


class JournalBusy(OutsideError):
    """Another process works on this shard: two at once would pay for the same answers twice."""

    code = "journal_busy"
    retryable = True


class Journal:
    """Writes one journal; one writer at a time (the task run that owns the shard).

    Args:
        path: The file; made with its folder when missing, continued when there.

    Raises:
        JournalBusy: Somebody else is writing it.
    """

    def __init__(self, path: Path) -> None:
        private_dir(path.parent)
        self.path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # The kernel lets go of it when the process dies, however it dies.
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise JournalBusy(
                f"another process is working on {path.stem} of this run", hint="wait until it has ended: byok run watch RUN"
            ) from None
        _cut_torn_line(self._handle)
        self._pending: list[tuple[bytes, asyncio.Future[None]]] = []
        self._syncing = False

    def append(self, *records: dict[str, Any]) -> None:
        """Write records with one system call, so that a crash of the process keeps all of them or tears only the last."""
        self._write(_lines(records))

    async def commit(self, *records: dict[str, Any]) -> None:
        """Write records and wait until they are on the disk; all that are to be committed at a time share one sync.

        Raises:
            OSError: They are not, and no request may leave for them: the disk is full, or broken.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._pending.append((_lines(records), done))
        if not self._syncing:
            # Not at once: whoever else commits in this turn of the loop is to be in the same sync.
            self._syncing = True
            loop.call_soon(self._begin, loop)
        await done

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write what is to be committed, and let a thread sync it; by callbacks, since each turn of a task would make requests wait."""
        batch, self._pending = self._pending, []
        try:
            self._write(b"".join(lines for lines, _ in batch))
        except OSError as problem:
            self._end(loop, batch, problem)
            return
        syncing = _threads.submit(os.fdatasync, self._handle)
        syncing.add_done_callback(lambda done: _in_loop(loop, self._end, loop, batch, done.exception()))

    def _end(self, loop: asyncio.AbstractEventLoop, batch: list[tuple[bytes, asyncio.Future[None]]], problem: BaseException | None) -> None:
        for _, done in batch:
            if done.done():
                continue  # cancelled meanwhile; the record stays, and its attempt counts as lost
            if problem is None:
                done.set_result(None)
            else:
                done.set_exception(problem)
        self._syncing = bool(self._pending)
        if self._syncing:
            self._begin(loop)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._handle, view) :]

    def sync(self) -> None:
        """Make what was written survive a loss of power too."""
        os.fsync(self._handle)

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        os.close(self._handle)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: object) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(call, *arguments)


def _lines(records: tuple[dict[str, Any], ...]) -> bytes:
    return b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)


def _cut_torn_line(handle: int) -> None:
    size = end = os.fstat(handle).st_size
    while end > 0:
        start = max(0, end - 65536)
        found = os.pread(handle, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(handle, end)
        os.fsync(handle)


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal in order; nothing when it does not exist; a torn last line is left out.

    Raises:
        JournalDamaged: A complete line is not a record.
    """
    if not path.exists():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                raise JournalDamaged(
                    f"journal {path.name} is damaged at line {number}",
                    hint="the file was changed from outside; restore it from a backup",
                    line=number,
                ) from None
            yield record
