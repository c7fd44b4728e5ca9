"""Who a token belongs to."""

from __future__ import annotations

import hmac
import os
import stat
from datetime import timedelta

from sqlalchemy import select, update

from byok.access.audit import AuditLog
from byok.access.scopes import ROLES, Actor
from byok.access.tokens import digest, public_id
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import member, org, token
from byok.errors import NotPermitted
from byok.home import Home

_USE_NOTED_EVERY = timedelta(minutes=10)
"""Each command would write otherwise."""


class TokenMissing(NotPermitted):
    """No token was given."""

    code = "token_missing"


class TokenRejected(NotPermitted):
    """The token is mistyped, unknown, expired or revoked, or its member is suspended."""

    code = "token_rejected"


class TokenFileExposed(NotPermitted):
    """The token file can be read by others."""

    code = "token_file_exposed"


def authenticate(control: ControlPlane, text: str, audit: AuditLog | None = None, *, organisation: str | None = None) -> Actor:
    """The member whose token this is. A refusal is recorded, under the organisation only when the whole token is genuine.

    Args:
        control: Where members are.
        text: The token.
        audit: Where refusals are recorded.
        organisation: The one that the home belongs to: to any other member it is as closed as to a stranger.

    Raises:
        TokenRejected: The token is not valid now. Which of the reasons it is, is told only to who holds the whole token.
    """
    public = public_id(text)
    if public is None:
        # Not the text: people paste other secrets into the wrong place.
        _refused(audit, "malformed", "")
        raise TokenRejected("the token is mistyped or cut", hint="copy the whole token, from byok_ on")
    with control.read() as connection:
        found = connection.execute(
            select(token, member.c.org_id, member.c.email, member.c.kind, member.c.role, member.c.active, org.c.slug)
            .join(member, member.c.id == token.c.member_id)
            .join(org, org.c.id == member.c.org_id)
            .where(token.c.id == public, *([] if organisation is None else [org.c.slug == organisation]))
        ).first()
    # The same work for an unknown id as for a wrong secret.
    genuine = hmac.compare_digest(found.digest if found else "0" * 64, digest(text)) and found is not None
    if not genuine or found is None:
        _refused(audit, "unknown", public)
        raise TokenRejected("the token is not valid", hint="ask an admin for a new one")
    now = utcnow()
    reason = (
        "revoked" if found.revoked_at is not None else "suspended" if not found.active else "expired" if found.expires_at <= now else ""
    )
    if reason:
        _refused(audit, reason, public, chain=found.org_id, member_id=found.member_id, actor=found.email)
        said = "the member of this token is suspended" if reason == "suspended" else f"the token is {reason}"
        raise TokenRejected(said, hint="ask an admin for a new one")
    if found.last_used_at is None or now - found.last_used_at > _USE_NOTED_EVERY:
        with control.write() as connection:
            connection.execute(update(token).where(token.c.id == public).values(last_used_at=now))
    return Actor(
        org_id=found.org_id,
        org_slug=found.slug,
        member_id=found.member_id,
        email=found.email,
        kind=found.kind,
        role=found.role,
        scopes=ROLES[found.role],
        token_id=public,
        audit=audit,
    )


def _refused(
    audit: AuditLog | None, reason: str, public: str, *, chain: str | None = None, member_id: str | None = None, actor: str = "unknown"
) -> None:
    if audit is not None:
        audit.record("refused", "token.use", public, chain=chain, member_id=member_id, actor=actor, reason=reason)


def actor_from_environment(control: ControlPlane, home: Home, audit: AuditLog | None = None) -> Actor:
    """The member that `BYOK_TOKEN`, or else the token file, stands for.

    Raises:
        TokenMissing: There is neither.
        TokenFileExposed: Others can read the file.
        TokenRejected: The token is not valid.
    """
    text = os.environ.get("BYOK_TOKEN")
    if text is None:
        path = home.token_file
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            _refused(audit, "missing", "")
            raise TokenMissing(f"no member token: BYOK_TOKEN is not set and {path} cannot be read", hint="set BYOK_TOKEN") from None
        if mode & 0o077:
            _refused(audit, "exposed", "")
            raise TokenFileExposed(f"{path} can be read by others (mode {mode:o})", hint=f"chmod 600 {path}, then replace the token")
    return authenticate(control, text.strip(), audit, organisation=home.organisation)
