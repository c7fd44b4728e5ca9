"""Who may do what: scopes, the roles that bundle them, and the one check. Denied unless granted."""

from __future__ import annotations

from dataclasses import dataclass, field

from byok.access.audit import AuditLog
from byok.errors import NotPermitted

MODELS_READ = "models:read"
MODELS_WRITE = "models:write"
RUNS_WRITE = "runs:write"
BILLING_READ = "billing:read"
BILLING_WRITE = "billing:write"
ORG_ADMIN = "org:admin"

SCOPES = frozenset({MODELS_READ, MODELS_WRITE, RUNS_WRITE, BILLING_READ, BILLING_WRITE, ORG_ADMIN})

ROLES: dict[str, frozenset[str]] = {
    "admin": SCOPES,
    "editor": frozenset({MODELS_READ, MODELS_WRITE, RUNS_WRITE}),
    "viewer": frozenset({MODELS_READ}),
    # What a worker needs to run evaluations; it can neither register a model nor change a member.
    "service": frozenset({MODELS_READ, RUNS_WRITE, BILLING_READ}),
}


@dataclass(frozen=True)
class Actor:
    """The member on whose behalf something is done."""

    org_id: str
    org_slug: str
    member_id: str
    email: str
    kind: str
    role: str
    scopes: frozenset[str]
    token_id: str | None = field(default=None, repr=False, compare=False)
    """Public part of the token that was shown; None for who acts by a grant."""
    audit: AuditLog | None = field(default=None, repr=False, compare=False)
    """Where refusals are recorded."""


class ScopeMissing(NotPermitted):
    """The member's role does not hold the scope."""

    code = "scope_missing"


def require(actor: Actor, scope: str, action: str) -> None:
    """Let pass only who holds a scope; a refusal is recorded.

    Args:
        actor: Who asks.
        scope: What it takes.
        action: What they are about to do, such as `model.register`.

    Raises:
        ScopeMissing: The actor lacks it.
    """
    if scope not in SCOPES:
        raise ValueError(f"no such scope: {scope}")
    if scope in actor.scopes:
        return
    if actor.audit is not None:
        actor.audit.by(actor, "refused", action, scope, reason="scope_missing")
    raise ScopeMissing(
        f"{actor.email} ({actor.role}) lacks the scope {scope}", hint="ask an admin of your organisation", scope=scope, role=actor.role
    )
