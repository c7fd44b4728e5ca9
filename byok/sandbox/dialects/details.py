"""Errors in the shape of FastAPI: `{"detail": [...]}` for a request of a wrong form, with one entry for each problem."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from byok.sandbox.refusals import Problem

_TYPES = {
    "decimal_above_max_value": "less_than_equal",
    "integer_above_max_value": "less_than_equal",
    "decimal_below_min_value": "greater_than_equal",
    "integer_below_min_value": "greater_than_equal",
    "array_above_max_length": "too_long",
    "array_below_min_length": "too_short",
    "missing_required_parameter": "missing",
    "unknown_parameter": "extra_forbidden",
    "invalid_json": "json_invalid",
    "invalid_type": "type_error",
}
_MESSAGES = {"extra_forbidden": "Extra inputs are not permitted", "missing": "Field required"}
FORM_CODES = frozenset(_TYPES) | {"invalid_value", "unsupported_parameter"}
"""Codes of problems with the form of a request, which such a server finds before its model sees anything."""


def detail_entries(problems: Iterable[Problem], *, with_input: bool) -> list[dict[str, Any]]:
    """One entry for each problem.

    Args:
        problems: What is wrong.
        with_input: Whether an entry repeats what was given.
    """
    found = []
    for problem in problems:
        kind = _TYPES.get(problem.code or "", "value_error")
        entry = {
            "type": kind,
            "loc": ["body", *([problem.parameter] if problem.parameter else []), *problem.place],
            "msg": _MESSAGES.get(kind, problem.message),
        }
        found.append(entry | ({"input": problem.value} if with_input else {}))
    return found
