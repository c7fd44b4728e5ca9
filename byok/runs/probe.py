"""Probe the models of a run before the first row is answered: a wrong key or model id costs one request, not a run."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime
from typing import Any

from byok.app import Services
from byok.clock import iso
from byok.control import ControlPlane
from byok.endpoint import EndpointAuth, EndpointClient, ProbeResult, probe
from byok.endpoint.probe import MORE_TOKENS
from byok.endpoint.probing.record import ProbeAttempt, ProbeLog
from byok.engine.attempts import attempt_id
from byok.engine.budget import Budget, BudgetReached
from byok.engine.journal import Journal, read_journal
from byok.engine.plan import RunPlan
from byok.engine.replay import Attempt, replay, usage_record
from byok.registry.probing import for_probe
from byok.runs.folder import RunFolder, open_run
from byok.runs.journals import StageJournal, probe_journal, probed_of
from byok.runs.seal import seal
from byok.runs.spending import Tariff, open_budget

PROBE_PROMPT, PROBE_ROOM = 128, MORE_TOKENS
"""Most tokens of a probe's prompt, with the template around it, and of its answer."""


async def probe_models(services: Services, run_id: str) -> int:
    """Ask each model of a run for one token, or for one vector; models that have been probed for this run are not asked again.

    A run that reuses answers does without: it may need no request at all, and its first one tells the same.

    Returns:
        How many probes there are, all of which have been answered.

    Raises:
        RunUnknown: There is no such run.
        JournalBusy: Another process probes for this run.
        EndpointError: A model does not answer as it should.
        BudgetReached: The run's cap leaves no room for it.
    """
    folder, plan = open_run(services, run_id, "run.probe")
    every = [] if plan.reuse else probed_of(plan)
    for number, probed in enumerate(every):
        of, unit = probe_journal(folder, number, probed), probed.unit(run_id)
        with Journal(of.path) as journal:
            before = replay(read_journal(of.path))
            if unit in before.results:
                continue
            async with services.registry.client(for_probe(probed.model), plan.org_id, connections=1) as client:
                log = _log(journal, unit, before.next_attempt(unit), client, _Purse(plan, folder, of, services.control))
                try:
                    await _probe(client, log, embeddings=probed.embeddings)
                    journal.append({"k": "result", "unit": unit})
                finally:
                    # What was asked may have cost tokens, whatever came of it.
                    seal(services, plan, of)
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


class _Purse:
    """What a probe's requests take from the run's budget, if it has one."""

    def __init__(self, plan: RunPlan, folder: RunFolder, of: StageJournal, control: ControlPlane) -> None:
        self._plan, self._folder, self._tariff = plan, folder, Tariff(plan, of, folder, control)
        self._bound = self._tariff.bound(PROBE_PROMPT, PROBE_ROOM)

    def open(self) -> None:
        """Set aside what a request can cost.

        Raises:
            BudgetReached: The cap leaves no room for it.
        """
        short = self._with(lambda budget: budget.reserve(self._bound))
        if short is not None:
            raise short

    def close(self, opened: dict[str, Any], closed: dict[str, Any]) -> None:
        """Settle what it cost."""
        spent = self._tariff.spent(Attempt(opened, closed)) or self._bound
        self._with(lambda budget: budget.settle(self._bound, spent))

    def _with(self, act: Callable[[Budget], BudgetReached | None]) -> BudgetReached | None:
        budget = open_budget(self._plan, self._folder)
        if budget is None:
            return None
        try:
            return act(budget)
        finally:
            budget.close()


def _log(journal: Journal, unit: str, first: int, client: EndpointClient, purse: _Purse) -> ProbeLog:
    """A probe's log that writes each request into a journal before it leaves, and its end after that."""
    numbers = itertools.count(first)
    opened: dict[str, Any] = {}

    async def opening(at: datetime) -> None:
        nonlocal opened
        purse.open()
        number = next(numbers)
        opened = {
            "k": "opened",
            "attempt_id": attempt_id(unit, number),
            "unit": unit,
            "sample_id": None,
            "number": number,
            "key_version": client.key_version,
            "most": [PROBE_PROMPT, PROBE_ROOM],
            "at": iso(at),
        }
        await journal.commit(opened)

    def closing(attempt: ProbeAttempt) -> None:
        closed = {
            "k": "closed",
            "attempt_id": opened["attempt_id"],
            "at": iso(attempt.closed_at),
            "status": attempt.status,
            "error_code": attempt.error_code,
            "http_status": attempt.http_status,
            "latency_ms": attempt.latency_ms,
            "request_id": attempt.request_id,
            "usage": usage_record(attempt.usage),
        }
        journal.append(closed)
        purse.close(opened, closed)

    return ProbeLog(opening=opening, closing=closing)
