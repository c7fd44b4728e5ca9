"""How probes are shown: what they look at while they do, what they found, and what that cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from byok.cli.output import note, table
from byok.endpoint import ProbeResult
from byok.endpoint.capabilities import Capability, declared
from byok.endpoint.probing.budget import LIMIT
from byok.registry.models import Model
from byok.registry.probing import Progress, silent


@contextmanager
def watching(*, quiet: bool) -> Iterator[Progress]:
    """While this lasts, a line on a terminal says what a probe looks at; elsewhere nothing does."""
    out = Console(stderr=True, markup=False, highlight=False, emoji=False)
    if quiet or not out.is_terminal:
        yield silent
        return
    with out.status("probing") as status:
        yield lambda what: status.update(f"probing: {what}")


def probe_dict(found: ProbeResult, tags: list[str]) -> dict[str, Any]:
    """The stable JSON shape of a probe."""
    claimed = declared(tags)
    return {
        "answers": True,
        "models_listed": found.models_listed,
        "latency_ms": found.latency_ms,
        "requests": len(found.attempts),
        "prompt_tokens": found.usage.prompt_tokens,
        "completion_tokens": found.usage.completion_tokens,
        "warnings": found.warnings,
        "full": found.full,
        "dimensions": found.dimensions,
        "ttft_ms": found.ttft_ms,
        "tokens": tokens_of(found),
        "token_limit": LIMIT if found.full else None,
        "capabilities": [one.as_dict() | {"declared": one.name in claimed} for one in found.capabilities or ()],
    }


def tokens_of(found: ProbeResult) -> int | None:
    """Tokens of all requests: of a full probe at most so many, where one did not say; of a basic one None then."""
    if found.spent is not None:
        return found.spent
    counts = [(one.usage.prompt_tokens, one.usage.completion_tokens) for one in found.attempts if one.status == "ok"]
    return None if any(None in pair for pair in counts) else sum(count or 0 for pair in counts for count in pair)


def draw_probe(out: Console, model: Model, found: ProbeResult) -> None:
    """The probe for people."""
    listed = {True: "listed", False: "not listed", None: "no models list"}[found.models_listed]
    print(f"{model.key} answers in {found.latency_ms:.0f} ms ({listed})")
    if found.capabilities is not None:
        out.print(_capabilities(found.capabilities, declared(model.tags)))
        exact = all(one.status == "error" or one.usage.usage_class == "reported" for one in found.attempts)
        print(f"{'' if exact else 'at most '}{found.spent} tokens in {len(found.attempts)} requests (a full probe takes at most {LIMIT})")
    for warning in found.warnings:
        note(f"warning: {warning}")


def _capabilities(found: tuple[Capability, ...], claimed: Any) -> Table:
    columns = ("capability", "outcome", "declared", "evidence", "ms")
    rows = [
        (
            one.name,
            one.outcome if one.value is None else f"{one.outcome} ({one.value})",
            "yes" if one.name in claimed else "",
            one.evidence,
            None if one.latency_ms is None else round(one.latency_ms),
        )
        for one in found
    ]
    return table(columns, rows)


def draw_stored(out: Console, model: Model) -> None:
    """What the last full probe of a model found, if there was one."""
    full = model.capabilities.get("full")
    if full:
        columns = ("capability", "outcome", "value", "declared", "evidence")
        claimed = declared(model.tags)
        rows = [(name, one["outcome"], one["value"], "yes" if name in claimed else "", one["evidence"]) for name, one in full.items()]
        out.print(table(columns, rows, title=f"capabilities of {model.key}"))
