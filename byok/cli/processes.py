"""Child processes of the command line: Prefect is only ever started, never imported, from here."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
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
    if standing is not None and found["PREFECT_API_URL"] == standing:
        login = read_login(home)
        if login is not None:
            found["PREFECT_API_AUTH_STRING"] = login
    elif "PREFECT_API_URL" not in found:
        found["PREFECT_API_AUTH_STRING"] = found["PREFECT_SERVER_API_AUTH_STRING"] = new_login()
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

    Args:
        home: The installation.
        requests: One evaluation request each, as plain data (never a key), or `{"resume": run id}`.
    """

    def __init__(self, home: Home, requests: list[dict[str, Any]]) -> None:
        (launcher,) = entry_points(group="byok.flows", name="launcher")
        private_dir(home.root / "logs")
        self.log = home.root / "logs" / "flows.log"
        with self.log.open("ab") as log, tempfile.TemporaryFile() as given:
            given.write(orjson.dumps({"requests": requests}))
            given.seek(0)
            self.child = subprocess.Popen(
                [sys.executable, "-m", launcher.value], stdin=given, stdout=subprocess.PIPE, stderr=log, env=prefect_environment(home)
            )
        assert self.child.stdout is not None
        os.set_blocking(self.child.stdout.fileno(), False)
        self._rest = b""

    def events(self) -> Iterator[FlowEvent]:
        """What has been said since the last call; never waits."""
        assert self.child.stdout is not None
        self._rest += self.child.stdout.read() or b""
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            told = orjson.loads(line)
            yield FlowEvent(told["event"], told["index"], told["run_id"], told.get("error"))

    @property
    def running(self) -> bool:
        return self.child.poll() is None

    def stop(self) -> None:
        """Interrupt the process and wait for it: what was done stays in the journals."""
        stop_process(self.child)


def stop_process(child: subprocess.Popen[bytes], patience_s: float = 20.0) -> None:
    """End a child: politely, then for good."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGINT)
    try:
        child.wait(patience_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
