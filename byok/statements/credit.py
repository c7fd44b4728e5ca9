"""What became of the ECU credit in a month, added up from the ledger."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from byok.errors import OutsideError
from byok.money import ecu
from byok.statements.months import Month
from byok.warehouse import Queries


class StatementDoesNotTie(OutsideError):
    """Two ways to add up the same month do not come to the same: the warehouse was changed from outside."""

    code = "statement_does_not_tie"


@dataclass(frozen=True)
class CreditMonth:
    """The ledger's way through a month, in micro-ECU. What runs hold is part of the balances.

    Attributes:
        opening: Balance when it began.
        top_ups: Bought.
        grants: Given.
        taken_back: Top-ups and grants that were reversed; positive.
        used: Used by runs; a settlement that was reversed is taken off.
        expired: Lost with grants that expired.
        closing: Balance when it ended, or now; negative when overdrawn.
        held: Part of `closing` that runs held then.
    """

    opening: int
    top_ups: int
    grants: int
    taken_back: int
    used: int
    expired: int
    closing: int
    held: int

    def as_dict(self) -> dict[str, Any]:
        """Each amount in ECU and in micro-ECU."""
        told = asdict(self)
        return {f"{name}_ecu": ecu(micro) for name, micro in told.items()} | {f"{name}_micro_ecu": micro for name, micro in told.items()}


_MOVED = """
SELECT CAST(coalesce(sum(micro_ecu) FILTER (WHERE occurred_at < $start AND account IN ('credit', 'held', 'overdraft')), 0) AS BIGINT),
    CAST(coalesce(-sum(micro_ecu) FILTER (WHERE occurred_at >= $start AND account = 'wash' AND kind = 'top_up'), 0) AS BIGINT),
    CAST(coalesce(-sum(micro_ecu) FILTER (WHERE occurred_at >= $start AND account = 'wash' AND kind = 'grant'), 0) AS BIGINT),
    CAST(coalesce(sum(micro_ecu) FILTER (WHERE occurred_at >= $start AND account = 'wash' AND kind = 'reverse'), 0) AS BIGINT),
    CAST(coalesce(sum(micro_ecu) FILTER (WHERE occurred_at >= $start AND account = 'usage'), 0) AS BIGINT),
    CAST(coalesce(sum(micro_ecu) FILTER (WHERE occurred_at >= $start AND account = 'breakage'), 0) AS BIGINT),
    CAST(coalesce(sum(micro_ecu) FILTER (WHERE account IN ('credit', 'held', 'overdraft')), 0) AS BIGINT),
    CAST(coalesce(sum(micro_ecu) FILTER (WHERE account = 'held'), 0) AS BIGINT)
FROM v1.ledger WHERE org_id = $org AND occurred_at < $end
"""


def credit_month(results: Queries, org_id: str, month: Month) -> CreditMonth:
    """The ledger's way through a month.

    Raises:
        StatementDoesNotTie: What moved does not lead from the opening balance to the closing one.
    """
    who: Any = {"org": org_id, "start": month.start, "end": month.end}
    (moved,) = results.query(_MOVED, who).rows
    found = CreditMonth(*moved)
    if found.opening + found.top_ups + found.grants - found.taken_back - found.used - found.expired != found.closing:
        raise StatementDoesNotTie(
            f"the ECU ledger of {month} does not add up", hint="byok bill ledger verify; restore the warehouse from a backup"
        )
    return found
