"""`byok up` as a test has it: started with an environment of its own, talked to through Prefect's API, and looked into."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

END = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

WITH_CORES = ("sh", "-c", 'ulimit -c "$(ulimit -H -c)"; exec "$@"', "sh")
"""Before a command: lets it leave core files, as far as this process may."""


class Stack:
    """Prefect's API of a `byok up`."""

    def __init__(self, api_url: str, login: str) -> None:
        self.api_url, self.login = api_url, login
        self._authorization = "Basic " + base64.b64encode(login.encode()).decode()
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Content-Type": "application/json", "Authorization": self._authorization}

    def ask(self, path: str, body: Any = None, *, method: str | None = None) -> Any:
        """GET, or POST when there is a body, unless told otherwise; again, as Prefect's client does, while the database is busy."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api_url}/{path}", data, self.headers(), method=method)
        for _ in range(20):
            try:
                with self._opener.open(request, timeout=60) as answer:
                    return json.loads(answer.read() or "null")
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                error.close()
                time.sleep(0.5)
        raise AssertionError(f"{path}: Prefect's database stays busy")

    def everything(self, kind: str) -> list[dict[str, Any]]:
        """All objects of a kind that the API lists."""
        found: list[dict[str, Any]] = []
        while page := self.ask(f"{kind}/filter", {"offset": len(found), "limit": 200}):
            found += page
        return found

    def start(self, deployment: str, parameters: dict[str, Any], *, environment: dict[str, str] | None = None, **more: Any) -> str:
        """Start a flow run as anybody who reaches the API can; return its id."""
        told = self.ask(f"deployments/name/{deployment}")
        body = {"parameters": parameters, "job_variables": {"env": environment or {}}, **more}
        return str(self.ask(f"deployments/{told['id']}/create_flow_run", body)["id"])

    def state(self, flow_run: str) -> dict[str, Any]:
        return dict(self.ask(f"flow_runs/{flow_run}")["state"])

    def end(self, flow_run: str, patience_s: float = 240) -> dict[str, Any]:
        """The state in which a flow run ends."""
        until = time.monotonic() + patience_s
        while (state := self.state(flow_run))["type"] not in END:
            assert time.monotonic() < until, state
            time.sleep(0.25)
        return state


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A `byok up` that is starting; it is stopped at the end."""
    child = subprocess.Popen([*command, "up", "--port", "0", "--json"], stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    try:
        yield child
    finally:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(90)
        finally:
            child.stdout.close()


def wait_up(child: subprocess.Popen[str], logs: Path) -> Stack:
    """Wait until everything runs."""
    assert child.stdout is not None
    text = ""
    for line in child.stdout:
        text += line
        if line.startswith("}"):
            break
    assert text, {path.name: path.read_text(errors="replace")[-2000:] for path in logs.glob("*.log")}
    told = json.loads(text)["up"]
    return Stack(told["api_url"], Path(told["login_file"]).read_text().strip())


def sqlite_rows(database: Path) -> dict[str, str]:
    """All rows of each table of a SQLite file that is in use, as text: a long value lies scattered over pages of the file."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: "\n".join(map(str, connection.execute(f'SELECT * FROM "{table}"'))) for table in tables}


def stored_results(storage: Path) -> dict[str, bytes]:
    """The files of Prefect's result storage, without the breaks that it puts into the base64 of its pickles."""
    return {path.name: path.read_bytes().replace(b"\\n", b"").replace(b"\n", b"") for path in storage.iterdir()}


def processes() -> dict[int, list[str]]:
    """The arguments of all processes that can be read."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return found


def environment_of(pid: int) -> bytes:
    """The environment that a process was started with; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def core_limit(pid: int) -> tuple[str, str]:
    """The soft and the hard limit of a process's core file."""
    (line,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max core file size")]
    soft, hard = line.split()[4:6]
    return soft, hard


def aborted_with_core(child: subprocess.Popen[Any]) -> bool:
    """Abort a child; whether the kernel says that it left a core file."""
    os.kill(child.pid, signal.SIGABRT)
    ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None and ended.si_status == signal.SIGABRT
    child.wait()
    return ended.si_code == os.CLD_DUMPED
