"""Write the file that somebody asked for: whole or not at all, and never over another one unasked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from byok.errors import InputError


class FileExists(InputError):
    """The file is there already."""

    code = "file_exists"


class FileUnwritable(InputError):
    """The file cannot be written."""

    code = "file_unwritable"


def check_free(path: Path, *, force: bool) -> None:
    """Refuse a path at which something is, before anything is reckoned.

    Raises:
        FileExists: Something is there, and `force` is not given.
    """
    if not force and os.path.lexists(path):
        raise FileExists(f"{path} is there already", hint="choose another file, or write over it with --force")


def write_whole(path: Path, write: Callable[[Path], None], *, force: bool) -> None:
    """Let `write` fill a file beside `path`, and put it there when it is whole.

    Raises:
        FileExists: It is there, and `force` is not given.
        FileUnwritable: It cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.touch(mode=0o600)
        write(part)
        if force:
            os.replace(part, path)
        else:
            os.link(part, path)
    except FileExistsError:
        raise FileExists(f"{path} is there already", hint="choose another file, or write over it with --force") from None
    except OSError as problem:
        raise FileUnwritable(f"{path} cannot be written: {problem.strerror}", hint="choose another file") from None
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, force: bool) -> None:
    """Write a text; see `write_whole`."""

    def write(part: Path) -> None:
        part.write_bytes(text.encode())

    write_whole(path, write, force=force)
