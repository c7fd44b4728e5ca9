"""Charges of both planes as rows of FOCUS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from byok.ids import natural_id
from byok.money import MICRO
from byok.statements.focus.columns import FocusRow
from byok.statements.focus.parties import PLATFORM, Party, nobody
from byok.statements.focus.value import EcuValue, rounded
from byok.statements.months import Month
from byok.warehouse import Queries

PRICE_PLACES = 18
"""Decimals of unit prices and quantities; what is not an exact decimal is rounded here."""

COST_PLACES = 12
"""Decimals of costs."""

_METERS = {
    "tokens/input": "Input Tokens",
    "tokens/cached_input": "Cached Input Tokens",
    "tokens/output": "Output Tokens",
    "tokens/reasoning": "Reasoning Tokens",
    "gpu_time": "GPU Time",
    "judge_call": "Judge Calls",
    "inference/input": "Inference Input Tokens",
    "inference/output": "Inference Output Tokens",
}
_SERVICES = {"judge_call": "Judge", "inference/input": "Public Model Inference", "inference/output": "Public Model Inference"}

# An amount that the endpoint told has no unit price: lines of the same amount make one row, priced by the request.
_CHARGES = """
SELECT date_trunc('hour', occurred_at) AS hour, billing_month, strftime(occurred_at AT TIME ZONE 'UTC', '%Y-%m') AS used_in, run_id, plane,
    role, model_id, model_key, sku, unit, token_type, unit_price_usd, price_units, rate_micro_ecu, price_version, price_source, evidence,
    CASE WHEN plane = 'provider' AND unit_price_usd IS NULL THEN amount_usd END AS told_usd, quantity IS NULL AS unmeasured,
    count(*) AS charges, CAST(sum(quantity) AS HUGEINT) AS quantity, sum(amount_usd) AS usd, CAST(sum(amount_micro_ecu) AS BIGINT) AS micro
FROM v1.charges
WHERE org_id = $org AND ($month IS NULL OR billing_month = $month) AND ($plane = 'all' OR plane = $plane)
    AND CASE WHEN plane = 'provider' THEN amount_usd IS NOT NULL ELSE amount_micro_ecu IS NOT NULL END
