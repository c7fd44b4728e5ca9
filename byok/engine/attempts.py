"""Answer one unit of work: attempts with journal, slot and retries.

A unit is anything that one request finishes: a sample to answer, an answer to judge, or two texts to embed. Who asks turns the
outcome into rows.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from byok.clock import iso, utcnow
from byok.endpoint import ChatAnswer, Embeddings, EndpointClient, EndpointError
from byok.engine.budget import Amount
from byok.engine.gate import Gate
from byok.engine.journal import Journal
from byok.engine.limiter import Ended
from byok.engine.replay import usage_record
from byok.engine.retry import RetryPolicy, ended
from byok.errors import ByokError
from byok.ids import natural_id

PER_REQUEST, PER_MESSAGE = 64, 16
"""Tokens that a chat template puts around a request and around each of its messages, at most."""

_BYTES_A_TOKEN, _USUAL_ROOM = 3, 1024
"""What pacing by tokens assumes until it has seen what such requests use."""


@dataclass(frozen=True)
class Unit:
    """One request to be answered: a chat, or texts to embed.

    Attributes:
        id: The unit's own id (a sample's or a verdict's).
        sample_id: The sample that it serves.
        messages: Chat messages; not used when there are texts.
        texts: Texts to embed.
        dimensions: Length of their vectors, or None for the endpoint's own.
        max_tokens: Most tokens of the answer, or None.
        temperature: Sampling temperature, or None for the endpoint's own.
        response_format: OpenAI `response_format`, or None.
        first_attempt: Number of the first attempt (above 1 when an earlier process already tried).
    """

    id: str
    sample_id: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    texts: tuple[str, ...] = ()
    dimensions: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    response_format: dict[str, Any] | None = None
    first_attempt: int = 1

    @property
    def prompt_bound(self) -> int:
        """Most tokens of the prompt: no tokeniser makes more tokens of a text than it has bytes, and templates put some around it."""
        asked = [*self.texts, *(str(message.get("content", "")) for message in self.messages)]
        told = sum(len(text) if text.isascii() else len(text.encode()) for text in asked)
        return told + len(str(self.response_format or "")) + PER_REQUEST + PER_MESSAGE * len(self.messages)


@dataclass(frozen=True)
class Outcome:
    """How a unit ended: with an answer (to a chat), with embeddings (of texts), or with the error of its last attempt."""

    unit: Unit
    answer: ChatAnswer | None
    error: EndpointError | None
    attempts: int
    attempt_id: str
    records: list[dict[str, Any]] = field(default_factory=list)
    """Journal records that are still to be written, together with the unit's result."""
    embeddings: Embeddings | None = None


def attempt_id(unit_id: str, number: int) -> str:
    """The id of attempt `number` of a unit: the same after a restart."""
    return natural_id("attempt", unit_id, number)


@dataclass(frozen=True)
class Asker:
    """Whom a stage asks, and by which rules.

    Attributes:
        client: The endpoint.
        journal: Where attempts are recorded.
        gate: The way out, and the stop sign.
        policy: When to try again.
        bound: The most that a request can cost, from the most tokens of its prompt and of its answer; None where the run has no cap.
        spent: What a request cost, from its two records; None while that is not known.
        note: Is told of every record of an attempt, as soon as it is written.
    """

    client: EndpointClient
    journal: Journal
    gate: Gate
    policy: RetryPolicy
    bound: Callable[[int, int], Amount] | None = None
    spent: Callable[[dict[str, Any], dict[str, Any]], Amount | None] | None = None
    note: Callable[[dict[str, Any]], None] | None = None

    async def attempt(
        self, unit: Unit, number: int, fresh: Callable[[Unit], Unit] | None = None, until: float = math.inf
    ) -> Attempted | None:
        """Send one request for a unit, and record it; None when the run was stopped before, or it was too late.

        Args:
            unit: What to ask.
            number: Number of the attempt.
            fresh: What is to be asked in its place, by what was learnt while it waited.
            until: When it has to leave at the latest, by the gate's clock.
        """
        prompt, room = self.most(unit)
        usual = prompt / _BYTES_A_TOKEN + (room if room or unit.texts else _USUAL_ROOM)
        ticket = await self.gate.enter(usual, partial(self.bound, prompt, room) if self.bound else Amount())
        if ticket is None:
            return None
        if self.gate.clock() > until:
            self.gate.leave(ticket, Ended("other"), Amount())
            return None
        unit = unit if fresh is None else fresh(unit)
        over, spent = Ended("other"), None
        try:
            sent_as = self.client.state
            this = attempt_id(unit.id, number)
            opened = {
                "k": "opened",
                "attempt_id": this,
                "unit": unit.id,
                "sample_id": unit.sample_id,
                "number": number,
                "key_version": self.client.key_version,
                "most": [prompt, room],
                "at": iso(utcnow()),
            }
            await self.journal.commit(opened)
            self._noted(opened)
            sent_with = self.client.key_version
            answer, error = await _send(unit, self.client)
            closed = _closed(this, answer, error)
            if sent_with != opened["key_version"]:
                closed["key_version"] = sent_with  # renewed while the record was written
            over = _answered_well(answer) if answer is not None else ended(error)  # type: ignore[arg-type]
            spent = self.spent(opened, closed) if self.spent else Amount()
            self._noted(closed)
            renewed = False
            try:
                # Within the slot: while another key is fetched, the slots of those who wait for it send nothing with the refused one.
                if error is not None and error.code == "endpoint_auth":
                    renewed = await self.client.renew(sent_with)
            except ByokError as failure:
                # There is no other key: no further request starts, and those under way come to their end.
                self.journal.append(closed)
                self.gate.stop(failure)
                return None
        finally:
            self.gate.leave(ticket, over, spent)
        # The endpoint may have named the parameter that it wants instead: the next attempt says it that way.
        again = renewed or (
            error is not None and (self.client.adapt(error) or (error.code == "bad_request" and self.client.state != sent_as))
        )
        return Attempted(unit, answer, error, closed, again)

    def most(self, unit: Unit) -> tuple[int, int]:
        """The most tokens that a unit's prompt can have, and its answer; 0 for an answer without a limit."""
        room = 0 if unit.texts else self.client.most_tokens(unit.max_tokens) or 0
        return unit.prompt_bound + len(str(self.client.extra_payload or "")), room

    def _noted(self, record: dict[str, Any]) -> None:
        if self.note is not None:
            self.note(record)


