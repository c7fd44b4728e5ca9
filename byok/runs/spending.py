"""What a run may spend, what its requests can cost at most, and what they did cost: by the rules of the bills."""

from __future__ import annotations

import time
from decimal import Decimal
from math import ceil

from byok.billing import charges_for, rate_card
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.engine.budget import Amount, Budget, Caps, pico, token_bound
from byok.engine.control import Settings
from byok.engine.journal import read_journal
from byok.engine.plan import ModelRef, RunPlan
from byok.engine.replay import Attempt, Replay, attempt_rows, replay
from byok.errors import InputError
from byok.money import MICRO
from byok.pricing import ModelPrices, load_prices
from byok.runs.folder import RunFolder
from byok.runs.journals import StageJournal, journals_of
from byok.runs.prices import billed_prices


class PriceUnknown(InputError):
    """A cap in US dollars, and a model whose price nobody knows: the cap could not be kept."""

    code = "price_unknown"


class AnswerUnbounded(InputError):
    """A cap on what is spent, and answers without a limit of tokens: one alone could pass it."""

    code = "answer_unbounded"


def caps_of(plan: RunPlan, changed: Settings) -> Caps:
    """The caps of a run: as planned, but for what was changed when it was gone on with."""
    return Caps(
        plan.max_usd if changed.max_usd is None else Decimal(changed.max_usd),
        plan.max_micro_ecu if changed.max_micro_ecu is None else changed.max_micro_ecu,
        plan.max_requests if changed.max_requests is None else changed.max_requests,
    )


def check_caps(caps: Caps, plan: RunPlan, control: ControlPlane) -> None:
    """Refuse caps that could not be kept.

    Args:
        caps: The caps.
        plan: The run.
        control: Where the owner's prices are.

    Raises:
        PriceUnknown: A model's price is not known, or is not one of tokens.
        AnswerUnbounded: Answers have no limit.
    """
    if caps.usd is not None:
        chats = {model.id: model for model in (plan.model, *(one.model for one in plan.judges))}
        embeds = {one.model.id: one.model for one in plan.embedders if one.model.id not in chats}
        for model in (*chats.values(), *embeds.values()):
            if not model.public:
                _check_price(load_prices(control, plan.org_id, model), model, vectors=model.id in embeds)
    by_tokens = caps.usd is not None or (caps.micro_ecu is not None and plan.model.public)
    if by_tokens and plan.max_tokens is None and not any("max" in name and "tokens" in name for name in plan.model.extra_payload):
        raise AnswerUnbounded("a cap on what is spent needs a limit of each answer's tokens", hint="add --max-tokens N")


def _check_price(prices: ModelPrices, model: ModelRef, *, vectors: bool) -> None:
    dearest = prices.dearest(utcnow(), _UNTOLD[0])
    if dearest is not None and dearest[0] is not None and (vectors or dearest[1] is not None):
        return
    kind = prices.at(utcnow()).kind
    cannot = f"a cap in US dollars cannot be kept for model {model.key!r}"
    why = {
        "gpu_hour": f"{cannot}: its GPUs are paid by the hour, so that no request has a bound",
        "reported": f"{cannot}: its endpoint tells what a request cost only afterwards",
    }.get(kind, f"a cap in US dollars needs the prices of model {model.key!r}")
    hint = f"byok price set {model.key} --input USD --output USD (per million tokens), or cap the requests: --max-requests N"
    raise PriceUnknown(why, hint=hint)


def open_budget(plan: RunPlan, folder: RunFolder) -> Budget | None:
    """The budget of a run, for one stage; None when it has no caps."""
    caps = caps_of(plan, folder.control.settings)
    return Budget(folder.budget, caps) if caps else None


