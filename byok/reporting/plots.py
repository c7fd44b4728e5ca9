"""The plots of the report page, as static SVG: no script, no outside request, sharp in print."""

from __future__ import annotations

from typing import Any

from byok.reporting.summary import Score

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


def _svg(chart: Any) -> str:
    import vl_convert

    return str(vl_convert.vegalite_to_svg(chart.configure(**_CONFIG).to_dict(), vl_version="6.4"))


def _chart(values: list[dict[str, Any]], title: str) -> Any:
    import altair

    data = altair.Data(values=values)  # type: ignore[no-untyped-call]
    return altair.Chart(data, title=title, width=_WIDTH, height=_HEIGHT)


def scores_plot(scores: tuple[Score, ...]) -> str | None:
    """Pass rates with their 95 % intervals; None when there are none."""
    import altair

    values = [
        {"grader": score.grader, "score": score.score, "low": score.low, "high": score.high}
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
    import altair

    if not latencies:
        return None
    chart = _chart([{"ms": value} for value in latencies], "Latency of the answers").mark_bar(color=_INK)
    return _svg(chart.encode(x=altair.X("ms:Q", bin=altair.Bin(maxbins=30), title="milliseconds"), y=altair.Y("count()", title="answers")))


def cost_plot(costs: list[float]) -> str | None:
    """Known provider cost per row, for display only; None when no cost is known."""
    import altair

    if not costs:
        return None
    chart = _chart([{"usd": value * 1000} for value in costs], "Provider cost of a row").mark_bar(color="#c7762b")
    return _svg(
        chart.encode(
            x=altair.X("usd:Q", bin=altair.Bin(maxbins=30), title="thousandths of a US dollar"), y=altair.Y("count()", title="rows")
        )
    )
