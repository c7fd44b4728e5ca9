"""The two bills of a run, read from the warehouse and checked against themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from byok.errors import OutsideError
from byok.money import GPU_HOUR, MICRO, cost_usd, ecu
from byok.warehouse import Queries


class BillDoesNotTie(OutsideError):
    """A stored amount is not its quantity times its price: the warehouse was changed from outside."""

    code = "bill_does_not_tie"


@dataclass(frozen=True)
class BillLine:
    """Charges of one kind, added up.

    Attributes:
        plane: provider or ecu.
        role: candidate, embedding, judge or probe.
        model_key: The model that was asked.
        sku: tokens/input, gpu_time, judge_call, …
        charges: How many charges the line holds; those that refund others are on lines of their own, with negative amounts.
        quantity: Known tokens, calls, or microseconds of GPUs.
        unit_price: USD per million tokens or per GPU hour, or micro-ECU per unit; None when unknown, or when the endpoint tells the cost.
        amount_usd: Known USD; None on the other plane or when none is known.
        amount_micro_ecu: Known micro-ECU; None on the other plane or when none is known.
        unknown: Charges whose amount is not known; they are in no total.
        unit: What the quantity counts: token, call or gpu_microsecond.
    """

    plane: str
    role: str
    model_key: str | None
    sku: str
    charges: int
    quantity: int | None
    unit_price: Decimal | None
    amount_usd: Decimal | None
    amount_micro_ecu: int | None
    unknown: int
    unit: str | None = None


@dataclass(frozen=True)
class TwoBills:
    """What the provider charges and what the platform charges for one run."""

    run_id: str
    lines: tuple[BillLine, ...]

    def of(self, plane: str) -> list[BillLine]:
        """The lines of one bill."""
        return [line for line in self.lines if line.plane == plane]

    @property
    def total_usd(self) -> Decimal | None:
        """Known total of the provider bill; None when no amount is known (an empty bill is 0)."""
        lines = self.of("provider")
        known = [line.amount_usd for line in lines if line.amount_usd is not None]
        return sum(known, Decimal(0)) if known or not lines else None

    @property
    def total_micro_ecu(self) -> int | None:
        """Known total of the platform bill; None when no amount is known (an empty bill is 0)."""
        lines = self.of("ecu")
        known = [line.amount_micro_ecu for line in lines if line.amount_micro_ecu is not None]
        return sum(known) if known or not lines else None

    def unknown(self, plane: str) -> int:
        """Charges of one bill whose amount is not known."""
        return sum(line.unknown for line in self.of(plane))

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape of the two bills."""
        micro = self.total_micro_ecu
        return {
            "run_id": self.run_id,
            "provider": {
                "total_usd": self.total_usd,
                "unpriced_charges": self.unknown("provider"),
                "lines": [_line_dict(line) for line in self.of("provider")],
            },
            "platform": {
                "total_ecu": None if micro is None else ecu(micro),
                "total_micro_ecu": micro,
                "unpriced_charges": self.unknown("ecu"),
                "lines": [_line_dict(line) for line in self.of("ecu")],
            },
        }


def _line_dict(line: BillLine) -> dict[str, Any]:
    left_out = {"plane", "amount_micro_ecu" if line.plane == "provider" else "amount_usd"}
    return {name: value for name, value in asdict(line).items() if name not in left_out}


_LINES = """
WITH line AS (
    -- What a correction gave a price is one line with it; what was refunded is a line of its own.
    SELECT c.plane, c.role, c.model_key, c.sku, c.unit, c.quantity, c.amount_micro_ecu, c.corrects IS NOT NULL AS refunded,
        coalesce(c.amount_usd, k.amount_usd) AS amount_usd,
        coalesce(c.unit_price_usd, k.unit_price_usd, c.unit_price_usd_per_mtok, c.rate_micro_ecu) AS unit_price
    FROM v1.charges c
    LEFT JOIN v1.charges k ON k.org_id = c.org_id AND k.corrects = c.charge_id
    WHERE c.org_id = ? AND c.run_id = ? AND (c.corrects IS NULL OR c.plane = 'ecu')
)
SELECT plane, role, model_key, sku, count(*), CAST(sum(quantity) AS BIGINT), unit_price,
    sum(amount_usd), CAST(sum(amount_micro_ecu) AS BIGINT),
    count(*) FILTER (WHERE amount_usd IS NULL AND amount_micro_ecu IS NULL), any_value(unit)
FROM line
GROUP BY plane, role, model_key, sku, unit_price, refunded
ORDER BY plane DESC, CASE role WHEN 'candidate' THEN 0 WHEN 'embedding' THEN 1 WHEN 'judge' THEN 2 ELSE 3 END, model_key, sku, unit_price,
    refunded
"""

