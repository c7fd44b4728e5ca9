"""The worst case of a run, on both bills, and how it was reckoned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, Decimal
from math import ceil
from typing import Any

from byok.app import Services
from byok.billing import rate_card
from byok.clock import utcnow
from byok.engine.attempts import PER_MESSAGE, PER_REQUEST
from byok.engine.plan import JudgeRef, ModelRef, RunPlan
from byok.grading import judge_request
from byok.money import MICRO, USD_PLACES, ecu, plain
from byok.pricing import ModelPrices, load_prices
from byok.runs.journals import probed_of
from byok.runs.judge import JUDGE_MAX_TOKENS
from byok.runs.probe import PROBE_PROMPT, PROBE_ROOM
from byok.warehouse.rows import Role

ASSUMED_ROOM = 4096
"""Tokens of an answer that nothing limits."""

_AROUND = PER_REQUEST + 2 * PER_MESSAGE
"""Tokens that a chat template puts around a system prompt and a question, at most."""

RETOLD = 2
"""Tokens of a judge's prompt for each token of the answer that it judges: another tokeniser may cut it finer."""


@dataclass(frozen=True)
class EstimateLine:
    """The worst case of one kind of requests.

    Attributes:
        role: What they are for.
        model_key: The model that is asked.
        requests: How many, each answered once.
        prompt_tokens: The most tokens of all prompts together.
        completion_tokens: The most tokens of all answers together.
        usd: On the provider's bill; None: the price is not known. 0 for public models.
        micro_ecu: On the platform's bill.
        reckoned: How, in words.
    """

    role: Role
    model_key: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    usd: Decimal | None
    micro_ecu: int
    reckoned: str


