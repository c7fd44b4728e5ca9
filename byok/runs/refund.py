"""Take back what the platform charged for a run: in the ledger, and as lines on its bill."""

from __future__ import annotations

from collections.abc import Iterator

from byok.access import BILLING_WRITE, require
from byok.app import Services
from byok.clock import utcnow
from byok.errors import InputError
from byok.ids import natural_id
from byok.ledger import ship
from byok.warehouse.rows import ChargeRow


class NothingToRefund(InputError):
    """The run was charged nothing, or has been refunded already."""

    code = "nothing_to_refund"


def refund_run(services: Services, run_id: str, reason: str) -> int:
    """Reverse the settlements of a run, and correct its lines on the platform's bill by as much.

    Args:
        services: The installation, and who asks.
        run_id: The run.
        reason: Why, for the audit log.

    Returns:
        How many micro-ECU are available again, or no longer owed.

    Raises:
        NotPermitted: The actor lacks `billing:write`.
        NothingToRefund: There is nothing to take back.
    """
    actor = services.actor
    require(actor, BILLING_WRITE, "run.refund")
    settled = services.ledger.settlements(actor, run_id)
    total = sum(leg.micro_ecu for one in settled for leg in one.legs if leg.account == "usage")
    if not total:
        raise NothingToRefund(f"run {run_id} has nothing to refund", hint="see its bill: byok bill show RUN")
    # The lines first: asked again after a crash between the two, they are the same, and the settlements are still to be reversed.
    services.warehouse.write_segment(list(_corrections(services, run_id)))
    for one in settled:
        services.ledger.reverse(actor, one.id, reason)
    ship(services.control, services.warehouse, actor.org_id)
    services.warehouse.drain()
    return total


def _corrections(services: Services, run_id: str) -> Iterator[ChargeRow]:
    now = utcnow()
    names = [name for name in ChargeRow.__dataclass_fields__ if name != "table"]
    found = services.warehouse.query(
        "SELECT * FROM v1.charges WHERE org_id = ? AND run_id = ? AND plane = 'ecu' AND corrects IS NULL AND amount_micro_ecu > 0",
        [services.actor.org_id, run_id],
    )
    for row in found.rows:
        told = dict(zip(found.columns, row, strict=True))
        charge = {name: told[name] for name in names}
        charge |= {"charge_id": natural_id("refund", charge["charge_id"]), "corrects": charge["charge_id"], "recorded_at": now}
        charge |= {"quantity": -charge["quantity"], "amount_micro_ecu": -charge["amount_micro_ecu"]}
        yield ChargeRow(**charge)
