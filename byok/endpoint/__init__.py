"""Talk to an OpenAI-compatible endpoint: the egress guard, the chat client, its errors, and the probe."""

from byok.endpoint.answers import ChatAnswer, Usage, UsageClass
from byok.endpoint.client import EndpointClient, check_key
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
    EndpointTls,
    EndpointUnreachable,
    ForbiddenAddress,
    RemoteModelNotFound,
    ResponseInvalid,
    ResponseTruncated,
)
from byok.endpoint.policy import BadAllowList, BadBaseUrl, BaseUrl, EgressPolicy
from byok.endpoint.probe import ProbeAttempt, ProbeResult, probe
from byok.endpoint.resolve import check_resolved

__all__ = [
    "BadAllowList",
    "BadBaseUrl",
    "BadRequest",
    "BaseUrl",
    "ChatAnswer",
    "ContentFiltered",
    "ContextLength",
    "CreditExhausted",
    "EgressPolicy",
    "EndpointAuth",
    "EndpointClient",
    "EndpointError",
    "EndpointForbidden",
    "EndpointNotOpenAI",
    "EndpointOverloaded",
    "EndpointRateLimited",
    "EndpointRedirect",
    "EndpointTimeout",
    "EndpointTls",
    "EndpointUnreachable",
    "ForbiddenAddress",
    "ProbeAttempt",
    "ProbeResult",
    "RemoteModelNotFound",
    "ResponseInvalid",
    "ResponseTruncated",
    "Usage",
    "UsageClass",
    "check_key",
    "check_resolved",
    "probe",
]
