"""`byok run watch`: what a run is doing, from another terminal, until it ends."""

from __future__ import annotations

import time
from collections import deque
from contextlib import nullcontext
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console, Group
from rich.live import Live as Screen
from rich.table import Table
from rich.text import Text

from byok.app import open_services
from byok.cli.output import Json, note, to_json
from byok.money import ecu, plain
from byok.reporting import find_run
from byok.runs.live import Live, look_at

_EVERY_S = 0.5
_RATE_S = 10.0


class Rate:
    """Finished units a second, over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> float | None:
        """Tell how many are finished now; None until there is something to compare with."""
        self._seen.append((now, done))
        while now - self._seen[0][0] > _RATE_S:
            self._seen.popleft()
        since, before = self._seen[0]
        return (done - before) / (now - since) if now > since else None


def watch(run: str = "latest", /, *, once: Annotated[bool, Parameter(negative="")] = False, json: Json = False) -> int:
    """Watch a run that is under way: rate, requests in flight, limit, errors by kind, cost so far, time left.

    Leaves with 0 when the run has ended, and with 1 when no process works on it any more though it has not (go on with it:
    byok run resume). The run itself is not touched: Ctrl-C ends the watching only.

    Args:
        run: Id of the run, the beginning of it, or latest.
        once: Show it once, and leave.
        json: Print one line of JSON for each look instead of a table.
    """
    services = open_services()
    run_id = find_run(services.warehouse, services.actor.org_id, run)
    rate, console = Rate(), Console(markup=False, highlight=False, emoji=False)
    try:
        with nullcontext() if json else Screen(console=console, auto_refresh=False, transient=True) as screen:
            while True:
                seen = look_at(services, run_id)
                speed = rate.add(time.monotonic(), seen.done)
                if screen is None:
                    print(to_json(seen.as_dict() | {"rate": speed, "seconds_left": seconds_left(seen, speed)}), flush=True)
                else:
                    screen.update(draw(seen, speed), refresh=True)
                if once or seen.state in ("ended", "stalled"):
                    break
                time.sleep(_EVERY_S)
    except KeyboardInterrupt:
        return 0
    if not json:
        console.print(draw(seen, speed))
        if seen.state == "stalled":
            note(f"no process works on this run any more; go on with it: byok run resume {run_id}")
        elif seen.state == "ended":
            note(f"the run has ended: byok run show {run_id}")
    return 1 if seen.state == "stalled" else 0


def seconds_left(seen: Live, rate: float | None) -> float | None:
    """About how long the stages that have begun will take; None when nothing can be said."""
    left = sum(counts.total - counts.done for counts in seen.stages.values())
    return left / rate if rate else None


def draw(seen: Live, rate: float | None) -> Group:
    """The table of a run."""
    table = Table(title=f"{seen.model_key} on {seen.dataset_name}: {seen.state}", title_justify="left", box=None, pad_edge=False)
    for name in ("stage", "done", "failed", "reused", "requests", "in flight", "limit", "errors"):
        table.add_column(name, justify="left" if name in ("stage", "errors") else "right")
    for name, counts in seen.stages.items():
        errors = ", ".join(f"{code} {count}" for code, count in sorted(counts.errors.items(), key=lambda one: -one[1])) or "-"
        held = " (held: nothing gets through)" if counts.held else ""
        limit = "-" if counts.limit is None else str(counts.limit)
        table.add_row(
            *("answers" if name == "answer" else name, f"{counts.done} of {counts.total}", str(counts.failed), str(counts.reused)),
            *(str(counts.requests), str(counts.in_flight), limit, errors + held),
        )
    left = seconds_left(seen, rate)
    unknown = sum(counts.unknown for counts in seen.stages.values())
    usd = "unknown" if seen.usd is None else f"{plain(seen.usd)} USD"
    facts = [
        f"rate:      {'-' if rate is None else f'{rate:.1f}'} a second",
        f"cost:      {usd}, {ecu(seen.micro_ecu)} ECU" + (f" ({unknown} requests of unknown usage not in it)" if unknown else ""),
        f"time left: {'-' if left is None else _duration(left)}",
    ]
    return Group(table, *map(Text, facts))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
