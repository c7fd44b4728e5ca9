"""Smallest values of JSON schemas."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byok.sandbox.schemas import minimal, with_text

NAMES = st.sampled_from(["a", "b", "c", "d"])
CONSTANTS = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3))


def _numbers() -> st.SearchStrategy[dict[str, Any]]:
    whole = st.fixed_dictionaries(
        {"type": st.just("integer")},
        optional={"minimum": st.integers(-50, 50), "multipleOf": st.integers(1, 9), "description": st.text(max_size=3)},
    )
    span = st.tuples(st.integers(-50, 50), st.integers(1, 50)).map(
        lambda pair: {"type": "number", "exclusiveMinimum": pair[0], "exclusiveMaximum": pair[0] + pair[1]}
    )
    below = st.integers(-50, 50).map(lambda most: {"type": "number", "maximum": most})
    over = st.integers(-50, 50).map(lambda least: {"type": "integer", "exclusiveMinimum": least})
    under = st.integers(-50, 50).map(lambda most: {"type": "integer", "exclusiveMaximum": most})
    return st.one_of(whole, span, below, over, under)


def _objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    def made(parts: tuple[dict[str, Any], list[str], bool]) -> dict[str, Any]:
        properties, wanted, closed = parts
        required = [name for name in wanted if name in properties]
        return {"type": "object", "properties": properties, "required": required} | ({"additionalProperties": False} if closed else {})

    return st.tuples(st.dictionaries(NAMES, inner), st.lists(NAMES, unique=True), st.booleans()).map(made)


def _nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    arrays = st.builds(lambda item, least: {"type": "array", "items": item, "minItems": least}, inner, st.integers(0, 3))
    choices = st.builds(lambda word, parts: {word: parts}, st.sampled_from(["anyOf"]), st.lists(inner, min_size=1, max_size=3))
    merged = st.lists(_objects(inner), min_size=1, max_size=1).map(lambda parts: {"allOf": parts})
    return st.one_of(_objects(inner), arrays, choices, merged)


SCHEMAS = st.recursive(
    st.one_of(
        _numbers(),
        CONSTANTS.map(lambda value: {"const": value}),
        st.lists(CONSTANTS, min_size=1, max_size=3).map(lambda values: {"enum": values}),
        st.builds(
            lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more}, st.integers(0, 9), st.integers(0, 9)
        ),
        st.sampled_from(["date", "email", "uuid", "uri", "date-time"]).map(lambda name: {"type": "string", "format": name}),
        st.sampled_from(["boolean", "null", "string", ["null", "integer"]]).map(lambda kind: {"type": kind}),
        st.just({}),
    ),
    _nested,
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(SCHEMAS)
def test_the_smallest_value_is_valid_and_json(schema: dict[str, Any]) -> None:
    value = minimal(schema)
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).validate(value)
    assert json.loads(json.dumps(value)) == value
    assert minimal(schema) == value


@settings(max_examples=200, deadline=None)
@given(_objects(SCHEMAS), st.text(min_size=1, max_size=20))
def test_a_text_is_put_in_without_breaking_the_schema(schema: dict[str, Any], text: str) -> None:
    value = with_text(schema, text)
    jsonschema.Draft202012Validator(schema).validate(value)
    free = [name for name, member in schema["properties"].items() if member == {"type": "string"}]
    assert not free or value[free[0]] == text


def test_references_are_followed_and_circles_end() -> None:
    schema = {
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/node"}, "again": {"allOf": [{"$ref": "#/$defs/node"}]}},
        "required": ["tree", "again"],
        "$defs": {
            "node": {"type": "object", "properties": {"id": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}}, "required": ["id"]}
        },
    }
    assert minimal(schema) == {"tree": {"id": 0}, "again": {"id": 0}}
    endless = {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}}}
    assert isinstance(minimal(endless), dict)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "said"),
        ({}, {"answer": "said"}),
        ({"type": "object", "properties": {"n": {"type": "integer"}}}, {}),
        ({"type": "object", "additionalProperties": False}, {}),
        (
            {"type": "object", "properties": {"kind": {"type": "string", "enum": ["a"]}, "why": {"type": "string", "title": "Why"}}},
            {"why": "said"},
        ),
        ({"type": "array", "items": {"type": "string"}, "minItems": 1}, ["x"]),
        ({"type": "array", "prefixItems": [{"const": 1}], "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True}, [1, 0, 2]),
    ],
)
def test_where_the_text_goes(schema: dict[str, Any], value: Any) -> None:
    assert with_text(schema, "said") == value
