"""ECU rate cards: effective-dated files in `data/rates/`; the newest that is in force counts."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from byok.errors import InputError
from byok.resources import shipped


class RateCardInvalid(InputError):
    """A rate card that cannot be used."""

    code = "rate_card_invalid"


class NoRateCard(InputError):
    """No rate card is in force at a time."""

    code = "no_rate_card"


@dataclass(frozen=True)
class TokenRates:
    """ECU per million tokens, which is micro-ECU per token."""

    input: Decimal
    output: Decimal


@dataclass(frozen=True)
class RateCard:
    """The rates in force from a time on.

    Attributes:
        version: Its name, copied onto every charge.
        effective_from: When it takes over (UTC).
        judge_call: Micro-ECU per judge call, by key of the judging model; `default` for all others.
        public_inference: Token rates by key of the public model; `default` for all others.
    """

    version: str
    effective_from: datetime
    judge_call: dict[str, int]
    public_inference: dict[str, TokenRates]

    def judge_call_micro_ecu(self, model_key: str) -> int:
        """Micro-ECU for one judge call."""
        return self.judge_call.get(model_key, self.judge_call["default"])

    def inference(self, model_key: str) -> TokenRates:
        """Token rates of a public model."""
        return self.public_inference.get(model_key, self.public_inference["default"])


def rate_card(at: datetime, folder: Path | None = None) -> RateCard:
    """The rate card in force at a time.

    Args:
        at: An aware time.
        folder: Where the cards are; those that ship by default.

    Raises:
        NoRateCard: None is in force yet.
        RateCardInvalid: A card is malformed, or two share a version or a start.
    """
    cards = read_cards(folder or shipped("data", "rates"))
    in_force = [card for card in cards if card.effective_from <= at]
    if not in_force:
        raise NoRateCard(f"no rate card is in force on {at.date()}", hint="add one with an earlier effective_from to data/rates/")
    return max(in_force, key=lambda card: card.effective_from)


def read_cards(folder: Path) -> list[RateCard]:
    """All rate cards of a folder.

    Raises:
        RateCardInvalid: A card is malformed, or two share a version or a start.
    """
    cards = [_read(path) for path in sorted(folder.glob("*.toml"))]
    for name in ("version", "effective_from"):
        values = [getattr(card, name) for card in cards]
        if len(set(values)) < len(values):
            raise RateCardInvalid(f"two rate cards have the same {name}", hint="every card needs its own", field=name)
    return cards


def _read(path: Path) -> RateCard:
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
        start = told["effective_from"]
        if start.tzinfo is None:
            raise ValueError("effective_from needs a zone (end it with Z)")
        calls = {key: _whole(value) for key, value in told["judge_call"].items()}
        rates = {key: TokenRates(_rate(value["input"]), _rate(value["output"])) for key, value in told["public_inference"].items()}
        if "default" not in calls or "default" not in rates:
            raise ValueError("judge_call and public_inference need a default")
        return RateCard(str(told["version"]), start.astimezone(UTC), calls, rates)
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, ValueError, InvalidOperation) as problem:
        told_problem = f"{problem} is missing" if isinstance(problem, KeyError) else str(problem)
        raise RateCardInvalid(f"rate card {path.name}: {told_problem}", hint="see data/rates/ for the form", file=path.name) from None


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a whole number of micro-ECU")
    return value


def _rate(value: Any) -> Decimal:
    if not isinstance(value, str):
        raise ValueError(f"{value!r}: write token rates as text, so that they stay exact")
    rate = Decimal(value)
    if not rate.is_finite() or rate < 0 or rate != rate.quantize(Decimal("0.000001")):
        raise ValueError(f"{value!r} is not an amount of ECU with at most six decimals")
    return rate
