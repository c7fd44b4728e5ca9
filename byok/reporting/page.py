"""The report page of a run: one file, nothing fetched, nothing that a model wrote is ever markup."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from byok.billing import two_bills
from byok.money import ecu, plain
from byok.reporting.plots import cost_plot, latency_plot, scores_plot
from byok.reporting.summary import run_summary
from byok.text import visible
from byok.warehouse import Warehouse

MAX_ROWS = 2000
"""Rows on the page; more would be slow to read and to load. The rest is a query away."""

MAX_TEXT = 4000
"""Characters of one text on the page."""

GENERATOR = "byok report"
"""What a page says that it was made by, near its top: so that a later page may take its place."""

_TEMPLATES = Path(__file__).parent / "templates"

_SAMPLES = """
SELECT s.sample_id, s.row_number, s.row_id, s.status, s.input, s.expected, s.output, s.error_code, s.latency_ms, s.prompt_tokens,
    s.completion_tokens, c.usd
FROM v1.samples s LEFT JOIN (
    SELECT a.sample_id, CASE WHEN count(*) FILTER (WHERE corrects IS NULL) = count(amount_usd) THEN sum(amount_usd) END AS usd
    FROM v1.charges ch JOIN v1.attempts a ON a.org_id = ch.org_id AND a.attempt_id = ch.attempt_id
    WHERE ch.org_id = $org AND ch.run_id = $run AND ch.plane = 'provider' AND ch.role = 'candidate' GROUP BY a.sample_id
) c ON c.sample_id = s.sample_id
WHERE s.org_id = $org AND s.run_id = $run ORDER BY s.row_number, s.sample_id LIMIT $most
"""
_VERDICTS = """
SELECT sample_id, grader, outcome, score, passed, label, reasoning
FROM v1.verdicts WHERE org_id = $org AND run_id = $run AND sample_id IN (
    SELECT sample_id FROM v1.samples WHERE org_id = $org AND run_id = $run ORDER BY row_number, sample_id LIMIT $most
) ORDER BY kind, grader
"""
_LATENCIES = "SELECT latency_ms FROM v1.samples WHERE org_id = $org AND run_id = $run AND latency_ms IS NOT NULL"
_COSTS = """
SELECT CAST(sum(ch.amount_usd) AS DOUBLE) AS usd
FROM v1.charges ch JOIN v1.attempts a ON a.org_id = ch.org_id AND a.attempt_id = ch.attempt_id
WHERE ch.org_id = $org AND ch.run_id = $run AND ch.plane = 'provider' AND ch.role = 'candidate' AND a.sample_id IS NOT NULL
GROUP BY a.sample_id HAVING count(*) FILTER (WHERE ch.corrects IS NULL) = count(ch.amount_usd)
"""
_COUNT = "SELECT count(*) FROM v1.samples WHERE org_id = $org AND run_id = $run"


def report_page(warehouse: Warehouse, org_id: str, run_id: str) -> str:
    """The report page of a run as HTML.

    Raises:
        RunNotFound: The organisation has no such run.
    """
    summary = run_summary(warehouse, org_id, run_id)
    who: Any = {"org": org_id, "run": run_id}
    few = who | {"most": MAX_ROWS}  # texts are long: only those that are shown are read
    samples = warehouse.query(_SAMPLES, few).dicts()
    verdicts: dict[str, list[dict[str, Any]]] = {}
    for verdict in warehouse.query(_VERDICTS, few).dicts():
        verdicts.setdefault(verdict["sample_id"], []).append(verdict)
    for sample in samples:
        sample["verdicts"] = verdicts.get(sample["sample_id"], [])
        sample["result"] = _result(sample)
    script, style = (_asset(name) for name in ("report.js", "report.css"))
    plots = [
        scores_plot(summary.scores),
        latency_plot([latency for (latency,) in warehouse.query(_LATENCIES, who).rows]),
        cost_plot([cost for (cost,) in warehouse.query(_COSTS, who).rows]),
    ]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            bills=two_bills(warehouse, org_id, run_id),
            samples=samples,
            scales={score.grader for score in summary.scores if score.metric == "mean"},
            all_samples=warehouse.query(_COUNT, who).rows[0][0],
            # Only SVG that we have drawn ourselves is let through as markup; all texts in it come from our own numbers and grader names,
            # which the renderer escapes.
            plots=[Markup(plot) for plot in plots if plot],
            generator=GENERATOR,
            script=Markup(script),
            style=Markup(style),
            script_hash=_hash(script),
            style_hash=_hash(style),
        )
    )


def _result(sample: dict[str, Any]) -> str:
    """What the row's filter goes by: passed, not passed, or how it ended otherwise."""
    if sample["status"] != "answered":
        return str(sample["status"])
    known = [verdict["passed"] for verdict in sample["verdicts"] if verdict["passed"] is not None]
    if not known:
        return "unscored"
    return "passed" if all(known) else "not passed"


def is_page(path: Path) -> bool:
    """Whether a file is a report page that we wrote (of whatever run); False when it cannot be read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError:
        return False
    return head.startswith(b"<!doctype html>") and f'<meta name="generator" content="{GENERATOR}">'.encode() in head


@cache
def _asset(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The hash by which the page's content security policy lets this very text through."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(value: object) -> str:
    """Any value as text: None is a dash, long texts are cut and say so."""
    if value is None:
        return "–"
    text = visible(str(value))
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} … ({len(text)} characters)"


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {
        "text": _text,
        "number": _number,
        "score": lambda value: _number(value).rstrip("0").rstrip("."),
        "count": lambda value: "–" if value is None else f"{value:,}",
        "usd": lambda value: "unknown" if value is None else plain(value),
        "ecu": lambda value: "unknown" if value is None else ecu(value),
    }
    return made
