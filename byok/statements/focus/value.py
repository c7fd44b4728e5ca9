"""What ECU are worth in US dollars: what was paid for the credit that a run drew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction

from byok.warehouse import Queries

RULE = (
    "An ECU that a run used is worth what was paid for it: paid_usd / ECU of each grant that the run drew, weighted by how much it drew of"
    " each. Promotional credit, credit whose payment is not recorded, and what was used beyond all credit are worth 0."
)

_WIDE = Context(prec=90)
"""Wide enough for any product of stored numbers: nothing is rounded but by `rounded`."""


def rounded(exact: Fraction, places: int) -> Decimal:
    """A fraction as a decimal, rounded half to even."""
    return Decimal(round(exact * 10**places)).scaleb(-places, _WIDE)


@dataclass(frozen=True)
class EcuValue:
    """What ECU are worth.

    Attributes:
        by_run: USD of a micro-ECU by run.
        unvalued_micro_ecu: Micro-ECU that were used and are worth 0 by the rule, over all runs.
    """

    by_run: Mapping[str, Fraction]
    unvalued_micro_ecu: int

    def of(self, run_id: str | None) -> Fraction:
        """USD of a micro-ECU of a run."""
        return self.by_run.get(run_id or "", Fraction(0))


_DRAWN = """
SELECT l.run_id, CAST(sum(l.micro_ecu) AS BIGINT), g.micro_ecu, g.paid_usd
FROM v1.ledger l LEFT JOIN v1.grants g ON g.org_id = l.org_id AND g.grant_id = l.grant_id
WHERE l.org_id = ? AND l.account = 'usage' AND l.run_id IS NOT NULL
GROUP BY l.run_id, l.grant_id, g.micro_ecu, g.paid_usd
"""


def ecu_value(results: Queries, org_id: str) -> EcuValue:
    """What the ECU of each run are worth, by `RULE`."""
    used: dict[str, int] = {}
    paid: dict[str, Fraction] = {}
    unvalued = 0
    for run_id, drawn, granted, usd in results.query(_DRAWN, [org_id]).rows:
        used[run_id] = used.get(run_id, 0) + drawn
        if usd and granted:
            paid[run_id] = paid.get(run_id, Fraction(0)) + drawn * Fraction(usd) / granted
        else:
            unvalued += drawn
    return EcuValue({run_id: worth / used[run_id] for run_id, worth in paid.items() if used[run_id]}, unvalued)
