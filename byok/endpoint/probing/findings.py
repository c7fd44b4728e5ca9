"""From how a request ended to what that says about a capability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from byok.endpoint.answers import ChatAnswer
from byok.endpoint.capabilities import Capability, Name, Outcome
from byok.endpoint.catalogue import ListedModel
from byok.endpoint.classify import TOKEN_PARAMETERS
from byok.endpoint.embeddings import Embeddings
from byok.endpoint.errors import BadRequest, EndpointError, EndpointNotOpenAI, RemoteModelNotFound
from byok.endpoint.probing.session import Seen, Session

_LONGEST = 240
"""Characters of an evidence."""

_REFUSALS = frozenset({400, 404, 405, 415, 422, 501})
"""Statuses that refuse a request which differs from an answered one by one member alone."""


@dataclass
class Probing:
    """One full probe under way.

    Attributes:
        session: Sends its requests.
        claimed: Capabilities that tags of the model claim, with the tag.
        listed: What the endpoint's list says of the model, None when it is not there.
        owners: Members that the owner's extra payload sets in every chat request.
        found: Capabilities that have been looked at.
        more: Members that later requests carry, because that makes the model reason less.
    """

    session: Session
    claimed: Mapping[Name, str]
    listed: ListedModel | None
    owners: frozenset[str]
    found: dict[Name, Capability] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def keep(self, one: Capability) -> None:
        """Note what was found; the text is cleaned of the credentials once more and cut."""
        text = " ".join(self.session.client.redact(one.evidence).split())
        cut = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
        self.found[one.name] = replace(one, evidence=cut)

    def skip(self, name: Name, reason: str) -> None:
        """Note that nothing was asked."""
        self.keep(Capability(name, "untested", reason))

    def spared(self, name: Name, says: bool | None, what: str) -> bool:
        """Whether the list's own no spares a request: it does unless a tag says otherwise."""
        if says is not False or name in self.claimed:
            return False
        self.keep(Capability(name, "unsupported", f"the endpoint's list says that it takes no {what}; not asked"))
        return True

    def taken(self, name: Name, *members: str) -> bool:
        """Whether the owner's extra payload sets a member that a request would have to set."""
        mine = sorted(self.owners.intersection(members))
        if mine:
            self.skip(name, f"not asked: the extra payload sets {', '.join(mine)} itself")
        return bool(mine)


def of(
    seen: Seen[ChatAnswer] | Seen[Embeddings],
    name: Name,
    outcome: Outcome,
    evidence: str,
    *,
    value: int | None = None,
    parameter: str | None = None,
) -> Capability:
    """What one request says about a capability."""
    attempt = seen.attempt
    return Capability(name, outcome, evidence, value, attempt.latency_ms, attempt.http_status, attempt.error_code, parameter)


def refuses(error: EndpointError | None) -> bool:
    """Whether an error refuses what was asked, and is no failure of another kind.

    The route, the model and the key have been proved by an answered request before. A 5xx, 408, 429 or a timeout says nothing.
    """
    if error is None or error.status not in _REFUSALS:
        return False
    if isinstance(error, RemoteModelNotFound):
        return error.status == 404
    named = isinstance(error, BadRequest) and error.parameter in TOKEN_PARAMETERS
    return isinstance(error, BadRequest | EndpointNotOpenAI) and not named


def told(error: EndpointError) -> str:
    """What an error says, for the record: without what a model may have written.

    A message quotes what came after its first colon; with a status of success, that may be an answer in a form that was not understood.
    """
    if error.status is not None and 200 <= error.status < 300:
        return error.message.partition(": ")[0]
    return error.message


def failed(seen: Seen[ChatAnswer] | Seen[Embeddings], name: Name, parameter: str | None = None) -> Capability:
    """What an error says about a capability: refused, or nothing."""
    assert seen.error is not None
    words = told(seen.error)
    if refuses(seen.error):
        return of(seen, name, "unsupported", f"refused: {words}", parameter=parameter)
    return of(seen, name, "unknown", f"no answer: {words}")


def cut_off(answer: ChatAnswer) -> bool:
    """Whether the limit of tokens ended an answer before it had begun: reasoning used it up, or white space."""
    return answer.finish_reason == "length" and not (answer.text or "").strip()
