"""`byok bill balance`, `topup`, `ledger`, `verify`, `reverse`, `refund` and `settings`: the ECU side of the bill."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from cyclopts import Parameter
from rich.console import Console

from byok.access import BILLING_READ, BILLING_WRITE, require
from byok.app import Services, open_services
from byok.cli.output import Json, emit, note, table
from byok.cli.times import read_time
from byok.endpoint.policy import EgressPolicy
from byok.endpoint.webhook import check_webhook
from byok.ledger import Balance, Transaction, mismatches, ship
from byok.money import ecu, micro_ecu, parse_usd
from byok.reporting import find_run
from byok.runs import refund_run


def balance(*, json: Json = False) -> None:
    """Show the ECU balance: what is available, held and owed, and the credit that it is made of, in the order of its use.

    Args:
        json: Print JSON of a stable shape instead of tables.
    """
    services = open_services()
    found = services.ledger.balance(services.actor)
    emit({"balance": _balance(found)}, json=json, human=lambda out: _draw_balance(out, found))


def topup(
    amount: str,
    /,
    *,
    paid: str | None = None,
    promotional: Annotated[bool, Parameter(negative="")] = False,
    expires: str | None = None,
    effective: str | None = None,
    priority: int = 10,
    note: str = "",
    operation: str | None = None,
    json: Json = False,
) -> None:
    """Add ECU to the balance.

    Promotional credit is used before paid, then what expires first, then by priority. What is owed is paid at once.

    Args:
        amount: ECU, such as 100.
        paid: What was paid for it, in US dollars.
        promotional: It is given, not bought.
        expires: Day or time at which what is left of it is lost, such as 2027-01-31 (UTC).
        effective: Day or time from which it can be used; without it, now.
        priority: From 1 to 1000; among what expires together, the lower is used first.
        note: What it is for.
        operation: A name for this top-up, such as the number of an invoice: the same one is added once, however often it is asked for.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    require(services.actor, BILLING_READ, "ledger.balance")
    posted = services.ledger.top_up(
        services.actor,
        micro_ecu(amount, what="AMOUNT"),
        kind="promotional" if promotional else "paid",
        paid_usd=None if paid is None else parse_usd(paid, what="--paid"),
        expires_at=None if expires is None else read_time(expires, "--expires"),
        effective_at=None if effective is None else read_time(effective, "--effective"),
        priority=priority,
        note=note,
        operation=operation,
    )
    _publish(services)
    found = services.ledger.balance(services.actor)
    payload = {"transaction": posted.as_dict(), "balance": _balance(found)}
    emit(payload, json=json, human=lambda out: _draw_balance(out, found))


def ledger(*, limit: int = 20, run: str | None = None, json: Json = False) -> None:
    """List the transactions of the ledger with their entries, the newest first.

    Args:
        limit: How many transactions; 0 for all.
        run: Only those of a run: its id, the beginning of it, or latest.
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    require(services.actor, BILLING_READ, "ledger.list")
    run_id = None if run is None else find_run(services.warehouse, services.actor.org_id, run)
    found = services.ledger.transactions(services.actor, limit=limit or None, run_id=run_id)
    emit({"transactions": [one.as_dict() for one in found]}, json=json, human=lambda out: _draw_ledger(out, found))


def verify(*, json: Json = False) -> int:
    """Check the ledger from its first transaction on, its balances, and that it says the same as the bills.

    Leaves with 1 when something is wrong, and names the first bad row.

    Args:
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    found = services.ledger.verify(services.actor)
    _publish(services)
    apart = mismatches(services.warehouse, services.actor.org_id)
    wrong = [one for one in apart if not one.under_way]
    told: dict[str, Any] = {"whole": found.bad is None, "transactions": found.transactions, "bad": found.bad, "reason": found.reason}
    told |= {"ties": not wrong, "mismatches": apart}

    def draw(out: Console) -> None:
        if found.bad is None:
            out.print(f"the ledger is whole: {found.transactions} transactions")
        else:
            out.print(f"the first bad row is {found.bad}: {found.reason}; {found.transactions} transactions before it are sound")
        if apart:
            rows = [(one.run_id, ecu(one.charged), ecu(one.settled), "under way" if one.under_way else "differs") for one in apart]
            out.print(table(("run", "bill (ECU)", "ledger (ECU)", "state"), rows))
        else:
            out.print("the ledger and the platform's bills say the same")

    emit({"ledger": told}, json=json, human=draw)
    return 1 if found.bad is not None or wrong else 0


