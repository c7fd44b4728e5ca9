"""The columns of an export: those of FOCUS 1.2 by name, then our own, which begin with x_."""

from __future__ import annotations

from typing import Any, Literal

Kind = Literal["text", "number", "time", "json"]

FOCUS_VERSION = "1.2"

SCHEMA_ID = "byok-focus-1.2-1"
"""Changes whenever a column is added, dropped, or means something else."""

_NUMBERS = (
    *("BilledCost", "CommitmentDiscountQuantity", "ConsumedQuantity", "ContractedCost", "ContractedUnitPrice", "EffectiveCost", "ListCost"),
    *("ListUnitPrice", "PricingCurrencyContractedUnitPrice", "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice"),
    *("PricingQuantity", "x_Charges"),
)
_TIMES = ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart")
_JSON = ("SkuPriceDetails", "Tags")

_NAMES = (
    *("AvailabilityZone", "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType", "BillingCurrency"),
    *("BillingPeriodEnd", "BillingPeriodStart", "CapacityReservationId", "CapacityReservationStatus", "ChargeCategory", "ChargeClass"),
    *("ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "CommitmentDiscountCategory"),
    *("CommitmentDiscountId", "CommitmentDiscountName", "CommitmentDiscountQuantity", "CommitmentDiscountStatus"),
    *("CommitmentDiscountType", "CommitmentDiscountUnit", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice"),
    *("EffectiveCost", "InvoiceId", "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory", "PricingCurrency"),
    *("PricingCurrencyContractedUnitPrice", "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice", "PricingQuantity"),
    *("PricingUnit", "ProviderName", "PublisherName", "RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType"),
    *("ServiceCategory", "ServiceName", "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId"),
    *("SubAccountId", "SubAccountName", "SubAccountType", "Tags"),
    *("x_CostPlane", "x_PriceSource", "x_PriceStatus", "x_IsEstimated", "x_RunId", "x_Role", "x_Charges"),
)


def _kind(name: str) -> Kind:
    return "number" if name in _NUMBERS else "time" if name in _TIMES else "json" if name in _JSON else "text"


COLUMNS: dict[str, Kind] = {name: _kind(name) for name in _NAMES}
"""Every column with its kind. What does not apply here (regions, commitments, reservations, invoices) is there and null."""

FocusRow = dict[str, Any]
"""One row: Decimal or int for numbers, aware times, plain values for JSON; a column that is missing is null."""
