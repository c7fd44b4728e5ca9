"""The price in force: the owner's own before what the endpoint tells, and that before a list of the provider's prices."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from byok.engine.plan import ModelRef
from byok.pricing.listed import Listed, listed_model
from byok.warehouse.rows import PriceSource, TokenType

Kind = Literal["token", "gpu_hour", "reported", "none"]

TELLS_COST = frozenset({"openrouter.ai"})
"""Hosts that tell with each answer what was charged for it."""

_SOON = timedelta(minutes=1)
"""A request that is reckoned with now may leave under a price that is in force by then."""


@dataclass(frozen=True, slots=True)
class Price:
    """A price in force.

    Attributes:
        kind: `token` (USD per million tokens), `gpu_hour` (USD for each hour of each GPU), `reported` (what the endpoint says that a
            request cost) or `none`.
        source: Whose it is, as charges name it.
        version: Which entry of the book, or which entry of a list, as charges name it.
        input: USD per million tokens of the prompt that came from no cache; None is unknown.
        cached_input: USD per million tokens that came from a cache.
        output: USD per million tokens of what is read.
        reasoning: USD per million tokens of reasoning.
        usd_per_gpu_hour: For kind `gpu_hour`.
        gpus: GPUs that serve the model, for kind `gpu_hour`.
    """

    kind: Kind
    source: PriceSource
    version: str
    input: Decimal | None = None
    cached_input: Decimal | None = None
    output: Decimal | None = None
    reasoning: Decimal | None = None
    usd_per_gpu_hour: Decimal | None = None
    gpus: int | None = None

    def per_mtok(self, token_type: TokenType) -> Decimal | None:
        """USD per million tokens of a type; None is unknown."""
        found: Decimal | None = getattr(self, token_type)
        return found

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape of a price."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


NO_PRICE = Price("none", "none", "none")


def token_price(
    source: PriceSource,
    version: str,
    input: Decimal | None,
    output: Decimal | None,
    *,
    cached_input: Decimal | None = None,
    reasoning: Decimal | None = None,
) -> Price:
    """A price of tokens; cached and reasoning tokens without one of their own cost what the others of their side do."""
    cached_input, reasoning = (own if own is not None else side for own, side in ((cached_input, input), (reasoning, output)))
    return Price("token", source, version, input, cached_input, output, reasoning)


class Prices(Protocol):
    """What knows the price of one model at any time."""

    def at(self, when: datetime, prompt_tokens: int | None = None) -> Price:
        """The price in force.

        Args:
            when: When the request was sent.
            prompt_tokens: Tokens of its prompt, cached ones included, by which some lists of prices have tiers; None is unknown.
        """
        ...


class OwnPrice(Protocol):
    """An entry of the book, as far as it matters here."""

    @property
    def effective_from(self) -> datetime: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def price(self) -> Price: ...


class ModelPrices:
    """All prices of one model, ready to be asked for each of many requests.

    Args:
        entries: The owner's own, in order of creation.
        base_url: Where the model is asked.
        remote_id: What the endpoint calls it.
    """

    def __init__(self, entries: Sequence[OwnPrice], base_url: str, remote_id: str) -> None:
        self._entries, self._base_url, self._remote_id = entries, base_url, remote_id
        # Of several from the same time on, the one that was made last counts.
        own = {entry.effective_from: entry.price for entry in entries}
        self._starts = sorted(own)
        self._own = [own[start] for start in self._starts]

    def at(self, when: datetime, prompt_tokens: int | None = None) -> Price:
        """The price in force; see `Prices`."""
        place = bisect_right(self._starts, when)
        if place:
            return self._own[place - 1]
        if self._tells_cost is not None:
            return self._tells_cost
        return NO_PRICE if self._listed is None else self._listed.at(when, prompt_tokens)

    def known_at(self, when: datetime) -> ModelPrices:
        """The prices as the book told them at a time: what was entered later does not count."""
        known = [entry for entry in self._entries if entry.created_at <= when]
        if len(known) == len(self._entries):
            return self
        return ModelPrices(known, self._base_url, self._remote_id)

    def dearest(self, when: datetime, prompt_tokens: int) -> tuple[Decimal | None, Decimal | None] | None:
        """The most that a million tokens of a prompt, and of an answer, may cost for the next moment; None in place of what is unknown.

        Args:
            when: Now.
            prompt_tokens: Most tokens of the prompt.

        Returns:
            None when no price of tokens is in force, so that no request has a bound.
        """
        found = [self.at(at, prompt_tokens) for at in (when, when + _SOON)]
        if any(price.source == "listed" for price in found) and self._listed is not None:
            sizes = (0, *(start + 1 for start in self._listed.tiers if start < prompt_tokens))
            found += [self.at(at, size) for at in (when, when + _SOON) for size in sizes]
        if any(price.kind != "token" for price in found):
            return None
        return _most(found, "input", "cached_input"), _most(found, "output", "reasoning")

    def by_gpu_hour(self, since: datetime, until: datetime) -> bool:
        """Whether GPU hours are what counts at some time of a span."""
        within = (start for start in self._starts if since < start <= until)
        return any(self.at(at).kind == "gpu_hour" for at in (since, *within))

    @cached_property
    def _tells_cost(self) -> Price | None:
        host = (urlsplit(self._base_url).hostname or "").removeprefix("api.")
        return Price("reported", "endpoint", f"endpoint:{host}") if host in TELLS_COST else None

    @cached_property
    def _listed(self) -> Listed | None:
        return listed_model(self._base_url, self._remote_id)


def _most(prices: Sequence[Price], *names: TokenType) -> Decimal | None:
    found = [price.per_mtok(name) for price in prices for name in names]
    known = [usd for usd in found if usd is not None]
    return max(known) if len(known) == len(found) else None


class _Fixed:
    def __init__(self, price: Price) -> None:
        self._price = price

    def at(self, when: datetime, prompt_tokens: int | None = None) -> Price:
        return self._price


def fixed_prices(model: ModelRef) -> Prices:
    """The prices that a plan pinned with its model, for all time: of what was recorded before there was a price book."""
    known = model.price_input is not None or model.price_output is not None
    version = f"model:{model.id}:r{model.revision}"
    return _Fixed(token_price("own" if known else "none", version, model.price_input, model.price_output))
