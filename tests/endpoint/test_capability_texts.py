"""Texts about capabilities: the context that a refusal tells, what tags claim, and what an error tells for the record."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from byok.endpoint import EndpointError
from byok.endpoint.capabilities import NAMES, TAGS, declared, embeds_only
from byok.endpoint.probing.context import HUGE, context_in
from byok.endpoint.probing.findings import told


@pytest.mark.parametrize(
    ("message", "length"),
    [
        ("This model's maximum context length is 8192 tokens. However, you requested 1000000005 tokens", 8192),
        ("max_tokens=1000000000 cannot be greater than max_model_len=32768", 32768),
        ("`inputs` tokens + `max_new_tokens` must be <= 131,072. Given: 5 `inputs` tokens and 1000000000 `max_new_tokens`", 131072),
        ("The prompt is too long: 1000000005, model maximum context length: 4096", 4096),
        ("Requested tokens (1000000001) exceed context window of 2048", 2048),
        ("the request exceeds the available context size (4096 tokens), try increasing it", 4096),
        ("max_tokens is too large: 1000000000. This model supports at most 16384 completion tokens", None),
        ("maximum context length is 1000000000 tokens", None),
        ("maximum context length is exceeded", None),
        ("", None),
    ],
)
def test_the_context_is_read_where_a_refusal_tells_it(message: str, length: int | None) -> None:
    assert context_in(message) == length


@given(st.text(max_size=200))
@example("maximum context length is 99999999999999999999")
@example("context size (" * 50)
def test_no_text_is_too_odd_to_look_for_a_context_in(message: str) -> None:
    found = context_in(message)
    assert found is None or 0 < found < HUGE


@given(st.integers(1, HUGE - 1), st.text(max_size=40), st.text(max_size=40))
def test_a_told_context_is_found_among_other_words(length: int, before: str, after: str) -> None:
    # No word before it that tells another one, and no digit that would make it longer.
    told = f"{''.join(one for one in before if not one.isdigit())} maximum context length is {length} {after}"
    assert context_in(told) == length


def test_tags_claim_capabilities_in_any_spelling_and_others_claim_nothing() -> None:
    assert set(TAGS.values()) == set(NAMES)
    assert declared(["Function_Calling", "gold", "JSON", "structured-outputs", "thinking", "stream"]) == {
        "tools": "Function_Calling",
        "json_mode": "JSON",
        "json_schema": "structured-outputs",
        "reasoning": "thinking",
        "streaming": "stream",
    }
    assert [embeds_only(tags) for tags in (["embedding"], ["embeddings", "fast"], ["embeddings", "chat"], ["chat"], [])] == [
        *(True, True, False, False, False)
    ]


def test_what_an_error_tells_for_the_record() -> None:
    assert told(EndpointError("plain text came instead of an answer: a: b", status=200)) == "plain text came instead of an answer"
    assert told(EndpointError("it is malformed (HTTP 400): no: not so", status=400)) == "it is malformed (HTTP 400): no: not so"
    assert told(EndpointError("https://host.example: there is no such host")) == "https://host.example: there is no such host"
