"""Whether the ledger and the platform's bill say the same of each run."""

from __future__ import annotations

from dataclasses import dataclass

from byok.warehouse import Queries

_TIES = """
WITH charged AS (
    SELECT run_id, CAST(sum(amount_micro_ecu) AS BIGINT) AS micro, min(occurred_at) AS since
    FROM v1.charges WHERE org_id = ? AND plane = 'ecu' AND run_id IS NOT NULL GROUP BY run_id
), settled AS (
    SELECT run_id,
        CAST(coalesce(sum(micro_ecu) FILTER (WHERE account = 'usage'), 0) AS BIGINT) AS micro,
        sum(micro_ecu) FILTER (WHERE account = 'held') AS held
    FROM v1.ledger WHERE org_id = ? AND run_id IS NOT NULL GROUP BY run_id
)
SELECT coalesce(c.run_id, s.run_id), coalesce(c.micro, 0), coalesce(s.micro, 0), coalesce(s.held, 0) > 0
FROM charged c FULL JOIN settled s ON s.run_id = c.run_id
WHERE coalesce(c.micro, 0) <> coalesce(s.micro, 0)
    -- What was charged before there was a ledger was never in it.
    AND (s.run_id IS NOT NULL OR c.since >= (SELECT min(occurred_at) FROM v1.ledger WHERE org_id = ?))
ORDER BY 1
"""


@dataclass(frozen=True)
class Mismatch:
    """A run whose bill and ledger differ.

    Attributes:
        run_id: The run.
        charged: Micro-ECU on its bill.
        settled: Micro-ECU that the ledger says it used.
        under_way: Whether credit is still held for it: it is not settled yet.
    """

    run_id: str
    charged: int
    settled: int
    under_way: bool


def mismatches(warehouse: Queries, org_id: str) -> list[Mismatch]:
    """The runs of an organisation whose bill and ledger differ; none when all is well.

    Raises:
        SnapshotMissing: Nothing has been published yet.
    """
    return [Mismatch(*row) for row in warehouse.query(_TIES, [org_id] * 3).rows]
