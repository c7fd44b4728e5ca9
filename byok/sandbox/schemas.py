"""A smallest value that a JSON schema takes: for arguments of tools and for answers in a form that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

_FORMATS = {
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "date-time": "2000-01-01T00:00:00Z",
    "email": "a@example.org",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
}
_DEPTH = 24
_PLAIN = frozenset({"type", "description", "title", "default", "examples"})


def minimal(schema: Any) -> Any:
    """The smallest value of a schema that this finds: first alternatives, required members alone, least numbers and lengths.

    It knows types, const, enum, default-free objects and arrays, ranges, lengths, formats, `$ref` inside the schema, and
    anyOf/oneOf/allOf; it does not know `pattern`, `not` or conditions, whose value may then be invalid.
    """
    return _value(schema, schema if isinstance(schema, Mapping) else {}, 0)


def with_text(schema: Any, text: str) -> Any:
    """The smallest value of a schema, with `text` as the first string property that takes any text.

    A schema that says nothing, and one of an object without properties, get
    `{"answer": text}`; a schema that has no place for the text gets its smallest value.
    """
    if not schema:
        return {"answer": text}
    value = minimal(schema)
    if not isinstance(schema, Mapping) or not isinstance(value, dict):
        return text if isinstance(schema, Mapping) and schema.get("type") == "string" and set(schema) <= _PLAIN else value
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    for name, member in properties.items():
        if isinstance(member, Mapping) and member.get("type") == "string" and set(member) <= _PLAIN:
            return {**value, name: text}
    return {**value, "answer": text} if not properties and schema.get("additionalProperties") is not False else value


def _value(schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEPTH:
        return None
    if "$ref" in schema:
        return _value(_resolved(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list) and schema[name]:
            rest = {key: value for key, value in schema.items() if key != name}
            return _value(_merged(rest, schema[name][0], root), root, depth + 1)
    if isinstance(schema.get("allOf"), list) and schema["allOf"]:
        whole: Mapping[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            whole = _merged(whole, part, root)
        return _value(whole, root, depth + 1)
    return _of_type(_type(schema), schema, root, depth)


def _type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _of_type(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    if kind == "object":
        properties = schema.get("properties") or {}
        return {name: _value(properties.get(name, {"type": "string"}), root, depth + 1) for name in schema.get("required") or ()}
    if kind == "array":
        return _array(schema, root, depth)
    if kind in ("integer", "number"):
        return _number(kind, schema)
    if kind == "boolean":
        return False
    if kind == "null":
        return None
    return _string(schema)


def _array(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> list[Any]:
    fixed = schema.get("prefixItems") or ()
    found = [_value(part, root, depth + 1) for part in fixed]
    item = schema.get("items") if isinstance(schema.get("items"), Mapping) else {"type": "string"}
    unique = schema.get("uniqueItems") is True
    while len(found) < schema.get("minItems", 0):
        value = _value(item, root, depth + 1)
        found.append(next((one for one in map(partial(_shifted, value), range(64)) if one not in found), value) if unique else value)
    return found


def _shifted(value: Any, number: int) -> Any:
    """Another value of the same kind: a text with a number behind it, or a greater number."""
    if isinstance(value, str):
        return f"{value}{number}" if number else value
    return value + number if isinstance(value, int | float) and not isinstance(value, bool) else value


def _number(kind: str, schema: Mapping[str, Any]) -> int | float:
    step = schema.get("multipleOf") or (1 if kind == "integer" else None)
    low, over = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, under = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is None and over is None:
        value: int | float = 0
        for bound, away in ((high, 0), (under, step or 1)):
            if bound is not None and value > bound - away:
                value = bound - away
        return _down(value, step) if step else value
    value = max(bound for bound in (low, over) if bound is not None)
    if step:
        value = -_down(-value, step)
        return value + step if over is not None and value <= over else value
    if over is not None and value <= over:
        ceiling = under if under is not None else high
        value = over + 1 if ceiling is None or over + 1 < ceiling else (over + ceiling) / 2
    return value


def _down(value: float, step: float) -> int | float:
    found = (value // step) * step
    return int(found) if float(found).is_integer() else found


def _string(schema: Mapping[str, Any]) -> str:
    text = _FORMATS.get(str(schema.get("format"))) or "x" * max(1, int(schema.get("minLength", 0)))
    return text[: int(schema["maxLength"])] if "maxLength" in schema else text


def _resolved(reference: Any, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for part in str(reference).removeprefix("#").split("/"):
        if part:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found


def _merged(first: Mapping[str, Any], second: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(second, Mapping):
        return first
    if "$ref" in second:
        second = _resolved(second["$ref"], root) or {}
    whole = {**first, **second}
    if isinstance(first.get("properties"), Mapping) and isinstance(second.get("properties"), Mapping):
        whole["properties"] = {**first["properties"], **second["properties"]}
    if first.get("required") and second.get("required"):
        whole["required"] = list(dict.fromkeys([*first["required"], *second["required"]]))
    return whole
