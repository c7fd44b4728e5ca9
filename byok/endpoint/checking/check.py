"""A check: ask an endpoint all that the facts rest on, within a budget, and judge what came."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from byok import __version__
from byok.clock import utcnow
from byok.endpoint.checking.judge import judge
from byok.endpoint.checking.look import Look
from byok.endpoint.checking.plan import UNKNOWN_ROUTE, Ask, announced, planned
from byok.endpoint.checking.report import Report
from byok.endpoint.checking.session import Session, Target
from byok.endpoint.classify import TOKEN_PARAMETERS
from byok.endpoint.errors import (
    BadRequest,
    CreditExhausted,
    EndpointAuth,
    EndpointForbidden,
    EndpointNotOpenAI,
    EndpointRedirect,
    EndpointTls,
    ForbiddenAddress,
    RemoteModelNotFound,
)

Progress = Callable[[int, int, str], None]
"""Told of each step: how many are done, how many there are, and what comes next."""

_HOPELESS = (
    *(CreditExhausted, EndpointAuth, EndpointForbidden, EndpointNotOpenAI, EndpointRedirect),
    *(EndpointTls, ForbiddenAddress, RemoteModelNotFound),
)
"""After these every other chat would fail in the same way."""

_MOST_TRIES = 4


async def check(target: Target, progress: Progress = lambda done, of, what: None) -> Report:
    """Check an endpoint.

    Args:
        target: What is checked.
        progress: Told of each step.

    Raises:
        BadBaseUrl, BadCredentials, EndpointAuth: The URL or the credentials cannot be used.
        ForbiddenAddress: The address may not be called.
        EndpointError: Nothing at all was seen of it.
    """
    at, bound, asks = utcnow(), announced(with_key=target.with_key), planned(with_key=target.with_key)
    async with Session(target, bound) as session:
        for done, ask in enumerate(asks):
            progress(done, len(asks), ask.what)
            await _Step(session, ask).go()
        seen = session.seen
        for look in seen.looks:
            if isinstance(look.error, ForbiddenAddress):
                raise look.error
        if all(look.status is None for look in seen.looks) and not any(isinstance(look.error, EndpointTls) for look in seen.looks):
            raise next(look.error for look in seen.looks if look.error is not None)
        return Report(
            url=session.base.url,
            model=target.model_id,
            provider=target.profile.name,
            at=at,
            version=__version__,
            looks=tuple(seen.looks),
            bound=bound,
            findings=judge(session),
        )


class _Step:
    """One entry of the plan: it is asked, asked again as the endpoint wants it, or left out with a reason."""

    def __init__(self, session: Session, ask: Ask) -> None:
        self.session, self.seen, self.ask, self.target = session, session.seen, ask, session.target

    async def go(self) -> None:
        reason = self._hindrance()
        if reason is not None:
            self.seen.left_out[self.ask.name] = reason
            return
        special: dict[str, Callable[[], Awaitable[None]]] = {
            "models": self._models,
            "models_open": self._models_open,
            "chat": self._chat,
            "stream": self._stream,
            "other_limit": self._other_limit,
            "wrong_key": self._wrong_key,
            "no_route": self._no_route,
            "embeddings": self._embeddings,
            "base64": self._base64,
            "huge": self._huge,
        }
        if self.ask.name in special:
            await special[self.ask.name]()
        else:
            await self.session.chat(self.ask)

    def _hindrance(self) -> str | None:
        looks = self.seen.looks
        if len(looks[-2:]) == 2 and all(look.lost for look in looks[-2:]):
            return "left out: the endpoint did not answer any more"
        if looks and isinstance(looks[-1].error, EndpointTls):
            return "left out: no TLS connection was made"
        if looks and isinstance(looks[-1].error, ForbiddenAddress):
            return "left out: the address may not be called"
        if not self._fits():
            return f"left out: up to {self.ask.bound} more tokens might go over {self.session.budget}"
        first = self.seen.last("chat")
        if self.ask.prompt and first is not None and isinstance(first.error, _HOPELESS):
            return f"left out: request {first.number}, a plain chat, was refused ({first.error.code})"
        return None

    def _fits(self) -> bool:
        """Whether it may be asked again: a refusal is free, but for one that comes as a success."""
        return self.session.fits(self.ask.bound)

    async def _models(self) -> None:
        if self.target.profile.models_path is None:
            self.seen.left_out["models"] = f"not asked: by its profile, {self.target.profile.name} has no models route"
            return
        look = await self.session.models(self.ask)
        token = look.catalogue.next_page if look.catalogue is not None else None
        if token is not None and look.error is None:
            await self._page(look)

    async def _page(self, first: Look) -> None:
        assert first.catalogue is not None and first.catalogue.next_page is not None
        sign = "&" if "?" in first.route else "?"
        ask = Ask("page", "second page of the models list")
        await self.session.models(ask, page=f"{sign}pageToken={quote(first.catalogue.next_page, safe='')}")

    async def _models_open(self) -> None:
        if self.target.profile.models_path is None:
            self.seen.left_out["models_open"] = self.seen.why("models")
            return
        await self.session.models(self.ask, bare=True)

    async def _chat(self) -> None:
        look = await self.session.chat(self.ask)
        if look.error is not None and self._fits() and self.session.asking.adapt(look.error):
            await self.session.chat(self.ask)

    async def _stream(self) -> None:
        """Log probabilities in the profile's form, then in the other one, then not at all; usage is left out where it is refused."""
        forms: list[dict[str, Any]] = [{"logprobs": True, "top_logprobs": 1}, {"logprobs": 1}]
        if self.target.profile.logprobs == "integer":
            forms.reverse()
        forms.append({})
        for _ in range(_MOST_TRIES):
            look = await self.session.chat(self.ask, more=forms[0])
            if not isinstance(look.error, BadRequest) or not self._fits():
                return
            if self.session.asking.adapt(look.error):
                continue
            if len(forms) == 1:
                return
            forms.pop(0)

    async def _wrong_key(self) -> None:
        await self.session.chat(self.ask, wrong_key=True)

    async def _other_limit(self) -> None:
        other = next(name for name in TOKEN_PARAMETERS if name != self.session.asking.token_parameter)
        await self.session.chat(self.ask, max_tokens=None, more={other: self.ask.limit})

    async def _no_route(self) -> None:
        await self.session.get(self.ask, UNKNOWN_ROUTE)

    async def _embeddings(self) -> None:
        model, encoding = self._embedding_model(), "float" if self.target.profile.encoding_format else None
        look = await self.session.embed(self.ask, model, encoding)
        if encoding is not None and isinstance(look.error, BadRequest) and "encoding_format" in f"{look.error.parameter} {look.error}":
            await self.session.embed(self.ask, model, None)

    async def _base64(self) -> None:
        before = self.seen.last("embeddings")
        if before is None or before.vectors is None:
            self.seen.left_out["base64"] = "not asked: there are no embeddings"
            return
        await self.session.embed(self.ask, before.sent["model"], "base64")

    async def _huge(self) -> None:
        stream = self.seen.last("stream")
        timing = stream.answer.timing if stream is not None and stream.answer is not None else None
        if stream is None or timing is None or stream.held_back:
            self.seen.left_out["huge"] = "not asked: a long answer could not be cut off, as no stream came, or all of it at once"
            return
        await self.session.chat(self.ask)

    def _embedding_model(self) -> str:
        listed = self.seen.last("models")
        models = listed.catalogue.models if listed is not None and listed.catalogue is not None else ()
        found = next((model.id for model in models if model.kind == "embedding"), None)
        return self.target.embedding_model or found or self.target.model_id
