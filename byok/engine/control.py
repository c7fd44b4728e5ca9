"""What people and other processes want of a run that is under way, told through small files in its folder.

`control.json` holds a person's wish (run, pause, cancel), `settings.json` what a person changed when going on with a run (caps, what to do
with attempts of unknown outcome), `stopped.json` why a process stopped the run, so that the others stop too, and `state.json` whether it is
over.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from byok.clock import iso, utcnow
from byok.engine.gate import Gate
from byok.errors import ByokError, OutsideError
from byok.home import write_private

Wish = Literal["run", "pause", "cancel"]
OnUnknown = Literal["resend", "hold"]

_held: dict[Path, int] = {}
"""Locks of the runs that this process drives; the processes of its shards do without."""

LOOK_S = 0.2
"""Seconds between two looks at what is wanted."""


class RunCancelled(OutsideError):
    """Somebody cancelled the run: it keeps what it has, and can be resumed."""

    code = "run_cancelled"
    exit_code = 1
    retryable = True


class StoppedElsewhere(OutsideError):
    """Another process that works on the same run stopped it; carries that reason's code."""

    def __init__(self, message: str, *, hint: str = "", code: str = "stopped", **fields: Any) -> None:
        super().__init__(message, hint=hint, code=code, **fields)
        self.code = code  # type: ignore[misc]


class RunBusy(OutsideError):
    """Another process works on the run: two at once would pay for the same answers twice."""

    code = "run_busy"
    retryable = True


class Settings(BaseModel):
    """What going on with a run changes about it; None leaves it as it was planned, or as the last change left it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_usd: str | None = Field(default=None, description="Decimal text.")
    max_micro_ecu: int | None = None
    max_requests: int | None = None
    on_unknown: OnUnknown | None = None

    def with_changes(self, changes: Settings) -> Settings:
        """These, but for what the changes tell."""
        return self.model_copy(update=changes.model_dump(exclude_none=True))


class Control:
    """The wishes of one run.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = folder / "lock"
        names = ("control", "settings", "stopped", "state")
        self._wish, self._settings, self._stopped, self._going = (folder / f"{name}.json" for name in names)

    def ask(self, wish: Wish, member_id: str) -> None:
        """Leave a wish for the processes that work on the run."""
        write_private(self._wish, orjson.dumps({"wish": wish, "member_id": member_id, "at": iso(utcnow())}).decode())

    @property
    def wish(self) -> Wish:
        """What is wanted now."""
        told = _read(self._wish).get("wish", "run")
        return told if told in ("pause", "cancel") else "run"

    @property
    def settings(self) -> Settings:
        """What has been changed since the run was planned."""
        return Settings.model_validate(_read(self._settings))

    def change(self, settings: Settings) -> None:
        """Change what is told; the rest stays as it was."""
        write_private(self._settings, self.settings.with_changes(settings).model_dump_json(exclude_none=True))

    def begin(self) -> None:
        """The run is started, or gone on with, by this process alone: whatever stopped or paused it is over.

        Raises:
            RunBusy: Another process works on it.
        """
        self._hold()
        for path in (self._wish, self._stopped):
            path.unlink(missing_ok=True)
        write_private(self._going, orjson.dumps({"state": "going", "at": iso(utcnow())}).decode())

    def end(self) -> None:
        """The run has been reported: nobody works on it any more."""
        write_private(self._going, orjson.dumps({"state": "ended", "at": iso(utcnow())}).decode())
        handle = _held.pop(self._lock, None)
        if handle is not None:
            os.close(handle)

    def _hold(self) -> None:
        if self._lock in _held:
            return
        handle = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # The kernel lets go of it when the process dies, however it dies.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise RunBusy("another process is working on this run", hint="see what it does: byok run watch RUN") from None
        _held[self._lock] = handle

    @property
    def begun(self) -> bool:
        """Whether any process has begun to work on the run."""
        return self._going.exists()

    @property
    def ended(self) -> bool:
        """Whether the run has been reported since it was last gone on with."""
        return _read(self._going).get("state") == "ended"

    def tell_stopped(self, reason: ByokError) -> None:
        """Tell the other processes why the run stops; the first reason is kept."""
        with suppress(FileExistsError):
            write_private(self._stopped, orjson.dumps({"code": reason.code, "message": reason.message}).decode(), anew=True)

    @asynccontextmanager
    async def obeyed_by(self, gate: Gate, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> AsyncIterator[None]:
        """As long as this lasts, a gate does what is wanted of the run, and tells when it stops."""
        self._apply(gate)

        async def look() -> None:
            seen = self._state()
            while True:
                await sleep(LOOK_S)
                if gate.stopped_by is not None:
                    # At once, and not when those under way have ended: the other processes are not to go on sending meanwhile.
                    self.tell_stopped(gate.stopped_by)
                    break
                state = self._state()
                if state != seen:
                    seen = state
                    self._apply(gate)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
            if gate.stopped_by is not None:
                self.tell_stopped(gate.stopped_by)

    def _apply(self, gate: Gate) -> None:
        told = _read(self._stopped)
        wish = self.wish
        if told:
            gate.stop(StoppedElsewhere(str(told.get("message", "")), code=str(told.get("code", "stopped"))))
        elif wish == "cancel":
            gate.stop(RunCancelled("the run was cancelled", hint="go on with it: byok run resume RUN"))
        elif wish == "pause":
            gate.pause()
        else:
            gate.go_on()

    def _state(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(map(_stamp, (self._wish, self._stopped)))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _read(path: Path) -> dict[str, Any]:
    try:
        told = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return told if isinstance(told, dict) else {}
