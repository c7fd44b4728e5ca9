"""Intervals against published values."""

import pytest

from byok.grading import mean_interval, pass_rate_interval


@pytest.mark.parametrize(
    ("passed", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_newcombe_1998_table_1_method_3(passed, n, low, high):
    found = pass_rate_interval(passed, n)
    assert found.score == passed / n
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert found.method == "wilson"


@pytest.mark.parametrize(("passed", "n"), [(0, 1), (1, 1), (0, 3), (3, 3), (50, 100)])
def test_wilson_stays_within_bounds_and_holds_the_rate(passed, n):
    found = pass_rate_interval(passed, n)
    assert 0 <= found.low <= passed / n <= found.high <= 1
    assert found.low < found.high


def test_wilson_is_symmetric():
    some, others = pass_rate_interval(3, 17), pass_rate_interval(14, 17)
    assert (some.low, some.high) == pytest.approx((1 - others.high, 1 - others.low))


def test_t_against_a_table():
    # Mean 3, s = sqrt(2.5); t(0.975, 4) = 2.776445 in every table.
    found = mean_interval([1, 2, 3, 4, 5])
    half = 2.776445 * (2.5 / 5) ** 0.5
    assert (found.score, found.method) == (3, "t")
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), abs=1e-6)


@pytest.mark.parametrize(("passed", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (7, 11), (1793, 2000), (1, 1_000_000)])
def test_wilson_against_scipy(passed, n):
    from scipy.stats import binomtest

    expected = binomtest(passed, n).proportion_ci(0.95, method="wilson")
    found = pass_rate_interval(passed, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_t_against_scipy():
    from scipy import stats

    scores = [4.0, 5.0, 2.0, 4.0, 1.0, 3.0, 3.5]
    low, high = stats.t.interval(0.95, len(scores) - 1, loc=sum(scores) / len(scores), scale=stats.sem(scores))
    found = mean_interval(scores)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_equal_scores_have_an_interval_of_no_width():
    found = mean_interval([2.0, 2.0, 2.0])
    assert (found.score, found.low, found.high) == (2.0, 2.0, 2.0)


def test_nothing_scored():
    for found in (pass_rate_interval(0, 0), mean_interval([])):
        assert (found.score, found.low, found.high, found.method) == (None, None, None, "none")


def test_one_score_has_a_mean_and_no_interval():
    found = mean_interval([3.0])
    assert (found.score, found.low, found.high, found.method) == (3.0, None, None, "none")
