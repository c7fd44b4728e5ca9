"""How the sandbox judges: it knows the expected answers, and looks whether they occur in the output under judgement.

It reads two ways of asking: a JSON schema with a `verdict` or `score` property, and a text that asks for a last line
`VERDICT: ...`. Parts of the prompt are found by their fences, `<<OUTPUT token>>` to `<<END OUTPUT token>>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_FENCED = re.compile(r"<<(?P<name>[A-Z]+) (?P<token>[^\s<>]+)>>\n?(?P<text>.*?)\n?<<END (?P=name) (?P=token)>>", re.DOTALL)
_ASKED = re.compile(r"VERDICT:[ \t]*(?P<rest>[^\n]*)")
_VALUE = re.compile(r"-?\w[\w.-]*")
_RANGE = re.compile(r"(-?\d+)\s*(?:to|through|-|–|\.\.+)\s*(-?\d+)", re.IGNORECASE)
_PASSING = ("pass", "passed", "yes", "correct", "true", "good", "right", "ok")
_FAILING = ("fail", "failed", "no", "incorrect", "false", "bad", "wrong")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Form:
    """How a verdict is to be given.

    Attributes:
        name: `verdict` or `score`.
        good: Value for a right output.
        bad: Value for a wrong one.
        unknown: Value when the question is not known.
        as_json: As a JSON object, or as a last line.
    """

    name: str
    good: str | int
    bad: str | int
    unknown: str | int
    as_json: bool


def form_of_schema(schema: Any) -> Form | None:
    """The form that a JSON schema asks for; None when it is no judge's schema."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return None
    for name in ("verdict", "score"):
        if isinstance(properties.get(name), dict):
            values = _values(properties[name])
            if values:
                return _form(name, values, as_json=True)
    return None


def form_of_text(text: str) -> Form | None:
    """The form that a prompt in words asks for: what stands after `VERDICT:`, as words or as a range of numbers."""
    text = _FENCED.sub("", text)
    asked = _ASKED.search(text)
    if asked is None:
        return None
    rest = asked["rest"]
    span = _RANGE.search(rest) or (_RANGE.search(text) if not any(word in rest.lower() for word in _PASSING) else None)
    if span:
        return _form("score", [int(span[1]), int(span[2]), UNKNOWN], as_json=False)
    offered = [word for word in _VALUE.findall(rest) if word.lower() not in ("or", "one", "of", "value", "the", "a", "is", "and", "where")]
    return _form("verdict", offered if len(offered) > 1 else ["pass", "fail", UNKNOWN], as_json=False)


def _values(member: dict[str, Any]) -> list[str | int]:
    """What a property may be: its enum or const, the two ends of its range, or those of its alternatives."""
    found: list[str | int] = []
    for part in (member, *member.get("anyOf", ()), *member.get("oneOf", ())):
        found.extend(part.get("enum", ()))
        if "const" in part:
            found.append(part["const"])
        if "minimum" in part and "maximum" in part:
            found += [part["minimum"], part["maximum"]]
    return found


def _form(name: str, values: Sequence[str | int], *, as_json: bool) -> Form:
    known = [value for value in values if value != UNKNOWN] or list(values)
    numbers = [value for value in known if isinstance(value, int) and not isinstance(value, bool)]
    good: str | int
    bad: str | int
    if numbers:
        good, bad = max(numbers), min(numbers)
    else:
        lower = {str(value).lower(): value for value in reversed(known)}
        good = next((lower[word] for word in _PASSING if word in lower), known[0])
        bad = next((lower[word] for word in _FAILING if word in lower), known[-1])
    return Form(name, good, bad, UNKNOWN if UNKNOWN in values else bad, as_json)


def sections(text: str) -> dict[str, str]:
    """The fenced parts of a prompt, by name."""
    return {found["name"]: found["text"] for found in _FENCED.finditer(text)}


def occurs(expected: str, output: str) -> bool:
    """Whether the expected answer stands in an output: in any case of letters, and not as a part of a longer word or number."""
    around = (
        rf"(?<![\w.,-]){re.escape(expected.casefold())}(?!\w|[.,]\d)"
        if expected[:1].isdigit()
        else rf"(?<!\w){re.escape(expected.casefold())}(?!\w)"
    )
    return re.search(around, output.casefold()) is not None
