"""`byok price`: what models cost, and charges whose price was not known."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from byok.access import BILLING_READ
from byok.app import Services, open_services
from byok.billing import apply_prices, how_to_price, rate_card, unpriced_charges
from byok.cli.output import Json, emit, note, table
from byok.cli.times import read_time
from byok.money import ecu, parse_usd, plain
from byok.pricing import Price, PriceEntry
from byok.registry.reporting import report_model
from byok.text import visible

app = App(name="price", help="Show and set what models cost, and price charges that had no price.")

_TYPES = ("input", "cached_input", "output", "reasoning")


@app.command
def show(model: str, /, *, at: str | None = None, prompt_tokens: int | None = None, json: Json = False) -> None:
    """Show the price of a model that is in force, where it comes from, and what the platform charges beside it.

    Args:
        model: Key of the model.
        at: A day (2026-11-01) or a time (2026-11-01T12:00Z), in the past or the future; now without it.
        prompt_tokens: Size of the prompt, by which some lists of prices have tiers.
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    when = datetime.now(UTC) if at is None else read_time(at, "--at")
    registered = services.registry.get(services.actor, model)
    price = services.prices.show(services.actor, model, when, prompt_tokens)
    card = rate_card(when)
    rates = card.inference(model) if registered.public else None
    shown = {
        "model": model,
        "at": when,
        **price.as_dict(),
        "ecu": {
            "rate_card": card.version,
            "judge_call": ecu(card.judge_call_micro_ecu(model)),
            "input_per_mtok": None if rates is None else rates.input,
            "output_per_mtok": None if rates is None else rates.output,
        },
    }

    def draw(out: Console) -> None:
        rows: list[tuple[object, ...]] = []
        if rates is None:
            rows += _price_rows(price)
        else:
            rows += [("input", rates.input, "ECU per million tokens"), ("output", rates.output, "ECU per million tokens")]
        rows.append(("judge call", ecu(card.judge_call_micro_ecu(model)), "ECU per call"))
        source = f"rate card {card.version}" if rates is not None else _SOURCES[price.source] + f" ({price.version})"
        out.print(table(("what", "price", "unit"), rows, title=f"{model}: {source}"))
        if rates is None and price.kind == "none":
            note(f"its price is not known: byok price set {visible(model)} --input USD --output USD (per million tokens)")

    emit({"price": shown}, json=json, human=draw)


_SOURCES = {
    "own": "your own price",
    "listed": "the provider's list",
    "endpoint": "what the endpoint reports",
    "none": "no price is known",
}


def _price_rows(price: Price) -> list[tuple[object, ...]]:
    if price.kind == "gpu_hour":
        return [("GPU hour", price.usd_per_gpu_hour, "USD"), ("GPUs", price.gpus, "")]
    if price.kind == "token":
        return [(name.replace("_", " "), getattr(price, name), "USD per million tokens") for name in _TYPES]
    return []


