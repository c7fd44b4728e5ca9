"""`byok up`: a Prefect server, a work pool, a worker and the deployments, on this machine, until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import orjson

from byok.cli.output import Json, note, to_json
from byok.cli.processes import new_login, prefect_environment, read_login, read_standing_server, standing_file, stop_process
from byok.errors import InputError, OutsideError
from byok.home import Home, private_dir, write_private
from byok.resources import shipped

POOL = "byok"

DEPLOYMENTS = [
    *("evaluate/ad-hoc", "evaluate/nightly", "resume/resume"),
    *("register_model/register-model", "rotate_key/rotate-key", "rotate_transit/rotate-transit"),
    *("probe_models/probe-models", "low-credit/low-credit"),
]


class AlreadyUp(InputError):
    """A server of this installation is already running."""

    code = "already_up"


class PortTaken(InputError):
    """Something else listens there."""

    code = "port_taken"


class ServerFailed(OutsideError):
    """Prefect's server, worker or deployment step did not come up, or died."""

    code = "server_failed"


def up(*, port: int = 4200, json: Json = False) -> int:
    """Start Prefect server, work pool, worker and deployments on this machine; Ctrl-C stops them all.

    The server listens on loopback only, and takes the login that stands in keys/prefect.login in the home: whoever has it can run code as
    the worker. The worker acts as the installation's own service member.

    Args:
        port: Port of the server and its UI; 0 takes a free one.
        json: Print one line of JSON when everything is up.
    """
    home = Home.from_environment().require()
    if read_standing_server(home) is not None:
        raise AlreadyUp("a server of this installation is already running", hint=f"stop the process named in {standing_file(home)} first")
    port = _free_port(port)
    stack = _Stack(home, port)
    stopped = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        stack.start(lambda: stopped)
        if not stopped:
            login_file = str(home.prefect_login_file)
            told = {"ui": stack.ui, "api_url": stack.api_url, "pool": POOL, "login_file": login_file, "deployments": DEPLOYMENTS}
            text = f"UI:          {stack.ui}\nAPI:         {stack.api_url}\nlogin:       kept in {login_file}\nwork pool:   {POOL}"
            print(to_json({"up": told}) if json else text, flush=True)
            if not json:
                note("start a run from the UI: Deployments > evaluate/ad-hoc > Run. Ctrl-C stops everything.")
        while not stopped:
            stack.check()
            time.sleep(0.2)
    finally:
        stack.stop()
    if not json:
        note("stopped")
    return 0


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise PortTaken(f"port {port} is taken", hint="choose another: byok up --port 4300") from None
        return int(probe.getsockname()[1])


class _Stack:
    """The processes, in the order in which they start; stopped in the opposite one."""

    def __init__(self, home: Home, port: int) -> None:
        self.home = home
        self.ui = f"http://127.0.0.1:{port}"
        self.api_url = f"{self.ui}/api"
        self.port = port
        self.children: list[tuple[str, subprocess.Popen[bytes]]] = []
        if read_login(home) is None:
            write_private(home.prefect_login_file, new_login() + "\n")
        login = read_login(home) or ""
        self.environment = prefect_environment(home) | {
            "PREFECT_API_AUTH_STRING": login,
            "PREFECT_API_URL": self.api_url,
            "PREFECT_UI_API_URL": self.api_url,
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_RUNNER_POLL_FREQUENCY": "2",
            "BYOK_TOKEN_FILE": str(home.worker_token_file),
        }
        # The worker is a service member of its own: the token of whoever typed `byok up` must not reach it.
        self.environment.pop("BYOK_TOKEN", None)
        self.environment.pop("PREFECT_SERVER_API_AUTH_STRING", None)
        private_dir(home.root / "logs")

    def start(self, stopped: Callable[[], bool]) -> None:
        # The server opens no key and reads no data of ours: it gets nothing of byok's.
        bare = {name: value for name, value in self.environment.items() if not name.startswith("BYOK_") or name == "BYOK_HOME"}
        bare["PREFECT_SERVER_API_AUTH_STRING"] = self.environment["PREFECT_API_AUTH_STRING"]
        # Without this, the scripts of any web page that the person visits may talk to it.
        bare["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = self.ui
        self._spawn("server", "server", "start", "--host", "127.0.0.1", "--port", str(self.port), environment=bare)
        self._wait_healthy(stopped)
        if stopped():
            return
        self._run("work-pool", "work-pool", "create", POOL, "--type", "process", "--overwrite")
        self._run(
            "deploy", "--no-prompt", "deploy", "--all", "--prefect-file", str(shipped("deployments", "prefect.yaml")), cwd=self.home.prefect
        )
        self._spawn("worker", "worker", "start", "--pool", POOL, "--type", "process", "--name", "byok-local")
        write_private(standing_file(self.home), orjson.dumps({"api_url": self.api_url, "pid": os.getpid()}).decode())

    def check(self) -> None:
        for name, child in self.children:
            if child.poll() is not None:
                raise ServerFailed(f"the Prefect {name} has ended", hint=f"its output is in {self._log(name)}")

    def stop(self) -> None:
        standing_file(self.home).unlink(missing_ok=True)
        for _, child in reversed(self.children):
            stop_process(child)

    def _log(self, name: str) -> Path:
        return self.home.root / "logs" / f"{name}.log"

    def _spawn(self, name: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        with self._log(name).open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "prefect", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment or self.environment,
                cwd=private_dir(self.home.prefect),
                # A group of its own: a Ctrl-C in the terminal reaches us alone, and we stop the children in order.
                start_new_session=True,
            )
        self.children.append((name, child))

    def _run(self, name: str, *arguments: str, cwd: Path | None = None) -> None:
        with self._log(name).open("ab") as log:
            done = subprocess.run(
                [sys.executable, "-m", "prefect", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=cwd or private_dir(self.home.prefect),
                check=False,
            )
        if done.returncode:
            raise ServerFailed(f"Prefect's step {name!r} failed", hint=f"its output is in {self._log(name)}")

    def _wait_healthy(self, stopped: Callable[[], bool], patience_s: float = 180) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        end = time.monotonic() + patience_s
        while not stopped():
            self.check()
            try:
                with opener.open(f"{self.api_url}/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass
            if time.monotonic() > end:
                raise ServerFailed("the Prefect server does not answer", hint=f"its output is in {self._log('server')}")
            time.sleep(0.3)
