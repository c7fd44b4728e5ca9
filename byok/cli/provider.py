"""`byok provider`: the profiles of providers that ship, and which one an address gets."""

from __future__ import annotations

import json as jsonlib

from cyclopts import App
from rich.console import Console

from byok.cli.output import Json, emit, table

app = App(name="provider", help="List what is known about providers, or show which profile an address gets.")


@app.command(name="list")
def list_(*, json: Json = False) -> None:
    """List the provider profiles that ship.

    Args:
        json: Print JSON of a stable shape instead of a table.
    """
    from byok.endpoint.profiles import profiles

    found = profiles()

    def draw(out: Console) -> None:
        columns = ("name", "provider", "base URL", "auth", "prices from", "sandbox")
        prices = {"models": "models list", "none": None}
        rows = [(one.name, one.title, one.base_url, one.auth, prices.get(one.price_source, one.price_source), one.sandbox) for one in found]
        out.print(table(columns, rows))

    emit({"providers": [one.as_dict() for one in found]}, json=json, human=draw)


@app.command
def show(name: str, /, *, json: Json = False) -> None:
    """Show one provider profile: how its servers are asked, what their answers mean, and their limits and traps.

    Args:
        name: Name of a profile; or a base URL, to see which profile it gets.
        json: Print JSON of a stable shape instead of tables.
    """
    from byok.endpoint.profiles import PLAIN, profile, profile_for

    by_address = "://" in name
    found = profile_for(name) if by_address else profile(name)
    chosen_by = "name" if not by_address else "default" if found is PLAIN else "address"

    def draw(out: Console) -> None:
        told = found.as_dict()
        notes, grades = told.pop("notes"), told.pop("evidence")
        # The address is not repeated: it may hold a password.
        if chosen_by == "address":
            print(f"this address gets the profile {found.name}")
        elif chosen_by == "default":
            print(f"no profile claims this address: it gets the plain one, {found.name}, unless you choose another by name")
        rows = [(field, _value(value), grades.get(field)) for field, value in told.items()]
        out.print(table(("field", "value", "evidence"), rows, title=found.title))
        for text in notes:
            print(f"- {text}")

    emit({"provider": found.as_dict(), "chosen_by": chosen_by}, json=json, human=draw)


def _value(value: object) -> str | None:
    """A member as text; None when there is nothing to show."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or None
    if isinstance(value, dict):
        return jsonlib.dumps(value) if value else None
    return None if value is None else str(value)
