"""The specification of `embedding_similarity`, and the verdict on the vectors that come."""

import math
from decimal import Decimal

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.endpoint import Embeddings, Usage
from byok.grading import GraderOption, no_reference, parse_grader, similarity


def embeddings(*vectors):
    return Embeddings(
        vectors=tuple(tuple(map(float, vector)) for vector in vectors),
        usage=Usage(),
        latency_ms=1.0,
        request_id=None,
        http_status=200,
        encoding="float",
    )


@pytest.mark.parametrize(
    ("spec", "canonical", "threshold", "dimensions"),
    [
        ("embedding_similarity:model=emb", "embedding_similarity:model=emb", "0.8", None),
        ("embedding_similarity:threshold=0.80,model=emb", "embedding_similarity:model=emb", "0.8", None),
        ("embedding_similarity:model=emb,threshold=0.9", "embedding_similarity:model=emb,threshold=0.9", "0.9", None),
        ("embedding_similarity:model=emb,threshold=9e-1", "embedding_similarity:model=emb,threshold=0.9", "0.9", None),
        ("embedding_similarity: threshold=.25 , model = emb", "embedding_similarity:model=emb,threshold=0.25", "0.25", None),
        ("embedding_similarity:model=emb,threshold=-1", "embedding_similarity:model=emb,threshold=-1", "-1", None),
        ("embedding_similarity:model=emb,threshold=1", "embedding_similarity:model=emb,threshold=1", "1", None),
        ("embedding_similarity:model=emb,threshold=-0", "embedding_similarity:model=emb,threshold=0", "0", None),
        ("embedding_similarity:model=e-1,dimensions=0256", "embedding_similarity:dimensions=256,model=e-1", "0.8", 256),
        ("embedding_similarity:model=a,model=b", "embedding_similarity:model=b", "0.8", None),
    ],
)
def test_what_it_asks_for(spec, canonical, threshold, dimensions):
    grader = parse_grader(spec)
    assert grader.spec == canonical == parse_grader(canonical).spec
    assert (grader.embeds.threshold, grader.embeds.dimensions) == (Decimal(threshold), dimensions)
    assert grader.embeds.model == canonical.split("model=")[1].split(",")[0]


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("embedding_similarity", "needs a model"),
        ("embedding_similarity:threshold=0.5", "needs a model"),
        ("embedding_similarity:model=", "model=''"),
        ("embedding_similarity:model=Not A Key", "model='Not A Key'"),
        ("embedding_similarity:model=../plan", "model='../plan'"),
        ("embedding_similarity:model=emb,threshold=1.01", "threshold='1.01'"),
        ("embedding_similarity:model=emb,threshold=-2", "threshold='-2'"),
        ("embedding_similarity:model=emb,threshold=0.1234567", "threshold='0.1234567'"),
        ("embedding_similarity:model=emb,threshold=1e-999999", "threshold='1e-999999'"),
        ("embedding_similarity:model=emb,threshold=nan", "threshold='nan'"),
        ("embedding_similarity:model=emb,threshold=sNaN", "threshold='sNaN'"),
        ("embedding_similarity:model=emb,threshold=-inf", "threshold='-inf'"),
        ("embedding_similarity:model=emb,threshold=high", "threshold='high'"),
        ("embedding_similarity:model=emb,dimensions=0", "dimensions='0'"),
        ("embedding_similarity:model=emb,dimensions=-8", "dimensions='-8'"),
        ("embedding_similarity:model=emb,dimensions=65537", "dimensions='65537'"),
        ("embedding_similarity:model=emb,dimensions=1.5", "dimensions='1.5'"),
        ("embedding_similarity:model=emb,dimensions=" + "9" * 5000, "dimensions="),
        ("embedding_similarity:model=emb,metric=l2", "'metric'"),
        ("embedding_similarity:emb", "'emb'"),
    ],
)
def test_what_it_does_not_take(spec, named):
    with pytest.raises(GraderOption) as caught:
        parse_grader(spec)
    assert named in caught.value.message and caught.value.hint
    assert caught.value.fields["grader"] == "embedding_similarity"


