"""From a record of a file to a row: which field is which, and what makes a row unusable."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import orjson
import regex

from byok.datasets.rows import DataRow
from byok.errors import InputError

GUESSES = {
    "input": ("input", "question", "prompt"),
    "expected": ("expected", "answer", "expected_answer", "target"),
    "id": ("id",),
    "context": ("context",),
}
PATTERN_TIMEOUT_S = 0.5


class BadPattern(InputError):
    """The pattern for the expected answer is not a regular expression."""

    code = "bad_pattern"


class FieldMissing(InputError):
    """No row has the field that should hold the input."""

    code = "field_missing"


class Unusable(Exception):
    """A row cannot be used; says why. Internal: the row is quarantined."""


@dataclass(frozen=True)
class Mapping:
    """Names of the fields; None means the usual names.

    Attributes:
        input: Field with what is asked.
        expected: Field with the right answer.
        id: Field with the row's id.
        context: Field with what goes before the input.
        expected_pattern: Regular expression that takes the answer out of the expected field: first group of the last match.
    """

    input: str | None = None
    expected: str | None = None
    id: str | None = None
    context: str | None = None
    expected_pattern: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        """The mapping as it is stored."""
        return asdict(self)


class Mapper:
    """Applies a mapping to the records of one file; usual names are found as they turn up."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._names: dict[str, str | None] = {part: mapping.as_dict()[part] for part in GUESSES}
        self._pattern: regex.Pattern[str] | None = None
        self.seen_fields: set[str] = set()
        if mapping.expected_pattern is not None:
            try:
                self._pattern = regex.compile(mapping.expected_pattern)
            except regex.error as problem:
                raise BadPattern(f"--expected-pattern: {problem}", hint="it is a regular expression; quote it for the shell") from None

    def row(self, number: int, values: dict[str, Any], default_id: str) -> DataRow:
        """The row of a record.

        Args:
            number: The position that the row will have.
            values: The record.
            default_id: Id where the data set has none.

        Raises:
            Unusable: The record has no usable input, or its expected answer does not fit.
        """
        self.seen_fields |= values.keys()
        names = self._settle(values)
        question = _text(values, names["input"], "input")
        if question is None or not question.strip():
            raise Unusable(f"no input (field {names['input']!r})" if names["input"] else "no input field")
        given = self._mapping.expected is not None or self._pattern is not None
        expected = _text(values, names["expected"], "expected")
        if given and expected is None:
            raise Unusable(f"no expected answer (field {names['expected']!r})")
        if self._pattern is not None and expected is not None:
            expected = self._extract(expected)
        row_id = default_id
        if names["id"] is not None:
            told = _text(values, names["id"], "id")
            if told is None or not told.strip():
                raise Unusable(f"no id (field {names['id']!r})")
            row_id = told
        return DataRow(number, row_id, question, expected, _text(values, names["context"], "context"))

    def _settle(self, values: dict[str, Any]) -> dict[str, str | None]:
        """Which field is which. A usual name counts from the first record on that has it; then it stays."""
        for part, usual in GUESSES.items():
            if self._names[part] is None:
                self._names[part] = next((name for name in usual if name in values), None)
        return self._names

    def _extract(self, text: str) -> str:
        assert self._pattern is not None
        try:
            matches = list(self._pattern.finditer(text, timeout=PATTERN_TIMEOUT_S))
        except TimeoutError:
            raise Unusable("the expected pattern takes too long on this row") from None
        if not matches:
            raise Unusable("the expected pattern does not match")
        last = matches[-1]
        found = last[1] if last.re.groups else last[0]
        if not found:
            raise Unusable("the expected pattern matches nothing")
        return str(found).strip()

    def check_fields(self) -> None:
        """After the last record: were the named fields there at all?

        Raises:
            FieldMissing: A named field is in no row, or there is none for the input.
        """
        if not self.seen_fields:
            return
        listed = ", ".join(sorted(self.seen_fields))
        for part, name in self._mapping.as_dict().items():
            if part != "expected_pattern" and name is not None and name not in self.seen_fields:
                raise FieldMissing(f"no row has the field {name!r}", hint=f"the fields are: {listed}", field=name)
        if self._names["input"] is None:
            raise FieldMissing("no row has a field for the input", hint=f"name it with --input; the fields are: {listed}")


def _text(values: dict[str, Any], name: str | None, part: str) -> str | None:
    value = values.get(name) if name is not None else None
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return str(value)
    if part == "input":
        return orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS).decode()
    raise Unusable(f"{part} is not a text (field {name!r})")
