"""Money: US dollars as `Decimal` with 12 places, ECU as integer micro-ECU. Never floats."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from itertools import accumulate

from byok.errors import InputError

USD_PLACES = Decimal("0.000000000001")
"""The scale of `DECIMAL(28,12)` in the warehouse."""

MICRO = 1_000_000
"""Micro-ECU in one ECU; also tokens in the unit of a token price."""


GPU_HOUR = 3_600_000_000
"""GPU-microseconds in the unit of a price per GPU hour."""

_WIDE = Context(prec=80)
"""No product of a quantity and a price is rounded before its end."""


class BadAmount(InputError):
    """A text that is not an amount of money that can be stored exactly."""

    code = "bad_amount"


def parse_usd(text: str, *, what: str) -> Decimal:
    """A non-negative amount in US dollars, exact.

    Args:
        text: A plain decimal such as `0.15`.
        what: The option or field, for the message.

    Raises:
        BadAmount: Not a number, negative, not finite, finer than 12 places or over 16 whole digits.
    """
    try:
        amount = Decimal(text.strip())
    except InvalidOperation:
        raise BadAmount(f"{what}: {text!r} is not an amount", hint="write US dollars as a plain decimal, for example 0.15") from None
    if not amount.is_finite() or amount < 0:
        raise BadAmount(f"{what}: {text!r} is not a non-negative amount", hint="write US dollars as a plain decimal, for example 0.15")
    if amount >= Decimal(10) ** 16 or amount != amount.quantize(USD_PLACES):
        raise BadAmount(f"{what}: {text!r} cannot be stored exactly", hint="use at most 16 whole digits and 12 decimals")
    return amount


def micro_ecu(text: str, *, what: str) -> int:
    """A non-negative amount of ECU in micro-ECU, exact.

    Args:
        text: A plain decimal such as `1.5`.
        what: The option or field, for the message.

    Raises:
        BadAmount: Not a number, negative, not finite, or finer than a micro-ECU.
    """
    hint = "write ECU as a plain decimal, for example 1.5"
    try:
        amount = Decimal(text.strip())
    except InvalidOperation:
        raise BadAmount(f"{what}: {text!r} is not an amount", hint=hint) from None
    if not amount.is_finite() or amount < 0 or amount >= Decimal(10) ** 12 or amount * MICRO != int(amount * MICRO):
        raise BadAmount(f"{what}: {text!r} is not a non-negative amount with at most 6 decimals", hint=hint)
    return int(amount * MICRO)


def cost_usd(quantity: int, unit_price: Decimal, units: int) -> Decimal:
    """What a quantity costs, rounded once, half to even, at 12 places.

    Args:
        quantity: How many.
        unit_price: US dollars for `units` of them.
        units: What the price buys.
    """
    exact = _WIDE.divide(_WIDE.multiply(Decimal(quantity), unit_price), Decimal(units))
    return exact.quantize(USD_PLACES, rounding=ROUND_HALF_EVEN, context=_WIDE)


def token_cost_usd(tokens: int, usd_per_million: Decimal) -> Decimal:
    """What `tokens` cost at a price in USD per million tokens, rounded half to even at 12 places."""
    return cost_usd(tokens, usd_per_million, MICRO)


def split(total: int, weights: Sequence[int]) -> list[int]:
    """A total in parts by weight that add up to it exactly; what has no weight gets nothing, and all of it the first when none has any.

    Args:
        total: Whole units, not negative.
        weights: One for each part, none negative; at least one.
    """
    whole = sum(weights)
    if whole == 0:
        return [total] + [0] * (len(weights) - 1)
    # Differences of the running share: each part is within one unit of its exact one, and none is negative.
    ends = [total * upto // whole for upto in accumulate(weights)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def plain(amount: Decimal) -> str:
    """An amount without exponent and without trailing zeros: `0.0000075`, `0`, `12.5`."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ecu(micro: int) -> str:
    """Micro-ECU as ECU, exact: `1_500_000` gives `1.5`."""
    return plain(Decimal(micro) / MICRO)
