"""Give charges whose price was not known an amount, by lines that correct them: what was written once is never changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from byok.access import BILLING_WRITE, Actor, AuditLog, require
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.ids import natural_id
from byok.money import MICRO, cost_usd, plain
from byok.pricing import ModelPrices, load_all_prices
from byok.warehouse import Warehouse
from byok.warehouse.rows import ChargeRow

_AT_ONCE = 20_000


@dataclass
class Applied:
    """What came of it.

    Attributes:
        corrected: Charges that have an amount now.
        usd: What they come to.
        unpriced: Charges that still have no price.
        by_model: Corrected charges, and what they come to, by key of the model.
    """

    corrected: int = 0
    usd: Decimal = Decimal(0)
    unpriced: int = 0
    by_model: dict[str, tuple[int, Decimal]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape."""
        models = [{"model": key, "corrected": count, "usd": usd} for key, (count, usd) in sorted(self.by_model.items())]
        return {"corrected": self.corrected, "usd": self.usd, "unpriced": self.unpriced, "models": models}


_UNPRICED = """
SELECT c.charge_id, c.run_id, c.role, c.attempt_id, c.model_id, c.model_key, c.sku, c.token_type, c.quantity, c.occurred_at,
    coalesce(a.opened_at, c.occurred_at) AS sent_at, a.prompt_tokens
FROM v1.charges c
LEFT JOIN v1.attempts a ON a.org_id = c.org_id AND a.attempt_id = c.attempt_id
LEFT JOIN v1.charges k ON k.org_id = c.org_id AND k.corrects = c.charge_id
WHERE c.org_id = ? AND c.plane = 'provider' AND c.unit = 'token' AND c.corrects IS NULL AND c.amount_usd IS NULL
    AND c.quantity IS NOT NULL AND k.charge_id IS NULL AND c.charge_id > ?
ORDER BY c.charge_id LIMIT ?
"""


def apply_prices(control: ControlPlane, warehouse: Warehouse, audit: AuditLog, actor: Actor) -> Applied:
    """Price the tokens of which the price was not known when they were billed, and is now; doing it again adds nothing.

    The price is the one that the book tells of the time at which each request was sent. A charge that is corrected once stays as it is,
    whatever the book says later.

    Args:
        control: Where the owner's prices are.
        warehouse: Where the charges are.
        audit: Where it is recorded.
        actor: Who.

    Raises:
        ScopeMissing: The actor lacks `billing:write`.
    """
    require(actor, BILLING_WRITE, "price.apply")
    warehouse.drain()
    prices = load_all_prices(control, actor.org_id)
    applied, now = Applied(), utcnow()
    for rows in _unpriced(warehouse, actor.org_id):
        corrections = []
        for row in rows:
            correction = _correction(actor.org_id, row, prices.get(row["model_id"]), now)
            if correction is None:
                applied.unpriced += 1
            else:
                corrections.append(correction)
                _count(applied, correction)
        warehouse.write_segment(corrections)
    if applied.corrected:
        warehouse.drain()
    with audit.act(actor, "price.apply", "charges", corrected=applied.corrected, usd=plain(applied.usd)):
        pass
    return applied


def _unpriced(warehouse: Warehouse, org_id: str) -> Iterator[list[dict[str, Any]]]:
    last = ""
    with warehouse.reading() as state:
        while rows := state.query(_UNPRICED, [org_id, last, _AT_ONCE]).dicts():
            yield rows
            last = rows[-1]["charge_id"]


def _correction(org_id: str, row: dict[str, Any], prices: ModelPrices | None, now: datetime) -> ChargeRow | None:
    price = None if prices is None else prices.at(row["sent_at"], row["prompt_tokens"])
    usd = None if price is None or price.kind != "token" else price.per_mtok(row["token_type"])
    if price is None or usd is None:
        return None
    return ChargeRow(
        org_id=org_id,
        charge_id=natural_id("correction", row["charge_id"]),
        run_id=row["run_id"],
        plane="provider",
        role=row["role"],
        attempt_id=row["attempt_id"],
        model_id=row["model_id"],
        model_key=row["model_key"],
        sku=row["sku"],
        quantity=row["quantity"],
        unit_price_usd_per_mtok=usd,
        amount_usd=cost_usd(row["quantity"], usd, MICRO),
        rate_micro_ecu=None,
        amount_micro_ecu=None,
        price_version=price.version,
        evidence="computed",
        occurred_at=row["occurred_at"],
        recorded_at=now,
        unit="token",
        token_type=row["token_type"],
        unit_price_usd=usd,
        price_units=MICRO,
        price_source=price.source,
        corrects=row["charge_id"],
    )


def _count(applied: Applied, correction: ChargeRow) -> None:
    key, usd = correction.model_key or "", correction.amount_usd or Decimal(0)
    count, total = applied.by_model.get(key, (0, Decimal(0)))
    applied.by_model[key] = (count + 1, total + usd)
    applied.corrected, applied.usd = applied.corrected + 1, applied.usd + usd
