"""Post a JSON document to an address that an admin chose, under the same rules as all outgoing calls."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson

from byok.endpoint.exchange import Exchange
from byok.endpoint.policy import BaseUrl, EgressPolicy
from byok.endpoint.transport import open_http
from byok.endpoint.wire import Redactor

TIMEOUT_S = 10.0


def check_webhook(url: str, policy: EgressPolicy) -> BaseUrl:
    """The checked address of a webhook.

    Raises:
        BadBaseUrl: It is none that can be called safely.
        ForbiddenAddress: It may not be called.
    """
    return policy.check_base_url(url)


async def post_json(url: str, document: dict[str, Any], policy: EgressPolicy) -> int:
    """Post a document; the answer's body is not read for anything.

    Args:
        url: Where to.
        document: What.
        policy: The operator's rules for outgoing calls.

    Returns:
        The status of the answer.

    Raises:
        BadBaseUrl, EndpointError: It cannot be called, may not be, or does not answer.
    """
    base = check_webhook(url, policy)
    # The last part of the path goes as the route: the address is called as it was given, without a slash at its end.
    front, _, last = base.url.rpartition("/") if base.url.count("/") > 2 else (base.url, "", "")
    line = Exchange(
        BaseUrl(front, base.origin, base.host, base.port),
        partial(open_http, base, policy, connections=1),
        {"content-type": "application/json"},
        Redactor(),
        TIMEOUT_S,
    )
    line.open()
    try:
        return (await line.send("POST", last, orjson.dumps(document))).status
    finally:
        await line.close()
