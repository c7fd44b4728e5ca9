"""The bars of the plots, and hostile names in them."""

from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.reporting import Score
from byok.reporting.plots import cost_plot, histogram, latency_plot, scores_plot

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def score(grader, **other):
    values = {"score": 0.5, "low": 0.4, "high": 0.6, "metric": "pass_rate"} | other
    counts = {"planned": 9, "answered": 9, "empty": 0, "refused": 0, "failed": 0, "unscored": 0, "scored": 9, "worst": 0.5, "best": 0.5}
    return Score(grader=grader, kind="code", method="wilson", **values, **counts)


@given(st.lists(st.floats(0, 1e7).map(lambda value: round(value, 9)), min_size=1, max_size=200))
def test_every_value_is_in_one_of_at_most_thirty_bars(values):
    bars = histogram(values)
    assert 1 <= len(bars) <= 30
    assert sum(bar["count"] for bar in bars) == len(values)
    assert all(bar["count"] > 0 for bar in bars)
    assert [bar["low"] for bar in bars] == sorted(bar["low"] for bar in bars)
    slack = 1e-9 * max(values) + 1e-12
    assert bars[0]["low"] <= min(values) + slack
    assert bars[-1]["high"] >= max(values) - slack


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([0.0], [(0, 1, 1)]),
        ([0.0, 0.0], [(0, 1, 2)]),
        ([1.0, 30.0], [(1, 2, 1), (30, 31, 1)]),
        ([0.0, 58.0, 59.0], [(0, 5, 1), (55, 60, 2)]),
        ([60.0] * 3, [(60, 62, 3)]),
    ],
)
def test_bars_are_of_round_width(values, bars):
    assert [(bar["low"], bar["high"], bar["count"]) for bar in histogram(values)] == bars


def test_nothing_to_draw_gives_no_plot():
    assert scores_plot(()) is None
    assert scores_plot((score("one", score=None, low=None, high=None), score("two", metric="mean", score=4.0))) is None
    assert latency_plot([]) is None
    assert cost_plot([]) is None


@pytest.mark.parametrize("plot", [latency_plot([1.0, 2.0, 900.0]), latency_plot([5.0]), cost_plot([0.0, 0.0]), cost_plot([1e-9])])
def test_plots_are_pictures_and_nothing_else(plot):
    root = ElementTree.fromstring(plot)
    assert root.tag.endswith("}svg")
    assert not [
        element.tag for element in root.iter() if element.tag.rpartition("}")[2] in ("script", "style", "image", "foreignObject", "a")
    ]
    assert not [
        name for element in root.iter() for name in element.attrib if name.startswith("on") or name.endswith("href") or name == "style"
    ]


def test_a_hostile_grader_is_text_in_the_plot():
    names = ["regex:</text><script>alert(1)</script>", "regex:\u202eword\u2069", "regex:\x1b[31m"]
    plot = scores_plot(tuple(score(name) for name in names))
    root = ElementTree.fromstring(plot)
    assert not [element.tag for element in root.iter() if element.tag.endswith("script")]
    assert not set("\u202e\u2069\x1b") & set(plot)
