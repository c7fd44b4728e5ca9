"""Prices in a list of models, exact, in USD per million tokens: providers give them per token or per million, as numbers, texts or money.

Units are told by the shape alone and never mixed (providers.md, fact 6). What leaves a doubt is None: a wrong price is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Literal

from byok.money import USD_PLACES

Kind = Literal["chat", "embedding", "other"]
"""What a model answers."""

CHEAPEST, DEAREST = Decimal("0.0001"), Decimal(10_000)
"""USD per million tokens. Beyond them lies no real price, but a price of another unit: a token's, or a million's as a token's."""

Prices = tuple[Decimal | None, Decimal | None, Decimal | None]
"""Of input, output and cached input, in USD per million tokens."""

UNKNOWN: Prices = (None, None, None)
"""Prices of which nothing is known."""

MOST_COUNT = 1_000_000_000
"""A count, of tokens or of parts of money, above this is a mistake."""

_PER_MILLION = ("input", "output", "cached_input|cachedInput")
_PER_TOKEN = ("prompt", "completion", "input_cache_read")
_SPELT_OUT = tuple(f"{what}_price_per_million_tokens" for what in ("input", "output", "cached_input"))
_OTHER_CHARGES = ("hourly", "duration_per_hour", "base", "request", "image")
_SKUS = ("llm input tokens (uncached)", "llm output tokens", "llm input tokens (cached)")
_NUMBER = re.compile(r"\d{1,20}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,2})?", re.ASCII)


def read_prices(entry: Mapping[str, Any], kind: Kind | None, disputed: list[str]) -> Prices:
    """The prices that an entry of a list states.

    Args:
        entry: The entry.
        kind: What the model answers.
        disputed: Takes the name of the member that states two prices.
    """
    offers = set(_offers(entry))
    if len(offers) > 1:
        disputed.append("pricing")
    if len(offers) != 1:
        return UNKNOWN
    paid, answered, cached = offers.pop()
    if paid == 0 and answered == 0:
        pricing = entry.get("pricing")
        others = [pricing.get(name) for name in _OTHER_CHARGES] if isinstance(pricing, dict) else []
        free = all(other is None or _amount(other) == 0 for other in others)
        return (paid, answered, cached if cached == 0 else None) if free else UNKNOWN
    # A single zero means "not set" more often than free; but an embedder has no answer to pay for.
    if answered == 0 and not (kind == "embedding" and paid):
        answered = None
    return paid or None, answered, cached or None


def _offers(entry: Mapping[str, Any]) -> Iterator[Prices]:
    """The prices of each form in which an entry states some. The names of the members tell the unit."""
    pricing = entry.get("pricing")
    table = pricing if isinstance(pricing, dict) else {}
    for source, names, places in ((table, _PER_MILLION, 0), (table, _PER_TOKEN, 6), (entry, _SPELT_OUT, 0)):
        said = [next((source[name] for name in either.split("|") if source.get(name) is not None), None) for either in names]
        if any(value is not None for value in said):
            # Together's are numbers; texts under the same names are prices of a single token elsewhere.
            paid, answered, cached = (None if names is _PER_MILLION and isinstance(value, str) else _usd(value, places) for value in said)
            yield paid, answered, cached
    modes = entry.get("serverlessModes")
    usual = [mode for mode in modes if isinstance(mode, dict) and _is_usual(mode)] if isinstance(modes, list) else []
    if len(usual) == 1 and isinstance(usual[0].get("skuInfos"), list):
        yield _of_skus(usual[0]["skuInfos"])
    if isinstance(pricing, list) and entry.get("serverless_mode") in (None, "default", "standard"):
        yield _of_skus(pricing)


def _is_usual(mode: Mapping[str, Any]) -> bool:
    """Whether a serverless mode of Fireworks is what a plain request gets, and not a tier or a resource of its own."""
    name = mode.get("name")
    usual = name is None or (isinstance(name, str) and name.rpartition("/")[2] == "default")
    return usual and not mode.get("usageIdentifier") and not mode.get("serviceTier")


def _of_skus(skus: list[Any]) -> Prices:
    """Prices of Fireworks' list of goods: each with a name, an amount and a unit (providers.md, section 4)."""
    said: dict[str, set[Decimal | None]] = {name: set() for name in _SKUS}
    for sku in skus:
        if isinstance(sku, dict) and isinstance(name := sku.get("sku"), str) and name.lower() in said:
            said[name.lower()].add(_money(sku.get("amount")) if sku.get("unit") == "1M tokens" else None)
    paid, answered, cached = (amounts.pop() if len(amounts) == 1 else None for amounts in said.values())
    return paid, answered, cached


def _money(value: Any) -> Decimal | None:
    """US dollars of google.type.Money: whole units as a text, and billionths; or of a plain number."""
    if not isinstance(value, dict):
        return _usd(value, 0)
    units, nanos = value.get("units"), value.get("nanos")
    if value.get("currencyCode", "USD") != "USD" or (units is None and nanos is None):
        return None
    # Protobuf's JSON leaves out what is 0.
    dollars, billionths = (0 if part is None else whole_number(part) for part in (units, nanos))
    if dollars is None or billionths is None or billionths >= 10**9:
        return None
    return _in_range(dollars + Decimal(billionths).scaleb(-9))


def _usd(value: Any, places: int) -> Decimal | None:
    """A price per million tokens, from one for 1 / 10^`places` of them."""
    amount = _amount(value)
    return None if amount is None else _in_range(amount.scaleb(places))


def _in_range(price: Decimal) -> Decimal | None:
    """The price in the 12 places that money has: floats that a server multiplied lose their noise; None for an unlikely one."""
    if price == 0:
        return Decimal(0)
    if not CHEAPEST <= price <= DEAREST:
        return None
    rounded = price.quantize(USD_PLACES)
    return price if price == rounded else rounded


def _amount(value: Any) -> Decimal | None:
    """A number or a numeral as it is written: `6e-07` is 0.0000006, not the double beside it."""
    if isinstance(value, str):
        text = value.strip()
    elif isinstance(value, int | float) and abs(value) < 10**18:  # longer ones Python refuses to write
        text = repr(value)
    else:
        return None
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def whole_number(value: Any) -> int | None:
    """A count that is given as a number or as digits; None for anything else."""
    if isinstance(value, str) and len(value) <= 10 and value.isascii() and value.isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_COUNT else None
