"""Administer an organisation: its members, their roles, their tokens. Every act is in the audit log."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from byok.access.audit import AuditLog
from byok.access.members import check_email, insert_member, issue_token
from byok.access.scopes import ORG_ADMIN, ROLES, Actor, require
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import member, token
from byok.errors import InputError, NotFound

TOKEN_GRACE = timedelta(hours=24)
"""How long a rotated token goes on working beside the new one."""

LONGEST_TOKEN = timedelta(days=365)


class MemberExists(InputError):
    """There is a member of that address."""

    code = "member_exists"


class MemberNotFound(NotFound):
    """The organisation has no such member."""

    code = "member_not_found"


class TokenNotFound(NotFound):
    """The organisation has no such token."""

    code = "token_not_found"


class LastAdmin(InputError):
    """Without its last admin, an organisation could not be administered."""

    code = "last_admin"


class BadRole(InputError):
    """No such role, or not for this kind of member."""

    code = "bad_role"


class BadLifetime(InputError):
    """A token must expire, and within a year."""

    code = "bad_lifetime"


@dataclass(frozen=True)
class Member:
    """A member of an organisation."""

    id: str
    email: str
    kind: str
    role: str
    active: bool
    created_at: datetime

    @classmethod
    def of(cls, row: Row[Any]) -> Member:
        """The member of a row."""
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Token:
    """What is known of a token; not the token."""

    id: str
    name: str
    email: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None

    @property
    def state(self) -> str:
        """active, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.expires_at > utcnow() else "expired"


@dataclass(frozen=True)
class Issued:
    """A token that was made just now; `text` is shown once."""

    id: str
    email: str
    expires_at: datetime
    text: str = field(repr=False)
    old_until: datetime | None = None
    """After a rotation: when the old token ends."""


