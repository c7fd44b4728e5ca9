"""`byok bill reconcile`: a provider's own usage export against what was recorded."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from rich.console import Console

from byok.access import BILLING_READ, require
from byok.app import open_services
from byok.cli.output import Json, emit, table
from byok.money import plain
from byok.statements import Month
from byok.statements.reconcile import MEASURES, TEXTS, Line, Reconciliation, parse_map
from byok.statements.reconcile import reconcile as compare_file
from byok.text import visible


def reconcile(file: Path, /, *, model: str | None = None, map: str | None = None, month: str | None = None, json: Json = False) -> int:
    """Compare a provider's own usage export with what was recorded, by day (UTC) and model; nothing is stored.

    Leaves with 1 when there is a difference that nothing accounts for.

    Args:
        file: The export: CSV, JSON, JSONL or Parquet. The layouts of OpenAI, Anthropic and OpenRouter are known; others are guessed.
        model: Key of the one model to compare; of the file, the rows of that model.
        map: Which column means what: day=Date,model=Model,input=In+Cached,output=Out,requests=Calls,cost=USD; + adds columns up.
        month: Only this month, YYYY-MM.
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    require(services.actor, BILLING_READ, "bill.reconcile")
    mapping = {} if map is None else parse_map(map)
    asked = None if month is None else Month.parse(month)
    with services.warehouse.reading() as results:
        found = compare_file(results, services.actor.org_id, file, mapping=mapping, key=model, month=asked)
    emit({"reconciliation": found.as_dict()}, json=json, human=lambda out: _draw(out, found))
    return 0 if found.explained else 1


def _draw(out: Console, found: Reconciliation) -> None:
    rows = [
        (str(line.day), line.model, *(_both(line, name) for name in MEASURES), ", ".join(line.explanations) or "ties")
        for line in found.lines
    ]
    title = f"{found.first} to {found.last} (UTC), recorded → told; columns: {found.layout}"
    out.print(table(("day", "model", "requests", "input tokens", "output tokens", "USD", "why"), rows, title=title))
    for name in dict.fromkeys(name for line in found.lines for name in line.explanations):
        print(f"{name}: {visible(TEXTS[name])}")
    differing = [line for line in found.lines if line.differs]
    unexplained = [line for line in differing if not line.explained]
    print(f"{len(found.lines)} lines, {len(differing)} differ, {len(unexplained)} of them unexplained")


def _both(line: Line, measure: str) -> str:
    told = None if line.told is None else getattr(line.told, measure)
    ours = getattr(line.recorded, measure) if line.recorded else 0
    shown = [plain(one) if isinstance(one, Decimal) else str(one) for one in (ours, told)]
    if told is None:
        return shown[0]
    return shown[0] if ours == told else f"{shown[0]} → {shown[1]}"