def begin_budget(plan: RunPlan, folder: RunFolder, control: ControlPlane) -> None:
    """Reckon what a run has spent from its journals, before any process goes on with it.

    Args:
        plan: The run.
        folder: Its folder.
        control: Where the owner's prices are.

    Raises:
        PriceUnknown, AnswerUnbounded: See `check_caps`.
    """
    caps = caps_of(plan, folder.control.settings)
    if not caps:
        folder.budget.unlink(missing_ok=True)
        return
    check_caps(caps, plan, control)
    spent = Amount()
    for journal in journals_of(plan, folder):
        tariff = Tariff(plan, journal, folder, control)
        for attempt in replay(read_journal(journal.path)).attempts.values():
            spent += tariff.spent(attempt) or tariff.bound(*attempt.opened.get("most", _UNTOLD))
    budget = Budget(folder.budget, caps)
    budget.begin(spent)
    budget.close()


class Tariff:
    """What the requests of one journal cost, by the price book as it is when they leave.

    Args:
        plan: The run.
        journal: Whose attempts, and of which model.
        folder: The run's folder.
        control: Where the owner's prices are.
    """

    def __init__(self, plan: RunPlan, journal: StageJournal, folder: RunFolder, control: ControlPlane) -> None:
        self._plan, self._journal, self._folder, self._control = plan, journal, folder, control
        self._card = rate_card(plan.created_at)
        self._capped = caps_of(plan, folder.control.settings).usd is not None
        self._look()

    def bound(self, prompt: int, room: int) -> Amount:
        """The most that a request can cost; without a bound, which a price that was set in mid-run may take away, more than any cap.

        Args:
            prompt: Most tokens of its prompt.
            room: Most tokens of its answer.
        """
        model, card = self._journal.model, self._card
        call = card.judge_call_micro_ecu(model.key) if self._journal.role == "judge" else 0
        if model.public:
            rates = card.inference(model.key)
            return Amount(0, ceil(prompt * rates.input) + ceil(room * rates.output) + call, 1)
        if not self._capped:
            return Amount(0, call, 1)
        if time.monotonic() - self._looked_at > _LOOK_S:
            self._look()
        dearest = self._now.dearest(utcnow(), prompt)
        into, out = dearest or (None, None)
        if into is None or (out is None and not self._journal.vectors):
            return Amount(_BEYOND, call, 1)
        return Amount(_side_bound(prompt, into) + _side_bound(room, out or _FREE), call, 1)

    def spent(self, attempt: Attempt) -> Amount | None:
        """What an attempt cost; None while that is not known. What has no price counts nothing: no cap could name it."""
        one = Replay(attempts={attempt.opened["attempt_id"]: attempt})
        journal = self._journal
        [row] = attempt_rows(self._plan, one, role=journal.role, model=journal.model, judge=journal.judge)
        usd, micro = 0, 0
        for line in charges_for(row, journal.model, self._card, self._billed, vectors=journal.vectors):
            if line.plane == "provider" and line.unit != "token":
                continue  # GPU hours: no cap in US dollars goes with them
            if line.quantity is None:
                return None
            usd += pico(line.amount_usd or _FREE)
            micro += line.amount_micro_ecu or 0
        return Amount(usd, micro, 1)

    def _look(self) -> None:
        self._now = load_prices(self._control, self._plan.org_id, self._journal.model)
        self._billed = billed_prices(self._control, self._plan.org_id, self._folder, self._journal.model)
        self._looked_at = time.monotonic()


def _side_bound(tokens: int, usd_per_million: Decimal) -> int:
    """Pico-dollars that the tokens of one side cost at most, on up to two lines that are rounded each for itself."""
    return token_bound(tokens, usd_per_million) + (usd_per_million * MICRO % 1 != 0)


_FREE = Decimal(0)

_LOOK_S = 2.0
"""How often the price book is looked at again while requests leave: a price that is raised in mid-run counts for the cap from then on."""

_BEYOND = 10**36
"""Pico-dollars that no cap has room for, and that the file of a budget has."""

_UNTOLD = (8192, 1024)
"""Tokens of prompt and answer that are assumed of an attempt whose record, of an earlier version, does not tell them."""
