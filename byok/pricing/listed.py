"""Prices that providers publish, from the library genai-prices: by date, time of day, size of the prompt, and kind of token.

The list is that of the installed version; it is never fetched. It is loaded when a model at a known address is first asked for, since that
takes half a second.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache, lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from byok.money import USD_PLACES

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice

    from byok.pricing.prices import Price

_SAME = {"api.together.ai": "api.together.xyz"}
"""Addresses of the same service that the list does not name."""

_NAMES = {
    "input": "input_mtok",
    "cached_input": "cache_read_mtok",
    "output": "output_mtok",
    "reasoning": "output_reasoning_mtok",
}

_PER_REQUEST = "requests_kcount"


class Listed:
    """The listed prices of one model.

    Args:
        version: Which entry of which list.
        model: The entry.
    """

    def __init__(self, version: str, model: ModelInfo) -> None:
        from genai_prices.types import TieredPrices, TimeOfDateConstraint

        self.version, self._model = version, model
        told = model.prices
        every = told if isinstance(told, list) else []
        self._by_clock = any(isinstance(one.constraint, TimeOfDateConstraint) for one in every)
        of_all = [one.prices for one in told] if isinstance(told, list) else [told]
        usd = (getattr(one, name) for one in of_all for name in _NAMES.values())
        self.tiers: Sequence[int] = sorted({tier.start for one in usd if isinstance(one, TieredPrices) for tier in one.tiers})
        """Tokens of a prompt above which the next price holds."""
        self._days: dict[date, ModelPrice] = {}
        self._found: dict[tuple[int, int], Price] = {}

    def at(self, when: datetime, prompt_tokens: int | None) -> Price:
        """The price in force; of a prompt of unknown size that of a small one."""
        prices = self._in_force(when.astimezone(UTC))
        tier = bisect_left(self.tiers, prompt_tokens or 0)  # a tier holds above its start, not at it
        found = self._found.get((id(prices), tier))
        if found is None:
            found = self._found[id(prices), tier] = self._price(prices, prompt_tokens or 0)
        return found

    def _in_force(self, when: datetime) -> ModelPrice:
        if self._by_clock:
            return self._model.get_prices(when)
        day = when.date()  # all else in the list begins at midnight, UTC
        found = self._days.get(day)
        if found is None:
            found = self._days[day] = self._model.get_prices(when)
        return found

    def _price(self, prices: ModelPrice, prompt_tokens: int) -> Price:
        from byok.pricing.prices import NO_PRICE, token_price

        if getattr(prices, _PER_REQUEST) is not None:
            return NO_PRICE  # what its tokens cost is not all that it costs
        told = {name: _usd(getattr(prices, key), prompt_tokens) for name, key in _NAMES.items()}
        if told["input"] is None and told["output"] is None:
            return NO_PRICE
        return token_price(
            "listed", self.version, told["input"], told["output"], cached_input=told["cached_input"], reasoning=told["reasoning"]
        )


def _usd(price: Any, prompt_tokens: int) -> Decimal | None:
    """USD per million tokens for a prompt of that size: the tier that it reaches holds for all of its tokens."""
    if price is None or isinstance(price, Decimal):
        found: Decimal | None = price
    else:
        reached = [tier.price for tier in price.tiers if prompt_tokens > tier.start]
        found = reached[-1] if reached else price.base
    return None if found is None else found.quantize(USD_PLACES, rounding=ROUND_HALF_EVEN)


@lru_cache(256)
def listed_model(base_url: str, remote_id: str) -> Listed | None:
    """The listed prices of a model; None when no list names its address and it."""
    if not _may_be_listed(base_url):
        return None
    snapshot = _snapshot()
    address = _address(base_url)
    for provider in snapshot.providers:
        if not _serves(provider.api_pattern, address):
            continue
        # A model that its owner has tuned has the name of the one it was made of in its own, and another price.
        model = None if remote_id.startswith("ft:") else provider.find_model(remote_id, all_providers=snapshot.providers)
        if model is not None:
            return Listed(f"genai-prices:{_version()}:{provider.id}/{model.id}", model)
    return None


def _may_be_listed(base_url: str) -> bool:
    """Whether an address could be a provider's: no number, and no name of this machine or of this network."""
    host = urlsplit(base_url).hostname or ""
    if "." not in host.strip(".") or host.endswith((".local", ".internal", ".localhost", ".test", ".example", ".invalid")):
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


def _address(base_url: str) -> str:
    """A base URL as the list's patterns take it: nothing in its path may pass for the name of a host."""
    parts = urlsplit(base_url)
    host = (parts.hostname or "").lower()
    return f"{parts.scheme}://{_SAME.get(host, host)}/{parts.path.lstrip('/').replace('.', '_')}"


def _serves(pattern: str, address: str) -> bool:
    found = re.match(pattern, address)
    if found is None:
        return False
    # The patterns do not say where the name ends: api.openai.com.example.net is not api.openai.com.
    return found.end() == len(address) or found.group().endswith(("/", ".")) or address[found.end()] in "/:?#"


@cache
def _snapshot() -> DataSnapshot:
    from genai_prices.data import providers
    from genai_prices.data_snapshot import DataSnapshot

    return DataSnapshot(providers=providers, from_auto_update=False)


@cache
def _version() -> str:
    from genai_prices import __version__

    return __version__
