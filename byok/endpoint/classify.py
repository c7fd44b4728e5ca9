"""Which error a reply is.

By status and by the shape of the body first; words of a message decide only where providers send nothing better, and only
among the statuses on which they send it.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from byok.clock import utcnow
from byok.endpoint.bodies import ErrorBody, read_error
from byok.endpoint.errors import (
    BadRequest,
    ContentFiltered,
    ContextLength,
    CreditExhausted,
    EndpointAuth,
    EndpointError,
    EndpointForbidden,
    EndpointNotOpenAI,
    EndpointOverloaded,
    EndpointRateLimited,
    EndpointRedirect,
    EndpointTimeout,
    RemoteModelNotFound,
)
from byok.endpoint.explain import address_hint
from byok.endpoint.policy import BaseUrl
from byok.endpoint.wire import Redactor, Reply, excerpt, request_id, retry_after
from byok.errors import Field

TOKEN_PARAMETERS = ("max_tokens", "max_completion_tokens")
"""Two names of one thing; an endpoint may take only one of them."""

_SEARCHED = 20_000
"""Characters of a message that are searched for words: an error inside a 200 may have millions."""

COLD_START_WAIT_S = 15.0
"""Wait while a deployment that was scaled to zero starts, when the server gives none."""

_CONTEXT_CODES = frozenset({"context_length_exceeded", "string_above_max_length", "request_too_large"})
_CONTEXT_PARAMETERS = frozenset({"input_tokens", "input_text"})
_CONTEXT_WORDS = re.compile(
    r"maximum context|max_model_len|context[ _](?:length|window)|prompt is too long|input is too long"
    r"|inputs`? tokens \+ `?max_new_tokens",
    re.IGNORECASE,
)
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "content_filtered", "prompt_blocked", "sensitive_content"})
_MODEL_CODES = frozenset({"model_not_found", "model_not_available", "model_deprecated", "RESOURCE_DOES_NOT_EXIST", "unknown_model"})
_NAMED_IN_TEXT = re.compile(r"(?:parameter|argument|field|param)s?\s*(?:[:=]\s*)?['\"`(]*([a-z][a-z0-9_.]{1,60})['\"`,)]", re.IGNORECASE)


def classify(reply: Reply, base: BaseUrl, remote_id: str, redact: Redactor) -> EndpointError:
    """The error that a reply is: any status but 2xx, or an error body inside a 200."""
    return _Case(reply, base, remote_id, redact).error()


class _Case:
    def __init__(self, reply: Reply, base: BaseUrl, remote_id: str, redact: Redactor) -> None:
        self.reply, self.base, self.remote_id = reply, base, remote_id
        self.body: ErrorBody = read_error(reply)
        self.status = reply.status
        if 200 <= reply.status < 300 and self.body.code and re.fullmatch(r"[45]\d\d", self.body.code):
            # An error inside a 200 (a gateway that had already answered): the body's own number is the better one.
            self.status = int(self.body.code)
        self.said = excerpt(self.body.message, redact)
        self.words = self.body.message[:_SEARCHED]
        self.names = {name for name in (self.body.code, self.body.kind) if name}
        self.redact = redact

    def error(self) -> EndpointError:
        if 300 <= self.status < 400:
            return self._redirect()
        if self.reply.headers.get("cf-mitigated") == "challenge":
            # Comes with 403, 429 or 503, and is neither a refused key nor a rate limit.
            return self._make(
                EndpointNotOpenAI, "a bot check stands before the endpoint", "ask the provider for an API host without a challenge"
            )
        return self._by_status() or self._by_request() or self._other()

    def _by_status(self) -> EndpointError | None:
        match self.status:
            case 401:
                return self._make(
                    EndpointAuth, "the endpoint refuses the key", "check that the key is complete, active and of this provider"
                )
            case 402 | 412:
                return self._credit()
            case 408 | 504:
                return self._make(
                    EndpointTimeout, "the endpoint or a proxy gave up waiting", "try again later or with fewer requests at a time"
                )
            case 429:
                return self._rate()
            case status if status >= 500 and status != 501:
                return self._server()
        return None

    def _by_request(self) -> EndpointError | None:
        """Errors that tell by code, parameter or text, under several statuses."""
        if self.names & _FILTER_CODES:
            return self._make(ContentFiltered, "the provider's filter refuses the prompt")
        if self.status == 413 or self._about_context():
            return self._make(ContextLength, "the prompt and the answer's room are too long", "shorten the rows or lower --max-tokens")
        if self.names & _MODEL_CODES or self.status == 410 or (self.status == 404 and self._about_model()):
            return self._make(
                RemoteModelNotFound, f"the endpoint does not serve {self.remote_id!r}", "check --model-id against the provider's list"
            )
        return None

    def _other(self) -> EndpointError:
        if self.status in (404, 405):
            return self._make(EndpointNotOpenAI, "there is no chat route at this address", address_hint(self.base))
        if self.body.is_html:
            return self._make(EndpointNotOpenAI, "a web page came instead of an API answer", address_hint(self.base))
        if self.status == 403:
            return self._make(
                EndpointForbidden, "the endpoint refuses this", "the key may lack this model or region, or a proxy blocks the request"
            )
        if 200 <= self.status < 300:
            return self._make(EndpointOverloaded, "an error came inside a success")
        named = self._parameter()
        hint = f"the endpoint does not accept {named!r} like this" if named else "the endpoint's own words are above"
        return self._make(BadRequest, "the endpoint calls the request malformed", hint)

    def _redirect(self) -> EndpointError:
        location = _shown_location(self.reply.headers.get("location", ""), self.redact)
        return self._make(
            EndpointRedirect,
            f"the endpoint redirects to {location}" if location else "the endpoint redirects",
            "redirects are never followed; register the final address, with https",
            location=location or None,
        )

    def _credit(self) -> EndpointError:
        return self._make(
            CreditExhausted, "the account cannot be used: no credit, a limit, or suspended", "see the provider's billing page"
        )

    def _rate(self) -> EndpointError:
        limits = any(name.startswith(("x-ratelimit", "retry-after")) for name in self.reply.headers)
        # SambaNova calls a rate limit insufficient_quota; it sends limit headers with it, OpenAI does not.
        if "insufficient_quota" in self.names and not limits:
            return self._credit()
        return self._make(EndpointRateLimited, "the endpoint's rate limit is reached", "lower --concurrency")

    def _server(self) -> EndpointError:
        if "DEPLOYMENT_SCALING_UP" in self.names:
            wait = retry_after(self.reply.headers, utcnow())
            return self._make(
                EndpointOverloaded,
                "the deployment is starting",
                "wait some minutes",
                cold_start=True,
                retry_after_s=COLD_START_WAIT_S if wait is None else wait,
            )
        return self._make(EndpointOverloaded, "the endpoint fails or is overloaded", "try again later or with fewer requests at a time")

    def _about_context(self) -> bool:
        if self.names & _CONTEXT_CODES or self.body.parameter in _CONTEXT_PARAMETERS:
            return True
        return self.status in (400, 403, 422) and bool(_CONTEXT_WORDS.search(self.words))

    def _about_model(self) -> bool:
        """A 404 for the model, not for the route: it names the parameter, the id, or "model" in an API's own error shape."""
        if not self.body.is_json or "Invalid URL" in self.words:
            return False
        return self.body.parameter == "model" or self.remote_id in self.words or "model" in self.words.lower()

    def _parameter(self) -> str | None:
        if self.body.parameter:
            return self.body.parameter
        named = next((name for name in ("response_format", *TOKEN_PARAMETERS) if re.search(rf"\b{name}\b", self.words)), None)
        found = _NAMED_IN_TEXT.search(self.words)
        return named or (found[1] if found else None)

    def _instead(self) -> str | None:
        """The other name for the token limit, if the refusal asks for it."""
        text = f"{self.words} {self.body.parameter or ''}"
        named = [name for name in TOKEN_PARAMETERS if re.search(rf"\b{name}\b", text)]
        if len(named) == 2:
            return next(
                (name for name in named if name != self.body.parameter and re.search(rf"[Uu]se\W+{name}\b", text)), TOKEN_PARAMETERS[1]
            )
        return None

    def _make(self, kind: type[EndpointError], what: str, hint: str = "", **more: Field) -> EndpointError:
        number = f"HTTP {self.reply.status}"
        message = f"{what} ({number}): {self.said}" if self.said else f"{what} ({number})"
        fields: dict[str, Field] = {
            "status": self.reply.status,
            "remote_code": self.body.code and excerpt(self.body.code, self.redact, 80),
            "request_id": request_id(self.reply, self.redact) or (self.body.request_id and excerpt(self.body.request_id, self.redact, 200)),
        }
        if kind.retryable:
            fields["retry_after_s"] = retry_after(self.reply.headers, utcnow())
        if kind is BadRequest:
            named = self._parameter()
            fields["parameter"] = named and excerpt(named, self.redact, 80)
            fields["instead"] = self._instead()
        return kind(message, hint=hint, **{**fields, **more})


def _shown_location(text: str, redact: Redactor) -> str:
    """Where a redirect leads, without query, fragment and user: those may hold secrets."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    return excerpt(f"{parts.scheme}://{host}{parts.path}" if host else parts.path, redact, 200)
