"""`byok member`: who belongs to the organisation, and as what."""

from __future__ import annotations

from cyclopts import App
from rich.console import Console

from byok.access import Issued, Member
from byok.app import open_services
from byok.cli.output import Json, emit, note, table

app = App(name="member", help="Add members, and list, change, suspend or restore them.")


@app.command
def add(email: str, /, *, role: str = "viewer", json: Json = False) -> None:
    """Add a member; prints their first token, once.

    Args:
        email: E-mail address; of a machine, any address that names it.
        role: admin, editor, viewer, or service for a machine.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    made = services.administration.add_member(services.actor, email, role)
    emit({"member": {"email": email, "role": role}, "token": told_token(made)}, json=json, human=lambda out: draw_token(made))


@app.command(name="list")
def list_(*, json: Json = False) -> None:
    """List the members.

    Args:
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    members = services.administration.members(services.actor)

    def draw(out: Console) -> None:
        columns = ("member", "role", "kind", "state", "since")
        out.print(table(columns, [(m.email, m.role, m.kind, _state(m), m.created_at) for m in members]))

    emit({"members": [_told(member) for member in members]}, json=json, human=draw)


@app.command
def role(email: str, role: str, /, *, json: Json = False) -> None:
    """Give a member another role.

    Args:
        email: The member.
        role: admin, editor, viewer or service.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    member = services.administration.set_role(services.actor, email, role)
    emit({"member": _told(member)}, json=json, human=lambda out: print(f"{email} is {member.role} now"))


@app.command
def suspend(email: str, /, *, json: Json = False) -> None:
    """Suspend a member: their tokens and grants stop working at once.

    Args:
        email: The member.
        json: Print JSON of a stable shape instead of text.
    """
    _set_active(email, active=False, json=json)


@app.command
def restore(email: str, /, *, json: Json = False) -> None:
    """Take a suspension back.

    Args:
        email: The member.
        json: Print JSON of a stable shape instead of text.
    """
    _set_active(email, active=True, json=json)


def _set_active(email: str, *, active: bool, json: bool) -> None:
    services = open_services()
    member = services.administration.set_active(services.actor, email, active=active)
    emit({"member": _told(member)}, json=json, human=lambda out: print(f"{email} is {_state(member)}"))


def _state(member: Member) -> str:
    return "active" if member.active else "suspended"


def _told(member: Member) -> dict[str, object]:
    return {"email": member.email, "role": member.role, "kind": member.kind, "state": _state(member), "created_at": member.created_at}


def told_token(made: Issued) -> dict[str, object]:
    """The JSON shape of a token that was made just now."""
    return {"id": made.id, "email": made.email, "expires_at": made.expires_at, "text": made.text, "old_until": made.old_until}


def draw_token(made: Issued) -> None:
    """Show a token, this once."""
    print(made.text)
    note(
        f"token {made.id} of {made.email}, until {made.expires_at:%Y-%m-%d}; shown this once: put it into BYOK_TOKEN or a file of mode 0600"
    )
    if made.old_until is not None:
        note(f"the old token works until {made.old_until:%Y-%m-%d %H:%M} UTC")
