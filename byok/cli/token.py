"""`byok token`: make, list, rotate and revoke member tokens."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from byok.access import Issued
from byok.app import Services, open_services
from byok.cli.member import draw_token, told_token
from byok.cli.output import Json, emit, note, table
from byok.clock import parse_duration
from byok.home import write_private

app = App(name="token", help="Make member tokens, and list, rotate or revoke them.")


@app.command
def issue(*, member: str | None = None, name: str = "", expires: str = "90d", json: Json = False) -> None:
    """Make a further token, for yourself or, as an admin, for another member; it is printed once.

    Args:
        member: E-mail address of the member; yourself when left out.
        name: What it is for.
        expires: When it ends: 30m, 24h, 90d; at most 365 days.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    lifetime = parse_duration(expires, what="--expires")
    made = services.administration.issue(services.actor, member, name=name, lifetime=lifetime)
    emit({"token": told_token(made)}, json=json, human=lambda out: draw_token(made))


@app.command(name="list")
def list_(*, json: Json = False) -> None:
    """List tokens: yours, or, for an admin, all of the organisation. A token itself is never shown again.

    Args:
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    tokens = services.administration.tokens(services.actor)

    def draw(out: Console) -> None:
        columns = ("id", "member", "name", "state", "made", "ends", "last used")
        out.print(table(columns, [(t.id, t.email, t.name, t.state, t.created_at, t.expires_at, t.last_used_at) for t in tokens]))

    names = ("id", "email", "name", "state", "created_at", "expires_at", "revoked_at", "last_used_at")
    emit({"tokens": [{name: getattr(token, name) for name in names} for token in tokens]}, json=json, human=draw)


@app.command
def rotate(
    token_id: str | None = None,
    /,
    *,
    grace: str = "24h",
    save: Annotated[bool, Parameter(negative="--no-save")] = True,
    json: Json = False,
) -> None:
    """Replace a token; the old one works until the grace ends. Your own, when it stands in the token file, is replaced there.

    Args:
        token_id: Id of the token (byok token list); the one that you use now when left out.
        grace: How long the old one goes on working: 0, 30m, 24h; at most 7 days.
        save: Write the new token into the token file when the old one stands there.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    made = services.administration.rotate(services.actor, token_id, grace=parse_duration(grace, what="--grace"))
    saved = save and token_id in (None, services.actor.token_id) and _replace_file(services, made)
    emit({"token": told_token(made) | {"saved": saved}}, json=json, human=lambda out: draw_token(made))
    if saved and not json:
        note(f"{services.home.token_file} holds the new token")


@app.command
def revoke(token_id: str, /, *, json: Json = False) -> None:
    """End a token at once.

    Args:
        token_id: Id of the token (byok token list).
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    services.administration.revoke(services.actor, token_id)
    emit({"token": {"id": token_id, "state": "revoked"}}, json=json, human=lambda out: print(f"token {token_id} is revoked"))


def _replace_file(services: Services, made: Issued) -> bool:
    if os.environ.get("BYOK_TOKEN") is not None:
        return False
    # Without the variable, the token that was shown came from the file.
    write_private(services.home.token_file, made.text + "\n")
    return True