@given(
    st.permutations(["model", "threshold", "dimensions"]),
    st.decimals(min_value=-1, max_value=1, places=6),
    st.integers(min_value=1, max_value=65_536),
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
)
def test_any_order_means_the_same_grader(order, threshold, dimensions, key):
    told = {"model": key, "threshold": threshold, "dimensions": dimensions}
    grader = parse_grader("embedding_similarity:" + ",".join(f"{name}={told[name]}" for name in order))
    assert parse_grader(grader.spec) == grader == parse_grader("embedding_similarity:" + ",".join(f"{n}={v}" for n, v in told.items()))
    assert vars(grader.embeds) == told


def test_graders_that_ask_nobody_have_no_model_and_this_one_grades_nothing_by_itself():
    assert [parse_grader(spec).embeds for spec in ("exact", "includes", "regex:pattern=a", "numeric", "choice")] == [None] * 5
    for expected in ("2", None):
        with pytest.raises(ValueError, match="asks an endpoint"):
            parse_grader("embedding_similarity:model=emb").grade("2", expected)


@pytest.mark.parametrize(("expected", "reason"), [(None, "no expected answer"), ("", "is empty"), (" \n", "is empty")])
def test_there_must_be_something_to_compare_with(expected, reason):
    verdict = no_reference(expected)
    assert (verdict.outcome, verdict.score, verdict.passed) == ("unscored", None, None) and reason in verdict.reasoning


def test_an_expected_answer_is_compared_with():
    assert no_reference("0") is None


@pytest.mark.parametrize(
    ("vectors", "threshold", "score", "passed"),
    [
        (([1, 0], [1, 0]), "1", 1.0, True),
        (([1, 0], [0, 2]), "0", 0.0, True),
        (([1, 0], [0, 2]), "0.000001", 0.0, False),
        (([1, 2], [-1, -2]), "-1", -1.0, True),
        (([3, 4], [4, 3]), "0.96", 0.96, True),
        (([3, 4], [4, 3]), "0.960001", 0.96, False),
    ],
)
def test_the_score_is_the_cosine_and_passes_at_the_threshold(vectors, threshold, score, passed):
    verdict = similarity(embeddings(*vectors), Decimal(threshold), None)
    assert (verdict.outcome, verdict.passed, verdict.label) == ("ok", passed, None)
    assert verdict.score == pytest.approx(score, abs=1e-15)


_NUMBERS = st.floats(min_value=-1000, max_value=1000, width=32)


@given(st.integers(min_value=1, max_value=40).flatmap(lambda n: st.tuples(*[st.lists(_NUMBERS, min_size=n, max_size=n)] * 2)))
def test_the_cosine_is_numpys(vectors):
    one, other = (numpy.array(vector, dtype=float) for vector in vectors)
    sizes = numpy.linalg.norm(one) * numpy.linalg.norm(other)
    verdict = similarity(embeddings(*vectors), Decimal("0.8"), None)
    if not sizes:
        assert verdict.outcome == "unscored"
    else:
        assert -1 <= verdict.score <= 1
        assert verdict.score == pytest.approx(float(one @ other / sizes), abs=1e-9)


@given(st.lists(_NUMBERS.filter(lambda number: abs(number) > 1e-30), min_size=1, max_size=200))
def test_equal_vectors_reach_a_threshold_of_one_in_spite_of_rounding(vector):
    verdict = similarity(embeddings(vector, vector), Decimal(1), None)
    assert verdict.passed and math.isclose(verdict.score, 1, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("vectors", "dimensions", "reason"),
    [
        (([0, 0], [1, 0]), None, "zero"),
        (([1, 0], [0, 0]), None, "zero"),
        (([0.0], [-0.0]), 1, "zero"),
        (([1, 0, 0], [1, 0, 0]), 2, "3 dimensions came, and 2 were asked for"),
        (([1, 0], [1, 0]), 256, "2 dimensions came, and 256 were asked for"),
    ],
)
def test_vectors_that_cannot_be_compared_leave_the_answer_unscored(vectors, dimensions, reason):
    verdict = similarity(embeddings(*vectors), Decimal("0.5"), dimensions)
    assert (verdict.outcome, verdict.score, verdict.passed) == ("unscored", None, None) and reason in verdict.reasoning
