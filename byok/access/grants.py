"""Grants: a member's leave for one act, carried by a flow run that has no authority of its own.

A grant is safe to paste into a form: it is bound to action, model and origin, works once, and expires. It reads
`byokgrant_<id>_<base64 of the claims>_<base64 of an HMAC-SHA256 over both>`; the id is also in the control plane, so neither a leaked
signing key alone nor a written row alone makes one.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Literal

import orjson
from sqlalchemy import ColumnElement, Row, select, update

from byok.access.audit import AuditLog
from byok.access.scopes import MODELS_WRITE, ORG_ADMIN, ROLES, Actor, require
from byok.clock import iso, utcnow
from byok.control import ControlPlane
from byok.control.tables import grant, member, org, token
from byok.errors import InputError, NotFound, NotPermitted
from byok.ids import is_slug, new_id

Action = Literal["register", "rotate"]

SHORTEST, LONGEST = timedelta(minutes=1), timedelta(days=7)


class GrantRefused(NotPermitted):
    """No grant, or one that is not for this; the reason is in the audit log."""

    code = "grant_refused"


class GrantNotFound(NotFound):
    """The organisation has no such grant."""

    code = "grant_not_found"


class _UsedAlready(Exception):
    """Somebody else was first."""


class BadGrant(InputError):
    """A grant that cannot be made."""

    code = "bad_grant"


@dataclass(frozen=True)
class Granted:
    """A grant that was made just now."""

    id: str
    action: str
    model_key: str
    origin: str
    expires_at: datetime
    text: str = field(repr=False)


@dataclass(frozen=True)
class Grant:
    """What is known of a grant; not its text, which is shown once."""

    id: str
    email: str
    action: str
    model_key: str
    origin: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    revoked_at: datetime | None

    @property
    def state(self) -> str:
        """open, used, revoked or expired."""
        if self.used_at is not None:
            return "used"
        return "revoked" if self.revoked_at is not None else "open" if self.expires_at > utcnow() else "expired"


class Grants:
    """Makes and takes grants.

    Args:
        control: Where they are noted.
        audit: Where making, using and refusing them is recorded.
        key: What they are signed with.
    """

    def __init__(self, control: ControlPlane, audit: AuditLog, key: bytes) -> None:
        self._control, self._audit, self._key = control, audit, key

    def make(self, actor: Actor, action: Action, model_key: str, origin: str, *, lifetime: timedelta) -> Granted:
        """Grant one act.

        Raises:
            ScopeMissing: The actor may not do it themselves.
            BadGrant: The lifetime is out of range, or no model can have that key.
        """
        require(actor, MODELS_WRITE, "grant.make")
        if not is_slug(model_key):
            raise BadGrant("this cannot be the key of a model", hint="lower-case letters, digits and dashes, at most 63")
        if not SHORTEST <= lifetime <= LONGEST:
            raise BadGrant("a grant lives between a minute and 7 days", hint="for example --expires 1h")
        grant_id, now = new_id(), utcnow()
        with self._audit.act(actor, "grant.make", model_key, grant=grant_id, for_action=action, origin=origin) as connection:
            values = {"action": action, "model_key": model_key, "origin": origin, "created_at": now, "expires_at": now + lifetime}
            whose = {"org_id": actor.org_id, "member_id": actor.member_id, "token_id": actor.token_id}
            connection.execute(grant.insert().values(id=grant_id, **whose, **values))
        claims = [actor.org_id, actor.member_id, action, model_key, origin, iso(now + lifetime)]
        body = f"byokgrant_{grant_id}_{_encode(orjson.dumps(claims))}"
        return Granted(grant_id, action, model_key, origin, now + lifetime, f"{body}_{_encode(self._sign(body))}")

    def take(self, bearer: Actor, text: str | None, action: Action, model_key: str, origin: str) -> Actor:
        """Use a grant up, and return its maker as the one who acts.

        Args:
            bearer: Who brings it (a worker's member); must be of the same organisation.
            text: The grant.
            action: What is about to be done.
            model_key: To which model.
            origin: Under which origin its key will be used.

        Raises:
            GrantRefused: It is missing, forged, used, expired, for something else, or its maker may not do this (any more). Recorded.
        """
        row = self.look(bearer, text, action, model_key, origin)
        maker = Actor(
            org_id=row.org_id,
            org_slug=row.slug,
            member_id=row.member_id,
            email=row.email,
            kind=row.kind,
            role=row.role,
            scopes=ROLES[row.role],
            audit=self._audit,
        )
        try:
            with self._audit.act(maker, "grant.use", model_key, grant=row.id, brought_by=bearer.email) as connection:
                # One statement decides who was first.
                unused = (grant.c.id == row.id, grant.c.used_at.is_(None), grant.c.revoked_at.is_(None))
                if connection.execute(update(grant).where(*unused).values(used_at=utcnow())).rowcount != 1:
                    raise _UsedAlready
        except _UsedAlready:
            pass
        else:
            return maker
        raise self._refuse(bearer, row, "used already", action, model_key, origin)

    def list(self, actor: Actor) -> Sequence[Grant]:
        """The grants that the actor may see, the newest first: all of the organisation for an admin, else the actor's own.

        Raises:
            ScopeMissing: The actor may make none.
        """
        require(actor, MODELS_WRITE, "grant.list")
        with self._control.read() as connection:
            rows = connection.execute(
                select(grant, member.c.email)
                .join(member, member.c.id == grant.c.member_id)
                .where(*_visible(actor))
                .order_by(grant.c.created_at.desc())
            )
            return [Grant(**{name: getattr(row, name) for name in Grant.__dataclass_fields__}) for row in rows]

    def revoke(self, actor: Actor, grant_id: str) -> None:
        """End a grant that is not used yet: one's own, or, as an admin, any of the organisation.

        Raises:
            ScopeMissing: The actor may make none.
            GrantNotFound: There is no such grant that could still be used.
        """
        require(actor, MODELS_WRITE, "grant.revoke")
        with self._audit.act(actor, "grant.revoke", grant_id) as connection:
            mine = (grant.c.id == grant_id, grant.c.used_at.is_(None), *_visible(actor))
            if connection.execute(update(grant).where(*mine).values(revoked_at=utcnow())).rowcount != 1:
                raise GrantNotFound("no such grant that could still be used", hint="byok grant list shows the ids")

    def look(self, bearer: Actor, text: str | None, action: Action, model_key: str, origin: str) -> Row[Any]:
        """Whether a grant would be taken, without using it up; its row.

        Raises:
            GrantRefused: It would not. Recorded.
        """
        row, reason = self._check(bearer, text, action, model_key, origin)
        if reason is not None or row is None:
            raise self._refuse(bearer, row, reason or "there is none", action, model_key, origin)
        return row

    def refuse(self, bearer: Actor, reason: str, action: Action, model_key: str, origin: str) -> GrantRefused:
        """The error for an act that no grant allows; recorded."""
        return self._refuse(bearer, None, reason, action, model_key, origin)

    def _refuse(self, bearer: Actor, row: Row[Any] | None, reason: str, action: str, model_key: str, origin: str) -> GrantRefused:
        detail = {"reason": reason, "for_action": action, "origin": origin, "grant": row.id if row is not None else None}
        self._audit.by(bearer, "refused", "grant.use", model_key, **detail)
        return GrantRefused(
            f"this takes a grant for {action} of {model_key!r} at {origin}: {reason}",
            hint="a member with models:write makes one: byok grant",
        )

    def _check(self, bearer: Actor, text: str | None, action: str, model_key: str, origin: str) -> tuple[Row[Any] | None, str | None]:
        if not text:
            return None, "there is none"
        claims = self._claims(text.strip())
        if claims is None:
            return None, "it is not genuine"
        grant_id, told = claims
        with self._control.read() as connection:
            row = connection.execute(
                select(
                    *(grant, member.c.email, member.c.kind, member.c.role, member.c.active, org.c.slug),
                    token.c.revoked_at.label("token_revoked_at"),
                    token.c.expires_at.label("token_expires_at"),
                )
                .join(member, member.c.id == grant.c.member_id)
                .outerjoin(token, token.c.id == grant.c.token_id)
                .join(org, org.c.id == grant.c.org_id)
                .where(grant.c.id == grant_id, grant.c.org_id == bearer.org_id)
            ).first()
        if row is None or told != [row.org_id, row.member_id, row.action, row.model_key, row.origin, iso(row.expires_at)]:
            return None, "it is not genuine"
        if (row.action, row.model_key, row.origin) != (action, model_key, origin):
            return row, f"it is for {row.action} of {row.model_key!r} at {row.origin}"
        if row.expires_at <= utcnow():
            return row, "it has expired"
        if row.used_at is not None:
            return row, "used already"
        if row.revoked_at is not None or row.token_revoked_at is not None:
            return row, "it has been revoked"
        if row.token_expires_at is not None and row.token_expires_at <= utcnow():
            return row, "the token that it was made with has ended"
        if not row.active or MODELS_WRITE not in ROLES[row.role]:
            return row, "its maker may not do this any more"
        return row, None

    def _claims(self, text: str) -> tuple[str, Sequence[Any]] | None:
        body, _, signature = text.rpartition("_")
        parts = body.split("_")
        if len(text) > 4000 or len(parts) != 3 or parts[0] != "byokgrant":
            return None
        try:
            genuine = hmac.compare_digest(_encode(self._sign(body)), signature)
            claims = orjson.loads(_decode(parts[2])) if genuine else None
        except (ValueError, TypeError):
            return None
        return (parts[1], claims) if isinstance(claims, list) else None

    def _sign(self, body: str) -> bytes:
        return hmac.new(self._key, body.encode(), sha256).digest()


def _visible(actor: Actor) -> tuple[ColumnElement[bool], ...]:
    mine = grant.c.org_id == actor.org_id
    return (mine,) if ORG_ADMIN in actor.scopes else (mine, grant.c.member_id == actor.member_id)


def _encode(raw: bytes) -> str:
    # "_" separates the parts, so the URL-safe alphabet's "_" becomes "."; a form or a shell takes both as they are.
    return base64.urlsafe_b64encode(raw).decode().rstrip("=").replace("_", ".")


def _decode(text: str) -> bytes:
    text = text.replace(".", "_")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
