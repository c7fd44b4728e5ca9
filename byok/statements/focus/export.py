"""One export: all rows of a period, with what is not in them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from byok.money import plain
from byok.statements.focus.columns import FocusRow
from byok.statements.focus.credit import credit_rows, untold_purchases
from byok.statements.focus.parties import parties
from byok.statements.focus.usage import usage_rows
from byok.statements.focus.value import RULE, EcuValue, ecu_value
from byok.statements.months import Month
from byok.warehouse import Queries

Plane = Literal["provider", "ecu", "all"]

_ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))

_UNPRICED = """
WITH corrected AS (
    SELECT DISTINCT corrects FROM v1.charges WHERE org_id = $org AND corrects IS NOT NULL AND ($month IS NULL OR billing_month <= $month)
)
SELECT count(*) FILTER (WHERE c.plane = 'provider' AND c.amount_usd IS NULL AND k.corrects IS NULL AND $plane <> 'ecu'),
    count(*) FILTER (WHERE c.plane = 'ecu' AND c.amount_micro_ecu IS NULL AND $plane <> 'provider')
FROM v1.charges c LEFT JOIN corrected k ON k.corrects = c.charge_id
WHERE c.org_id = $org AND ($month IS NULL OR c.billing_month = $month)
"""


@dataclass(frozen=True)
class FocusExport:
    """The rows of an export.

    Attributes:
        month: Its billing period; None: all of them.
        plane: Which bills.
        rows: In the columns of `byok.statements.focus.columns`.
        unpriced_charges: Charges of the provider plane that are left out, since their amount is not known.
        unpriced_ecu_charges: The same of the ECU plane.
        unpriced_purchases: Purchases of ECU that are left out, since it is not recorded what was paid.
        value: What ECU were taken to be worth.
    """

    month: Month | None
    plane: Plane
    rows: tuple[FocusRow, ...]
    unpriced_charges: int
    unpriced_ecu_charges: int
    unpriced_purchases: int
    value: EcuValue

    def total(self, column: str, *, plane: str | None = None) -> Decimal:
        """The sum of a column, over all rows or those of an `x_CostPlane`."""
        known = (row[column] for row in self.rows if row.get(column) is not None and plane in (None, row["x_CostPlane"]))
        return sum(map(Decimal, known), Decimal(0))

    def facts(self) -> dict[str, Any]:
        """What the metadata tells of the rows."""
        return {
            "month": self.month and str(self.month),
            "plane": self.plane,
            "rows": len(self.rows),
            "charges": int(self.total("x_Charges")),
            "unpriced_charges": self.unpriced_charges,
            "unpriced_ecu_charges": self.unpriced_ecu_charges,
            "unpriced_purchases": self.unpriced_purchases,
            "billed_cost_usd": {plane: plain(self.total("BilledCost", plane=plane)) for plane in ("provider", "platform")},
            "effective_cost_usd": {plane: plain(self.total("EffectiveCost", plane=plane)) for plane in ("provider", "platform")},
            "used_ecu": plain(
                sum((row["PricingCurrencyEffectiveCost"] for row in self.rows if row["PricingCurrency"] == "ECU"), Decimal(0))
            ),
            "usd_value_of_ecu": RULE,
            "unvalued_micro_ecu": self.value.unvalued_micro_ecu,
        }


def focus_export(results: Queries, org_id: str, organisation: str, month: Month | None, plane: Plane) -> FocusExport:
    """The charges of a billing period, or of all, as FOCUS 1.2.

    Args:
        results: One state of the warehouse.
        org_id: Whose.
        organisation: The same in words.
        month: The billing period: a charge that came after its own month was closed is in that of the statement it is on.
        plane: provider, ecu (with purchases and grants of credit) or all.
    """
    who: Any = {"org": org_id, "month": month and str(month), "plane": plane}
    value = ecu_value(results, org_id)
    rows = list(usage_rows(results, org_id, organisation, month, plane, parties(results, org_id), value))
    untold = 0
    if plane != "provider":
        span = (month.start, month.end) if month else _ALWAYS
        rows += credit_rows(results, org_id, organisation, *span)
        untold = untold_purchases(results, org_id, *span)
    ((unpriced, unpriced_ecu),) = results.query(_UNPRICED, who).rows
    return FocusExport(month, plane, tuple(rows), unpriced, unpriced_ecu, untold, value)
