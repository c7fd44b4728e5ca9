"""Whether the ledger and the platform's bill say the same of each run, and of the probes outside runs."""

from __future__ import annotations

from dataclasses import dataclass

from byok.warehouse import Queries

_TIES = """
WITH since AS (
    SELECT min(occurred_at) AS at FROM v1.ledger WHERE org_id = ?
), charged AS (
    SELECT coalesce(run_id, '') AS run_id, CAST(coalesce(sum(amount_micro_ecu), 0) AS BIGINT) AS micro
    FROM v1.charges, since WHERE org_id = ? AND plane = 'ecu'
        -- What was charged before there was a ledger was never in it.
        AND (occurred_at >= since.at OR run_id IN (SELECT run_id FROM v1.ledger))
    GROUP BY ALL
), settled AS (
    SELECT coalesce(run_id, '') AS run_id,
        CAST(coalesce(sum(micro_ecu) FILTER (WHERE account = 'usage'), 0) AS BIGINT) AS micro,
        sum(micro_ecu) FILTER (WHERE account = 'held') AS held
    FROM v1.ledger WHERE org_id = ? GROUP BY ALL
)
SELECT nullif(coalesce(c.run_id, s.run_id), ''), coalesce(c.micro, 0), coalesce(s.micro, 0), coalesce(s.held, 0) > 0
FROM charged c FULL JOIN settled s ON s.run_id = c.run_id
WHERE coalesce(c.micro, 0) <> coalesce(s.micro, 0)
ORDER BY 1
"""


@dataclass(frozen=True)
class Mismatch:
    """A run whose bill and ledger differ.

    Attributes:
        run_id: The run; None: the probes outside runs.
        charged: Micro-ECU on its bill.
        settled: Micro-ECU that the ledger says it used.
        under_way: Whether credit is still held for it: it is not settled yet.
    """

    run_id: str | None
    charged: int
    settled: int
    under_way: bool


def mismatches(warehouse: Queries, org_id: str) -> list[Mismatch]:
    """The runs of an organisation whose bill and ledger differ; none when all is well.

    Raises:
        SnapshotMissing: Nothing has been published yet.
    """
    return [Mismatch(*row) for row in warehouse.query(_TIES, [org_id] * 3).rows]
