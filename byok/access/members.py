"""Organisations, their members, and who a token belongs to."""

from __future__ import annotations

import hmac
import os
import re
import stat
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, select

from byok.access.scopes import ROLES, Actor
from byok.access.tokens import digest, new_token, public_id
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import member, org, token
from byok.errors import InputError, NotPermitted
from byok.home import Home
from byok.ids import new_id

TOKEN_LIFETIME = timedelta(days=90)

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_EMAIL = re.compile(r"[^\s@]{1,64}@[^\s@]{1,189}")


class TokenMissing(NotPermitted):
    """No token was given."""

    code = "token_missing"


class TokenRejected(NotPermitted):
    """The token is mistyped, unknown, expired or revoked, or its member is inactive."""

    code = "token_rejected"


class TokenFileExposed(NotPermitted):
    """The token file can be read by others."""

    code = "token_file_exposed"


class BadOrganisation(InputError):
    """A slug or e-mail address that cannot be used."""

    code = "bad_organisation"


class OrganisationExists(InputError):
    """The installation already has an organisation of another name."""

    code = "organisation_exists"


@dataclass(frozen=True)
class Created:
    """A member that was made just now. `token` is None when the organisation was there before."""

    org_id: str
    member_id: str
    token: str | None

    def __repr__(self) -> str:
        return f"Created({self.org_id}, {self.member_id})"


def check_organisation(slug: str, owner_email: str) -> None:
    """Refuse a name or an address that cannot be used.

    Raises:
        BadOrganisation: One of them cannot.
    """
    if not _SLUG.fullmatch(slug):
        raise BadOrganisation(f"{slug!r} cannot be the name of an organisation", hint="lower-case letters, digits and dashes, at most 63")
    if not _EMAIL.fullmatch(owner_email):
        raise BadOrganisation(f"{owner_email!r} is not an e-mail address", hint="for example --owner you@example.com")


def create_org(control: ControlPlane, slug: str, owner_email: str) -> Created:
    """Make an organisation with its owner, who is its admin; the same call again changes nothing.

    Raises:
        BadOrganisation: The slug or the address cannot be used.
        OrganisationExists: There is an organisation of another name, or with another owner.
    """
    check_organisation(slug, owner_email)
    with control.write() as connection:
        known = connection.execute(select(org.c.id, org.c.slug)).first()
        if known is None:
            org_id = new_id()
            connection.execute(org.insert().values(id=org_id, slug=slug, created_at=utcnow()))
            member_id = _add_member(connection, org_id, owner_email, kind="person", role="admin")
            return Created(org_id, member_id, issue_token(connection, member_id))
        if known.slug != slug:
            raise OrganisationExists(
                f"this installation belongs to {known.slug!r}", hint=f"use --org {known.slug}, or another BYOK_HOME", org=known.slug
            )
        owner = connection.execute(
            select(member.c.id).where(member.c.org_id == known.id, member.c.email == owner_email, member.c.role == "admin")
        ).scalar()
        if owner is None:
            raise OrganisationExists(f"{owner_email} is not an owner of {slug!r}", hint="give the address that it was made with", org=slug)
        return Created(known.id, owner, None)


def reissue(control: ControlPlane, member_id: str) -> str:
    """A further token for a member, for when a first one was lost before it was kept."""
    with control.write() as connection:
        return issue_token(connection, member_id)


def ensure_service_member(control: ControlPlane, org_id: str, name: str) -> str | None:
    """Make a service member unless it is there.

    Returns:
        Its token when it was made just now, else None.
    """
    email = f"{name}@service.invalid"
    with control.write() as connection:
        known = connection.execute(select(member.c.id).where(member.c.org_id == org_id, member.c.email == email)).scalar()
        if known is not None:
            return None
        return issue_token(connection, _add_member(connection, org_id, email, kind="service", role="service"))


def service_member_id(control: ControlPlane, org_id: str, name: str) -> str | None:
    """The id of a service member, or None."""
    with control.read() as connection:
        return connection.execute(
            select(member.c.id).where(member.c.org_id == org_id, member.c.email == f"{name}@service.invalid")
        ).scalar()


def _add_member(connection: Connection, org_id: str, email: str, *, kind: str, role: str) -> str:
    member_id = new_id()
    connection.execute(
        member.insert().values(id=member_id, org_id=org_id, email=email, kind=kind, role=role, active=True, created_at=utcnow())
    )
    return member_id


def issue_token(connection: Connection, member_id: str) -> str:
    """Make a token for a member and store its digest; the text is not stored anywhere."""
    made, now = new_token(), utcnow()
    connection.execute(
        token.insert().values(id=made.id, member_id=member_id, digest=made.digest, created_at=now, expires_at=now + TOKEN_LIFETIME)
    )
    return made.text


def authenticate(control: ControlPlane, text: str) -> Actor:
    """The member whose token this is.

    Raises:
        TokenRejected: The token is not valid now. Which of the reasons it is, is told only where it helps nobody else.
    """
    public = public_id(text)
    if public is None:
        raise TokenRejected("the token is mistyped or cut", hint="copy the whole token, from byok_ on")
    with control.read() as connection:
        found = connection.execute(
            select(token, member.c.org_id, member.c.email, member.c.kind, member.c.role, member.c.active, org.c.slug)
            .join(member, member.c.id == token.c.member_id)
            .join(org, org.c.id == member.c.org_id)
            .where(token.c.id == public)
        ).first()
    if found is None or not hmac.compare_digest(found.digest, digest(text)) or found.revoked_at is not None or not found.active:
        raise TokenRejected("the token is not valid", hint="ask an admin for a new one")
    if found.expires_at <= utcnow():
        raise TokenRejected("the token has expired", hint="ask an admin for a new one")
    return Actor(
        org_id=found.org_id,
        org_slug=found.slug,
        member_id=found.member_id,
        email=found.email,
        kind=found.kind,
        role=found.role,
        scopes=ROLES[found.role],
    )


def actor_from_environment(control: ControlPlane, home: Home) -> Actor:
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
        except OSError:
            raise TokenMissing(f"no member token: BYOK_TOKEN is not set and {path} cannot be read", hint="set BYOK_TOKEN") from None
        if mode & 0o077:
            raise TokenFileExposed(f"{path} can be read by others (mode {mode:o})", hint=f"chmod 600 {path}, then replace the token")
    return authenticate(control, text.strip())
