"""What was recorded of each model on each day, in the terms in which providers tell it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from byok.costs import never_billed
from byok.errors import NotFound
from byok.warehouse import Queries


class ModelUnrecorded(NotFound):
    """The warehouse knows no model of that key."""

    code = "model_unrecorded"


@dataclass(frozen=True)
class Recorded:
    """Requests of one model on one day (UTC).

    Attributes:
        model: The provider's name of it.
        keys: Keys under which it is registered.
        requests: That were answered.
        input: Prompt tokens as the endpoint reported them, cached ones included.
        output: Completion tokens, reasoning included.
        usd: Known cost.
        unpriced: Charges of unknown amount.
        uncertain: Requests whose end nobody saw, or that failed in a way that may be billed.
        unmeasured: Answered requests of which the endpoint told no usage, or none that can be believed.
        most_input: Of one request; None when none is known.
        most_output: Of one request.
    """

    day: date
    model: str
    keys: tuple[str, ...]
    requests: int
    input: int
    output: int
    usd: Decimal
    unpriced: int
    uncertain: int
    unmeasured: int
    most_input: int | None
    most_output: int | None


# A request is of the day on which its charges are: that of its end, or of its beginning when nobody saw its end.
_RECORDED = """
WITH named AS (
    SELECT model_id, remote_id, key FROM v1.models WHERE org_id = $org AND ($key IS NULL OR key = $key)
), asked AS (
    SELECT CAST(coalesce(a.closed_at, a.opened_at) AT TIME ZONE 'UTC' AS DATE) AS day, n.remote_id AS model,
        list_sort(list(DISTINCT n.key)) AS keys,
        count(*) FILTER (WHERE a.status = 'ok') AS requests,
        sum(a.prompt_tokens) FILTER (WHERE a.usage_class = 'reported') AS input,
        sum(a.completion_tokens) FILTER (WHERE a.usage_class = 'reported') AS output,
        count(*) FILTER (WHERE a.status = 'ok' AND a.usage_class <> 'reported') AS unmeasured,
        max(a.prompt_tokens) AS most_input, max(a.completion_tokens) AS most_output
    FROM v1.attempts a JOIN named n ON n.model_id = a.model_id
    WHERE a.org_id = $org AND coalesce(a.closed_at, a.opened_at) >= $start
        AND coalesce(a.closed_at, a.opened_at) < $end GROUP BY day, n.remote_id
), billed AS (
    SELECT CAST(c.occurred_at AT TIME ZONE 'UTC' AS DATE) AS day, n.remote_id AS model, sum(c.amount_usd) AS usd,
        count(*) FILTER (WHERE c.amount_usd IS NULL) - count(*) FILTER (WHERE c.corrects IS NOT NULL) AS unpriced
    FROM v1.charges c JOIN named n ON n.model_id = c.model_id
    WHERE c.org_id = $org AND c.plane = 'provider' AND c.occurred_at >= $start AND c.occurred_at < $end GROUP BY day, n.remote_id
)
SELECT a.day, a.model, a.keys, a.requests, CAST(coalesce(a.input, 0) AS BIGINT) AS input, CAST(coalesce(a.output, 0) AS BIGINT) AS output,
    coalesce(b.usd, 0) AS usd, coalesce(b.unpriced, 0) AS unpriced, a.unmeasured, a.most_input, a.most_output
FROM asked a LEFT JOIN billed b ON b.day = a.day AND b.model = a.model ORDER BY a.day, a.model
"""

_FAILED = """
SELECT CAST(coalesce(a.closed_at, a.opened_at) AT TIME ZONE 'UTC' AS DATE) AS day, m.remote_id, a.status, a.error_code,
    a.http_status, count(*)
FROM v1.attempts a JOIN v1.models m ON m.org_id = a.org_id AND m.model_id = a.model_id
WHERE a.org_id = $org AND a.status <> 'ok' AND ($key IS NULL OR m.key = $key) AND coalesce(a.closed_at, a.opened_at) >= $start
    AND coalesce(a.closed_at, a.opened_at) < $end
GROUP BY ALL
"""


def recorded_usage(results: Queries, org_id: str, start: datetime, end: datetime, key: str | None) -> list[Recorded]:
    """What was recorded between two moments, of all models or those of one key."""
    who: Any = {"org": org_id, "start": start, "end": end, "key": key}
    uncertain: Counter[tuple[date, str]] = Counter()
    for day, model, status, error_code, http_status, count in results.query(_FAILED, who).rows:
        if status == "lost" or not never_billed(error_code, http_status):
            uncertain[day, model] += count
    rows = results.query(_RECORDED, who).dicts()
    return [Recorded(**(row | {"keys": tuple(row["keys"]), "uncertain": uncertain[row["day"], row["model"]]})) for row in rows]


def remote_names(results: Queries, org_id: str, key: str | None) -> list[tuple[str, str]]:
    """The provider's name and the key of each model, or of the one of a key.

    Raises:
        ModelUnrecorded: There is none of that key.
    """
    who: Any = {"org": org_id, "key": key}
    query = "SELECT remote_id, key FROM v1.models WHERE org_id = $org AND ($key IS NULL OR key = $key) ORDER BY ALL"
    found = [(str(remote), str(one)) for remote, one in results.query(query, who).rows]
    if key is not None and not found:
        raise ModelUnrecorded(f"no model {key!r}", hint="list the models with: byok model list", model=key)
    return found
