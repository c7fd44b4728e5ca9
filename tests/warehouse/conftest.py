"""Rows of every kind, and a warehouse in a temporary folder."""

from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from byok.warehouse import Warehouse
from byok.warehouse.rows import KINDS

WHEN = datetime(2026, 11, 23, 10, 20, 30, 123456, tzinfo=UTC)


def _value(kind, name):
    """A value of a field's type that storing could spoil."""
    if get_origin(kind) is list:
        return ["a", "b, c"]
    kinds = [one for one in get_args(kind) if one is not type(None)] or [kind]
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if get_origin(kinds[0]) is Literal:
        return get_args(kinds[0])[0]
    match kinds[0]:
        case one if one is str:
            return f"{name} \u2028 \"quoted\" 'x'\n\t\U0001f600"
        case one if one is bool:
            return True
        case one if one is int:
            return 2**53 + 1
        case one if one is float:
            return 0.1
        case one if one is Decimal:
            return Decimal("1234567890.000000000001")
        case one if one is datetime:
            return WHEN
        case other:
            raise TypeError(other)


@pytest.fixture
def make():
    """Make a row of a table; every field has a telling value unless it is given."""

    def build(table, **given):
        kind = KINDS[table]
        hints = get_type_hints(kind)
        return kind(**({field.name: _value(hints[field.name], field.name) for field in fields(kind)} | given))

    return build


@pytest.fixture
def warehouse(tmp_path):
    made = Warehouse(tmp_path / "warehouse", tmp_path / "spool")
    made.migrate()
    return made