@dataclass(frozen=True)
class Attempted:
    """How one attempt ended.

    Attributes:
        unit: What was asked.
        answer: What came, or None.
        error: What went wrong, or None.
        closed: The attempt's closing record, which is still to be written.
        again: Whether the same may be asked again at once, in another way or with another key.
    """

    unit: Unit
    answer: ChatAnswer | Embeddings | None
    error: EndpointError | None
    closed: dict[str, Any]
    again: bool


def _stops_run(error: EndpointError, unit: Unit) -> bool:
    return error.stops_run


async def attempt_unit(
    unit: Unit, asker: Asker, *, stops: Callable[[EndpointError, Unit], bool] = _stops_run, fresh: Callable[[Unit], Unit] | None = None
) -> Outcome | None:
    """Try a unit until it is answered, may not be tried again, or the run is stopped.

    The closing record of the last attempt is handed back, so that it reaches the journal in one write with the result.

    Args:
        unit: What to ask.
        asker: Whom to ask, and by which rules.
        stops: Which errors stop the whole run, from the error and what was asked.
        fresh: What is to be asked in a unit's place, by what was learnt while it waited.

    Returns:
        The outcome; None when the run was stopped: the unit has not ended.
    """
    gate, journal = asker.gate, asker.journal
    number, began = unit.first_attempt, gate.clock()
    failures: Counter[str] = Counter()
    last: Attempted | None = None
    while True:
        this = await asker.attempt(unit, number, fresh, math.inf if last is None else began + asker.policy.deadline_s)
        if this is None:
            if last is None or gate.stopped_by is not None:
                return None
            # The limiter held it back until it was too late.
            return Outcome(unit, None, last.error, number - unit.first_attempt, last.closed["attempt_id"])
        unit, last = this.unit, this
        attempts, error = number - unit.first_attempt + 1, this.error
        if error is None:
            assert this.answer is not None
            return _answered(unit, this.answer, attempts, this.closed)
        if this.again:
            journal.append(this.closed)
            number += 1
            continue
        if stops(error, unit):
            gate.stop(error)
        if gate.stopped_by is not None:
            # Not this unit's own failure: it stays open, and a resumed run asks again.
            journal.append(this.closed)
            return None
        failures[error.code] += 1
        wait = asker.policy.wait_s(error, failures[error.code], gate.clock() - began)
        if wait is None:
            return Outcome(unit, None, error, attempts, this.closed["attempt_id"], [this.closed])
        journal.append(this.closed)
        await gate.sleep(wait)
        number += 1


async def _send(unit: Unit, client: EndpointClient) -> tuple[ChatAnswer | Embeddings | None, EndpointError | None]:
    try:
        if unit.texts:
            return await client.attempt_embedding(list(unit.texts), dimensions=unit.dimensions), None
        answer = await client.attempt(
            unit.messages, max_tokens=unit.max_tokens, temperature=unit.temperature, response_format=unit.response_format
        )
    except EndpointError as error:
        return None, error
    return answer, None


def _answered_well(answer: ChatAnswer | Embeddings) -> Ended:
    usage = answer.usage
    known = usage.prompt_tokens is not None and usage.completion_tokens is not None
    tokens = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0) if known else None
    return Ended("answered", tokens, answer.limits)


def _answered(unit: Unit, answer: ChatAnswer | Embeddings, attempts: int, closed: dict[str, Any]) -> Outcome:
    attempt = closed["attempt_id"]
    if isinstance(answer, Embeddings):
        return Outcome(unit, None, None, attempts, attempt, [closed], embeddings=answer)
    return Outcome(unit, answer, None, attempts, attempt, [closed])


def _closed(attempt: str, answer: ChatAnswer | Embeddings | None, error: EndpointError | None) -> dict[str, Any]:
    record: dict[str, Any] = {"k": "closed", "attempt_id": attempt, "at": iso(utcnow())}
    if answer is not None:
        record |= {
            "status": "ok",
            "http_status": answer.http_status,
            "latency_ms": answer.latency_ms,
            "request_id": answer.request_id,
            "usage": usage_record(answer.usage),
        }
    elif error is not None:
        record |= {"status": "error", "error_code": error.code, "http_status": error.status}
    return record


def workers_for(concurrency: int, units: int) -> int:
    """How many units are in hand at once: more than requests under way, since units that wait for a retry hold no slot."""
    return max(1, min(units, max(2 * concurrency, min(4 * concurrency + 16, 256))))


async def work_off(units: Iterable[Unit], workers: int, answer: Callable[[Unit], Awaitable[None]]) -> None:
    """Work off units with `workers` coroutines; the iterable is read only as fast as it is worked off (flat memory).

    Raises:
        Exception: The first error of any worker; the others are cancelled.
    """
    source = iter(units)

    async def worker() -> None:
        for unit in source:
            await answer(unit)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(worker())
    except BaseExceptionGroup as failures:
        # One plain error is what Prefect and the command line know how to show.
        raise failures.exceptions[0] from None
