"""From one attempt to its lines on the two bills.

The provider bills what is asked under the owner's key (USD): tokens, each in one of four buckets; or the time for which GPUs were busy; or
what the endpoint says that the request cost. The platform bills its own work (ECU): each judge call that gave an answer, and the tokens of
public models. ECU never bills tokens under the owner's own key.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal

from byok.billing.rates import RateCard
from byok.clock import utcnow
from byok.costs import never_billed
from byok.engine.plan import ModelRef
from byok.ids import natural_id
from byok.money import GPU_HOUR, MICRO, cost_usd, split
from byok.pricing import Price, Prices, fixed_prices
from byok.warehouse.rows import AttemptRow, ChargeRow, Evidence, TokenType

PICO = 12
"""Places of US dollars that the warehouse keeps."""


def surely_free(attempt: AttemptRow) -> bool:
    """Whether an attempt surely cost nothing: see `never_billed`, and no usage was told.

    A timeout, a cut answer and an attempt whose end is not known may have been billed: their cost is unknown, not zero.
    """
    if attempt.status != "error" or attempt.usage_class == "reported":
        return False
    return never_billed(attempt.error_code, attempt.http_status)


def charges_for(
    attempt: AttemptRow,
    model: ModelRef,
    card: RateCard,
    prices: Prices | None = None,
    *,
    vectors: bool = False,
    busy_us: int | None = None,
) -> list[ChargeRow]:
    """The lines that one attempt leaves on the two bills.

    Args:
        attempt: The attempt.
        model: The model that was asked.
        card: The rate card in force.
        prices: The model's prices; that in force when the attempt was sent counts. None: the prices that the plan pinned with the model.
        vectors: Whether embeddings were asked for: they have no output, so that nothing about it is unknown when none is reported.
        busy_us: The attempt's share of the time for which the model was busy, in microseconds, where GPU hours are paid for; None is
            unknown.
    """
    return list(_lines(attempt, model, card, prices or fixed_prices(model), vectors, busy_us))


def _lines(attempt: AttemptRow, model: ModelRef, card: RateCard, prices: Prices, vectors: bool, busy_us: int | None) -> Iterator[ChargeRow]:
    now = utcnow()
    if not surely_free(attempt):
        if model.public:
            rates = card.inference(model.key)
            known = attempt.usage_class == "reported"
            yield _ecu(attempt, card, now, "inference/input", attempt.prompt_tokens if known else None, rates.input, "input")
            if attempt.completion_tokens or not vectors:
                yield _ecu(attempt, card, now, "inference/output", attempt.completion_tokens if known else None, rates.output, "output")
        else:
            yield from _provider(attempt, prices.at(attempt.opened_at, attempt.prompt_tokens), now, vectors, busy_us)
    if attempt.role == "judge" and attempt.status == "ok":
        yield _ecu(attempt, card, now, "judge_call", 1, Decimal(card.judge_call_micro_ecu(model.key)), None)


def _provider(attempt: AttemptRow, price: Price, now: datetime, vectors: bool, busy_us: int | None) -> Iterator[ChargeRow]:
    if price.kind == "gpu_hour":
        assert price.usd_per_gpu_hour is not None and price.gpus is not None
        quantity = None if busy_us is None else busy_us * price.gpus
        amount = None if quantity is None else cost_usd(quantity, price.usd_per_gpu_hour, GPU_HOUR)
        yield _usd(attempt, price, now, None, quantity, amount, "estimated", unit_price=price.usd_per_gpu_hour)
        return
    buckets = list(token_buckets(attempt, vectors=vectors))
    if price.kind == "reported":
        for (token_type, tokens), amount in zip(buckets, _allotted(attempt, buckets), strict=True):
            # Where no tokens are known, the whole cost stands on the first line, and there is no other.
            if amount is not None or tokens is not None or attempt.reported_cost_usd is None:
                yield _usd(attempt, price, now, token_type, tokens, amount, "reported")
        return
    for token_type, tokens in buckets:
        usd = price.per_mtok(token_type)
        amount = None if tokens is None or usd is None else cost_usd(tokens, usd, MICRO)
        yield _usd(attempt, price, now, token_type, tokens, amount, "computed", unit_price=usd)


def token_buckets(attempt: AttemptRow, *, vectors: bool = False) -> Iterator[tuple[TokenType, int | None]]:
    """The tokens of an attempt by type, each in one bucket; None is unknown. Cached and reasoning tokens are named where there are any.

    Args:
        attempt: The attempt.
        vectors: Whether embeddings were asked for, which have no output.
    """
    prompt, completion = attempt.prompt_tokens, attempt.completion_tokens
    if attempt.usage_class != "reported" or prompt is None or completion is None:
        yield "input", None
        if completion or not vectors:
            yield "output", None
        return
    cached, reasoning = attempt.cached_tokens or 0, attempt.reasoning_tokens or 0
    yield "input", prompt - cached
    if cached:
        yield "cached_input", cached
    if completion or not vectors:
        yield "output", completion - reasoning
    if reasoning:
        yield "reasoning", reasoning


def _allotted(attempt: AttemptRow, buckets: list[tuple[TokenType, int | None]]) -> list[Decimal | None]:
    """What an endpoint says that a request cost, over its lines by their tokens; the sum is the cost to the last digit."""
    cost = attempt.reported_cost_usd
    if cost is None:
        return [None] * len(buckets)
    if buckets[0][1] is None:
        return [cost, *[None] * (len(buckets) - 1)]
    parts = split(int(cost.scaleb(PICO)), [tokens or 0 for _, tokens in buckets])
    return [Decimal(part).scaleb(-PICO) for part in parts]


def _usd(
    attempt: AttemptRow,
    price: Price,
    now: datetime,
    token_type: TokenType | None,
    quantity: int | None,
    amount: Decimal | None,
    evidence: Evidence,
    *,
    unit_price: Decimal | None = None,
) -> ChargeRow:
    sku = "gpu_time" if token_type is None else f"tokens/{token_type}"
    return ChargeRow(
        org_id=attempt.org_id,
        charge_id=natural_id("charge", attempt.attempt_id, "provider", sku),
        run_id=attempt.run_id,
        plane="provider",
        role=attempt.role,
        attempt_id=attempt.attempt_id,
        model_id=attempt.model_id,
        model_key=attempt.model_key,
        sku=sku,
        quantity=quantity,
        unit_price_usd_per_mtok=None if token_type is None else unit_price,
        amount_usd=amount,
        rate_micro_ecu=None,
        amount_micro_ecu=None,
        price_version=price.version,
        evidence="unknown" if amount is None else evidence,
        occurred_at=attempt.closed_at or attempt.opened_at,
        recorded_at=now,
        unit="gpu_microsecond" if token_type is None else "token",
        token_type=token_type,
        unit_price_usd=unit_price,
        price_units=None if unit_price is None else GPU_HOUR if token_type is None else MICRO,
        price_source="none" if unit_price is None and price.kind != "reported" else price.source,
    )


def _ecu(
    attempt: AttemptRow, card: RateCard, now: datetime, sku: str, quantity: int | None, rate: Decimal, token_type: TokenType | None
) -> ChargeRow:
    # Rounded once, here, half to even, to whole micro-ECU on each line; totals only add.
    amount = None if quantity is None else int((quantity * rate).to_integral_value(rounding=ROUND_HALF_EVEN))
    return ChargeRow(
        org_id=attempt.org_id,
        charge_id=natural_id("charge", attempt.attempt_id, "ecu", sku),
        run_id=attempt.run_id,
        plane="ecu",
        role=attempt.role,
        attempt_id=attempt.attempt_id,
        model_id=attempt.model_id,
        model_key=attempt.model_key,
        sku=sku,
        quantity=quantity,
        unit_price_usd_per_mtok=None,
        amount_usd=None,
        rate_micro_ecu=rate,
        amount_micro_ecu=amount,
        price_version=f"card:{card.version}",
        evidence="unknown" if amount is None else "computed",
        occurred_at=attempt.closed_at or attempt.opened_at,
        recorded_at=now,
        unit="call" if token_type is None else "token",
        token_type=token_type,
        price_source="rate_card",
    )
