"""One row of a data set, and what of it counts for its identity."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import orjson


@dataclass(frozen=True)
class DataRow:
    """One row.

    Attributes:
        number: Position in its version, from 0.
        id: Unique in its version.
        input: What is asked.
        expected: The right answer, or None.
        context: What goes before the input, or None.
    """

    number: int
    id: str
    input: str
    expected: str | None
    context: str | None

    @property
    def hash(self) -> str:
        """SHA-256 of the content (not of id and position): an edited row has another one."""
        return hashlib.sha256(orjson.dumps([self.input, self.expected, self.context])).hexdigest()

    def line(self) -> bytes:
        """The canonical line that is stored and from which the version's hash is made."""
        return orjson.dumps({"id": self.id, "input": self.input, "expected": self.expected, "context": self.context}) + b"\n"


def row_of(number: int, line: bytes) -> DataRow:
    """The row of a canonical line."""
    found = orjson.loads(line)
    return DataRow(number, found["id"], found["input"], found["expected"], found["context"])
