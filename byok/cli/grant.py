"""`byok grant`: allow one act of a flow run that is started from the Prefect UI."""

from __future__ import annotations

from cyclopts import App
from rich.console import Console

from byok.access import Action, Grant
from byok.app import open_services
from byok.cli.output import Json, emit, note, table
from byok.clock import parse_duration
from byok.endpoint import EgressPolicy

app = App(name="grant", help="Allow one act of a flow run from the Prefect UI: registering a model, or rotating its key.")


@app.command
def register(model: str, /, *, base_url: str, expires: str = "1h", json: Json = False) -> None:
    """Grant one registration of a model; what is printed works once.

    Args:
        model: The key that the model will have.
        base_url: Its base URL.
        expires: When the grant ends: 30m, 1h, 7d at most.
        json: Print JSON of a stable shape instead of text.
    """
    _make("register", model, EgressPolicy.from_environment().check_base_url(base_url).origin, expires, json=json)


@app.command
def rotate(model: str, /, *, expires: str = "1h", json: Json = False) -> None:
    """Grant one rotation of a registered model's key; what is printed works once.

    Args:
        model: Key of the model.
        expires: When the grant ends: 30m, 1h, 7d at most.
        json: Print JSON of a stable shape instead of text.
    """
    _make("rotate", model, None, expires, json=json)


@app.command(name="list")
def list_(*, json: Json = False) -> None:
    """List grants: yours, or, for an admin, all of the organisation. What a grant reads is never shown again.

    Args:
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    grants = services.grants.list(services.actor)

    def draw(out: Console) -> None:
        columns = ("id", "member", "action", "model", "origin", "state", "ends")
        out.print(table(columns, [(g.id, g.email, g.action, g.model_key, g.origin, g.state, g.expires_at) for g in grants]))

    emit({"grants": [_told(grant) for grant in grants]}, json=json, human=draw)


@app.command
def revoke(grant_id: str, /, *, json: Json = False) -> None:
    """End a grant that is not used yet.

    Args:
        grant_id: Id of the grant (byok grant list).
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    services.grants.revoke(services.actor, grant_id)
    emit({"grant": {"id": grant_id, "state": "revoked"}}, json=json, human=lambda out: print(f"grant {grant_id} is revoked"))


def _told(grant: Grant) -> dict[str, object]:
    names = ("id", "email", "action", "model_key", "origin", "state", "created_at", "expires_at", "used_at", "revoked_at")
    return {name: getattr(grant, name) for name in names}


def _make(action: Action, model: str, origin: str | None, expires: str, *, json: bool) -> None:
    services = open_services()
    lifetime = parse_duration(expires, what="--expires")
    if origin is None:
        origin = services.registry.get(services.actor, model).origin
    made = services.grants.make(services.actor, action, model, origin, lifetime=lifetime)
    told = {"id": made.id, "action": action, "model": model, "origin": origin, "expires_at": made.expires_at, "text": made.text}

    def draw(_: object) -> None:
        print(made.text)
        note(f"allows one {action} of {model} at {origin}, until {made.expires_at:%Y-%m-%d %H:%M} UTC")

    emit({"grant": told}, json=json, human=draw)