GROUP BY ALL ORDER BY ALL
"""


@dataclass(frozen=True)
class Measured:
    """How much of what, and at what price for a unit.

    Attributes:
        consumed: In `consumed_unit`.
        priced: In `pricing_unit`.
        price: For one `pricing_unit`, in USD or ECU.
    """

    consumed: Fraction
    consumed_unit: str
    priced: Fraction
    pricing_unit: str
    price: Fraction


def usage_rows(
    results: Queries, org_id: str, organisation: str, month: Month | None, plane: str, providers: dict[str, Party], value: EcuValue
) -> Iterator[FocusRow]:
    """The charges of both planes, added up by hour, run, model, SKU and price."""
    who: Any = {"org": org_id, "month": month and str(month), "plane": plane}
    for line in results.query(_CHARGES, who).dicts():
        party = providers.get(line["model_id"]) or nobody(org_id, line["model_key"])
        if line["plane"] == "provider":
            yield _common(line) | _provider(line, party, organisation)
        else:
            yield _common(line) | _platform(line, org_id, organisation, party, value)


def _common(line: dict[str, Any]) -> FocusRow:
    month, hour = Month.parse(line["billing_month"]), line["hour"]
    tags = {"run_id": line["run_id"], "role": line["role"]}
    return {
        "BillingCurrency": "USD",
        "BillingPeriodStart": month.start,
        "BillingPeriodEnd": month.end,
        "ChargeCategory": "Usage",
        # FOCUS calls a correction only what changes a period that was closed before.
        "ChargeClass": "Correction" if line["billing_month"] != line["used_in"] else None,
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": hour,
        "ChargePeriodEnd": hour + timedelta(hours=1),
        "PricingCategory": "Standard",
        "ResourceId": line["model_id"],
        "ResourceName": line["model_id"] and line["model_key"],
        "ResourceType": line["model_id"] and "Model Endpoint",
        "ServiceCategory": "AI and Machine Learning",
        "SkuMeter": _METERS.get(line["sku"], line["sku"]),
        "Tags": {name: text for name, text in tags.items() if text},
        "x_PriceSource": line["price_source"],
        "x_PriceStatus": line["evidence"],
        "x_IsEstimated": "true" if line["evidence"] == "estimated" else "false",
        "x_RunId": line["run_id"],
        "x_Role": line["role"],
        "x_Charges": line["charges"],
    }


def _provider(line: dict[str, Any], party: Party, organisation: str) -> FocusRow:
    measured = _measured(line)
    sku = f"{party.name}/{party.remote_id}/{line['sku']}"
    return {
        **_priced(measured),
        **_issued_by(party.name, party.account_id, f"{organisation} at {party.name}", "Provider Account"),
        "BilledCost": line["usd"],
        "EffectiveCost": line["usd"],
        "ChargeDescription": f"{_METERS.get(line['sku'], line['sku'])} of {party.remote_id}",
        "PricingCurrency": "USD",
        "PricingCurrencyListUnitPrice": rounded(measured.price, PRICE_PLACES),
        "PricingCurrencyContractedUnitPrice": rounded(measured.price, PRICE_PLACES),
        "PricingCurrencyEffectiveCost": line["usd"],
        "ServiceName": f"{party.name} API",
        "ServiceSubcategory": "Generative AI",
        "SkuId": sku,
        "SkuPriceId": _price_id(sku, line, measured),
        "SkuPriceDetails": {"x_TokenType": line["token_type"]} if line["token_type"] else {"x_Kind": line["sku"]},
        "x_CostPlane": "provider",
    }


def _platform(line: dict[str, Any], org_id: str, organisation: str, party: Party, value: EcuValue) -> FocusRow:
    measured, worth = _measured(line), value.of(line["run_id"])
    in_usd = Measured(measured.consumed, measured.consumed_unit, measured.priced, measured.pricing_unit, measured.price * worth * MICRO)
    sku = f"{PLATFORM}/{line['sku']}/{party.remote_id}"
    price = rounded(measured.price, PRICE_PLACES)
    return {
        **_priced(in_usd),
        **_issued_by(PLATFORM, org_id, organisation, "Organisation"),
        # It was paid for when the credit was bought.
        "BilledCost": Decimal(0),
        "EffectiveCost": rounded(line["micro"] * worth, COST_PLACES),
        "ChargeDescription": f"{_METERS.get(line['sku'], line['sku'])} by {party.remote_id}",
        "PricingCurrency": "ECU",
        "PricingCurrencyListUnitPrice": price,
        "PricingCurrencyContractedUnitPrice": price,
        "PricingCurrencyEffectiveCost": rounded(Fraction(line["micro"], MICRO), 6),
        "ServiceName": _SERVICES.get(line["sku"], "Evaluation"),
        "ServiceSubcategory": "AI Platforms",
        "SkuId": sku,
        "SkuPriceId": _price_id(sku, line, measured),
        "SkuPriceDetails": {"x_Kind": line["sku"]},
        "x_CostPlane": "platform",
    }


def _measured(line: dict[str, Any]) -> Measured:
    charges = Fraction(line["charges"])
    if line["unmeasured"]:
        return Measured(charges, "Requests", charges, "Requests", Fraction(line["told_usd"] or 0))
    quantity, units = line["quantity"], line["price_units"] or (MICRO if line["unit"] == "token" else 1)
    consumed, consumed_unit, pricing_unit = _units(line["unit"], quantity, units)
    if line["told_usd"] is not None:
        return Measured(consumed, consumed_unit, charges, "Requests", Fraction(line["told_usd"]))
    price = Fraction(line["unit_price_usd"]) if line["plane"] == "provider" else Fraction(line["rate_micro_ecu"]) * units / MICRO
    return Measured(consumed, consumed_unit, Fraction(quantity, units), pricing_unit, price)


def _units(unit: str, quantity: int, units: int) -> tuple[Fraction, str, str]:
    """Consumed quantity, its unit, and the unit of the price."""
    match unit:
        case "token":
            return Fraction(quantity), "Tokens", f"{units} Tokens"
        case "gpu_microsecond":
            return Fraction(quantity, MICRO), "GPU-Seconds", "GPU-Hours" if units == 3600 * MICRO else f"{units} GPU-Microseconds"
        case _:
            return Fraction(quantity), "Requests", "Requests" if units == 1 else f"{units} Requests"


def _priced(measured: Measured) -> FocusRow:
    price, quantity = rounded(measured.price, PRICE_PLACES), rounded(measured.priced, PRICE_PLACES)
    cost = rounded(Fraction(price) * Fraction(quantity), COST_PLACES)
    return {
        "ConsumedQuantity": rounded(measured.consumed, PRICE_PLACES),
        "ConsumedUnit": measured.consumed_unit,
        "PricingQuantity": quantity,
        "PricingUnit": measured.pricing_unit,
        "ListUnitPrice": price,
        "ContractedUnitPrice": price,
        "ListCost": cost,
        "ContractedCost": cost,
    }


def _issued_by(name: str, account_id: str, account_name: str, account_type: str) -> FocusRow:
    return {
        "ProviderName": name,
        "PublisherName": name,
        "InvoiceIssuerName": name,
        "BillingAccountId": account_id,
        "BillingAccountName": account_name,
        "BillingAccountType": account_type,
    }


def _price_id(sku: str, line: dict[str, Any], measured: Measured) -> str:
    """The same SKU at the same price, whichever request it was."""
    return natural_id("sku_price", sku, line["price_version"], measured.pricing_unit, str(measured.price))
