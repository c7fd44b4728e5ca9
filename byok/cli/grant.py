"""`byok grant`: allow one act of a flow run that is started from the Prefect UI."""

from __future__ import annotations

from cyclopts import App

from byok.access import Action
from byok.app import open_services
from byok.cli.output import Json, emit, note
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
