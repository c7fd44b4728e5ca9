"""The stored rows of a version, opened only while they are what the version's hash says."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
from pathlib import Path
from typing import BinaryIO

from byok.errors import OutsideError

OFFSET = struct.Struct("<Q")
"""Where a row begins, in the file of offsets."""

_sound: set[tuple[str, tuple[int, ...], tuple[int, ...]]] = set()
"""What has been checked in this process: reading a large version again for each shard would take longer than its answers."""


class DatasetChanged(OutsideError):
    """The stored rows of a data set are no longer those that were added: the files were changed from outside."""

    code = "dataset_changed"


def open_rows(folder: Path, version: str) -> tuple[BinaryIO, BinaryIO]:
    """The rows of a version and the file of their offsets, both at their beginning; the caller closes them.

    Raises:
        FileNotFoundError: They are not here.
        DatasetChanged: They are not the rows of this version, or no plain files in this folder.
    """
    if folder.is_symlink():
        raise _changed(version)
    data = _open(folder / "rows.jsonl", version)
    try:
        index = _open(folder / "offsets", version)
        try:
            _check(version, data, index)
        except BaseException:
            index.close()
            raise
    except BaseException:
        data.close()
        raise
    return data, index


def _open(path: Path, version: str) -> BinaryIO:
    try:
        # Not blocking, so that a pipe in its place is found out and not waited for.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            raise _changed(version) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _changed(version)
    return os.fdopen(handle, "rb")


def _check(version: str, data: BinaryIO, index: BinaryIO) -> None:
    state = (version, _state(data), _state(index))
    if state in _sound:
        return
    digest, offset = hashlib.sha256(), 0
    for line in data:
        digest.update(line)
        if index.read(OFFSET.size) != OFFSET.pack(offset):
            raise _changed(version)
        offset += len(line)
    if index.read(1) or digest.hexdigest() != version:
        raise _changed(version)
    _sound.add(state)
    data.seek(0)
    index.seek(0)


def _state(stream: BinaryIO) -> tuple[int, ...]:
    found = os.fstat(stream.fileno())
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _changed(version: str) -> DatasetChanged:
    return DatasetChanged(
        f"the stored rows of version {version[:12]} are not those that were added",
        hint="the files were changed from outside; remove the version's folder and add the file again",
    )
