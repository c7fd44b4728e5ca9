"""The two bills of a run, read from the warehouse and checked against themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from byok.errors import OutsideError
from byok.money import ecu, token_cost_usd
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
        sku: tokens/input, judge_call, …
        charges: How many charges the line holds.
        quantity: Known tokens or calls.
        unit_price: USD per million tokens, or micro-ECU per unit; None when unknown.
        amount_usd: Known USD; None on the other plane or when none is known.
        amount_micro_ecu: Known micro-ECU; None on the other plane or when none is known.
        unknown: Charges whose amount is not known; they are in no total.
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
SELECT plane, role, model_key, sku, count(*), CAST(sum(quantity) AS BIGINT),
    coalesce(unit_price_usd_per_mtok, rate_micro_ecu) AS unit_price,
    sum(amount_usd), CAST(sum(amount_micro_ecu) AS BIGINT),
    count(*) FILTER (WHERE amount_usd IS NULL AND amount_micro_ecu IS NULL)
FROM v1.charges WHERE org_id = ? AND run_id = ?
GROUP BY plane, role, model_key, sku, unit_price
ORDER BY plane DESC, CASE role WHEN 'candidate' THEN 0 WHEN 'embedding' THEN 1 WHEN 'judge' THEN 2 ELSE 3 END, model_key, sku, unit_price
"""

_DISTINCT = """
SELECT DISTINCT plane, quantity, unit_price_usd_per_mtok, rate_micro_ecu, amount_usd, amount_micro_ecu
FROM v1.charges WHERE org_id = ? AND run_id = ?
"""


def two_bills(warehouse: Queries, org_id: str, run_id: str) -> TwoBills:
    """The two bills of a run; every stored amount is reckoned again on the way.

    Raises:
        BillDoesNotTie: An amount is not its quantity times its price.
        SnapshotMissing: Nothing has been published yet.
    """
    for plane, quantity, price, rate, usd, micro in warehouse.query(_DISTINCT, [org_id, run_id]).rows:
        if plane == "provider":
            good = usd == (None if quantity is None or price is None else token_cost_usd(quantity, price)) and micro is None
        else:
            again = None if quantity is None or rate is None else int((quantity * rate).to_integral_value(rounding=ROUND_HALF_EVEN))
            good = micro == again and usd is None
        if not good:
            raise BillDoesNotTie(f"a charge of run {run_id} is not quantity times price", hint="restore the warehouse from a backup")
    return TwoBills(run_id, tuple(BillLine(*row) for row in warehouse.query(_LINES, [org_id, run_id]).rows))
