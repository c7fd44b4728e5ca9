"""Who is meant by the ids of members that the warehouse holds."""

from __future__ import annotations

from sqlalchemy import select

from byok.control import ControlPlane
from byok.control.tables import member


def member_names(control: ControlPlane, org_id: str) -> dict[str, str]:
    """The addresses of all members of an organisation, by id."""
    with control.read() as connection:
        rows = connection.execute(select(member.c.id, member.c.email).where(member.c.org_id == org_id)).all()
    return {row.id: row.email for row in rows}