_DISTINCT = """
SELECT DISTINCT plane, unit, evidence, quantity, unit_price_usd, price_units, unit_price_usd_per_mtok, rate_micro_ecu, amount_usd,
    amount_micro_ecu
FROM v1.charges WHERE org_id = ? AND run_id = ?
"""

_ALLOTTED = """
SELECT count(*) FROM (
    SELECT sum(amount_usd) AS allotted FROM v1.charges
    WHERE org_id = $1 AND run_id = $2 AND plane = 'provider' AND evidence = 'reported' GROUP BY attempt_id
    HAVING sum(amount_usd) <> (
        SELECT max(a.reported_cost_usd) FROM v1.attempts a WHERE a.org_id = $1 AND a.run_id = $2 AND a.attempt_id = charges.attempt_id
    )
)
"""

# On the provider's bill, a correction gives an amount to what had none; on the platform's it takes back what a charge came to.
_CORRECTIONS = """
SELECT count(*) FROM v1.charges k
LEFT JOIN v1.charges c ON c.org_id = k.org_id AND c.charge_id = k.corrects
WHERE k.org_id = ? AND k.run_id = ? AND k.corrects IS NOT NULL
    AND (c.charge_id IS NULL OR c.plane <> k.plane OR c.sku <> k.sku OR c.attempt_id IS DISTINCT FROM k.attempt_id
        OR CASE WHEN k.plane = 'provider'
            THEN c.amount_usd IS NOT NULL OR k.amount_usd IS NULL OR c.quantity IS DISTINCT FROM k.quantity
            ELSE c.amount_micro_ecu + k.amount_micro_ecu IS DISTINCT FROM 0 OR c.quantity + k.quantity IS DISTINCT FROM 0 END)
"""


def two_bills(warehouse: Queries, org_id: str, run_id: str) -> TwoBills:
    """The two bills of a run; every stored amount is reckoned again on the way.

    Raises:
        BillDoesNotTie: An amount is not its quantity times its price, the parts of a reported cost do not add up to it, or a correction
            does not fit what it corrects.
        SnapshotMissing: Nothing has been published yet.
    """
    for row in warehouse.query(_DISTINCT, [org_id, run_id]).rows:
        if not _ties(*row):
            raise BillDoesNotTie(f"a charge of run {run_id} is not quantity times price", hint=_MEND)
    for query, what in ((_ALLOTTED, "what the endpoint reported"), (_CORRECTIONS, "what it corrects")):
        if warehouse.query(query, [org_id, run_id]).rows[0][0]:
            raise BillDoesNotTie(f"a charge of run {run_id} does not fit {what}", hint=_MEND)
    return TwoBills(run_id, tuple(BillLine(*row) for row in warehouse.query(_LINES, [org_id, run_id]).rows))


_MEND = "restore the warehouse from a backup"


def _ties(
    plane: str,
    unit: str | None,
    evidence: str,
    quantity: int | None,
    price: Decimal | None,
    price_units: int | None,
    per_mtok: Decimal | None,
    rate: Decimal | None,
    usd: Decimal | None,
    micro: int | None,
) -> bool:
    """Whether the amount of a charge is what its other members say."""
    if plane == "ecu":
        again = None if quantity is None or rate is None else int((quantity * rate).to_integral_value(rounding=ROUND_HALF_EVEN))
        return micro == again and usd is None
    if unit is None:  # from a segment that waited over an upgrade
        unit, price, price_units = "token", per_mtok, None if per_mtok is None else MICRO
    if micro is not None or per_mtok != (price if unit == "token" else None):
        return False
    if evidence == "reported":
        return usd is not None and price is None
    if price is not None and price_units != _UNITS.get(unit):
        return False
    return usd == (None if quantity is None or price is None else cost_usd(quantity, price, price_units or MICRO))


_UNITS = {"token": MICRO, "gpu_microsecond": GPU_HOUR}
"""How many units a price buys."""
