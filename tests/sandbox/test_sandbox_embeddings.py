"""Embeddings: vectors, forms, and what is refused."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byok.sandbox import Fault
from byok.sandbox.embedding import embed, normal

NEAR = [
    ("The order ships within two days.", "The order ships within two working days."),
    ("What is the capital of France?", "Which city is the capital of France?"),
    ("Refunds are paid to the card that was used.", "Refunds are paid back to the card used."),
]
FAR = [
    ("The order ships within two days.", "Photosynthesis turns sunlight into sugar."),
    ("What is the capital of France?", "Quarterly revenue grew by nine percent."),
    ("Refunds are paid to the card that was used.", "My grandmother keeps seven noisy parrots."),
]


def cosine(one: str, other: str) -> float:
    return math.fsum(left * right for left, right in zip(embed(one, 64), embed(other, 64), strict=True))


@settings(deadline=None)
@given(st.text(min_size=1, max_size=60), st.integers(1, 96))
def test_a_vector_is_of_length_one_and_single_precision(text: str, dimensions: int) -> None:
    vector = embed(text, dimensions)
    assert len(vector) == dimensions and math.isclose(math.fsum(value * value for value in vector), 1, abs_tol=1e-5)
    assert list(struct.unpack(f"<{dimensions}f", struct.pack(f"<{dimensions}f", *vector))) == vector
    assert vector == embed(text, dimensions)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["Ünder", "the", "BRIDGE", "of", "42"]), min_size=1), st.sampled_from([" ", "  ", "\n\t"]))
def test_letter_case_and_space_change_nothing(words: list[str], space: str) -> None:
    one, other = " ".join(words), f" {space.join(words).swapcase()} "
    assert normal(one) == normal(other)
    assert embed(one, 64) == embed(other, 64)


@pytest.mark.parametrize(("near", "far"), [*zip(NEAR, FAR, strict=True)])
def test_likeness_follows_the_words(near: tuple[str, str], far: tuple[str, str]) -> None:
    assert cosine(*near) > 0.6
    assert abs(cosine(*far)) < 0.35


@settings(deadline=None)
@given(st.text(min_size=1, max_size=30), st.integers(1, 64))
def test_fewer_dimensions_are_the_first_ones_brought_to_length_one(text: str, kept: int) -> None:
    short, whole = embed(text, 64, kept), embed(text, 64)[:kept]
    length = math.sqrt(math.fsum(value * value for value in whole))
    assert len(short) == kept
    for value, part in zip(short, whole, strict=True):
        assert not length or math.isclose(value, part / length, abs_tol=1e-5)


def test_the_answer_keeps_the_order_and_counts(serve: Any) -> None:
    client = serve()
    answer = client.embed(["two words", "three more words"]).json
    assert [(entry["index"], entry["object"], entry["embedding"]) for entry in answer["data"]] == [
        (0, "embedding", embed("two words", 64)),
        (1, "embedding", embed("three more words", 64)),
    ]
    assert (answer["object"], answer["model"], answer["usage"]) == ("list", "sandbox-embedding", {"prompt_tokens": 5, "total_tokens": 5})
    assert client.embed("two words").json["data"] == answer["data"][:1]


def test_vectors_as_base64_and_shorter(serve: Any) -> None:
    client = serve(embedding_dimensions=16)
    plain = client.embed("text", encoding_format="float").json["data"][0]["embedding"]
    coded = client.embed("text", encoding_format="base64").json["data"][0]["embedding"]
    assert list(struct.unpack("<16f", base64.b64decode(coded))) == plain
    assert client.embed("text", dimensions=4).json["data"][0]["embedding"] == embed("text", 16, 4)


@pytest.mark.parametrize(
    ("members", "parameter"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "word " * 21}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 65}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
        ({"model": "sandbox-model"}, "model"),
        ({"model": "other"}, "model"),
        ({"model": None}, "model"),
    ],
)
def test_what_is_wrong_is_named(serve: Any, members: dict[str, Any], parameter: str) -> None:
    answer = serve(context_length=20).post("/embeddings", {"model": "sandbox-embedding", "input": "text", **members})
    assert (answer.status in (400, 404), answer.error["param"]) == (True, parameter)


def test_models_do_only_their_own_job(serve: Any) -> None:
    client = serve(embedding_model_id="vectors")
    assert [model["id"] for model in client.get("/models").json["data"]] == ["sandbox-model", "vectors"]
    wrong = client.chat(model="vectors")
    assert (wrong.status, wrong.error["param"]) == (400, "model")
    without = serve(supports=frozenset())
    assert without.embed("text").status == 404
    assert [model["id"] for model in without.get("/models").json["data"]] == ["sandbox-model"]


def test_embeddings_are_counted_apart_and_need_the_key(serve: Any) -> None:
    client = serve(key="sk-right", api_key="sk-right", embedding_faults=[None, 429, Fault(status=500, code="broken"), Fault(body=b"no")])
    assert client.embed(["a b", "c"]).status == 200
    assert client.embed("a").status == 429
    assert client.embed("a").error["code"] == "broken"
    assert client.embed("a").raw == b"no"
    assert client.embed("a").status == 200
    client.key = "sk-wrong"
    assert client.embed("a").status == 401
    stats = client.sandbox.stats()
    assert (stats["embedding_requests"], stats["embedding_tokens"], stats["faults"], stats["wrong_keys"]) == (6, 4, 3, 1)
    assert (stats["requests"], stats["chat_requests"], stats["answered"], stats["prompt_tokens"]) == (6, 0, 0, 0)
