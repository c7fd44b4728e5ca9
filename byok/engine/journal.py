"""The attempt journal: an append-only NDJSON file for one stage of one shard.

`opened` is written before a request leaves, `closed` after its answer is in, and `result` when the unit of work it served is
finished. Each append is one `write` to a file opened with O_APPEND, so what was written survives the death of the process.
After a crash the last line may be torn: it is cut off before anything is appended. An attempt that was opened and never
closed is *lost*: it may have been paid for, and is counted as such.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from byok.errors import OutsideError
from byok.home import private_dir


class JournalDamaged(OutsideError):
    """A line before the last one is not a record: the file was changed by something else."""

    code = "journal_damaged"


class Journal:
    """Writes one journal; one writer at a time (the task run that owns the shard).

    Args:
        path: The file; made with its folder when missing, continued when there.
    """

    def __init__(self, path: Path) -> None:
        private_dir(path.parent)
        self.path = path
        _cut_torn_line(path)
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, *records: dict[str, Any]) -> None:
        """Write records with one system call, so that a crash keeps all of them or tears only the last."""
        data = b"".join(orjson.dumps(record) + b"\n" for record in records)
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


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as stream:
        size = end = stream.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            stream.seek(start)
            found = stream.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            stream.truncate(end)
            os.fsync(stream.fileno())


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
