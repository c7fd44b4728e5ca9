"""What can go wrong with an endpoint, one class each.

`retryable` says whether the same request may succeed later; `stops_run` says that every other request of the run would fail
in the same way, so that none should be sent. Errors hold plain values: no request, no response, no key.
"""

from __future__ import annotations

from typing import ClassVar

from byok.errors import InputError, OutsideError


class EndpointError(OutsideError):
    """An endpoint did not answer as it should.

    Plain fields, all optional: `status` (HTTP), `retry_after_s`, `parameter`, `remote_code` (the endpoint's own error code),
    `request_id`, `instead` (the parameter that the endpoint wants in place of `parameter`), `location` (of a redirect).
    """

    code = "endpoint_error"
    stops_run: ClassVar[bool] = False

    @property
    def status(self) -> int | None:
        """HTTP status; None when there was no HTTP answer."""
        found = self.fields.get("status")
        return found if isinstance(found, int) else None

    @property
    def retry_after_s(self) -> float | None:
        """Seconds that the endpoint asks to wait; None when it did not say."""
        found = self.fields.get("retry_after_s")
        return float(found) if isinstance(found, int | float) else None

    @property
    def parameter(self) -> str | None:
        """The request parameter that the endpoint complains about, if it names one."""
        found = self.fields.get("parameter")
        return found if isinstance(found, str) else None


class EndpointAuth(EndpointError):
    """401: the key is missing, wrong or revoked."""

    code = "endpoint_auth"
    stops_run = True


class EndpointForbidden(EndpointError):
    """403 that says nothing else: key, model, region or a proxy's rule; not proof of a bad key."""

    code = "endpoint_forbidden"


class CreditExhausted(EndpointError):
    """402, 412, or 429 with an exhausted quota: an account state that waiting does not change."""

    code = "endpoint_credit"
    stops_run = True


class EndpointRateLimited(EndpointError):
    """429: too many requests or tokens for now."""

    code = "endpoint_rate_limited"
    retryable = True


class EndpointOverloaded(EndpointError):
    """5xx: the server or a proxy before it fails or is full. Not our rate: fewer requests may not help."""

    code = "endpoint_overloaded"
    retryable = True


class EndpointCold(EndpointError):
    """503 while a deployment that was scaled to zero starts: minutes, and no measure of its latency."""

    code = "endpoint_cold"
    retryable = True


class EndpointTimeout(EndpointError):
    """No complete answer within the deadline, or 408 or 504."""

    code = "endpoint_timeout"
    retryable = True


class RemoteModelNotFound(EndpointError):
    """The endpoint does not serve this model id (any more)."""

    code = "model_not_found"
    stops_run = True


class ContextLength(EndpointError):
    """The prompt and the room for the answer do not fit this model or a proxy's body limit."""

    code = "context_length"


class ContentFiltered(EndpointError):
    """The provider refuses to process this prompt."""

    code = "content_filtered"


class BadRequest(EndpointError):
    """The endpoint calls the request malformed."""

    code = "bad_request"
    stops_run = True


class EndpointUnreachable(EndpointError):
    """No connection: no such name, nobody listens, no route, or closed without an answer."""

    code = "endpoint_unreachable"
    retryable = True


class EndpointTls(EndpointError):
    """TLS failed: the certificate is not trusted, or the other side does not speak TLS."""

    code = "endpoint_tls"
    stops_run = True


class EndpointNotOpenAI(EndpointError):
    """Something answers, but not an OpenAI-compatible chat route."""

    code = "endpoint_not_openai"
    stops_run = True


class ResponseTruncated(EndpointError):
    """The answer was cut on its way."""

    code = "response_truncated"
    retryable = True


class ResponseInvalid(EndpointError):
    """The answer is too large, encoded, not valid JSON, or lacks what an answer must have."""

    code = "response_invalid"


class EndpointRedirect(EndpointError):
    """A 3xx: never followed, because the key and the prompt would go somewhere else."""

    code = "endpoint_redirect"
    stops_run = True


class ForbiddenAddress(EndpointError):
    """The host is, or resolves to, an address that this installation may not call."""

    code = "endpoint_forbidden_address"
    # Nothing outside failed: the operator's rule refuses.
    exit_code = 3
    stops_run = True


class BadCredentials(InputError):
    """Parts of the credentials that cannot be used, alone or together. What they hold is not repeated."""

    code = "bad_credentials"