class Administration:
    """Members and tokens of the organisations.

    Args:
        control: Where they are stored.
        audit: Where every act is recorded.
    """

    def __init__(self, control: ControlPlane, audit: AuditLog) -> None:
        self._control, self._audit = control, audit

    def add_member(self, actor: Actor, email: str, role: str) -> Issued:
        """Add a member, with a first token. A member of role `service` is a machine.

        Raises:
            ScopeMissing: The actor lacks `org:admin`.
            BadRole, BadOrganisation, MemberExists: Nothing is stored.
        """
        require(actor, ORG_ADMIN, "member.add")
        check_email(email)
        _check_role(role)
        with self._audit.act(actor, "member.add", email, role=role) as connection:
            if connection.execute(select(member.c.id).where(member.c.org_id == actor.org_id, member.c.email == email)).first():
                raise MemberExists(f"{email} is a member already", hint="byok member list")
            member_id = insert_member(connection, actor.org_id, email, kind="service" if role == "service" else "person", role=role)
            return _issue(connection, member_id, email, "first")

    def members(self, actor: Actor) -> list[Member]:
        """All members of the actor's organisation, by address.

        Raises:
            ScopeMissing: The actor lacks `org:admin`.
        """
        require(actor, ORG_ADMIN, "member.list")
        with self._control.read() as connection:
            return [
                Member.of(row) for row in connection.execute(select(member).where(member.c.org_id == actor.org_id).order_by(member.c.email))
            ]

    def set_role(self, actor: Actor, email: str, role: str) -> Member:
        """Give a member another role.

        Raises:
            ScopeMissing, MemberNotFound, BadRole, LastAdmin: Nothing is changed.
        """
        require(actor, ORG_ADMIN, "member.role")
        _check_role(role)
        with self._audit.act(actor, "member.role", email, role=role) as connection:
            found = _member(connection, actor, email)
            if (found.kind == "service") != (role == "service"):
                raise BadRole("a machine stays a machine, and a person a person", hint="add another member: byok member add")
            if role != "admin":
                _keep_an_admin(connection, actor, found)
            connection.execute(update(member).where(member.c.id == found.id).values(role=role))
        return self._look(actor, email)

    def set_active(self, actor: Actor, email: str, *, active: bool) -> Member:
        """Suspend a member, whose tokens and grants stop working at once, or take the suspension back.

        Raises:
            ScopeMissing, MemberNotFound, LastAdmin: Nothing is changed.
        """
        action = "member.restore" if active else "member.suspend"
        require(actor, ORG_ADMIN, action)
        with self._audit.act(actor, action, email) as connection:
            found = _member(connection, actor, email)
            if not active:
                _keep_an_admin(connection, actor, found)
            connection.execute(update(member).where(member.c.id == found.id).values(active=active))
        return self._look(actor, email)

    def issue(self, actor: Actor, email: str | None, *, name: str = "", lifetime: timedelta) -> Issued:
        """Make a further token: for oneself, or, as an admin, for another member.

        Raises:
            ScopeMissing, MemberNotFound: Nothing is stored.
            BadLifetime: Likewise; a token that its own holder makes does not outlive the one that it is made with.
        """
        email = email or actor.email
        if email != actor.email or actor.kind == "service":
            require(actor, ORG_ADMIN, "token.issue")
        _check_lifetime(lifetime)
        with self._audit.act(actor, "token.issue", email, name=name) as connection:
            if ORG_ADMIN not in actor.scopes:
                _keep_within(connection, actor, lifetime)
            return _issue(connection, _member(connection, actor, email).id, email, name, lifetime)

    def tokens(self, actor: Actor) -> list[Token]:
        """The tokens that the actor may see: all of the organisation for an admin, else the actor's own."""
        query = (
            select(token, member.c.email).join(member, member.c.id == token.c.member_id).where(member.c.org_id == actor.org_id)
        ).order_by(member.c.email, token.c.created_at)
        if ORG_ADMIN not in actor.scopes:
            query = query.where(member.c.id == actor.member_id)
        with self._control.read() as connection:
            return [Token(**{name: getattr(row, name) for name in Token.__dataclass_fields__}) for row in connection.execute(query)]

    def revoke(self, actor: Actor, token_id: str) -> None:
        """End a token at once: one's own, or, as an admin, any of the organisation.

        Raises:
            ScopeMissing, TokenNotFound: Nothing is changed.
        """
        owner = self._owner(actor, token_id, "token.revoke")
        with self._audit.act(actor, "token.revoke", token_id, member=owner.email) as connection:
            connection.execute(update(token).where(token.c.id == token_id, token.c.revoked_at.is_(None)).values(revoked_at=utcnow()))

    def rotate(self, actor: Actor, token_id: str | None, *, grace: timedelta = TOKEN_GRACE) -> Issued:
        """Replace a token by one of the same lifetime; the old one goes on working until the grace ends.

        Args:
            actor: Its owner, or an admin.
            token_id: Public part of the token; None means the one that the actor shows.
            grace: 0 ends the old one at once.

        Raises:
            ScopeMissing, BadLifetime: Nothing is changed.
            TokenNotFound: Likewise; one that has expired or been revoked is not brought back.
        """
        token_id = token_id or actor.token_id or ""
        owner = self._owner(actor, token_id, "token.rotate")
        if not timedelta(0) <= grace <= timedelta(days=7):
            raise BadLifetime("the grace of a token lies between 0 and 7 days", hint="for example --grace 24h")
        with self._audit.act(actor, "token.rotate", token_id, member=owner.email, grace_s=int(grace.total_seconds())) as connection:
            old, now = connection.execute(select(token).where(token.c.id == token_id)).one(), utcnow()
            if old.revoked_at is not None or old.expires_at <= now:
                raise TokenNotFound("this token does not work any more", hint="make a new one: byok token issue")
            ends = min(old.expires_at, now + grace)
            connection.execute(update(token).where(token.c.id == token_id).values(expires_at=ends))
            made = _issue(connection, owner.id, owner.email, old.name, old.expires_at - old.created_at)
        return Issued(made.id, made.email, made.expires_at, made.text, ends)

    def _owner(self, actor: Actor, token_id: str, action: str) -> Row[Any]:
        with self._control.read() as connection:
            found = connection.execute(
                select(member).join(token, token.c.member_id == member.c.id).where(token.c.id == token_id, member.c.org_id == actor.org_id)
            ).first()
        if found is None or found.id != actor.member_id:
            require(actor, ORG_ADMIN, action)
        if found is None:
            raise TokenNotFound("no such token", hint="byok token list shows the ids")
        return found

    def _look(self, actor: Actor, email: str) -> Member:
        with self._control.read() as connection:
            return Member.of(_member(connection, actor, email))


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise BadRole(f"no role {role!r}", hint="one of: " + ", ".join(sorted(ROLES)))


def _check_lifetime(lifetime: timedelta) -> None:
    if not timedelta(minutes=1) <= lifetime <= LONGEST_TOKEN:
        raise BadLifetime("a token lives between a minute and 365 days", hint="for example --expires 90d")


def _keep_within(connection: Connection, actor: Actor, lifetime: timedelta) -> None:
    ends = connection.execute(select(token.c.expires_at).where(token.c.id == actor.token_id)).scalar()
    if ends is None or utcnow() + lifetime > ends:
        raise BadLifetime(
            "a token does not outlive the one that it is made with", hint="choose a shorter --expires, or rotate yours: byok token rotate"
        )


def _member(connection: Connection, actor: Actor, email: str) -> Row[Any]:
    found = connection.execute(select(member).where(member.c.org_id == actor.org_id, member.c.email == email)).first()
    if found is None:
        raise MemberNotFound(f"no member {email}", hint="byok member list")
    return found


def _keep_an_admin(connection: Connection, actor: Actor, found: Row[Any]) -> None:
    others = select(func.count()).where(
        member.c.org_id == actor.org_id, member.c.role == "admin", member.c.active.is_(True), member.c.id != found.id
    )
    if found.role == "admin" and not connection.execute(others).scalar():
        raise LastAdmin(f"{found.email} is the last admin", hint="make another one first: byok member role EMAIL admin")


def _issue(connection: Connection, member_id: str, email: str, name: str, lifetime: timedelta = timedelta(days=90)) -> Issued:
    made = issue_token(connection, member_id, name=name[:64], lifetime=lifetime)
    return Issued(made.id, email, utcnow() + lifetime, made.text)
