"""What a journal says has happened: the state from which a shard goes on, and the rows that it leaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from byok.clock import utcnow
from byok.endpoint import Usage
from byok.engine.plan import ModelRef, RunPlan
from byok.money import plain
from byok.warehouse.rows import AttemptRow, Role, UsageClass

NO_USAGE: tuple[None, None, None, None, UsageClass, None] = (None, None, None, None, "missing", None)
"""What is known of the tokens of an attempt without an answer."""


def usage_record(usage: Usage) -> list[int | str | None]:
    """Usage as a journal's `closed` record holds it."""
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens)
    return [*counts, usage.usage_class, None if usage.cost_usd is None else plain(usage.cost_usd)]


@dataclass
class Attempt:
    """One attempt as the journal tells it; `closed` is None when it was lost."""

    opened: dict[str, Any]
    closed: dict[str, Any] | None = None


@dataclass
class Replay:
    """The state of one journal."""

    attempts: dict[str, Attempt] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> set[str]:
        """Units without a result of which an attempt was opened and never closed: it may have been paid for."""
        return {one.opened["unit"] for one in self.attempts.values() if one.closed is None and one.opened["unit"] not in self.results}

    @property
    def unknown(self) -> int:
        """Attempts that were opened and never closed: their cost is unknown."""
        return sum(one.closed is None for one in self.attempts.values())

    def next_attempt(self, unit_id: str) -> int:
        """The number of the next attempt of a unit, from 1."""
        return self.tried.get(unit_id, 0) + 1


def replay(records: Iterable[dict[str, Any]]) -> Replay:
    """Read a journal's records into its state."""
    state = Replay()
    for record in records:
        match record["k"]:
            case "opened":
                state.attempts[record["attempt_id"]] = Attempt(record)
                state.tried[record["unit"]] = max(record["number"], state.tried.get(record["unit"], 0))
            case "closed":
                state.attempts[record["attempt_id"]].closed = record
            case "result":
                state.results[record["unit"]] = record
    return state


def attempt_rows(plan: RunPlan, state: Replay, *, role: Role, model: ModelRef, judge: tuple[str, int] | None = None) -> list[AttemptRow]:
    """The warehouse rows of all attempts in a journal.

    Args:
        plan: The run.
        state: The journal's state.
        role: What the attempts were for.
        model: The model that was asked.
        judge: Name and version of the judge, for role `judge`.
    """
    now = utcnow()
    rows = []
    for attempt_id, attempt in state.attempts.items():
        opened, closed = attempt.opened, attempt.closed or {}
        # Journals of before costs were read end with the class.
        prompt, completion, cached, reasoning, usage_class, *cost = closed.get("usage") or NO_USAGE
        rows.append(
            AttemptRow(
                org_id=plan.org_id,
                attempt_id=attempt_id,
                run_id=plan.run_id,
                role=role,
                model_id=model.id,
                model_key=model.key,
                sample_id=opened["sample_id"],
                judge=judge[0] if judge else None,
                judge_version=judge[1] if judge else None,
                number=opened["number"],
                status=closed.get("status", "lost"),
                error_code=closed.get("error_code"),
                http_status=closed.get("http_status"),
                latency_ms=closed.get("latency_ms"),
                prompt_tokens=prompt,
                completion_tokens=completion,
                cached_tokens=cached,
                reasoning_tokens=reasoning,
                usage_class=usage_class,
                provider_request_id=closed.get("request_id"),
                key_version=closed.get("key_version", opened.get("key_version", model.key_version)),
                opened_at=datetime.fromisoformat(opened["at"]),
                closed_at=datetime.fromisoformat(closed["at"]) if closed else None,
                recorded_at=now,
                reported_cost_usd=Decimal(cost[0]) if cost and cost[0] is not None else None,
            )
        )
    return rows
