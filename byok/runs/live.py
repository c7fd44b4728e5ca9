"""What a run that is under way is doing: read from the small files that its processes write, by anybody who may see it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from byok.access import MODELS_READ, require
from byok.app import Services
from byok.billing import RateCard, rate_card
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.engine.control import Wish
from byok.engine.plan import RunPlan
from byok.engine.progress import Progress, read_progress
from byok.money import ecu, plain, token_cost_usd
from byok.pricing import load_prices
from byok.runs.folder import RunFolder, RunUnknown
from byok.runs.journals import answer_journal, embed_journal, judge_journal

STALE_S = 15.0
"""Without a sign for so long, no process works on a run that has not ended. Loading results may take some seconds of silence."""


@dataclass(frozen=True)
class Live:
    """A run as it stands now.

    Attributes:
        run_id: The run.
        model_key: The candidate.
        dataset_name: The data set.
        state: going, paused, cancelling, stalled (no process works on it) or ended.
        planned: Rows.
        stages: Counts of each stage that has begun.
        usd: What is known of the providers' bill so far; None when nothing is known of it though something was asked.
        micro_ecu: What is known of the platform's bill so far.
        at: Seconds since 1970 of the last sign of life; 0.0 before the first.
    """

    run_id: str
    model_key: str
    dataset_name: str
    state: str
    planned: int
    stages: dict[str, Progress]
    usd: Decimal | None
    micro_ecu: int
    at: float

    @property
    def done(self) -> int:
        """Units that are finished, over all stages."""
        return sum(counts.done for counts in self.stages.values())

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape of a run that is under way."""
        return {
            "run_id": self.run_id,
            "model": self.model_key,
            "dataset": self.dataset_name,
            "state": self.state,
            "planned": self.planned,
            "usd": None if self.usd is None else plain(self.usd),
            "ecu": ecu(self.micro_ecu),
            "stages": {name: {field: getattr(counts, field) for field in _SHOWN} for name, counts in self.stages.items()},
        }


_SHOWN = (
    *("done", "failed", "total", "reused", "requests", "in_flight", "limit", "paused", "held", "errors"),
    *("prompt_tokens", "completion_tokens", "unknown"),
)


def look_at(services: Services, run_id: str) -> Live:
    """How a run stands now.

    Raises:
        ScopeMissing: The actor lacks `models:read`.
        RunUnknown: There is no such run.
    """
    require(services.actor, MODELS_READ, "run.watch")
    folder = RunFolder.of(services.home, run_id)
    plan = folder.plan()
    if plan.org_id != services.actor.org_id:
        raise RunUnknown(f"no run {run_id}", hint="list the runs with: byok run list")
    stages = read_progress(folder.progress)
    at = max((counts.at for counts in stages.values()), default=0.0)
    usd, micro = _cost(plan, folder, stages, services.control)
    state = _state(folder, at, folder.control.wish)
    return Live(run_id, plan.model.key, plan.dataset.name, state, plan.planned, stages, usd, micro, at)


def _state(folder: RunFolder, at: float, wish: Wish) -> str:
    if folder.control.ended:
        return "ended"
    if at and time.time() - at > STALE_S:
        return "stalled"
    return {"pause": "paused", "cancel": "cancelling", "run": "going"}[wish]


def _cost(plan: RunPlan, folder: RunFolder, stages: dict[str, Progress], control: ControlPlane) -> tuple[Decimal | None, int]:
    """What is known of the two bills so far. The bills themselves are written once, at the end, attempt by attempt."""
    card = rate_card(plan.created_at)
    usd, micro, unpriced = Decimal(0), 0, False
    every = [answer_journal(plan, folder, 0), *(embed_journal(folder, one, 0) for one in plan.embedders)]
    for journal in (*every, *(judge_journal(folder, one, 0) for one in plan.judges)):
        counts, model = stages.get(journal.stage), journal.model
        if counts is None:
            continue
        if journal.role == "judge":
            answered = counts.requests - counts.in_flight - sum(counts.errors.values())
            micro += answered * card.judge_call_micro_ecu(model.key)
        if model.public:
            micro += _tokens_ecu(counts, card, model.key)
        else:
            price = load_prices(control, plan.org_id, model).at(utcnow())
            if price.input is None or (price.output is None and not journal.vectors):
                unpriced = unpriced or counts.requests > 0
            else:
                usd += token_cost_usd(counts.prompt_tokens, price.input)
                usd += token_cost_usd(counts.completion_tokens, price.output or Decimal(0))
    return (None if unpriced and not usd else usd), micro


def _tokens_ecu(counts: Progress, card: RateCard, model_key: str) -> int:
    rates = card.inference(model_key)
    return int(counts.prompt_tokens * rates.input + counts.completion_tokens * rates.output)
