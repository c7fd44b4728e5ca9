"""Strict JSON, error bodies, Retry-After, redaction."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.endpoint import BadRequest, EndpointError, EndpointRateLimited
from byok.endpoint.bodies import read_error
from byok.endpoint.parts import split_thinking
from byok.endpoint.usage import read_usage
from byok.endpoint.wire import LONGEST_WAIT_S, BadJson, Redactor, Reply, decode_json, excerpt, retry_after

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(JSON)
def test_what_json_can_say_is_read_as_it_is(value: Any) -> None:
    assert decode_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "truncated"),
    [
        ("NaN", False),
        ('{"a": Infinity}', False),
        ('{"a": 1e999}', False),
        ('{"a": 1, "a": 2}', False),
        ("[" * 100_000, False),
        ("[" * 65 + "]" * 65, False),
        ("9" * 5000, False),
        ("{'a': 1}", False),
        ("", False),
        ('{"a": ', True),
        ('{"a": "abc', True),
        ('{"a": [1, 2', True),
    ],
)
def test_what_is_no_json_is_one_error(text: str, truncated: bool) -> None:
    with pytest.raises(BadJson) as caught:
        decode_json(text.encode())
    assert caught.value.truncated is truncated
    assert caught.value.__context__ is None or isinstance(caught.value.__context__, BadJson)


def test_integers_beyond_int64_and_moderate_depth_are_read() -> None:
    assert decode_json(b'{"seed": 15924764223251450000}') == {"seed": 15924764223251450000}
    assert decode_json(b"[" * 64 + b"]" * 64)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_error_body(body: bytes) -> None:
    read_error(Reply(500, {}, body, 1.0))


@pytest.mark.parametrize(
    ("body", "message", "code", "parameter"),
    [
        ({"error": {"message": "m", "type": "BadRequestError", "param": "n", "code": 400}}, "m", "400", "n"),
        ({"error": "Unauthorized"}, "Unauthorized", None, None),
        ({"error": "too long", "error_type": "validation"}, "too long", None, None),
        ({"detail": "Not Found"}, "Not Found", None, None),
        ({"detail": [{"loc": ["body", "temperature"], "msg": "too big", "type": "x"}]}, "temperature: too big", None, "temperature"),
        ({"detail": {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "gone"}}, "gone", "RESOURCE_DOES_NOT_EXIST", None),
        ({"detail": {"message": "m"}}, "m", None, None),
        ({"message": "no key"}, "no key", None, None),
        ({"object": "error", "message": "m", "param": "p", "code": "c"}, "m", "c", "p"),
        ([{"error": {"message": "m", "code": 429}}], "m", "429", None),
        ({"error": {}}, "", None, None),
        ({"error": None, "detail": None}, "", None, None),
    ],
)
def test_the_many_shapes_of_an_error_body(body: Any, message: str, code: str | None, parameter: str | None) -> None:
    # The label lies, as some gateways' does.
    found = read_error(Reply(400, {"content-type": "text/plain"}, json.dumps(body).encode(), 1.0))
    assert (found.message, found.code, found.parameter) == (message, code, parameter)


def test_a_page_is_reduced_to_its_title() -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head><body><script>x()</script></body></html>"
    found = read_error(Reply(502, {}, page, 1.0))
    assert found.is_html
    assert found.message == "502 Bad Gateway"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 31 Dec 2025 00:00:00 GMT"}, 0.0),
        ({"retry-after": "99999999999"}, LONGEST_WAIT_S),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 -2359"}, LONGEST_WAIT_S),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@given(st.text())
def test_retry_after_of_any_text(text: str) -> None:
    found = retry_after({"retry-after": text}, NOW)
    assert found is None or 0 <= found <= LONGEST_WAIT_S


@given(st.text(max_size=400), st.text(max_size=400))
def test_no_part_of_the_key_survives_an_excerpt(before: str, after: str) -> None:
    key = "sk-live-0123456789abcdef"
    shown = excerpt(f"{before}{key}{after}", Redactor(key))
    assert key not in shown
    assert "0123456789" not in shown
    assert len(shown) <= 300
    assert shown.isprintable() or shown == ""


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, (None, None, None, None, "missing")),
        ([], (None, None, None, None, "missing")),
        ({}, (None, None, None, None, "missing")),
        ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}, (None, None, None, None, "missing")),
        ({"prompt_tokens": 5}, (5, None, None, None, "missing")),
        ({"prompt_tokens": 5, "completion_tokens": 2}, (5, 2, None, None, "reported")),
        ({"prompt_tokens": 5, "completion_tokens": 2.0, "total_tokens": 7}, (5, 2, None, None, "reported")),
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 8}, (5, 2, None, None, "invalid")),
        ({"prompt_tokens": -5, "completion_tokens": 2}, (None, 2, None, None, "invalid")),
        ({"prompt_tokens": 5, "completion_tokens": 10**12}, (5, None, None, None, "invalid")),
        ({"prompt_tokens": "five", "completion_tokens": 2}, (None, 2, None, None, "invalid")),
        ({"prompt_tokens": True, "completion_tokens": 2}, (None, 2, None, None, "invalid")),
        ({"prompt_tokens": 5, "completion_tokens": 2, "cached_tokens": 3}, (5, 2, 3, None, "reported")),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}, (5, 2, 4, None, "reported")),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 6}}, (5, 2, 6, None, "invalid")),
        ({"prompt_tokens": 5, "completion_tokens": 2, "completion_tokens_details": None}, (5, 2, None, None, "reported")),
        (
            {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14, "completion_tokens_details": {"reasoning_tokens": 7}},
            (5, 9, None, 7, "reported"),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 14, "completion_tokens_details": {"reasoning_tokens": 7}},
            (5, 9, None, 7, "reported"),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_latency": 0.4, "end_time": 1.7e9}, (5, 2, None, None, "reported")),
    ],
)
def test_usage_is_believed_only_when_it_adds_up(usage: Any, expected: tuple[Any, ...]) -> None:
    found = read_usage(usage, {})
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens, found.reasoning_tokens, found.usage_class) == expected


def test_cached_tokens_of_a_header() -> None:
    assert read_usage({"prompt_tokens": 5, "completion_tokens": 1}, {"fireworks-cached-prompt-tokens": "4"}).cached_tokens == 4


@given(JSON)
def test_usage_of_any_json_is_classed(value: Any) -> None:
    assert read_usage(value, {}).usage_class in ("reported", "missing", "invalid")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nhm\n</think>\n\n42", ("42", "hm")),
        ("hm\n</think>42", ("42", "hm")),
        ("<think>never ended", ("", "never ended")),
        ("<think></think>42", ("42", None)),
        ("42", ("42", None)),
        ("say <think> aloud", ("say <think> aloud", None)),
    ],
)
def test_thinking_is_taken_out_of_the_answer(text: str, expected: tuple[str, str | None]) -> None:
    assert split_thinking(text) == expected


def test_errors_survive_pickling_with_their_fields() -> None:
    error = EndpointRateLimited("slow down", hint="h", status=429, retry_after_s=2.5, parameter=None)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is EndpointRateLimited
    assert (copy.message, copy.hint, copy.status, copy.retry_after_s, copy.parameter, copy.retryable) == (
        "slow down",
        "h",
        429,
        2.5,
        None,
        True,
    )
    assert pickle.loads(pickle.dumps(BadRequest("m", parameter="n"))).parameter == "n"


def _kinds(kind: type[EndpointError]) -> list[type[EndpointError]]:
    return [kind, *(inner for sub in kind.__subclasses__() for inner in _kinds(sub))]


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in _kinds(EndpointError)]
    assert len(set(codes)) == len(codes)
    assert not any(kind.retryable and kind.stops_run for kind in _kinds(EndpointError))
