"""What a statement of a month consists of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from byok.money import ecu
from byok.statements.credit import CreditMonth
from byok.statements.months import Month

By = Literal["model", "member", "job", "day"]
"""What a line of a statement is for."""


@dataclass(frozen=True)
class StatementLine:
    """Charges of one plane that are for the same, added up.

    Attributes:
        plane: provider or ecu.
        name: Key of the model, address of the member, id of the run, or day (UTC); None: outside a run, or of no model.
        charge_class: correction, or None.
        used_in: Month of use, YYYY-MM: that of the statement but for what is corrected later.
        charges: How many charges the line holds.
        tokens: Known tokens; a correction counts none, since the charge that it corrects did.
        calls: Judge calls.
        amount_usd: Known USD; None on the other plane or when none is known.
        amount_micro_ecu: Known micro-ECU; None on the other plane or when none is known.
        unpriced: Charges whose amount is not known; they are in no total.
        model_key: By job: the model that was evaluated.
        dataset_name: By job: on what.
        started_at: By job: when (UTC).
    """

    plane: str
    name: str | None
    charge_class: str | None
    used_in: str
    charges: int
    tokens: int | None
    calls: int | None
    amount_usd: Decimal | None
    amount_micro_ecu: int | None
    unpriced: int
    model_key: str | None = None
    dataset_name: str | None = None
    started_at: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape of a line."""
        told = asdict(self)
        del told["plane"], told["amount_micro_ecu" if self.plane == "provider" else "amount_usd"]
        if self.plane == "ecu":
            told["amount_ecu"] = None if self.amount_micro_ecu is None else ecu(self.amount_micro_ecu)
        return told


@dataclass(frozen=True)
class Unpriced:
    """Charges of one model whose amount is not known yet, and the command that would make it known.

    Attributes:
        reason: no_price or no_usage.
    """

    model_key: str | None
    reason: str
    charges: int
    fix: str


@dataclass(frozen=True)
class Totals:
    """What a month comes to; unknown amounts are counted and in no sum."""

    charges: int
    provider_usd: Decimal
    unpriced_charges: int
    micro_ecu: int


@dataclass(frozen=True)
class Closing:
    """That a month is closed, by whom, and with what totals."""

    closed_at: datetime
    member: str
    totals: Totals

    def differences(self, now: Totals) -> dict[str, dict[str, Any]]:
        """By name, the totals that are not what they were at closing: nothing, unless the warehouse was changed from outside."""
        before, after = asdict(self.totals), asdict(now)
        return {name: {"closed": before[name], "now": after[name]} for name in before if before[name] != after[name]}


@dataclass(frozen=True)
class Statement:
    """The two bills of a month.

    Attributes:
        month: Which one.
        by: What each line is for.
        lines: Provider plane first, corrections after the others.
        unpriced: What is not in the totals and can still be priced.
        unpriced_ecu: Charges of the ECU plane whose amount is unknown.
        credit: The ledger's way through the month.
        closing: None while it is open.
    """

    month: Month
    by: By
    lines: tuple[StatementLine, ...]
    unpriced: tuple[Unpriced, ...]
    unpriced_ecu: int
    credit: CreditMonth
    closing: Closing | None

    def of(self, plane: str) -> list[StatementLine]:
        """The lines of one plane."""
        return [line for line in self.lines if line.plane == plane]

    @property
    def totals(self) -> Totals:
        """The sum of the lines."""
        return Totals(
            charges=sum(line.charges for line in self.lines),
            provider_usd=sum((line.amount_usd for line in self.lines if line.amount_usd is not None), Decimal(0)),
            unpriced_charges=sum(line.unpriced for line in self.of("provider")),
            micro_ecu=sum(line.amount_micro_ecu for line in self.lines if line.amount_micro_ecu is not None),
        )

    @property
    def known_usd(self) -> Decimal | None:
        """What is known of the provider bill; None when there are lines and none has an amount (an empty bill is 0)."""
        return None if _all_unknown(line.amount_usd for line in self.of("provider")) else self.totals.provider_usd

    @property
    def known_micro_ecu(self) -> int | None:
        """The same of the platform bill."""
        return None if _all_unknown(line.amount_micro_ecu for line in self.of("ecu")) else self.totals.micro_ecu

    @property
    def differences(self) -> dict[str, dict[str, Any]]:
        """What is not as it was when the month was closed."""
        return self.closing.differences(self.totals) if self.closing else {}

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape of a statement."""
        micro = self.known_micro_ecu
        return {
            "month": str(self.month),
            "state": "closed" if self.closing else "open",
            "by": self.by,
            "provider": {
                "total_usd": self.known_usd,
                "unpriced_charges": self.totals.unpriced_charges,
                "lines": [line.as_dict() for line in self.of("provider")],
            },
            "platform": {
                "total_ecu": None if micro is None else ecu(micro),
                "total_micro_ecu": micro,
                "unpriced_charges": self.unpriced_ecu,
                "lines": [line.as_dict() for line in self.of("ecu")],
            },
            "credit": self.credit.as_dict(),
            "unpriced": [asdict(one) for one in self.unpriced],
            "closed": self.closing and {**asdict(self.closing), "ties": not self.differences, "differences": self.differences},
        }


def _all_unknown(amounts: Iterable[Decimal | int | None]) -> bool:
    told = list(amounts)
    return bool(told) and all(amount is None for amount in told)
