"""How estimates are shown."""

from __future__ import annotations

from rich.console import Console

from byok.cli.output import table
from byok.money import ecu
from byok.runs import Estimate


def draw_estimate(out: Console, worst: Estimate) -> None:
    """The worst case of a run on both bills, and how it was reckoned."""
    rows = [
        (line.role, line.model_key, line.requests, line.prompt_tokens, line.completion_tokens, line.usd, ecu(line.micro_ecu), line.reckoned)
        for line in worst.lines
    ]
    columns = ("for", "model", "requests", "prompt tokens", "answer tokens", "USD", "ECU", "how it was reckoned")
    out.print(table(columns, rows, title="worst case"))
    out.print(worst.in_words())
    for remark in worst.remarks:
        out.print(f"- {remark}")
