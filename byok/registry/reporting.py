"""Tell the warehouse about a model: as it is now, and what a probe asked and cost."""

from __future__ import annotations

from typing import Any

from byok.billing import charges_for, rate_card
from byok.clock import iso, utcnow
from byok.endpoint import ProbeResult
from byok.ids import natural_id
from byok.registry.models import Model
from byok.warehouse import Warehouse
from byok.warehouse.rows import AttemptRow


def capabilities(found: ProbeResult) -> dict[str, Any]:
    """What a probe found, as it is stored with the model."""
    return {
        "chat": True,
        "models_listed": found.models_listed,
        "token_parameter": found.token_parameter,
        "latency_ms": round(found.latency_ms, 3),
        "warnings": found.warnings,
        "probed_at": iso(utcnow()),
    }


def report_model(warehouse: Warehouse, model: Model, found: ProbeResult | None) -> None:
    """Store the model's row, and the attempts and charges of a probe (a probe's tokens are on the bill too)."""
    attempts = _probe_rows(model, found) if found else []
    card = rate_card(model.updated_at) if attempts else None
    charges = [charge for attempt in attempts if card for charge in charges_for(attempt, model.ref(), card)]
    warehouse.write_segment([model.row(), *attempts, *charges])
    warehouse.drain()


def _probe_rows(model: Model, found: ProbeResult) -> list[AttemptRow]:
    unit = natural_id("probe", model.id, model.revision)
    return [
        AttemptRow(
            org_id=model.org_id,
            attempt_id=natural_id("attempt", unit, number),
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
        )
        for number, attempt in enumerate(found.attempts, 1)
    ]
