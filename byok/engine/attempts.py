"""Answer one unit of work: attempts with journal, slot and retries.

A unit is anything that one request finishes: a sample to answer, an answer to judge, or two texts to embed. Who asks turns the
outcome into rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from byok.clock import iso, utcnow
from byok.endpoint import ChatAnswer, Embeddings, EndpointClient, EndpointError
from byok.engine.journal import Journal
from byok.engine.limiter import Gate
from byok.engine.retry import RetryPolicy, Sleep
from byok.errors import ByokError
from byok.ids import natural_id


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


async def attempt_unit(
    unit: Unit,
    client: EndpointClient,
    journal: Journal,
    gate: Gate,
    policy: RetryPolicy,
    *,
    stops: Callable[[EndpointError], bool] = lambda error: error.stops_run,
    sleep: Sleep = asyncio.sleep,
) -> Outcome | None:
    """Try a unit until it is answered, may not be tried again, or the run is stopped.

    The closing record of the last attempt is handed back, so that it reaches the journal in one write with the result.

    Args:
        unit: What to ask.
        client: Whom to ask.
        journal: Where attempts are recorded.
        gate: The slots, and the stop sign.
        policy: When to try again.
        stops: Which errors stop the whole run.
        sleep: How to wait (injected in tests).

    Returns:
        The outcome; None when the run was stopped: the unit has not ended.
    """
    number = unit.first_attempt
    while True:
        async with gate.slot():
            if gate.stopped_by is not None:
                return None
            this = attempt_id(unit.id, number)
            journal.append(
                {
                    "k": "opened",
                    "attempt_id": this,
                    "unit": unit.id,
                    "sample_id": unit.sample_id,
                    "number": number,
                    "key_version": client.key_version,
                    "at": iso(utcnow()),
                }
            )
            sent_as, sent_with = client.state, client.key_version
            answer, error = await _send(unit, client)
            closed = _closed(this, answer, error)
            try:
                # Within the slot: while another key is fetched, the slots of those who wait for it send nothing with the refused one.
                renewed = error is not None and error.code == "endpoint_auth" and await client.renew(sent_with)
            except ByokError as failure:
                # There is no other key: no further request starts, and those under way come to their end.
                journal.append(closed)
                gate.stop(failure)
                return None
        if answer is not None:
            return _answered(unit, answer, number - unit.first_attempt + 1, this, closed)
        assert error is not None
        if client.adapt(error) or (error.code == "bad_request" and client.state != sent_as):
            # The endpoint named the parameter that it wants instead: the next attempt says it that way.
            journal.append(closed)
            number += 1
            continue
        if renewed:
            # The model's key was rotated while this run was under way: what the old one no longer opens, the new one does.
            journal.append(closed)
            number += 1
            continue
        if stops(error):
            gate.stop(error)
        if gate.stopped_by is not None:
            # Not this unit's own failure: it stays open, and a resumed run asks again.
            journal.append(closed)
            return None
        wait = policy.wait_s(error, number - unit.first_attempt + 1)
        if wait is None:
            return Outcome(unit, None, error, number - unit.first_attempt + 1, this, [closed])
        journal.append(closed)
        await sleep(wait)
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


def _answered(unit: Unit, answer: ChatAnswer | Embeddings, attempts: int, attempt: str, closed: dict[str, Any]) -> Outcome:
    if isinstance(answer, Embeddings):
        return Outcome(unit, None, None, attempts, attempt, [closed], embeddings=answer)
    return Outcome(unit, answer, None, attempts, attempt, [closed])


def _closed(attempt: str, answer: ChatAnswer | Embeddings | None, error: EndpointError | None) -> dict[str, Any]:
    record: dict[str, Any] = {"k": "closed", "attempt_id": attempt, "at": iso(utcnow())}
    if answer is not None:
        usage = answer.usage
        record |= {
            "status": "ok",
            "http_status": answer.http_status,
            "latency_ms": answer.latency_ms,
            "request_id": answer.request_id,
            "usage": [
                usage.prompt_tokens,
                usage.completion_tokens,
                usage.cached_tokens,
                usage.reasoning_tokens,
                usage.usage_class,
            ],
        }
    elif error is not None:
        record |= {"status": "error", "error_code": error.code, "http_status": error.status}
    return record


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
