"""Which error a reply is.

By status and by the shape of the body first; words of a message decide only where providers send nothing better, and only
among the statuses on which they send it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import urlsplit

from byok.clock import utcnow
from byok.endpoint.bodies import ErrorBody, read_error
from byok.endpoint.errors import (
    BadRequest,
    ContentFiltered,
    ContextLength,
    CreditExhausted,
    EndpointAuth,
    EndpointCold,
    EndpointError,
    EndpointForbidden,
    EndpointNotOpenAI,
    EndpointOverloaded,
    EndpointRateLimited,
    EndpointRedirect,
    EndpointTimeout,
    EndpointTls,
    RemoteModelNotFound,
    ResponseTruncated,
)
from byok.endpoint.explain import address_hint
from byok.endpoint.place import Place
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
    r"|inputs`? tokens \+ `?max_new_tokens|must have less than \d+ tokens",
    re.IGNORECASE,
)
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "content_filtered", "prompt_blocked", "sensitive_content"})
_STATUSES: dict[str | None, int] = {"insufficient_quota": 429, "rate_limit_exceeded": 429, "invalid_api_key": 401}
"""Codes that stand for a status, where the status itself was spent on a success."""
_MODEL_CODES = frozenset({"model_not_found", "model_not_available", "model_deprecated", "RESOURCE_DOES_NOT_EXIST", "unknown_model"})
_VALIDATION = re.compile(r"validation errors? for \w{1,80}\n([A-Za-z_][\w.]{0,200})\n")
"""How pydantic lists what is wrong with a request, in a text."""
_SPELT = (*("response_format", "stream_options", "encoding_format", "top_logprobs", "logprobs", "tool_choice"), *TOKEN_PARAMETERS)
"""Parameters that are known wherever a message spells them: no ordinary words."""
_NAMED_IN_TEXT = re.compile(r"(?:parameter|argument|field|param)s?\s*(?:[:=]\s*)?['\"`(]*([a-z][a-z0-9_.]{1,60})['\"`,)]", re.IGNORECASE)


def classify(reply: Reply, place: Place) -> EndpointError:
    """The error that a reply is: any status but 2xx, or an error body inside a 200."""
    return _Case(reply, place).error()


class _Case:
    def __init__(self, reply: Reply, place: Place) -> None:
        redact = place.redact
        if 200 <= reply.status < 300:
            reply = replace(reply, body=redact.raw(reply.body))
        self.reply, self.place, self.base, self.remote_id = reply, place, place.base, place.remote_id
        self.body: ErrorBody = read_error(reply)
        self.status = reply.status
        if 200 <= reply.status < 300:
            # An error inside a 200 (a gateway that had already answered): the body's own number is the better one.
            self.status = _status_within(self.body) or reply.status
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
                return self._make(EndpointAuth, "the endpoint refuses the key", self._auth_hint())
            case 402 | 412:
                return self._credit()
            case 408 | 499 | 504:
                return self._make(
                    EndpointTimeout, "the endpoint or a proxy gave up waiting", "try again later or with fewer requests at a time"
                )
            case 429:
                return self._rate()
            case 409 | 425:
                return self._make(EndpointOverloaded, "the endpoint is not ready for this request", "try again")
            case status if status >= 500 and status != 501:
                return self._server()
        return None

    def _by_request(self) -> EndpointError | None:
        """Errors that tell by code, parameter or text, under several statuses."""
        if self.body.is_html and (found := self._proxy_page()):
            return found
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
            return self._make(
                EndpointNotOpenAI, f"there is no {self.place.what} route at this address", address_hint(self.base, self.place.route)
            )
        if self.body.is_html:
            return self._make(EndpointNotOpenAI, "a web page came instead of an API answer", address_hint(self.base, self.place.route))
        if self.status == 403:
            hint = "the key may lack this model or region, or a proxy blocks the request"
            if "Host header" in self.words:
                hint = "the gateway does not know this host name: start it with --allowed-hosts, or let the proxy send its own Host"
            return self._make(EndpointForbidden, "the endpoint refuses this", hint)
        if 200 <= self.status < 300:
            if self.body.kind == "ClientPayloadError":
                # What a gateway says in a stream when the server behind it cut the answer (MLflow, run for real).
                return self._make(ResponseTruncated, "the server behind the gateway cut the answer", "it may still bill the tokens")
            return self._make(EndpointOverloaded, "an error came inside a success")
        named = self._parameter()
        hint = f"the endpoint does not accept {named!r} like this" if named else "the endpoint's own words are above"
        return self._make(BadRequest, "the endpoint calls the request malformed", hint)

    def _auth_hint(self) -> str:
        asked = self.reply.headers.get("www-authenticate", "").lower()
        if asked.startswith("basic"):
            return "it asks for a user and a password: register it with --auth basic --basic-user NAME"
        if self.place.profile.refused_key is not None:
            return self.place.profile.refused_key
        if self.place.profile.auth == "header":
            return (
                f"check the key and the header that carries it: --auth header --auth-header {self.place.profile.auth_header or 'X-API-Key'}"
            )
        return "check that the key is complete, active and of this provider; a proxy may want it in a header of its own: --auth header"

    def _proxy_page(self) -> EndpointError | None:
        """A proxy's page about TLS: it comes as HTTP 400, though no request was looked at (nginx 1.22, run)."""
        if "SSL certificate" in self.words:
            hint = "the proxy wants a client certificate: --client-cert-file and --client-key-file"
            return self._make(EndpointTls, "the client certificate is missing or not trusted", hint)
        if "HTTP request was sent to HTTPS port" in self.words:
            return self._make(EndpointNotOpenAI, "plain http was sent to an https port", "write the base URL with https://")
        return None

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
        if "insufficient_quota" in self.names and not limits and not self.place.profile.quota_is_rate:
            return self._credit()
        return self._make(EndpointRateLimited, "the endpoint's rate limit is reached", "lower --concurrency")

    def _server(self) -> EndpointError:
        if "DEPLOYMENT_SCALING_UP" in self.names:
            wait = retry_after(self.reply.headers, utcnow())
            return self._make(
                EndpointCold,
                "the deployment is starting",
                "it was scaled to zero: wait some minutes, or keep one replica at the provider",
                retry_after_s=COLD_START_WAIT_S if wait is None else wait,
            )
        hint = "try again later or with fewer requests at a time"
        if self.status == 503 and self.body.is_html:
            hint = "this is a proxy's page: it may limit the rate (lower --concurrency), or find no server behind it"
        elif self.status == 500 and not self.body.is_json and "Internal Server Error" in self.words:
            hint = "a gateway may hide a refused key or an unknown endpoint name behind this: look at its own log"
        return self._make(EndpointOverloaded, "the endpoint fails or is overloaded", hint)

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
        listed = _VALIDATION.search(self.words)
        if listed:
            return listed[1]
        named = next((name for name in _SPELT if re.search(rf"\b{name}\b", self.words)), None)
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

    def _id_in_body(self) -> str | None:
        return self.body.request_id and excerpt(self.body.request_id, self.redact, 200)

    def _make(self, kind: type[EndpointError], what: str, hint: str = "", **more: Field) -> EndpointError:
        number = f"HTTP {self.reply.status}"
        message = f"{what} ({number}): {self.said}" if self.said else f"{what} ({number})"
        fields: dict[str, Field] = {
            "status": self.reply.status,
            "remote_code": self.body.code and excerpt(self.body.code, self.redact, 80),
            "request_id": request_id(self.reply, self.redact, self.place.profile.request_id_headers) or self._id_in_body(),
        }
        if kind.retryable:
            fields["retry_after_s"] = retry_after(self.reply.headers, utcnow())
        if kind is BadRequest:
            named = self._parameter()
            fields["parameter"] = named and excerpt(named, self.redact, 80)
            fields["instead"] = self._instead()
        return kind(message, hint=hint, **{**fields, **more})


def _status_within(body: ErrorBody) -> int | None:
    """The status that an error body names: as its code, or before its message (MLflow's gateway: `429: …`)."""
    found = re.fullmatch(r"[45]\d\d", body.code or "") or re.match(r"[45]\d\d(?=: )", body.message)
    return int(found[0]) if found else next((_STATUSES[name] for name in (body.code, body.kind) if name in _STATUSES), None)


def _shown_location(text: str, redact: Redactor) -> str:
    """Where a redirect leads, without query, fragment and user: those may hold secrets."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    return excerpt(f"{parts.scheme}://{host}{parts.path}" if host else parts.path, redact, 200)
