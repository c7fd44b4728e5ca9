"""Organisations, and the members that an installation begins with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from byok.access.audit import AuditLog
from byok.access.scopes import ROLES, Actor
from byok.access.tokens import NewToken, new_token, public_id
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import member, org, token
from byok.errors import InputError
from byok.home import Home
from byok.ids import is_slug, new_id

TOKEN_LIFETIME = timedelta(days=90)

_EMAIL = re.compile(r"[^\s@]{1,64}@[^\s@]{1,189}")


class BadOrganisation(InputError):
    """A slug or e-mail address that cannot be used."""

    code = "bad_organisation"


class OrganisationExists(InputError):
    """The installation belongs to an organisation of another name, or the organisation has another owner."""

    code = "organisation_exists"


@dataclass(frozen=True)
class Created:
    """A member that was made just now. `token` is None when the organisation was there before."""

    org_id: str
    member_id: str
    token: str | None

    def __repr__(self) -> str:
        return f"Created({self.org_id}, {self.member_id})"


def check_email(text: str) -> None:
    """Refuse what is no e-mail address.

    Raises:
        BadOrganisation: It is none.
    """
    if not _EMAIL.fullmatch(text):
        raise BadOrganisation(f"{text!r} is not an e-mail address", hint="for example you@example.com")


def check_organisation(slug: str, owner_email: str) -> None:
    """Refuse a name or an address that cannot be used.

    Raises:
        BadOrganisation: One of them cannot.
    """
    if not is_slug(slug):
        raise BadOrganisation(f"{slug!r} cannot be the name of an organisation", hint="lower-case letters, digits and dashes, at most 63")
    check_email(owner_email)


def find_org(control: ControlPlane, slug: str) -> str | None:
    """The id of an organisation, or None."""
    with control.read() as connection:
        return connection.execute(select(org.c.id).where(org.c.slug == slug)).scalar()


def create_org(control: ControlPlane, slug: str, owner_email: str, audit: AuditLog) -> Created:
    """Make an organisation with its owner, who is its admin; the same call again changes nothing.

    Raises:
        BadOrganisation: The slug or the address cannot be used.
        OrganisationExists: It is there, with another owner, or was made by somebody else at this moment.
    """
    check_organisation(slug, owner_email)
    org_id = find_org(control, slug)
    if org_id is None:
        return _new_org(slug, owner_email, audit)
    with control.read() as connection:
        mine = (member.c.org_id == org_id, member.c.email == owner_email, member.c.role == "admin")
        owner = connection.execute(select(member.c.id).where(*mine)).scalar()
    if owner is None:
        raise OrganisationExists(f"{owner_email} is not an owner of {slug!r}", hint="give the address that it was made with", org=slug)
    return Created(org_id, owner, None)


def _new_org(slug: str, owner_email: str, audit: AuditLog) -> Created:
    org_id, member_id = new_id(), new_id()
    owner = Actor(org_id, slug, member_id, owner_email, "person", "admin", ROLES["admin"])
    try:
        with audit.act(owner, "org.create", slug) as connection:
            connection.execute(org.insert().values(id=org_id, slug=slug, created_at=utcnow()))
            insert_member(connection, org_id, owner_email, kind="person", role="admin", member_id=member_id)
            return Created(org_id, member_id, issue_token(connection, member_id, name="owner").text)
    except IntegrityError:
        pass
    raise OrganisationExists(f"{slug!r} was made by somebody else at this moment", hint="run the command again", org=slug)


def check_belongs(home: Home, control: ControlPlane, slug: str) -> None:
    """A home belongs to one organisation for good: its results, journals and key files are that organisation's alone.

    Several homes may share a control plane, each with an organisation of its own.

    Raises:
        OrganisationExists: It belongs to another one.
    """
    known = home.organisation
    if known is None and home.initialised:
        # Made before homes had this note, when a control plane held one organisation.
        with control.read() as connection:
            known = connection.execute(select(org.c.slug).order_by(org.c.created_at)).scalar()
    if known not in (None, slug):
        raise OrganisationExists(f"this installation belongs to {known!r}", hint=f"use --org {known}, or another BYOK_HOME", org=known)


def kept_token_ended(control: ControlPlane, path: Path) -> bool:
    """Whether a file with a token is missing, or holds one that has expired. One that was revoked is not replaced by itself."""
    try:
        public = public_id(path.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError):
        return False
    with control.read() as connection:
        kept = connection.execute(select(token.c.expires_at, token.c.revoked_at).where(token.c.id == (public or ""))).first()
    return kept is not None and kept.revoked_at is None and kept.expires_at <= utcnow()


def reissue(control: ControlPlane, member_id: str) -> str:
    """A further token for a member, for when a first one was lost before it was kept."""
    with control.write() as connection:
        return issue_token(connection, member_id, name="reissued").text


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
        return issue_token(connection, insert_member(connection, org_id, email, kind="service", role="service"), name=name).text


def service_member_id(control: ControlPlane, org_id: str, name: str) -> str | None:
    """The id of a service member, or None."""
    with control.read() as connection:
        return connection.execute(
            select(member.c.id).where(member.c.org_id == org_id, member.c.email == f"{name}@service.invalid")
        ).scalar()


def insert_member(connection: Connection, org_id: str, email: str, *, kind: str, role: str, member_id: str | None = None) -> str:
    """Store a member; return its id."""
    member_id = member_id or new_id()
    connection.execute(
        member.insert().values(id=member_id, org_id=org_id, email=email, kind=kind, role=role, active=True, created_at=utcnow())
    )
    return member_id


def issue_token(connection: Connection, member_id: str, *, name: str = "", lifetime: timedelta = TOKEN_LIFETIME) -> NewToken:
    """Make a token for a member and store its digest; the text is not stored anywhere."""
    made, now = new_token(), utcnow()
    connection.execute(
        token.insert().values(id=made.id, member_id=member_id, digest=made.digest, created_at=now, expires_at=now + lifetime, name=name)
    )
    return made
