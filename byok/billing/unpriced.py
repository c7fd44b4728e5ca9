"""What has no amount yet, and the commands that would give it one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from byok.text import visible
from byok.warehouse import Queries


@dataclass(frozen=True)
class Unpriced:
    """Charges of one model whose quantity is known and whose price is not.

    Attributes:
        model_key: The model.
        charges: How many there are.
        since: Day of the first (UTC).
    """

    model_key: str
    charges: int
    since: date


_UNPRICED = """
SELECT c.model_key, count(*), min(CAST(c.occurred_at AT TIME ZONE 'UTC' AS DATE))
FROM v1.charges c
LEFT JOIN v1.charges k ON k.org_id = c.org_id AND k.corrects = c.charge_id
WHERE c.org_id = ? AND (CAST(? AS VARCHAR) IS NULL OR c.run_id = ?) AND c.plane = 'provider' AND c.corrects IS NULL
    AND c.amount_usd IS NULL AND c.quantity IS NOT NULL AND k.charge_id IS NULL
GROUP BY c.model_key ORDER BY c.model_key
"""


def unpriced_charges(warehouse: Queries, org_id: str, run_id: str | None = None) -> list[Unpriced]:
    """The charges that a price would give an amount, by model.

    Args:
        warehouse: Where they are.
        org_id: The organisation.
        run_id: Those of one run; None: of all.

    Raises:
        SnapshotMissing: Nothing has been published yet.
    """
    rows = warehouse.query(_UNPRICED, [org_id, run_id, run_id]).rows
    return [Unpriced(*row) for row in rows]


def how_to_price(found: list[Unpriced]) -> list[str]:
    """A line for each model that has unpriced charges, with the command that would fix it, and then the one that applies the prices."""
    if not found:
        return []
    lines = [
        f"{one.charges} charges of {visible(one.model_key)} have no price: "
        f"byok price set {visible(one.model_key)} --input USD --output USD --from {one.since}"
        for one in found
    ]
    return [*lines, "then: byok price apply"]
