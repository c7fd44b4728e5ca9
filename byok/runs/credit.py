"""The credit of a run: held before its first request, settled with what its platform bill comes to."""

from __future__ import annotations

from byok.app import Services
from byok.engine.plan import RunPlan
from byok.ledger import balance_too_low, ship
from byok.runs.estimate import Estimate, estimate
from byok.runs.folder import RunFolder
from byok.runs.spending import caps_of


def check_credit(services: Services, worst: Estimate) -> None:
    """Refuse a run for which there is not enough before anything of it is stored; what counts is the hold that follows.

    Raises:
        BalanceTooLow: There is less than it may cost.
    """
    available = services.ledger.balance_of(services.actor.org_id).available
    if worst.micro_ecu > max(available, 0):
        raise balance_too_low(worst.micro_ecu, available)


def hold_credit(services: Services, plan: RunPlan, folder: RunFolder, worst: Estimate | None = None) -> None:
    """Hold the most that a run may still cost; nothing when that is nothing, or held already.

    Args:
        services: The installation, and who asks.
        plan: The run.
        folder: Its folder.
        worst: Its worst case, where that was reckoned just now.

    Raises:
        BalanceTooLow: There is less.
    """
    ledger, actor = services.ledger, services.actor
    holds = ledger.holds(actor, plan.run_id)
    if any(hold.state == "open" for hold in holds):
        return
    if worst is None:
        worst = estimate(services, plan.model_copy(update={"max_micro_ecu": caps_of(plan, folder.control.settings).micro_ecu}))
    rest = worst.micro_ecu - ledger.settled(actor, plan.run_id)
    if rest > 0:
        ledger.hold(actor, f"{plan.run_id}:{len(holds) + 1}", rest, run_id=plan.run_id)
        ship(services.control, services.warehouse, plan.org_id)


def settle_credit(services: Services, plan: RunPlan, micro_ecu: int) -> None:
    """Settle what a run has cost by now; what is held beyond that becomes available again.

    Args:
        services: The installation.
        plan: The run.
        micro_ecu: Its whole platform bill until now, in micro-ECU.
    """
    ledger, actor = services.ledger, services.actor
    holds = ledger.holds(actor, plan.run_id)
    due = micro_ecu - ledger.settled(actor, plan.run_id)
    # One that has lapsed is settled too; what was settled already has nothing due.
    last = next((hold for hold in reversed(holds) if hold.state in ("open", "expired")), None)
    if last is not None and (due > 0 or last.state == "open"):
        ledger.settle(actor, last.id, max(due, 0))
        ship(services.control, services.warehouse, plan.org_id)
