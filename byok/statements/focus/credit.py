"""ECU that were bought or given, and what of it was taken back, as rows of FOCUS."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from byok.ids import natural_id
from byok.money import MICRO
from byok.statements.focus.columns import FocusRow
from byok.statements.focus.parties import PLATFORM
from byok.statements.focus.usage import COST_PLACES, PRICE_PLACES
from byok.statements.focus.value import rounded
from byok.statements.months import Month
from byok.warehouse import Queries

_GRANTS = """
SELECT grant_id, kind, paid_usd, micro_ecu AS granted, micro_ecu AS moved, created_at AS at, created_at, effective_at, expires_at
FROM v1.grants WHERE org_id = $org AND created_at >= $start AND created_at < $end AND (kind <> 'paid' OR paid_usd IS NOT NULL)
ORDER BY created_at, grant_id
"""

_UNTOLD = """
SELECT count(*) FROM v1.grants WHERE org_id = ? AND created_at >= ? AND created_at < ? AND kind = 'paid' AND paid_usd IS NULL
"""

_TAKEN_BACK = """
SELECT g.grant_id, g.kind, g.paid_usd, g.micro_ecu AS granted, -r.micro_ecu AS moved, r.occurred_at AS at, g.created_at, g.effective_at,
    g.expires_at
FROM v1.ledger r
JOIN (SELECT DISTINCT transaction_id, grant_id FROM v1.ledger
    WHERE org_id = $org AND kind IN ('top_up', 'grant') AND grant_id IS NOT NULL) t ON t.transaction_id = r.reverses
JOIN v1.grants g ON g.org_id = r.org_id AND g.grant_id = t.grant_id
WHERE r.org_id = $org AND r.kind = 'reverse' AND r.account = 'wash' AND r.occurred_at >= $start AND r.occurred_at < $end
    AND (g.kind <> 'paid' OR g.paid_usd IS NOT NULL)
ORDER BY r.occurred_at, g.grant_id
"""


def credit_rows(results: Queries, org_id: str, organisation: str, start: datetime, end: datetime) -> Iterator[FocusRow]:
    """Top-ups as purchases and promotional grants as credits, each in the month in which it was made; then what was taken back.

    Purchases of which it is not recorded what was paid are left out, since FOCUS has no unknown cost; see `untold_purchases`.
    """
    who: Any = {"org": org_id, "start": start, "end": end}
    for query in (_GRANTS, _TAKEN_BACK):
        for grant in results.query(query, who).dicts():
            yield _row(grant, org_id, organisation)


def untold_purchases(results: Queries, org_id: str, start: datetime, end: datetime) -> int:
    """How many purchases are left out, since it is not recorded what was paid."""
    ((count,),) = results.query(_UNTOLD, [org_id, start, end]).rows
    return int(count)


def _row(grant: dict[str, Any], org_id: str, organisation: str) -> FocusRow:
    month, bought = Month.of(grant["at"]), grant["kind"] == "paid"
    paid = Fraction(grant["paid_usd"]) if bought else Fraction(0)
    ecu, cost = Fraction(grant["moved"], MICRO), rounded(paid * grant["moved"] / grant["granted"], COST_PLACES)
    price = rounded(paid * MICRO / grant["granted"], PRICE_PLACES)
    sku = f"{PLATFORM}/ecu/{'pack' if bought else 'promotional'}"
    starts = grant["effective_at"]
    return {
        "BilledCost": cost,
        # What it is worth is told where it is used.
        "EffectiveCost": Decimal(0),
        "ListCost": cost,
        "ContractedCost": cost,
        "ListUnitPrice": price,
        "ContractedUnitPrice": price,
        "PricingQuantity": rounded(ecu, PRICE_PLACES),
        "PricingUnit": "Units",
        "PricingCurrency": "USD",
        "PricingCurrencyListUnitPrice": price,
        "PricingCurrencyContractedUnitPrice": price,
        "PricingCurrencyEffectiveCost": Decimal(0),
        "BillingAccountId": org_id,
        "BillingAccountName": organisation,
        "BillingAccountType": "Organisation",
        "BillingCurrency": "USD",
        "BillingPeriodStart": month.start,
        "BillingPeriodEnd": month.end,
        "ChargeCategory": "Purchase" if bought else "Credit",
        "ChargeClass": "Correction" if Month.of(grant["created_at"]) != month else None,
        "ChargeDescription": ("Purchase" if bought else "Grant") + (" of ECU" if grant["moved"] > 0 else " of ECU, taken back"),
        "ChargeFrequency": "One-Time",
        "ChargePeriodStart": starts,
        "ChargePeriodEnd": grant["expires_at"] or max(month.end, Month.of(starts).end),
        "InvoiceIssuerName": PLATFORM,
        "PricingCategory": "Standard",
        "ProviderName": PLATFORM,
        "PublisherName": PLATFORM,
        "ResourceId": grant["grant_id"],
        "ResourceName": grant["grant_id"],
        "ResourceType": "Credit Grant",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Evaluation Credits",
        "ServiceSubcategory": "AI Platforms",
        "SkuId": sku,
        "SkuMeter": "ECU",
        "SkuPriceDetails": {"x_Kind": grant["kind"]},
        "SkuPriceId": natural_id("sku_price", sku, str(paid * MICRO / grant["granted"])),
        "x_CostPlane": "platform",
        "x_IsEstimated": "false",
    }
