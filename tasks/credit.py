"""Look at the credit of the organisation."""

from __future__ import annotations

from prefect import task

from byok.ledger import Balance
from tasks.opening import open_services
from tasks.policies import SETTINGS


@task(name="credit", **SETTINGS)
async def credit() -> Balance:
    """The ECU balance, as it is now."""
    services = open_services()
    return services.ledger.balance(services.actor)
