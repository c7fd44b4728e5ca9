"""Where a chain of signed entries had come to when this machine last looked: the one thing that a chain cannot tell by itself.

A chain whose tail was cut off looks whole. Its last head is therefore kept in a file beside the keys, outside the data.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import orjson

from byok.errors import OutsideError
from byok.home import private_dir, write_private

Head = tuple[int, str]
"""Number and signature of the last entry of a chain."""


class HeadsUnreadable(OutsideError):
    """The file with the heads of the chains is damaged."""

    code = "heads_unreadable"


class Heads:
    """The heads of some chains, in one file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Head]:
        """The head of each chain.

        Raises:
            HeadsUnreadable: The file is damaged.
        """
        try:
            return {chain: (int(seq), str(mac)) for chain, (seq, mac) in orjson.loads(self.path.read_bytes()).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError):
            raise HeadsUnreadable(
                f"{self.path} cannot be read", hint="restore it from its backup; deleting it gives up the proof that no entry was cut off"
            ) from None

    def keep(self, chain: str, head: Head, holds: Callable[[Head], bool]) -> None:
        """Keep a head, if the chain still holds the one that was kept before.

        Args:
            chain: Which chain.
            head: Its head now.
            holds: Whether the chain holds an entry. Two writers may arrive here in the other order than they committed; and a head that
                the chain has lost stays: it is the proof.

        Raises:
            HeadsUnreadable: The file is damaged.
            OSError: It cannot be written.
        """
        private_dir(self.path.parent)
        lock = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            heads = self.read()
            seen = heads.get(chain)
            if seen is None or (head[0] > seen[0] and holds(seen)):
                write_private(self.path, orjson.dumps(heads | {chain: head}).decode())
        finally:
            os.close(lock)
