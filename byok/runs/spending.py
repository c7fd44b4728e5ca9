"""What a run may spend, what its requests can cost at most, and what they did cost: by the rules of the bills."""

from __future__ import annotations

from decimal import Decimal
from math import ceil

from byok.billing import charges_for, rate_card
from byok.engine.budget import Amount, Budget, Caps, pico, token_bound
from byok.engine.control import Settings
from byok.engine.journal import read_journal
from byok.engine.plan import RunPlan
from byok.engine.replay import Attempt, Replay, attempt_rows, replay
from byok.errors import InputError
from byok.runs.folder import RunFolder
from byok.runs.journals import StageJournal, journals_of


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


def check_caps(caps: Caps, plan: RunPlan) -> None:
    """Refuse caps that could not be kept.

    Raises:
        PriceUnknown: A model's price is not known.
        AnswerUnbounded: Answers have no limit.
    """
    models = (plan.model, *(one.model for one in plan.embedders), *(one.model for one in plan.judges))
    if caps.usd is not None:
        for model in models:
            if not model.public and (model.price_input is None or model.price_output is None):
                raise PriceUnknown(
                    f"a cap in US dollars needs the prices of model {model.key!r}",
                    hint=f"byok model update {model.key} --price-input USD --price-output USD (per million tokens), or cap the requests",
                )
    by_tokens = caps.usd is not None or (caps.micro_ecu is not None and plan.model.public)
    if by_tokens and plan.max_tokens is None and not any("max" in name and "tokens" in name for name in plan.model.extra_payload):
        raise AnswerUnbounded("a cap on what is spent needs a limit of each answer's tokens", hint="add --max-tokens N")


def open_budget(plan: RunPlan, folder: RunFolder) -> Budget | None:
    """The budget of a run, for one stage; None when it has no caps."""
    caps = caps_of(plan, folder.control.settings)
    return Budget(folder.budget, caps) if caps else None


def begin_budget(plan: RunPlan, folder: RunFolder) -> None:
    """Reckon what a run has spent from its journals, before any process goes on with it.

    Raises:
        PriceUnknown, AnswerUnbounded: See `check_caps`.
    """
    caps = caps_of(plan, folder.control.settings)
    if not caps:
        folder.budget.unlink(missing_ok=True)
        return
    check_caps(caps, plan)
    spent = Amount()
    for journal in journals_of(plan, folder):
        tariff = Tariff(plan, journal)
        for attempt in replay(read_journal(journal.path)).attempts.values():
            spent += tariff.spent(attempt) or tariff.bound(*attempt.opened.get("most", _UNTOLD))
    budget = Budget(folder.budget, caps)
    budget.begin(spent)
    budget.close()


class Tariff:
    """What the requests of one journal cost.

    Args:
        plan: The run.
        journal: Whose attempts, and of which model.
    """

    def __init__(self, plan: RunPlan, journal: StageJournal) -> None:
        self._plan, self._journal = plan, journal
        self._card = rate_card(plan.created_at)

    def bound(self, prompt: int, room: int) -> Amount:
        """The most that a request can cost.

        Args:
            prompt: Most tokens of its prompt.
            room: Most tokens of its answer.
        """
        model, card = self._journal.model, self._card
        call = card.judge_call_micro_ecu(model.key) if self._journal.role == "judge" else 0
        if model.public:
            rates = card.inference(model.key)
            return Amount(0, ceil(prompt * rates.input) + ceil(room * rates.output) + call, 1)
        usd = token_bound(prompt, model.price_input or _FREE) + token_bound(room, model.price_output or _FREE)
        return Amount(usd, call, 1)

    def spent(self, attempt: Attempt) -> Amount | None:
        """What an attempt cost; None while that is not known. What has no price counts nothing: no cap could name it."""
        one = Replay(attempts={attempt.opened["attempt_id"]: attempt})
        journal = self._journal
        [row] = attempt_rows(self._plan, one, role=journal.role, model=journal.model, judge=journal.judge)
        usd, micro = 0, 0
        for line in charges_for(row, journal.model, self._card, vectors=journal.vectors):
            if line.quantity is None:
                return None
            usd += pico(line.amount_usd or _FREE)
            micro += line.amount_micro_ecu or 0
        return Amount(usd, micro, 1)


_FREE = Decimal(0)

_UNTOLD = (8192, 1024)
"""Tokens of prompt and answer that are assumed of an attempt whose record, of an earlier version, does not tell them."""
