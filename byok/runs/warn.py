"""Tell the warnings of the ledger: as a line of the log, and to the organisation's webhook."""

from __future__ import annotations

import asyncio
import logging

from byok.app import Services
from byok.endpoint.errors import EndpointError
from byok.endpoint.policy import EgressPolicy
from byok.endpoint.webhook import post_json
from byok.errors import ByokError
from byok.ledger import Alert, take_alerts

TRIES = 3
"""How often a webhook is tried, a second and then two apart."""

_log = logging.getLogger("byok.billing")


async def tell_warnings(services: Services) -> list[Alert]:
    """Tell the warnings that nobody has told yet; each is told once.

    A webhook that does not answer is said in the log; it is waited for half a minute at most.

    Returns:
        The warnings, for who can tell them elsewhere too.
    """
    alerts = take_alerts(services.control, services.actor.org_id)
    for alert in alerts:
        _log.warning("%s (organisation %s, run %s)", alert.text, services.actor.org_slug, alert.run_id)
    await asyncio.gather(*(_post(alert) for alert in alerts if alert.webhook))
    return alerts


async def _post(alert: Alert) -> None:
    document = {"event": "byok.credit.low"} | alert.as_dict()
    for number in range(TRIES):
        try:
            status = await post_json(alert.webhook or "", document, EgressPolicy.from_environment())
        except EndpointError as problem:
            told = problem.code
        except ByokError as problem:
            told = problem.code
            break
        else:
            if 200 <= status < 300:
                return
            told = f"status {status}"
        if number + 1 < TRIES:
            await asyncio.sleep(1 + number)
    _log.warning("the webhook for low credit was not reached: %s", told)
