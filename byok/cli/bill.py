"""`byok bill`: the two bills of a run, and what is made of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App
from rich.columns import Columns
from rich.console import Console
from rich.table import Table

from byok.access import BILLING_READ, require
from byok.app import open_services
from byok.billing import BillLine, TwoBills, how_to_price, two_bills, unpriced_charges
from byok.cli.output import Json, cell, emit, note
from byok.money import ecu, plain
from byok.reporting import find_run

app = App(name="bill", help="The two bills: of runs and months, the ECU balance and its ledger.")

_COMMANDS = {
    "balance": ("byok.cli.ledger:balance", "Show the ECU balance, and the credit that it is made of."),
    "topup": ("byok.cli.ledger:topup", "Add ECU to the balance."),
    "ledger": ("byok.cli.ledger:ledger", "List the transactions of the ledger with their entries."),
    "verify": ("byok.cli.ledger:verify", "Check that the ledger is whole, and says the same as the bills."),
    "reverse": ("byok.cli.ledger:reverse", "Take a top-up back, of which nothing was used."),
    "refund": ("byok.cli.ledger:refund", "Take back what the platform charged for a run."),
    "settings": ("byok.cli.ledger:settings", "Show or change the overdraft, and when and where to warn."),
    "statement": ("byok.cli.statement:statement", "Show the statement of a month."),
    "consumption": ("byok.cli.statement:consumption", "Show consumption by day, and when the ECU balance runs out."),
    "close": ("byok.cli.statement:close", "Close a month: what comes later is a correction."),
    "export": ("byok.cli.export:export", "Write both bills as FOCUS 1.2, for tools that read costs."),
    "reconcile": ("byok.cli.reconcile:reconcile", "Compare a provider's own usage export with what was recorded."),
}

for _name, (_path, _help) in _COMMANDS.items():
    app.command(_path, name=_name, help=_help)


@app.command
def show(run: str, /, *, json: Json = False) -> None:
    """Show the two bills of a run side by side: the provider's (USD) and the platform's (ECU).

    Args:
        run: Id of the run, the beginning of it, or latest.
        json: Print JSON of a stable shape instead of tables.
    """
    services = open_services()
    require(services.actor, BILLING_READ, "bill.show")
    run_id = find_run(services.warehouse, services.actor.org_id, run)
    bills = two_bills(services.warehouse, services.actor.org_id, run_id)
    waiting = unpriced_charges(services.warehouse, services.actor.org_id, run_id)
    emit({"bill": bills.as_dict()}, json=json, human=lambda out: draw_bills(out, bills, how_to_price(waiting)))


def draw_bills(out: Console, bills: TwoBills, how: Sequence[str] = ()) -> None:
    """Both bills with their totals, what is not in them, and the commands that would price it."""
    usd, micro = bills.total_usd, bills.total_micro_ecu
    provider = _bill("provider bill (USD)", bills.of("provider"), "unknown" if usd is None else plain(usd))
    platform = _bill("platform bill (ECU)", bills.of("ecu"), "unknown" if micro is None else ecu(micro))
    out.print(Columns([provider, platform], padding=(0, 2)))
    if bills.unknown("provider"):
        note(
            f"{bills.unknown('provider')} charges on the provider bill have an unknown amount and are in no total:"
            " the model has no price, or the endpoint told no usage (byok bill reconcile FILE, with the provider's own export)."
        )
    for line in how:
        note(line)
    if bills.unknown("ecu"):
        note(f"{bills.unknown('ecu')} charges on the platform bill have an unknown amount: the endpoint told no usage.")


def _bill(title: str, lines: list[BillLine], total: str) -> Table:
    made = Table(title=title, title_justify="left", title_style="bold", show_footer=True)
    for name, footer, right in (
        ("for", "total", False),
        ("model", "", False),
        ("what", "", False),
        ("quantity", "", True),
        ("amount", total, True),
    ):
        made.add_column(name, footer=footer, justify="right" if right else "left", overflow="fold")
    for line in lines:
        made.add_row(*(cell(value) for value in (line.role, line.model_key, line.sku, line.quantity, _amount(line))))
    return made


def _amount(line: BillLine) -> str:
    if line.plane == "provider":
        known = None if line.amount_usd is None else plain(line.amount_usd)
    else:
        known = None if line.amount_micro_ecu is None else ecu(line.amount_micro_ecu)
    if known is None:
        return "unknown"
    return f"{known} (+{line.unknown} unknown)" if line.unknown else known
