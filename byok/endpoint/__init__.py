"""Talk to an OpenAI-compatible endpoint: the egress guard, the client, its errors, provider profiles, and the probe."""

from byok.endpoint.answers import ChatAnswer, Timing
from byok.endpoint.asking import ChatOptions
from byok.endpoint.catalogue import Catalogue, ListedModel
from byok.endpoint.client import EndpointClient
from byok.endpoint.credentials import Credentials
from byok.endpoint.embeddings import Embeddings, cosine
from byok.endpoint.errors import (
    BadCredentials,
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
    EndpointUnreachable,
    ForbiddenAddress,
    RemoteModelNotFound,
    ResponseInvalid,
    ResponseTruncated,
)
from byok.endpoint.limits import Limits
from byok.endpoint.parts import TokenLogprob, ToolCall
from byok.endpoint.policy import BadAllowList, BadBaseUrl, BaseUrl, EgressPolicy
from byok.endpoint.probe import ProbeAttempt, ProbeResult, probe
from byok.endpoint.profiles import PLAIN, Profile, ProfileUnknown, profile, profile_for, profiles
from byok.endpoint.resolve import check_resolved
from byok.endpoint.usage import Usage, UsageClass

__all__ = [
    "PLAIN",
    "BadAllowList",
    "BadBaseUrl",
    "BadCredentials",
    "BadRequest",
    "BaseUrl",
    "Catalogue",
    "ChatAnswer",
    "ChatOptions",
    "ContentFiltered",
    "ContextLength",
    "Credentials",
    "CreditExhausted",
    "EgressPolicy",
    "Embeddings",
    "EndpointAuth",
    "EndpointClient",
    "EndpointCold",
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
    "Limits",
    "ListedModel",
    "ProbeAttempt",
    "ProbeResult",
    "Profile",
    "ProfileUnknown",
    "RemoteModelNotFound",
    "ResponseInvalid",
    "ResponseTruncated",
    "Timing",
    "TokenLogprob",
    "ToolCall",
    "Usage",
    "UsageClass",
    "check_resolved",
    "cosine",
    "probe",
    "profile",
    "profile_for",
    "profiles",
]
