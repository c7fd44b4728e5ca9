"""Code graders: what passes, what fails, and what is left unscored."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from byok.grading import GraderOption, GraderUnknown, parse_grader

GSM8K = Path(__file__).resolve().parents[2].parent / "shared/data/gsm8k/test.jsonl"

PASS, FAIL, UNSCORED = ("ok", 1.0, True), ("ok", 0.0, False), ("unscored", None, None)


def graded(spec, output, expected):
    verdict = parse_grader(spec).grade(output, expected)
    return verdict.outcome, verdict.score, verdict.passed


@pytest.mark.parametrize(
    ("spec", "output", "expected", "result"),
    [
        ("exact", "Paris", "Paris", PASS),
        ("exact", "  PARIS\n", "paris", PASS),
        ("exact", "New   York", "new york", PASS),
        ("exact", "ﬁne", "fine", PASS),
        ("exact", "STRASSE", "straße", PASS),
        ("exact", "Paris.", "Paris", FAIL),
        ("exact", "", "Paris", FAIL),
        ("exact:strict=true", "Paris", "Paris", PASS),
        ("exact:strict=true", "paris", "Paris", FAIL),
        ("exact:strict=true", "Paris ", "Paris", FAIL),
        ("exact:punctuation=false", "Paris!", "Paris", PASS),
        ("exact:articles=false", "The Louvre", "louvre", PASS),
        ("exact:articles=false", "theatre", "atre", FAIL),
        ("exact:articles=false,punctuation=false", "«The Louvre.»", "a louvre", PASS),
        ("includes", "It is in PARIS, France.", "paris", PASS),
        ("includes", "It is in\nNew\nYork.", "new york", PASS),
        ("includes", "It is in Rome.", "paris", FAIL),
        ("includes", "anything", "  ", UNSCORED),
        ("includes:case=true", "in Paris", "Paris", PASS),
        ("includes:case=true", "in paris", "Paris", FAIL),
        ("regex:pattern=^yes", "yes, it is", None, PASS),
        ("regex:pattern=^yes", "Yes, it is", None, FAIL),
        ("regex:case=false,pattern=^yes", "Yes, it is", None, PASS),
        ("regex:pattern=a{1,2}b", "aab", "ignored", PASS),
        ("regex:pattern=(?:one|two),case=true", "one,case=true", None, PASS),
    ],
)
def test_texts(spec, output, expected, result):
    assert graded(spec, output, expected) == result


@pytest.mark.parametrize(
    ("output", "expected", "result"),
    [
        ("The answer is 42.", "42", PASS),
        ("First 7, then 42", "#### 42", PASS),
        ("42, or rather 41", "42", FAIL),
        ("1,234", "1234", PASS),
        ("1,234,567.50", "1234567.5", PASS),
        ("1\u00a0234", "1234", PASS),
        ("1\u202f234", "1234", PASS),
        ("1'234.5", "1234.5", PASS),
        ("1’234", "1234", PASS),
        ("1,2,3", "3", PASS),
        ("$1,234.50", "1234.5", PASS),
        ("€ 12", "12", PASS),
        ("£.50", "0.5", PASS),
        ("¥500", "500", PASS),
        ("-5", "-5", PASS),
        ("5", "-5", FAIL),
        ("−5", "-5", PASS),
        ("-$5", "-5", PASS),
        ("$-5", "-5", PASS),
        ("$−5", "-5", PASS),
        ("It fell by - 5", "-5", PASS),
        ("10-3", "3", PASS),
        ("10 - 3 = 7", "7", PASS),
        ("50%", "50", PASS),
        ("50 %", "50%", PASS),
        ("1e3", "1000", PASS),
        ("1.5E-2", "0.015", PASS),
        ("12.0", "12", PASS),
        ("**18**", "18", PASS),
        ("0.30000000000000004", "0.3", FAIL),
        ("none at all", "5", FAIL),
        ("", "5", FAIL),
        ("5", "no number", UNSCORED),
    ],
)
def test_numbers(output, expected, result):
    assert graded("numeric", output, expected) == result


@pytest.mark.parametrize(
    ("spec", "output", "expected", "result"),
    [
        ("numeric:tolerance=0.01", "3.15", "3.14", PASS),
        ("numeric:tolerance=0.01", "3.1500001", "3.14", FAIL),
        ("numeric:tolerance=0.2", "0.3", "0.1", PASS),
        ("numeric:rel=0.1", "110", "100", PASS),
        ("numeric:rel=0.1", "110.1", "100", FAIL),
        ("numeric:rel=0.1", "-90", "-100", PASS),
        ("numeric:rel=0.1", "0.1", "0", FAIL),
        ("numeric:rel=0.01,tolerance=5", "104", "100", PASS),
        ("numeric:rel=0.1,tolerance=5", "108", "100", PASS),
    ],
)
def test_numbers_need_not_be_exact(spec, output, expected, result):
    assert graded(spec, output, expected) == result


@pytest.mark.parametrize(
    ("output", "expected", "result"),
    [
        ("B", "B", PASS),
        ("b", "B", UNSCORED),
        ("(B)", "B", PASS),
        ("**B**", "B", PASS),
        ("B.", "(B)", PASS),
        ("B) Paris", "B", PASS),
        ("The answer is (C).", "C", PASS),
        ("the answer is c", "C", PASS),
        ("Answer: **D**", "D", PASS),
        ("I first took option A, but the answer is B.", "B", PASS),
        ("I think the answer is B", "A", FAIL),
        ("The answer is a number that nobody knows.", "A", UNSCORED),
        ("The answer is A because it fits.", "A", PASS),
        ("A) one\nB) two", "A", UNSCORED),
        ("No idea.", "A", UNSCORED),
        ("A", "Paris", UNSCORED),
    ],
)
def test_choices(output, expected, result):
    assert graded("choice", output, expected) == result


@pytest.mark.parametrize("spec", ["exact", "exact:strict=true", "includes", "numeric", "choice"])
def test_without_expected_answer_unscored(spec):
    verdict = parse_grader(spec).grade("A 5", None)
    assert (verdict.outcome, verdict.score, verdict.passed) == UNSCORED
    assert verdict.reasoning


def test_catastrophic_pattern_leaves_the_answer_unscored():
    verdict = parse_grader("regex:pattern=^(a|aa)+$").grade("a" * 200 + "b", None)
    assert (verdict.outcome, verdict.score, verdict.passed) == UNSCORED
    assert "too long" in verdict.reasoning


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        ("exact", "exact"),
        (" exact ", "exact"),
        ("exact:strict=false", "exact"),
        ("exact:strict=true,articles=false", "exact:articles=false,strict=true"),
        ("numeric:tolerance=0.0", "numeric"),
        ("numeric: tolerance = 0.01 , rel=0.1", "numeric:rel=0.1,tolerance=0.01"),
        ("numeric:tolerance=1,tolerance=0", "numeric"),
        ("regex:case=false,pattern=a,b", "regex:case=false,pattern=a,b"),
        ("regex:case=true,pattern=a", "regex:pattern=a"),
    ],
)
def test_canonical(spec, canonical):
    assert parse_grader(spec).spec == canonical


@pytest.mark.parametrize("spec", ["", "exat", "Exact", "bleu:n=4"])
def test_unknown_grader_names_those_that_there_are(spec):
    with pytest.raises(GraderUnknown) as caught:
        parse_grader(spec)
    assert all(name in caught.value.hint for name in ("exact", "includes", "regex", "numeric", "choice"))
    assert repr(spec.partition(":")[0]) in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("spec", "named", "listed"),
    [
        ("exact:strct=true", "strct", ("strict", "punctuation", "articles")),
        ("numeric:abs=1", "abs", ("tolerance", "rel")),
        ("includes:pattern=a", "pattern", ("case",)),
        ("choice:case=true", "case", ("none",)),
    ],
)
def test_unknown_option_names_those_that_there_are(spec, named, listed):
    with pytest.raises(GraderOption) as caught:
        parse_grader(spec)
    assert repr(named) in caught.value.message
    assert all(one in caught.value.hint for one in listed)


@pytest.mark.parametrize(
    "spec",
    [
        "exact:strict=perhaps",
        "exact:strict",
        "numeric:tolerance=-1",
        "numeric:tolerance=nan",
        "numeric:rel=inf",
        "numeric:tolerance=a bit",
        "regex",
        "regex:case=false",
        "regex:pattern=(",
    ],
)
def test_values_that_do_not_fit_are_refused(spec):
    with pytest.raises(GraderOption) as caught:
        parse_grader(spec)
    assert caught.value.hint


_FLAGS = st.sampled_from(["true", "false", "yes", "no", "1", "0", "True"])
_AMOUNTS = st.decimals(min_value=0, max_value=10**6, places=4).map(str)
_SPECS = st.one_of(
    st.lists(st.tuples(st.sampled_from(["strict", "punctuation", "articles"]), _FLAGS)).map(lambda pairs: ("exact", pairs)),
    st.lists(st.tuples(st.just("case"), _FLAGS)).map(lambda pairs: ("includes", pairs)),
    st.lists(st.tuples(st.sampled_from(["tolerance", "rel"]), _AMOUNTS)).map(lambda pairs: ("numeric", pairs)),
    st.tuples(_FLAGS, st.text(alphabet="ab,=:. |^$")).map(lambda told: ("regex", [("case", told[0]), ("pattern", told[1])])),
    st.just(("choice", [])),
)


@given(_SPECS)
def test_canonical_spec_is_stable_and_means_the_same(parts):
    name, pairs = parts
    spec = name + (":" + ",".join(f"{option}={value}" for option, value in pairs) if pairs else "")
    first = parse_grader(spec)
    again = parse_grader(first.spec)
    assert again.spec == first.spec
    for output in ("A", "a 1.5", "The a, b!", "2", "a,b"):
        assert again.grade(output, "the A 2") == first.grade(output, "the A 2")


@given(st.integers())
@example(-(10**28) - 1)
def test_any_whole_number_with_thousands_signs(number):
    assert graded("numeric", f"{number:,}", str(number)) == PASS
    assert graded("numeric", str(number), f"so it is {number:,}.") == PASS
    assert graded("numeric", f"{number + 1:,}", str(number)) == FAIL


def test_every_answer_of_gsm8k_passes_against_its_own_number():
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 1319
    grader = parse_grader("numeric")
    missed = [row["answer"] for row in rows if not grader.grade(row["answer"], row["answer"].split("####")[1].strip()).passed]
    assert missed == []


def test_one_value_has_one_spelling():
    for one, other in (("numeric:tolerance=0.10", "numeric:tolerance=.1"), ("exact:strict=yes", "exact:strict=True")):
        assert parse_grader(one).spec == parse_grader(other).spec
