"""Child processes of the command line: Prefect is only ever started, never imported, from here."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import orjson

from byok.errors import OutsideError
from byok.home import Home, private_dir


class FlowProcessFailed(OutsideError):
    """The process that runs the flows ended without saying how the run ended."""

    code = "flow_process_failed"


def prefect_environment(home: Home) -> dict[str, str]:
    """The environment for every Prefect process of this installation.

    State stays under `BYOK_HOME`; nothing is reported to anyone; a server that `byok up` started is used when there is one. Without a
    server, Prefect starts one of its own for as long as the process lasts: it takes a login that nobody else knows.
    """
    found = dict(os.environ)
    found |= {
        "BYOK_HOME": str(home.root),
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_CLI_PROMPT": "false",
    }
    found.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    standing = read_standing_server(home)
    if standing is not None:
        found.setdefault("PREFECT_API_URL", standing)
    if found.get("PREFECT_API_URL") != standing:
        return found
    # A server of ours is of the same version: its clients need not ask.
    found["PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED"] = "false"
    login = new_login() if standing is None else read_login(home)
    if login is not None:
        found["PREFECT_API_AUTH_STRING"] = login
        if standing is None:
            found["PREFECT_SERVER_API_AUTH_STRING"] = login
    return found


def new_login() -> str:
    """A login for a Prefect server: Prefect knows one for all."""
    return f"byok:{secrets.token_urlsafe(24)}"


def read_login(home: Home) -> str | None:
    """The login of the server that `byok up` runs, or None."""
    try:
        return home.prefect_login_file.read_text(encoding="ascii").strip() or None
    except OSError:
        return None


def standing_file(home: Home) -> Path:
    """Where `byok up` says that it is running."""
    return home.prefect / "up.json"


def read_standing_server(home: Home) -> str | None:
    """The API address of the server that `byok up` keeps running here, if its process is alive."""
    try:
        told = orjson.loads(standing_file(home).read_bytes())
        os.kill(told["pid"], 0)
    except (FileNotFoundError, ProcessLookupError, orjson.JSONDecodeError, KeyError):
        return None
    return str(told["api_url"])


@dataclass(frozen=True)
class FlowEvent:
    """What the flow process says: a run was planned (`run`), or it ended (`end`)."""

    kind: str
    index: int
    run_id: str | None
    error: dict[str, Any] | None


class FlowProcess:
    """Evaluations running in a process of their own.

    It is started before it is known what it shall do: it takes a second or two to import Prefect, meanwhile names are checked and
    questions asked. Without anything to do, it ends.

    Args:
        home: The installation.
    """

    def __init__(self, home: Home) -> None:
        (launcher,) = entry_points(group="byok.flows", name="launcher")
        private_dir(home.root / "logs")
        self.home = home
        self.log = home.root / "logs" / "flows.log"
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", launcher.value],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=prefect_environment(home),
            )
        assert self.child.stdout is not None
        os.set_blocking(self.child.stdout.fileno(), False)
        self._said = b""

    def begin(self, requests: list[dict[str, Any]]) -> None:
        """Say what to do.

        Args:
            requests: One evaluation request each, as plain data (never a key), or `{"resume": run id}`.
        """
        assert self.child.stdin is not None
        # A process that has died in the meantime is noticed by whoever waits for what it says.
        with contextlib.suppress(BrokenPipeError), self.child.stdin as given:
            given.write(orjson.dumps({"requests": requests}))

    def events(self) -> Iterator[FlowEvent]:
        """What has been said since the last call; never waits."""
        self._listen()
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            told = orjson.loads(line)
            yield FlowEvent(told["event"], told["index"], told["run_id"], told.get("error"))

    def wait(self, seconds: float) -> None:
        """Wait until something is said or the process has ended, but no longer than this."""
        assert self.child.stdout is not None
        if select.select([self.child.stdout], [], [], seconds)[0] and self._listen():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(seconds)

    def _listen(self) -> bool:
        """Take in what has been said; return whether there will be no more."""
        assert self.child.stdout is not None
        said = self.child.stdout.read()  # None: nothing as yet
        self._said += said or b""
        return said == b""

    @property
    def running(self) -> bool:
        return self.child.poll() is None

    def stop(self) -> None:
        """Interrupt the process and wait for it: what was done stays in the journals."""
        assert self.child.stdin is not None and self.child.stdout is not None
        self.child.stdin.close()
        # Requests under way come to their end first; none takes longer than their deadline.
        stop_process(self.child, patience_s=150.0)
        self.child.stdout.close()


_early: list[FlowProcess] = []


@contextlib.contextmanager
def started_early(home: Home) -> Iterator[None]:
    """Have a flow process import while a command does what comes before; one that is not taken is gone at the end."""
    if home.initialised:
        _early.append(FlowProcess(home))
    try:
        yield
    finally:
        while _early:
            _early.pop().stop()


def flow_process(home: Home) -> FlowProcess:
    """A flow process of this installation: the one that was started early, if there is one."""
    return _early.pop() if _early and _early[-1].home == home else FlowProcess(home)


def stop_process(child: subprocess.Popen[bytes], patience_s: float = 20.0) -> None:
    """End a child: politely, then for good."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGINT)
    try:
        child.wait(patience_s)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()  # a second Ctrl-C does not wait for anything
        child.wait()
