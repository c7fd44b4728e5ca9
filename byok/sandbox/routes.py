"""The sandbox's HTTP routes: what all dialects do alike."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from byok.sandbox.dialects import OpenAI
from byok.sandbox.dialects.mlflow_relay import Relay
from byok.sandbox.dialects.turns import Turn
from byok.sandbox.embedding import embed
from byok.sandbox.faults import Fault, found_by
from byok.sandbox.refusals import Refused, refused
from byok.sandbox.replies import Reply
from byok.sandbox.settings import Counters, Settings, stats_of
from byok.sandbox.vectors import read_embedding
from byok.sandbox.wire import CutResponse, as_fault, as_json, as_stream, dumps, frames


def make_app(settings: Settings, counters: Counters, dialect: OpenAI) -> Starlette:
    """The application.

    Args:
        settings: How it behaves.
        counters: What `GET /stats` tells.
        dialect: How it speaks.
    """

    async def stats(_request: Request) -> Response:
        return as_json(stats_of(settings, counters))

    async def no_route(request: Request, error: Exception) -> Response:
        return dialect.no_route(request, error.status_code if isinstance(error, HTTPException) else 404)

    routes: list[BaseRoute] = [Route("/stats", stats, methods=["GET"])]
    for face in dialect.faces():
        served = _Routes(settings, counters, face)
        routes.append(Route(f"{face.prefix}/chat/completions", served.chat, methods=["POST"]))
        if face.lists_models:
            routes.append(Route(f"{face.prefix}/models", served.models, methods=["GET"]))
        if face.has_embeddings:
            routes.append(Route(f"{face.prefix}/embeddings", served.embeddings, methods=["POST"]))
    routes += dialect.routes(settings)
    return Starlette(routes=routes, exception_handlers={404: no_route, 405: no_route})


class _Routes:
    def __init__(self, settings: Settings, counters: Counters, dialect: OpenAI) -> None:
        self.settings, self.counters, self.dialect = settings, counters, dialect

    async def models(self, request: Request) -> Response:
        self.counters.requests += 1
        self.counters.models_requests += 1
        try:
            self._check_key(request)
        except Refused as refusal:
            return self.dialect.refuse(refusal, stream=False)
        return as_json(self.dialect.models(self.settings, request))

    async def chat(self, request: Request) -> Response:
        settings, dialect = self.settings, self.dialect
        self.counters.requests += 1
        self.counters.chat_requests += 1
        number = self.counters.chat_requests
        stream = False
        try:
            self._check_key(request)
            body = dialect.read_body(request, await request.body())
            stream = body.get("stream") is True
            self.counters.stream_requests += stream
            chat = dialect.read_chat(body, settings)
            limit = dialect.fit(chat, settings)
        except Refused as refusal:
            return dialect.refuse(refusal, stream=stream)
        fault = found_by(settings.hook, number, chat.question)
        await self._wait(fault)
        if fault is not None and fault.replaces(stream=chat.stream):
            self.counters.faults += 1
            failed = as_fault(fault) if fault.body is not None else dialect.fail(fault, stream=chat.stream)
            return self._relayed(failed, stream=chat.stream)
        reasons = settings.can.state("reasoning") != "off" and "reasoning" in settings.can.supports
        reply = settings.mind.answer(chat, limit=limit, reasons=reasons, blank=dialect.writes_blanks(chat))
        self._count(reply)
        reply = dialect.ended(chat, reply).altered(fault)
        if (settings.reasoning_as or dialect.reasoning_as) == "think":
            reply = reply.thinking_aloud()
        return self._answer(Turn(number, chat, reply, settings), fault)

    async def embeddings(self, request: Request) -> Response:
        settings, dialect = self.settings, self.dialect
        self.counters.requests += 1
        self.counters.embedding_requests += 1
        number = self.counters.embedding_requests
        if settings.can.state("embeddings") != "on":
            return dialect.no_embeddings(request)
        try:
            self._check_key(request)
            body = dialect.read_body(request, await request.body())
            model = body.get("model")
            if model == settings.model_id:
                raise refused(400, f"The model `{model}` does not make embeddings.", "invalid_value", "model", model, upstream=True)
            if model != settings.embedding_model_id and (model is not None or dialect.rules.model_needed):
                raise dialect.unknown_model(model)
            wanted = read_embedding(body, dialect.embedding_rules, settings)
        except Refused as refusal:
            return dialect.refuse(refusal, stream=False)
        fault = found_by(settings.embedding_hook, number, wanted.texts[0])
        await self._wait(fault)
        if fault is not None and fault.replaces(stream=False):
            self.counters.faults += 1
            return self._relayed(as_fault(fault) if fault.body is not None else dialect.fail(fault, stream=False))
        self.counters.embedding_tokens += wanted.prompt_tokens
        vectors = []
        for text in wanted.texts:
            vectors.append(embed(text, settings.dimensions, wanted.dimensions))
            # Other requests are not kept waiting by many texts.
            await asyncio.sleep(0)
        answer = dialect.embeddings(wanted.model, vectors, wanted.prompt_tokens, body)
        return self._relayed(as_json(answer, headers={**dialect.embedding_headers(), **(fault.headers if fault else {})}))

    def _answer(self, turn: Turn, fault: Fault | None) -> Response:
        dialect = self.dialect
        headers = dialect.headers(turn) | dict(fault.headers if fault else {})
        broken = fault is not None and (fault.cut or (turn.chat.stream and (fault.after_chunks is not None or fault.frame is not None)))
        self.counters.faults += broken
        if turn.chat.stream:
            error = dialect.error_frame(fault) if fault is not None and fault.status != 200 else None
            events = frames(
                dialect.chunks(turn), fault, error=error, done=dialect.done(failed=False), done_failed=dialect.done(failed=True)
            )
            if isinstance(dialect, Relay):
                events, headers = dialect.relay_events(events), dialect.stream_headers
            else:
                headers = {"cache-control": "no-cache", **headers}
            return as_stream(events, wait=self.settings.chunk_latency_ms / 1000, held_back=dialect.buffers, headers=headers)
        answer = dialect.completion(turn)
        if broken:
            return self._relayed(CutResponse(dumps(answer), media_type="application/json"))
        return self._relayed(as_json(answer, headers=headers))

    def _relayed(self, answer: Response, *, stream: bool = False) -> Response:
        """An answer as the client gets it: a gateway makes another one of it."""
        return self.dialect.relay(answer, stream=stream) if isinstance(self.dialect, Relay) else answer

    async def _wait(self, fault: Fault | None) -> None:
        delay = self.settings.latency_ms + (fault.delay_ms if fault else 0)
        if delay:
            await asyncio.sleep(delay / 1000)

    def _check_key(self, request: Request) -> None:
        try:
            self.dialect.check_key(request, self.settings.api_keys)
        except Refused as refusal:
            self.counters.wrong_keys += refusal.status == 401
            raise

    def _count(self, reply: Reply) -> None:
        counters = self.counters
        counters.answered += 1
        counters.prompt_tokens += reply.prompt_tokens
        counters.completion_tokens += reply.completion_tokens
        setattr(counters, reply.kind, getattr(counters, reply.kind) + 1)