def reverse(transaction: str, /, *, reason: str, json: Json = False) -> None:
    """Take a top-up back, of which nothing was used. (What a run was charged: byok bill refund.)

    Args:
        transaction: Id of the top-up (byok bill ledger).
        reason: Why; it is kept in the audit log.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    require(services.actor, BILLING_READ, "ledger.balance")
    posted = services.ledger.reverse_credit(services.actor, transaction, reason)
    _publish(services)
    found = services.ledger.balance(services.actor)
    emit({"transaction": posted.as_dict(), "balance": _balance(found)}, json=json, human=lambda out: _draw_balance(out, found))


def refund(run: str, /, *, reason: str, json: Json = False) -> None:
    """Take back what the platform charged for a run.

    Args:
        run: Id of the run, the beginning of it, or latest.
        reason: Why; it is kept in the audit log.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    require(services.actor, BILLING_WRITE, "run.refund")
    run_id = find_run(services.warehouse, services.actor.org_id, run)
    back = refund_run(services, run_id, reason)
    emit(
        {"refund": {"run_id": run_id, "ecu": ecu(back)}},
        json=json,
        human=lambda out: out.print(f"{ecu(back)} ECU of run {run_id} are refunded"),
    )


def settings(
    *,
    overdraft: str | None = None,
    warn: Annotated[tuple[int, ...], Parameter(negative="")] = (),
    webhook: str | None = None,
    json: Json = False,
) -> None:
    """Show or change how far running work may overdraw, at what to warn, and where warnings go.

    Args:
        overdraft: ECU that runs under way may cost beyond all credit.
        warn: Percent of what there was after the last top-up, at which to warn; may be given again.
        webhook: URL that warnings are posted to as JSON; an empty text for none.
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    if overdraft is None and not warn and webhook is None:
        found = services.ledger.balance(services.actor)
    else:
        require(services.actor, BILLING_WRITE, "ledger.settings")
        if webhook:
            check_webhook(webhook, EgressPolicy.from_environment())
        limit = None if overdraft is None else micro_ecu(overdraft, what="--overdraft")
        found = services.ledger.change_settings(services.actor, overdraft_limit=limit, thresholds=warn or None, webhook=webhook)
    told = _settings(found)
    rows = [(name, value) for name, value in told.items()]
    emit({"settings": told}, json=json, human=lambda out: out.print(table(("setting", "value"), rows)))


def _publish(services: Services) -> None:
    """Let the warehouse show what the ledger holds."""
    if ship(services.control, services.warehouse, services.actor.org_id):
        services.warehouse.drain()


def _settings(found: Balance) -> dict[str, Any]:
    # The path of a webhook can be a secret of its own.
    hook = None if found.webhook is None else "{0.scheme}://{0.netloc}/…".format(urlsplit(found.webhook))
    return {"overdraft_limit_ecu": ecu(found.overdraft_limit), "warn_at_percent": list(found.thresholds), "webhook": hook}


def _balance(found: Balance) -> dict[str, Any]:
    return {
        "available_ecu": ecu(found.available),
        "held_ecu": ecu(found.held),
        "overdrawn_ecu": ecu(found.overdrawn),
        "pending_ecu": ecu(found.pending),
        "available_micro_ecu": found.available,
        "held_micro_ecu": found.held,
        "overdrawn_micro_ecu": found.overdrawn,
        "settings": _settings(found),
        "grants": [
            {
                "id": one.id,
                "kind": one.kind,
                "left_ecu": ecu(one.left),
                "priority": one.priority,
                "effective_at": one.effective_at,
                "expires_at": one.expires_at,
            }
            for one in found.grants
        ],
    }


def _draw_balance(out: Console, found: Balance) -> None:
    parts = [f"{ecu(found.available)} ECU available", f"{ecu(found.held)} held"]
    parts += [f"{ecu(found.pending)} to come"] if found.pending else []
    parts += [f"{ecu(found.overdrawn)} owed"] if found.overdrawn else []
    out.print(", ".join(parts))
    rows = [(one.kind, ecu(one.left), one.effective_at, one.expires_at, one.priority, one.id) for one in found.grants]
    out.print(table(("credit", "left (ECU)", "from", "expires", "priority", "id"), rows))
    if found.available <= 0:
        note("new runs that cost ECU are refused until there is more: byok bill topup ECU")


def _draw_ledger(out: Console, found: list[Transaction]) -> None:
    rows = [
        (
            one.seq,
            one.at,
            one.kind,
            leg.account,
            ecu(leg.micro_ecu),
            one.run_id,
            one.id,
        )
        for one in found
        for leg in one.legs
    ]
    out.print(table(("no.", "at (UTC)", "kind", "account", "ECU", "run", "transaction"), rows))
