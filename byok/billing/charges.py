"""From one attempt to its lines on the two bills.

The provider bills tokens under the owner's key (USD). The platform bills its own work (ECU): each judge call that gave an answer, and
the tokens of public models. ECU never bills tokens under the owner's own key.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal

from byok.billing.rates import RateCard
from byok.clock import utcnow
from byok.costs import never_billed
from byok.engine.plan import ModelRef
from byok.ids import natural_id
from byok.money import token_cost_usd
from byok.warehouse.rows import AttemptRow, ChargeRow, Evidence, Plane


def surely_free(attempt: AttemptRow) -> bool:
    """Whether an attempt surely cost nothing: see `never_billed`, and no usage was told.

    A timeout, a cut answer and an attempt whose end is not known may have been billed: their cost is unknown, not zero.
    """
    if attempt.status != "error" or attempt.usage_class == "reported":
        return False
    return never_billed(attempt.error_code, attempt.http_status)


def charges_for(attempt: AttemptRow, model: ModelRef, card: RateCard, *, vectors: bool = False) -> list[ChargeRow]:
    """The lines that one attempt leaves on the two bills.

    Args:
        attempt: The attempt.
        model: The model that was asked, with its registered prices.
        card: The rate card in force.
        vectors: Whether embeddings were asked for: they have no output, so that nothing about it is unknown when none is reported.
    """
    return list(_lines(attempt, model, card, vectors))


def _lines(attempt: AttemptRow, model: ModelRef, card: RateCard, vectors: bool) -> Iterator[ChargeRow]:
    if not surely_free(attempt):
        for kind, tokens, price in (
            ("input", attempt.prompt_tokens, model.price_input),
            ("output", attempt.completion_tokens, model.price_output),
        ):
            if kind == "output" and not tokens and vectors:
                continue
            known = tokens if attempt.usage_class == "reported" else None
            if model.public:
                rates = card.inference(model.key)
                yield _ecu(attempt, card, f"inference/{kind}", known, rates.input if kind == "input" else rates.output)
            else:
                yield _provider(attempt, model, f"tokens/{kind}", known, price)
    if attempt.role == "judge" and attempt.status == "ok":
        yield _ecu(attempt, card, "judge_call", 1, Decimal(card.judge_call_micro_ecu(model.key)))


def _provider(attempt: AttemptRow, model: ModelRef, sku: str, tokens: int | None, price: Decimal | None) -> ChargeRow:
    amount = None if tokens is None or price is None else token_cost_usd(tokens, price)
    return _charge(
        attempt,
        "provider",
        sku,
        quantity=tokens,
        price=price,
        amount_usd=amount,
        version=f"model:{model.id}:r{model.revision}",
        evidence="unknown" if amount is None else "computed",
    )


def _ecu(attempt: AttemptRow, card: RateCard, sku: str, quantity: int | None, rate: Decimal) -> ChargeRow:
    # Rounded once, here, half to even, to whole micro-ECU on each line; totals only add.
    amount = None if quantity is None else int((quantity * rate).to_integral_value(rounding=ROUND_HALF_EVEN))
    return _charge(
        attempt,
        "ecu",
        sku,
        quantity=quantity,
        rate=rate,
        amount_micro_ecu=amount,
        version=f"card:{card.version}",
        evidence="unknown" if amount is None else "computed",
    )


def _charge(
    attempt: AttemptRow,
    plane: Plane,
    sku: str,
    *,
    quantity: int | None,
    version: str,
    evidence: Evidence,
    price: Decimal | None = None,
    amount_usd: Decimal | None = None,
    rate: Decimal | None = None,
    amount_micro_ecu: int | None = None,
) -> ChargeRow:
    return ChargeRow(
        org_id=attempt.org_id,
        charge_id=natural_id("charge", attempt.attempt_id, plane, sku),
        run_id=attempt.run_id,
        plane=plane,
        role=attempt.role,
        attempt_id=attempt.attempt_id,
        model_id=attempt.model_id,
        model_key=attempt.model_key,
        sku=sku,
        quantity=quantity,
        unit_price_usd_per_mtok=price,
        amount_usd=amount_usd,
        rate_micro_ecu=rate,
        amount_micro_ecu=amount_micro_ecu,
        price_version=version,
        evidence=evidence,
        occurred_at=attempt.closed_at or attempt.opened_at,
        recorded_at=utcnow(),
    )