@app.command(name="set")
def set_(
    model: str,
    /,
    *,
    input: str | None = None,
    output: str | None = None,
    cached_input: str | None = None,
    reasoning: str | None = None,
    gpu_hour: str | None = None,
    gpus: int | None = None,
    reported: Annotated[bool, Parameter(negative="")] = False,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    note: str = "",
    json: Json = False,
) -> None:
    """Set what a model costs from some time on, before or after now: by token, by GPU hour, or as the endpoint reports it.

    What was billed stays as it is; charges that had no price get one with byok price apply.

    Args:
        model: Key of the model.
        input: USD per million tokens of prompts.
        output: USD per million tokens of answers.
        cached_input: USD per million prompt tokens that came from a cache; without it, as --input.
        reasoning: USD per million tokens of reasoning; without it, as --output.
        gpu_hour: USD for each hour of each GPU that serves the model, while it is busy.
        gpus: How many GPUs serve it (1).
        reported: What the endpoint says of each request's cost counts (usage.cost).
        from_: A day (2026-11-01) or a time (2026-11-01T12:00Z) from which on it holds; now without it.
        note: What it is about, in your own words.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    services.registry.get(services.actor, model)  # what is reported afterwards must not fail when the price is set
    usd = {"--input": input, "--cached-input": cached_input, "--output": output, "--reasoning": reasoning, "--gpu-hour": gpu_hour}
    told = {name: None if text is None else parse_usd(text, what=name) for name, text in usd.items()}
    entry = services.prices.set(
        services.actor,
        model,
        input=told["--input"],
        cached_input=told["--cached-input"],
        output=told["--output"],
        reasoning=told["--reasoning"],
        usd_per_gpu_hour=told["--gpu-hour"],
        gpus=gpus,
        reported=reported,
        effective_from=None if from_ is None else read_time(from_, "--from"),
        note=note,
    )
    _report(services, model)

    def draw(out: Console) -> None:
        out.print(f"{visible(model)}: {_told(entry)} from {entry.effective_from:%Y-%m-%d %H:%M:%S} UTC on", soft_wrap=True)
        if BILLING_READ not in services.actor.scopes:
            return
        waiting = [one for one in unpriced_charges(services.warehouse, services.actor.org_id) if one.model_key == model]
        if waiting:
            out.print(f"{waiting[0].charges} charges of it have no price yet: byok price apply", soft_wrap=True)

    emit({"entry": {"model": model, **entry.as_dict()}}, json=json, human=draw)


def _report(services: Services, model: str) -> None:
    """Tell the warehouse of the price that is shown with the model."""
    report_model(services.warehouse, services.registry.get(services.actor, model), None)


def _told(entry: PriceEntry) -> str:
    if entry.kind == "gpu_hour" and entry.usd_per_gpu_hour is not None:
        return f"{plain(entry.usd_per_gpu_hour)} USD per GPU hour, {entry.gpus} GPUs,"
    if entry.kind == "reported":
        return "what the endpoint reports,"
    told = ((name.replace("_", " "), getattr(entry, name)) for name in _TYPES)
    return "USD per million tokens: " + ", ".join(f"{name} {plain(usd)}" for name, usd in told if usd is not None) + ","


@app.command
def history(model: str, /, *, json: Json = False) -> None:
    """List the prices that were set for a model, the latest to take effect first.

    Args:
        model: Key of the model.
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    entries = services.prices.history(services.actor, model)

    def draw(out: Console) -> None:
        if not entries:
            out.print(
                f"no price was ever set for {visible(model)}: byok price show {visible(model)} tells what is in force", soft_wrap=True
            )
            return
        columns = ("from", "kind", "input", "cached", "output", "reasoning", "GPU hour", "GPUs", "set at", "note")
        rows = [
            (e.effective_from, e.kind, e.input, e.cached_input, e.output, e.reasoning, e.usd_per_gpu_hour, e.gpus, e.created_at, e.note)
            for e in entries
        ]
        out.print(table(columns, rows, title="USD per million tokens, or per GPU hour"))

    emit({"model": model, "entries": [entry.as_dict() for entry in entries]}, json=json, human=draw)


@app.command
def apply(*, json: Json = False) -> None:
    """Give charges that had no price the one that is known now, by lines that correct them; doing it again adds nothing.

    Args:
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    applied = apply_prices(services.control, services.warehouse, services.audit, services.actor)

    def draw(out: Console) -> None:
        if applied.corrected:
            rows = [(key, count, usd) for key, (count, usd) in sorted(applied.by_model.items())]
            out.print(table(("model", "charges", "USD"), rows, title="priced now"))
        out.print(f"{applied.corrected} charges priced, {plain(applied.usd)} USD in all")
        for line in how_to_price(unpriced_charges(services.warehouse, services.actor.org_id)) if applied.unpriced else []:
            note(line)

    emit({"applied": applied.as_dict()}, json=json, human=draw)
