"""What the Prefect UI shows of a run: short tables of texts, escaped, without anything that a model wrote."""

from __future__ import annotations

from typing import Any

from byok.billing import TwoBills
from byok.money import ecu, plain
from byok.registry import Checked
from byok.reporting import RunSummary
from byok.runs import Finished
from byok.text import markdown, visible
from byok.warehouse import Queries


def _text(value: object) -> str:
    """A cell of an artifact table; None is a dash."""
    return "-" if value is None else " ".join(visible(str(value)).split())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def summary_markdown(summary: RunSummary, finished: Finished) -> str:
    """The run in a page of markdown."""
    lines = [
        f"# Run {finished.run_id}",
        "",
        f"**{finished.status}** · model {markdown(summary.model_key)} · data set {markdown(summary.dataset_name)}",
        "",
        "| grader | score | 95 % interval | planned | answered | empty | refused | failed | unscored |",
        "| --- | --: | --- | --: | --: | --: | --: | --: | --: |",
    ]
    lines += [
        f"| {markdown(score.grader)} | {_number(score.score)} | {_number(score.low)} to {_number(score.high)} | {score.planned} |"
        f" {score.answered} | {score.empty} | {score.refused} | {score.failed} | {score.unscored} |"
        for score in summary.scores
    ]
    if finished.below:
        lines += ["", "Below the threshold: " + ", ".join(map(markdown, finished.below))]
    return "\n".join(lines)


def leaderboard_rows(results: Queries, org_id: str, summary: RunSummary) -> list[dict[str, Any]]:
    """Runs over the same version of the data set, best first within each grader."""
    found = results.query(
        "SELECT grader, model_key, score, low, high, run_id FROM v1.leaderboard "
        "WHERE org_id = ? AND dataset_version = ? ORDER BY grader, score DESC NULLS LAST, run_id LIMIT 100",
        [org_id, summary.dataset_version],
    )
    return [
        {
            "grader": _text(grader),
            "model": _text(model),
            "score": _number(score),
            "low": _number(low),
            "high": _number(high),
            "run": str(run_id),
        }
        for grader, model, score, low, high, run_id in found.rows
    ]


def bill_rows(bills: TwoBills) -> list[dict[str, Any]]:
    """Both bills, line by line; an unknown amount says so."""
    return [
        {
            "bill": "provider" if line.plane == "provider" else "platform",
            "role": line.role,
            "model": _text(line.model_key),
            "what": line.sku,
            "quantity": _text(line.quantity),
            "USD": "" if line.plane != "provider" else "unknown" if line.amount_usd is None else plain(line.amount_usd),
            "ECU": "" if line.plane != "ecu" else "unknown" if line.amount_micro_ecu is None else ecu(line.amount_micro_ecu),
        }
        for line in bills.lines
    ]


def health_rows(checked: list[Checked]) -> list[dict[str, Any]]:
    """How each model was found, those that fail first."""
    return [
        {
            "model": _text(one.key),
            "answers": "yes" if one.ok else "no",
            "health": one.health,
            "failures in a row": one.failures,
            "error": _text(one.error_code),
            "ms": "-" if one.latency_ms is None else f"{one.latency_ms:.0f}",
        }
        for one in sorted(checked, key=lambda one: (one.ok, one.key))
    ]
