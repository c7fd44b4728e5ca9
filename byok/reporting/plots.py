"""The plots of the report page, as static SVG: no script, no outside request, sharp in print."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from byok.reporting.summary import Score
from byok.text import visible

_CONFIG = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    # The page sets `color`, in light and in dark.
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "gridColor": "#8884",
        "domainColor": "#8888",
        "tickColor": "#8888",
    },
    "view": {"stroke": None},
    "title": {"color": "currentColor", "anchor": "start", "fontSize": 13},
}
_WIDTH, _HEIGHT = 420, 200
_INK = "#3b7dd8"
_MAX_BARS = 30


def _svg(chart: Any) -> str:
    import vl_convert

    return str(vl_convert.vegalite_to_svg(chart.configure(**_CONFIG).to_dict(), vl_version="6.4"))


def _chart(values: list[dict[str, Any]], title: str) -> Any:
    import altair

    data = altair.Data(values=values)  # type: ignore[no-untyped-call]
    return altair.Chart(data, title=title, width=_WIDTH, height=_HEIGHT)


def _count(title: str) -> Any:
    import altair

    return altair.Y(
        "count:Q", title=title, axis=altair.Axis(labelExpr="datum.value % 1 ? '' : format(datum.value, ',d')")
    )  # there are no halves of rows


def scores_plot(scores: tuple[Score, ...]) -> str | None:
    """Pass rates with their 95 % intervals; None when there are none."""
    import altair

    values = [
        {"grader": visible(score.grader), "score": score.score, "low": score.low, "high": score.high}
        for score in scores
        if score.metric == "pass_rate" and score.score is not None
    ]
    if not values:
        return None
    base = _chart(values, "Pass rate, 95 % interval").encode(y=altair.Y("grader:N", title=None))
    scale = altair.Scale(domain=[0, 1])
    bars = base.mark_rule(strokeWidth=3, color=_INK, opacity=0.5).encode(x=altair.X("low:Q", title=None, scale=scale), x2="high:Q")
    points = base.mark_point(filled=True, size=90, color=_INK, opacity=1).encode(x=altair.X("score:Q", scale=scale))
    return _svg((bars + points).properties(height=max(60, 36 * len(values)), width=_WIDTH))


def latency_plot(latencies: list[float]) -> str | None:
    """How latencies are spread; None when nothing was answered."""
    if not latencies:
        return None
    return _svg(_bars(latencies, "Latency of the answers", "milliseconds", "answers", _INK))


def cost_plot(costs: list[float]) -> str | None:
    """Known provider cost per row, for display only; None when no cost is known."""
    if not costs:
        return None
    thousandths = [cost * 1000 for cost in costs]
    return _svg(_bars(thousandths, "Provider cost of a row", "thousandths of a US dollar", "rows", "#c7762b"))


def _bars(values: list[float], title: str, what: str, counted: str, colour: str) -> Any:
    import altair

    x = altair.X("low:Q", bin="binned", title=what, axis=altair.Axis(labelOverlap="greedy", labelSeparation=8))
    return _chart(histogram(values), title).mark_bar(color=colour).encode(x=x, x2="high:Q", y=_count(counted))


def histogram(values: Iterable[float]) -> list[dict[str, float]]:
    """At most 30 bars of one round width: `low` (in the bar), `high` (not in it), `count`.

    Altair checks each value of its data against a schema, some 0.2 ms apiece, so it is given the bars and not the values.
    """
    values = list(values)
    least, most = min(values), max(values)
    width = _round_up((most - least) / (_MAX_BARS - 1) or most / _MAX_BARS or 1.0)
    counts = Counter(math.floor(value / width) for value in values)
    return [{"low": bar * width, "high": (bar + 1) * width, "count": count} for bar, count in sorted(counts.items())]


def _round_up(width: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50, … times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= width or step == 10)
