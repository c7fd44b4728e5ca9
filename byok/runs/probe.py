"""Probe the models of a run before the first row is answered: a wrong key or model id costs one request, not a run."""

from __future__ import annotations

from typing import NamedTuple

from byok.app import Services
from byok.clock import iso
from byok.endpoint import EndpointAuth, EndpointClient, ProbeResult, probe
from byok.endpoint.probing.record import ProbeLog
from byok.engine.attempts import attempt_id
from byok.engine.journal import Journal, read_journal
from byok.engine.plan import ModelRef, RunPlan
from byok.engine.replay import attempt_rows, replay
from byok.ids import natural_id
from byok.registry.probing import for_probe
from byok.runs.folder import open_run

STAGE = "probe"


class Probed(NamedTuple):
    """A model that a run asks, and for what: chat, or embeddings."""

    model: ModelRef
    embeddings: bool

    def unit(self, run_id: str) -> str:
        """The id of its probe in a run: the same after a restart."""
        return natural_id("probe", run_id, self.model.id, *(["embeddings"] if self.embeddings else []))


def probed_of(plan: RunPlan) -> list[Probed]:
    """What a run probes, each once: the candidate first, then the embedders' models, then the judges'."""
    embedders, judges = [embedder.model for embedder in plan.embedders], [judge.model for judge in plan.judges]
    asked = [Probed(plan.model, False), *(Probed(model, True) for model in embedders), *(Probed(model, False) for model in judges)]
    return list({(one.model.id, one.embeddings): one for one in asked}.values())


async def probe_models(services: Services, run_id: str) -> int:
    """Ask each model of a run for one token, or for one vector; models that have been probed for this run are not asked again.

    Returns:
        How many probes there are, all of which have been answered.

    Raises:
        EndpointError: A model does not answer as it should.
    """
    folder, plan = open_run(services, run_id, "run.probe")
    every = probed_of(plan)
    for number, probed in enumerate(every):
        path = folder.journal(STAGE, number)
        unit = probed.unit(run_id)
        before = replay(read_journal(path))
        if unit in before.results:
            continue
        async with services.registry.client(for_probe(probed.model), plan.org_id, connections=1) as client:
            log = ProbeLog()
            try:
                await _probe(client, log, embeddings=probed.embeddings)
            finally:
                # What was asked may have cost tokens, whatever came of it.
                with Journal(path) as journal:
                    _record(journal, unit, before.next_attempt(unit), log, client.key_version)
                state = replay(read_journal(path))
                services.warehouse.write_segment(attempt_rows(plan, state, role="probe", model=probed.model))
        with Journal(path) as journal:
            journal.append({"k": "result", "unit": unit})
    return len(every)


async def _probe(client: EndpointClient, log: ProbeLog, *, embeddings: bool) -> ProbeResult:
    sent_with = client.key_version
    try:
        return await probe(client, embeddings=embeddings, log=log)
    except EndpointAuth as error:
        refused = error
    # The run's own key was rotated, and the provider has let go of it since.
    if await client.renew(sent_with):
        return await probe(client, embeddings=embeddings, log=log)
    raise refused


def _record(journal: Journal, unit: str, first: int, log: ProbeLog, key_version: int | None) -> None:
    for number, attempt in enumerate(log.attempts, first):
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