@dataclass(frozen=True)
class Estimate:
    """The worst case of a run.

    Attributes:
        lines: By kind of requests.
        remarks: What it assumes, and what is not in it.
        max_usd: The run's own cap in US dollars, if it has one.
        max_micro_ecu: The run's own cap in micro-ECU, if it has one.
    """

    lines: tuple[EstimateLine, ...]
    remarks: tuple[str, ...]
    max_usd: Decimal | None = None
    max_micro_ecu: int | None = None

    @property
    def usd(self) -> Decimal | None:
        """The most that the providers' bill can come to; None while a price is not known and no cap holds."""
        known = [line.usd for line in self.lines if line.usd is not None]
        total = sum(known, Decimal(0)) if len(known) == len(self.lines) else None
        return total if self.max_usd is None else self.max_usd if total is None else min(total, self.max_usd)

    @property
    def micro_ecu(self) -> int:
        """The most that the platform's bill can come to."""
        total = sum(line.micro_ecu for line in self.lines)
        return total if self.max_micro_ecu is None else min(total, self.max_micro_ecu)

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape of an estimate."""
        return {
            "usd": self.usd,
            "ecu": ecu(self.micro_ecu),
            "micro_ecu": self.micro_ecu,
            "max_usd": self.max_usd,
            "max_ecu": None if self.max_micro_ecu is None else ecu(self.max_micro_ecu),
            "lines": [asdict(line) for line in self.lines],
            "remarks": list(self.remarks),
        }

    def in_words(self) -> str:
        """Both totals in a line."""
        usd = "an unknown amount of USD" if self.usd is None else f"{plain(self.usd.quantize(Decimal('0.0001'), ROUND_CEILING))} USD"
        return f"at most {usd} on the providers' bills and {ecu(self.micro_ecu)} ECU on the platform's"


def estimate(services: Services, plan: RunPlan) -> Estimate:
    """Reckon the worst case of a run.

    Args:
        services: The installation.
        plan: The run.

    Raises:
        DatasetNotFound, DatasetChanged: The rows cannot be read.
        NoRateCard: No rate card is in force.
    """
    lines = tuple(_Reckoning(services, plan).lines())
    unpriced = sorted({line.model_key for line in lines if line.usd is None})
    remarks = [
        "each row is taken to be answered once: requests that fail cost nothing as a rule, and those whose answer is lost may cost again",
        *([f"an answer that nothing limits is taken as {ASSUMED_ROOM} tokens (--max-tokens limits it)"] if _room(plan)[1] else []),
        *(f"no price of tokens is known for {key} (byok price show {key}): its part in US dollars is not bounded" for key in unpriced),
        *(["answers that are reused cost nothing"] if plan.reuse else []),
    ]
    return Estimate(lines, tuple(remarks), plan.max_usd, plan.max_micro_ecu)


class _Reckoning:
    def __init__(self, services: Services, plan: RunPlan) -> None:
        self._plan, self._card, self._control = plan, rate_card(plan.created_at), services.control
        self._rows, self._longest = services.datasets.size(plan.dataset.version, plan.selection)
        self._room, self._assumed = _room(plan)

    def lines(self) -> Iterator[EstimateLine]:
        plan = self._plan
        probes = probed_of(plan)
        for probed in probes:
            room = 0 if probed.embeddings else PROBE_ROOM
            yield self._line("probe", probed.model, 1, PROBE_PROMPT, room, "one probe", vectors=probed.embeddings)
        rows = plan.planned
        around = _AROUND + _bytes(plan.system) + _bytes(str(plan.model.extra_payload or ""))
        told = f"{rows} rows: no row has more tokens than its {self._rows} bytes in all, {around} around each, {self._room} in each answer"
        yield self._line("candidate", plan.model, rows, self._rows + rows * around, rows * self._room, told)
        answers = rows * self._room * RETOLD
        for embedder in plan.embedders:
            told = f"{rows} answers and what was expected, as vectors"
            yield self._line("embedding", embedder.model, rows, self._rows + answers, 0, told, vectors=True)
        for judge in plan.judges:
            around = _rubric(judge)
            room = min(JUDGE_MAX_TOKENS, judge.model.max_tokens or JUDGE_MAX_TOKENS)
            call = ecu(self._card.judge_call_micro_ecu(judge.model.key))
            told = f"{rows} verdicts at {call} ECU; each with its row, its answer, {around} tokens of rubric, and {room} for the verdict"
            yield self._line("judge", judge.model, rows, self._rows + answers + rows * around, rows * room, told)

    def _line(
        self, role: Role, model: ModelRef, requests: int, prompt: int, answer: int, reckoned: str, *, vectors: bool = False
    ) -> EstimateLine:
        micro = requests * self._card.judge_call_micro_ecu(model.key) if role == "judge" else 0
        usd: Decimal | None = Decimal(0)
        if model.public:
            rates = self._card.inference(model.key)
            # One more for each line of the bill, since each is rounded by itself.
            micro += ceil(prompt * rates.input) + ceil(answer * rates.output) + 2 * requests
        else:
            # The tier of a listed price goes by each prompt: none is longer than the longest row with all that comes to it.
            around = (prompt - self._rows) // requests + 1 if requests > 1 else prompt
            usd = _usd(load_prices(self._control, self._plan.org_id, model), self._longest + around, prompt, 0 if vectors else answer)
        return EstimateLine(role, model.key, requests, prompt, answer, usd, micro, reckoned)


def _room(plan: RunPlan) -> tuple[int, bool]:
    """The most tokens of an answer, and whether that is only assumed."""
    payload = plan.model.extra_payload
    told = next((payload[name] for name in ("max_completion_tokens", "max_tokens") if isinstance(payload.get(name), int)), plan.max_tokens)
    return (told, False) if told else (ASSUMED_ROOM, True)


def _usd(prices: ModelPrices, longest: int, prompt: int, answer: int) -> Decimal | None:
    """The most that so many tokens cost by the price in force; None: it is not known, or is not one of tokens."""
    dearest = prices.dearest(utcnow(), longest)
    amount = Decimal(0)
    for tokens, price in zip((prompt, answer), dearest or (None, None), strict=True):
        if tokens and price is None:
            return None
        amount += tokens * (price or Decimal(0)) / MICRO
    return amount.quantize(USD_PLACES, ROUND_CEILING)


def _rubric(judge: JudgeRef) -> int:
    """Tokens around what is judged, at most."""
    empty = judge_request(judge, input="", output="", expected="", context="", mode="json_schema")
    return sum(_bytes(one["content"]) for one in empty.messages) + _bytes(str(empty.response_format or "")) + _AROUND


def _bytes(text: str | None) -> int:
    return len((text or "").encode())
