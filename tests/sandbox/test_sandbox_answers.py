"""The key file, right and wrong answers, matching, tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.sandbox import AnswersUnusable, read_answers
from byok.sandbox.answers import right_text, share, wrong_text
from byok.sandbox.judging import form_of_schema, form_of_text, occurs
from byok.sandbox.matching import QuestionIndex
from byok.sandbox.tokens import count, cut


def _file(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_fields_and_final_answers(tmp_path: Path) -> None:
    path = _file(
        tmp_path / "a.jsonl",
        {"question": " q1 ", "answer": "work <<1+1=2>>2\n#### 1,002"},
        {"input": "q2", "expected": "B"},
        {"prompt": "q3\u2028x", "target": 7},
        "",
        {"question": " q1 ", "answer": "#### 1,002"},
    )
    assert read_answers(path) == [("q1", "1,002"), ("q2", "B"), ("q3\u2028x", "7")]


def test_a_pattern_finds_the_answer(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.jsonl", {"question": "q", "answer": "so it is [42] indeed"})
    assert read_answers(path, r"\[(\d+)\]") == [("q", "42")]
    assert read_answers(path, r"\d+") == [("q", "42")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["not json"], "line 1: not JSON"),
        ([{"question": "q"}], "line 1: none of answer"),
        ([{"question": "", "answer": "x"}], "line 1"),
        ([["q", "a"]], "line 1"),
        ([{"question": "q", "answer": "1"}, {"question": "q", "answer": "2"}], "line 2: the question has another answer"),
        ([], "there are no lines"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, rows: list[object], message: str) -> None:
    with pytest.raises(AnswersUnusable, match=message):
        read_answers(_file(tmp_path / "a.jsonl", *rows))


def test_a_missing_file_and_a_bad_pattern(tmp_path: Path) -> None:
    with pytest.raises(AnswersUnusable, match="No such file"):
        read_answers(tmp_path / "none.jsonl")
    path = _file(tmp_path / "a.jsonl", {"question": "q", "answer": "x"})
    with pytest.raises(AnswersUnusable, match="regular expression"):
        read_answers(path, "(")
    with pytest.raises(AnswersUnusable, match="finds no answer"):
        read_answers(path, r"\d")


@given(st.sets(st.text(min_size=1), max_size=60), st.floats(0, 1), st.integers())
def test_the_right_share_is_exact_and_knows_no_order(questions: set[str], fraction: float, seed: int) -> None:
    chosen = share(questions, fraction, f"s{seed}")
    assert len(chosen) == round(fraction * len(questions))
    assert chosen == share(sorted(questions, reverse=True), fraction, f"s{seed}")


def test_a_larger_share_holds_the_smaller_one_and_seeds_differ() -> None:
    questions = [f"q{number}" for number in range(100)]
    assert share(questions, 0.3, "1") < share(questions, 0.6, "1")
    assert share(questions, 0.5, "1") != share(questions, 0.5, "2")


@given(
    st.one_of(
        st.integers(-(10**6), 10**6).map(str),
        st.decimals(0, 10**4, places=2).map(str),
        st.text(st.characters(categories=["L", "N"]), min_size=1),
    )
)
def test_a_wrong_answer_never_holds_the_expected_one(expected: str) -> None:
    assert expected.casefold() not in wrong_text(expected).casefold()
    assert right_text(expected).endswith(expected)
    assert not occurs(expected, wrong_text(expected))


@pytest.mark.parametrize(
    ("expected", "wrong"),
    [
        ("18", "The answer is 19"),
        ("$1,999", "The answer is $2,000"),
        ("2.50", "The answer is 3.50"),
        ("Yes", "The answer is No"),
        ("Paris", "The answer is unrelated"),
        ("C", "The answer is D"),
        ("A", "It should be B"),
        ("1", "The answer is 2"),
    ],
)
def test_wrong_answers_are_plausible(expected: str, wrong: str) -> None:
    assert wrong_text(expected) == wrong


@pytest.mark.parametrize(
    ("expected", "output", "found"),
    [
        ("18", "The answer is 18", True),
        ("18", "The answer is 18.", True),
        ("18", "it costs $18, so", True),
        ("18", "118", False),
        ("18", "18.5", False),
        ("18", "18,000", False),
        ("18", "-18", False),
        ("Paris", "paris!", True),
        ("art", "the start", False),
        ("$5", "pay $5 now", True),
    ],
)
def test_the_judge_sees_whole_answers_only(expected: str, output: str, found: bool) -> None:
    assert occurs(expected, output) is found


def test_questions_are_found_exactly_or_as_the_longest_contained() -> None:
    short, middle, long = "2+2?", "What is the capital of France?", "What is the capital of France? And of Spain?"
    index = QuestionIndex([short, middle, long])
    assert index.find(f" {middle}\n") == middle
    assert index.find(f"Context: x\n\n{long}\nAnswer briefly.") == long
    assert index.find(f"{middle} then {long}") == long
    assert index.find(f"Solve {short}") == short
    assert index.find("What is the capital of Norway?") is None
    assert index.find("") is None


@given(st.lists(st.text("ab ", min_size=1, max_size=40).filter(str.strip).map(str.strip), min_size=1), st.text("ab ", max_size=200))
def test_matching_agrees_with_the_plain_definition(questions: list[str], prompt: str) -> None:
    found = QuestionIndex(questions).find(prompt)
    contained = [question for question in questions if question in prompt.strip()]
    assert (found is None) == (not contained)
    if found is not None:
        assert len(found) == max(map(len, contained))


@given(st.text(), st.integers(0, 50))
def test_cutting_counts_as_counting_does(text: str, limit: int) -> None:
    assert count(cut(text, limit)) == min(limit, count(text))
    assert text.startswith(cut(text, limit))


def test_tokens_are_words_and_signs() -> None:
    assert count("It's $1,000.50!") == 10
    assert cut("The answer is 18", 2) == "The answer"


def test_forms_of_schemas() -> None:
    binary = form_of_schema({"properties": {"reasoning": {"type": "string"}, "verdict": {"enum": ["pass", "fail", "unknown"]}}})
    assert binary is not None
    assert (binary.name, binary.good, binary.bad, binary.unknown) == ("verdict", "pass", "fail", "unknown")
    score = form_of_schema({"properties": {"score": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 5}, {"enum": ["unknown"]}]}}})
    assert score is not None
    assert (score.name, score.good, score.bad, score.unknown) == ("score", 5, 1, "unknown")
    plain = form_of_schema({"properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}}})
    assert plain is not None
    assert (plain.good, plain.bad, plain.unknown) == (10, 0, 0)
    label = form_of_schema({"properties": {"verdict": {"enum": ["faithful", "partly", "invented", "unknown"]}}})
    assert label is not None
    assert (label.good, label.bad) == ("faithful", "invented")
    assert form_of_schema({"properties": {"city": {"type": "string"}}}) is None


def test_forms_of_texts() -> None:
    words = form_of_text("End with a last line:\nVERDICT: pass, fail or unknown")
    assert words is not None
    assert (words.good, words.bad, words.unknown, words.as_json) == ("pass", "fail", "unknown", False)
    span = form_of_text("End with VERDICT: 1-5 or unknown")
    assert span is not None
    assert (span.good, span.bad) == (5, 1)
    # What stands inside a fence is data, not an instruction.
    assert form_of_text("<<OUTPUT x1>>\nVERDICT: pass\n<<END OUTPUT x1>>") is None
