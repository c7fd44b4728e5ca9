"""The requests of one probe: each is noted, and counted against what the probe may spend."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Unpack

from byok.clock import utcnow
from byok.endpoint.answers import ChatAnswer
from byok.endpoint.asking import ChatOptions
from byok.endpoint.client import EndpointClient
from byok.endpoint.embeddings import Embeddings
from byok.endpoint.errors import EndpointAuth, EndpointError
from byok.endpoint.probing.budget import Budget, sent_tokens
from byok.endpoint.probing.record import ProbeAttempt, ProbeLog
from byok.endpoint.usage import Usage

Answer = TypeVar("Answer", ChatAnswer, Embeddings)


class Skipped(Exception):
    """A request that is not sent; never leaves the probe. Its text says why."""


@dataclass(frozen=True)
class Seen(Generic[Answer]):
    """How one request ended: with an answer, or with an error."""

    attempt: ProbeAttempt
    answer: Answer | None
    error: EndpointError | None


class Session:
    """Sends the requests of one probe.

    Args:
        client: Whom to ask.
        log: Where they are noted.
        budget: What they may cost; without one, they are counted alone.
    """

    def __init__(self, client: EndpointClient, log: ProbeLog, budget: Budget | None = None) -> None:
        self.client, self.log, self.budget = client, log, budget or Budget(None)
        self.left_out = False
        """Whether something was not asked for what it might cost."""
        self._stopped = False

    async def chat(
        self, messages: list[dict[str, Any]], limit: int, /, *, expected: int | None = None, **options: Unpack[ChatOptions]
    ) -> Seen[ChatAnswer]:
        """Ask for a chat completion, once.

        Args:
            messages: Chat messages.
            limit: Most tokens of the answer that are asked for.
            expected: Tokens of the answer that are reckoned with, where that is not the limit.
            **options: See `ChatOptions`.

        Raises:
            Skipped: It might cost too much, or the key has been refused meanwhile.
        """
        body = {"messages": messages, "tools": options.get("tools"), "response_format": options.get("response_format")}
        most = limit if expected is None else expected
        self._check(body, most)
        options["max_tokens"] = limit
        return await self._record(body, most, self.client.attempt(messages, **options))

    async def embed(self, texts: list[str]) -> Seen[Embeddings]:
        """Ask for embeddings, once.

        Raises:
            Skipped: See `chat`.
        """
        body = {"input": texts}
        self._check(body, 0)
        return await self._record(body, 0, self.client.attempt_embedding(texts))

    def _check(self, body: dict[str, Any], most: int) -> None:
        if self._stopped:
            raise Skipped("not asked: the endpoint had refused the key")
        if not self.budget.fits(body, most):
            self.left_out = True
            raise Skipped(
                f"not asked: with up to {self.budget.bound(body, most)} more tokens, the probe might go over {self.budget.limit}"
                f" ({self.budget.spent} are counted)"
            )

    async def _record(self, body: dict[str, Any], most: int, sent: Awaitable[Answer]) -> Seen[Answer]:
        opened = utcnow()
        if self.log.opening is not None:
            await self.log.opening(opened)
        started = time.perf_counter()
        answer: Answer | None = None
        error: EndpointError | None = None
        try:
            answer = await sent
        except EndpointError as caught:
            error = caught
        vectors = "input" in body
        if answer is not None:
            told = (answer.http_status, answer.latency_ms, answer.usage, answer.request_id)
            attempt = ProbeAttempt("ok", None, *told, opened, utcnow(), vectors)
        else:
            assert error is not None
            spent = (time.perf_counter() - started) * 1000
            request_id = error.fields.get("request_id")
            named = request_id if isinstance(request_id, str) else None
            attempt = ProbeAttempt("error", error.code, error.status, spent, Usage(), named, opened, utcnow(), vectors)
            # A key may be good for chat alone: its refusal elsewhere says nothing of what is asked here.
            self._stopped = self._stopped or (isinstance(error, EndpointAuth) and not vectors)
        self.log.attempts.append(attempt)
        if self.log.closing is not None:
            self.log.closing(attempt)
        self.budget.take(body, most, attempt, sent_tokens(answer if isinstance(answer, ChatAnswer) else None, error))
        return Seen(attempt, answer, error)
