"""Probe the models of a run before the first row is answered: a wrong key or model id costs one request, not a run."""

from __future__ import annotations

from byok.app import Services
from byok.clock import iso
from byok.endpoint import EndpointAuth, EndpointClient, ProbeResult, probe
from byok.engine.attempts import attempt_id
from byok.engine.journal import Journal, read_journal
from byok.engine.plan import ModelRef, RunPlan
from byok.engine.replay import attempt_rows, replay
from byok.ids import natural_id
from byok.runs.folder import open_run

STAGE = "probe"


def models_of(plan: RunPlan) -> list[ModelRef]:
    """The models that a run asks, each once: the candidate first, then the judges' models."""
    return list({model.id: model for model in (plan.model, *(judge.model for judge in plan.judges))}.values())


async def probe_models(services: Services, run_id: str) -> int:
    """Ask each model of a run for one token; models that have been probed for this run are not asked again.

    Returns:
        How many models answer.

    Raises:
        EndpointError: A model does not answer as it should.
    """
    folder, plan = open_run(services, run_id, "run.probe")
    models = models_of(plan)
    for number, model in enumerate(models):
        path = folder.journal(STAGE, number)
        unit = natural_id("probe", run_id, model.id)
        before = replay(read_journal(path))
        if unit in before.results:
            continue
        async with services.registry.client(model, plan.org_id, connections=1) as client:
            found = await _probe(client)
        with Journal(path) as journal:
            _record(journal, unit, before.next_attempt(unit), found, client.key_version)
        state = replay(read_journal(path))
        services.warehouse.write_segment(attempt_rows(plan, state, role="probe", model=model))
    return len(models)


async def _probe(client: EndpointClient) -> ProbeResult:
    sent_with = client.key_version
    try:
        return await probe(client)
    except EndpointAuth as error:
        refused = error
    # The run's own key was rotated, and the provider has let go of it since.
    if await client.renew(sent_with):
        return await probe(client)
    raise refused


def _record(journal: Journal, unit: str, first: int, found: ProbeResult, key_version: int | None) -> None:
    for number, attempt in enumerate(found.attempts, first):
        this = attempt_id(unit, number)
        usage = attempt.usage
        journal.append(
            {
                "k": "opened",
                "attempt_id": this,
                "unit": unit,
                "sample_id": None,
                "number": number,
                "key_version": key_version,
                "at": iso(attempt.opened_at),
            },
            {
                "k": "closed",
                "attempt_id": this,
                "at": iso(attempt.closed_at),
                "status": attempt.status,
                "error_code": attempt.error_code,
                "http_status": attempt.http_status,
                "latency_ms": attempt.latency_ms,
                "request_id": attempt.request_id,
                "usage": [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens, usage.usage_class],
            },
        )
    journal.append({"k": "result", "unit": unit})
