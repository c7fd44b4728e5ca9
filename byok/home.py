"""Where state lives: one folder, `BYOK_HOME`, and the places inside it.

`data/` holds what is backed up and queried; `keys/` holds what opens sealed keys and stays out of `data/`, so that a copy
of the data alone opens nothing.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from byok.errors import InputError


class NotInitialised(InputError):
    """There is no installation under BYOK_HOME yet."""

    code = "not_initialised"


@dataclass(frozen=True)
class Home:
    """The folders and files of one installation."""

    root: Path

    @classmethod
    def from_environment(cls) -> Home:
        """The home that `BYOK_HOME` names, or the user's data directory."""
        named = os.environ.get("BYOK_HOME")
        return cls(Path(named).expanduser().resolve() if named else Path(platformdirs.user_data_dir("byok", appauthor=False)))

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the control plane: `BYOK_DATABASE_URL`, or SQLite under `data/`."""
        return os.environ.get("BYOK_DATABASE_URL") or f"sqlite:///{self.data / 'control.db'}"

    @property
    def organisation(self) -> str | None:
        """Name of the one organisation that this home belongs to; None before `byok init`."""
        try:
            return (self.data / "organisation").read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None

    def belong_to(self, organisation: str) -> None:
        """Note the organisation that this home belongs to from now on."""
        write_private(self.data / "organisation", organisation + "\n")

    @property
    def datasets(self) -> Path:
        return self.data / "datasets"

    @property
    def spool(self) -> Path:
        return self.data / "spool"

    @property
    def runs(self) -> Path:
        return self.spool / "runs"

    @property
    def warehouse(self) -> Path:
        return self.data / "warehouse"

    @property
    def kek_file(self) -> Path:
        """The key-encryption keys of the local key store: `BYOK_KEK_FILE`, or `keys/kek.json`."""
        named = os.environ.get("BYOK_KEK_FILE")
        return Path(named).expanduser().resolve() if named else self.root / "keys" / "kek.json"

    @property
    def signing_key_file(self) -> Path:
        """What audit entries and grants are signed with: `BYOK_SIGNING_KEY_FILE`, or `keys/signing.key`."""
        named = os.environ.get("BYOK_SIGNING_KEY_FILE")
        return Path(named).expanduser().resolve() if named else self.root / "keys" / "signing.key"

    @property
    def audit_heads(self) -> Path:
        """Where the audit chains had come to when this machine last looked; outside `data/`, so that no copy of it hides a cut."""
        return self.root / "keys" / "audit-heads.json"

    @property
    def ledger_heads(self) -> Path:
        """The same for the ledgers of ECU."""
        return self.root / "keys" / "ledger-heads.json"

    @property
    def vault_credentials(self) -> Path:
        """The folder with this installation's own Vault credentials, one file for each role."""
        return self.root / "keys" / "vault"

    @property
    def token_file(self) -> Path:
        """The member token of the person who uses this machine: `BYOK_TOKEN_FILE`, or `token`."""
        named = os.environ.get("BYOK_TOKEN_FILE")
        return Path(named).expanduser().resolve() if named else self.root / "token"

    @property
    def worker_token_file(self) -> Path:
        return self.root / "keys" / "worker.token"

    @property
    def prefect_login_file(self) -> Path:
        """The login of the Prefect server that `byok up` runs, as `name:password`."""
        return self.root / "keys" / "prefect.login"

    @property
    def prefect(self) -> Path:
        return self.root / "prefect"

    @property
    def initialised(self) -> bool:
        return (self.data / "initialised").exists()

    def require(self) -> Home:
        """This home, if `byok init` has been run on it.

        Raises:
            NotInitialised: It has not.
        """
        if not self.initialised:
            raise NotInitialised(f"no installation in {self.root}", hint="run: byok init --org ORG --owner EMAIL")
        if self.organisation is None:
            # Without it, the members of every organisation of the control plane would be let in.
            raise NotInitialised(
                f"{self.root} does not say which organisation it belongs to",
                hint="run byok init again with the same organisation and owner",
            )
        return self


def private_dir(path: Path) -> Path:
    """Make `path` (and parents) a folder that only its owner can enter; return it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def write_private(path: Path, text: str, *, anew: bool = False) -> None:
    """Write `text` to `path` so that it is never, not even for a moment, readable by others; atomic.

    Args:
        path: The file.
        text: What it holds.
        anew: Never replace a file that is there.

    Raises:
        FileExistsError: It is there, and must not be replaced.
    """
    private_dir(path.parent)
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        if anew:
            os.link(part, path)
        else:
            os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name too must outlive a power cut: a new key-encryption key is used at once
    finally:
        os.close(folder)
