"""`byok audit`: who did what, who was refused, and whether the log is whole."""

from __future__ import annotations

from cyclopts import App
from rich.console import Console

from byok.access import ORG_ADMIN, require
from byok.app import open_services
from byok.cli.output import Json, emit, note, table

app = App(name="audit", help="List the audit log, or verify that it is whole.")


@app.command(name="list")
def list_(*, limit: int = 50, refused: bool = False, json: Json = False) -> None:
    """List the audit log, the newest entry first.

    Args:
        limit: How many entries.
        refused: Only refusals and failures.
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    require(services.actor, ORG_ADMIN, "audit.list")
    entries = services.audit.entries(services.actor.org_id, limit=None if refused else max(0, limit))
    entries = [entry for entry in entries if not refused or entry.outcome != "done"][: max(0, limit)]

    def draw(out: Console) -> None:
        if not entries:
            note("no such entries")
            return
        columns = ("#", "time (UTC)", "who", "action", "target", "outcome", "detail")
        out.print(table(columns, [(e.seq, e.at, e.actor, e.action, e.target, e.outcome, e.detail) for e in entries]))

    emit({"entries": [entry.as_dict() for entry in entries]}, json=json, human=draw)


@app.command
def verify(*, json: Json = False) -> int:
    """Verify the chain of the audit log from its first entry on; leaves with 1 and names the first bad entry when it is not whole.

    Args:
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    require(services.actor, ORG_ADMIN, "audit.verify")
    names = {services.actor.org_id: services.actor.org_slug, services.audit.installation: "installation"}
    found = [services.audit.verify(chain) for chain in names]

    def draw(out: Console) -> None:
        for one in found:
            if one.bad_seq is None:
                print(f"{names[one.chain]}: whole, {one.entries} entries")
            else:
                print(f"{names[one.chain]}: entry {one.bad_seq} is {one.reason}; {one.entries} entries before it are sound")

    told = [
        {"chain": names[one.chain], "whole": one.bad_seq is None, "entries": one.entries, "bad_seq": one.bad_seq, "reason": one.reason}
        for one in found
    ]
    emit({"audit": told}, json=json, human=draw)
    return 0 if all(one.bad_seq is None for one in found) else 1
