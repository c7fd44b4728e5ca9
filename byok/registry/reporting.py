"""Tell the warehouse about a model: as it is now, and what a probe asked, found and cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from byok.billing import charges_for, rate_card
from byok.billing.charges import surely_free
from byok.clock import iso, utcnow
from byok.control import ControlPlane
from byok.endpoint import ProbeAttempt, ProbeResult
from byok.endpoint.capabilities import declared
from byok.endpoint.probing.findings import told as told_of
from byok.ids import natural_id, new_id
from byok.ledger import Ledger, ship
from byok.pricing import Prices, load_prices
from byok.pricing.busy import UNKNOWN, busy_shares, microseconds
from byok.registry.models import Model
from byok.registry.probing import Probed
from byok.warehouse import Warehouse
from byok.warehouse.rows import AttemptRow, CapabilityRow, ChargeRow, ProbeRow, Row


@dataclass(frozen=True)
class Accounts:
    """By which probes outside runs are billed.

    Attributes:
        control: Where the prices are.
        ledger: What the tokens of public models are drawn from.
    """

    control: ControlPlane
    ledger: Ledger


def capabilities(found: ProbeResult, before: dict[str, Any]) -> dict[str, Any]:
    """What a probe found, as it is stored with the model.

    Args:
        found: The newest findings.
        before: What is stored of the same model at the same endpoint: a basic probe keeps what the last full one found.
    """
    at = iso(utcnow())
    told: dict[str, Any] = {
        "chat": found.chat,
        "models_listed": found.models_listed,
        "token_parameter": found.token_parameter,
        "latency_ms": round(found.latency_ms, 3),
        "warnings": found.warnings,
        "probed_at": at,
    }
    if found.dimensions is not None:
        told |= {"embeddings": True, "dimensions": found.dimensions}
    if found.capabilities is None:
        kept = {name: before[name] for name in ("full", "refused") if name in before}
        chats = kept.get("full", {}).get("chat", {}).get("outcome") == "supported"
        return told | kept | {"chat": found.chat or chats}
    told["full"] = {
        one.name: {"outcome": one.outcome, "value": one.value, "evidence": one.evidence, "at": at} for one in found.capabilities
    }
    told["refused"] = sorted({one.parameter for one in found.capabilities if one.parameter is not None})
    return told


def report_model(
    warehouse: Warehouse, model: Model, probed: Probed | None, *, asked: Model | None = None, accounts: Accounts | None = None
) -> None:
    """Store the model's row, and of a probe its outcome, its findings, its attempts and its charges (its tokens are on the bill too).

    Args:
        warehouse: Where to.
        model: The model as it is.
        probed: The probe; None: there was none.
        asked: The model as it was probed, where that is another state of it: with its key and tags.
        accounts: By which the probe is billed; goes with a probe.
    """
    if probed is None:
        warehouse.write_segment([model.row()])
    else:
        assert accounts is not None
        probe_id, as_asked = new_id(), asked or model
        prices = load_prices(accounts.control, model.org_id, as_asked.ref())
        found = list(_probe_rows(probe_id, as_asked, model, probed, prices))
        warehouse.write_segment([model.row(), *found])
        spent = sum(row.amount_micro_ecu or 0 for row in found if isinstance(row, ChargeRow))
        if spent:
            # A public model's tokens: outside a run nothing was held for them.
            accounts.ledger.spend(model.org_id, f"probe:{probe_id}", spent)
            ship(accounts.control, warehouse, model.org_id)
    warehouse.drain()


def _probe_rows(probe_id: str, model: Model, after: Model, probed: Probed, prices: Prices) -> Iterator[Row]:
    attempts = [_attempt_row(model, probe_id, number, attempt) for number, attempt in enumerate(probed.log.attempts, 1)]
    yield _probe_row(after, probe_id, probed, attempts)
    if probed.found is not None and probed.found.capabilities is not None:
        claimed, now = declared(model.tags), utcnow()
        for one in probed.found.capabilities:
            yield CapabilityRow(
                org_id=model.org_id,
                probe_id=probe_id,
                capability=one.name,
                model_id=model.id,
                model_key=model.key,
                outcome=one.outcome,
                declared=one.name in claimed,
                value=None if one.value is None else str(one.value),
                evidence=one.evidence,
                latency_ms=one.latency_ms,
                http_status=one.http_status,
                error_code=one.error_code,
                probed_at=probed.log.started_at,
                recorded_at=now,
            )
    yield from attempts
    card = rate_card(probed.log.started_at) if attempts else None
    asked = [row for row in attempts if not surely_free(row)]
    shares = busy_shares(
        [microseconds(row.opened_at) for row in asked], [microseconds(row.closed_at) if row.closed_at else UNKNOWN for row in asked]
    )
    busy = {row.attempt_id: share for row, share in zip(asked, shares, strict=True) if share != UNKNOWN}
    for row, attempt in zip(attempts, probed.log.attempts, strict=True):
        if card is not None:
            yield from charges_for(row, model.ref(), card, prices, vectors=attempt.vectors, busy_us=busy.get(row.attempt_id))


def _probe_row(model: Model, probe_id: str, probed: Probed, attempts: list[AttemptRow]) -> ProbeRow:
    found, error = probed.found, probed.error
    asked = [attempt for attempt in attempts if not surely_free(attempt)]
    return ProbeRow(
        org_id=model.org_id,
        probe_id=probe_id,
        model_id=model.id,
        model_key=model.key,
        cause=probed.cause,
        scope="full" if probed.full else "basic",
        status="failed" if found is None else "ok",
        error_code=None if error is None else error.code,
        error_message=None if error is None else told_of(error),
        health=model.health,
        failures=model.health_failures,
        latency_ms=None if found is None else found.latency_ms,
        ttft_ms=None if found is None else found.ttft_ms,
        requests=len(attempts),
        prompt_tokens=_total([attempt.prompt_tokens for attempt in asked]),
        completion_tokens=_total([attempt.completion_tokens for attempt in asked]),
        started_at=probed.log.started_at,
        recorded_at=utcnow(),
    )


def _total(counts: list[int | None]) -> int | None:
    """The sum; None when one is not known."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _attempt_row(model: Model, probe_id: str, number: int, attempt: ProbeAttempt) -> AttemptRow:
    return AttemptRow(
        org_id=model.org_id,
        attempt_id=natural_id("attempt", natural_id("probe", probe_id), number),
        run_id=None,
        role="probe",
        model_id=model.id,
        model_key=model.key,
        sample_id=None,
        judge=None,
        judge_version=None,
        number=number,
        status=attempt.status,
        error_code=attempt.error_code,
        http_status=attempt.http_status,
        latency_ms=attempt.latency_ms,
        prompt_tokens=attempt.usage.prompt_tokens,
        completion_tokens=attempt.usage.completion_tokens,
        cached_tokens=attempt.usage.cached_tokens,
        reasoning_tokens=attempt.usage.reasoning_tokens,
        usage_class=attempt.usage.usage_class,
        provider_request_id=attempt.request_id,
        key_version=model.key_version,
        opened_at=attempt.opened_at,
        closed_at=attempt.closed_at,
        recorded_at=utcnow(),
        reported_cost_usd=attempt.usage.cost_usd,
    )
