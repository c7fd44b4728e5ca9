"""How this process reaches Vault. Only variables of byok's own are read: never `VAULT_TOKEN`, never a proxy of the environment."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import orjson

from byok.home import Home
from byok.keystore.errors import BadVaultSettings, KeyStoreDenied

Role = Literal["registrar", "worker", "maintainer", "key-admin"]
"""Who may do what in Vault; see `deployments/vault/`."""

ROLES: tuple[Role, ...] = ("registrar", "worker", "maintainer", "key-admin")

_MOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(?:/[A-Za-z0-9][A-Za-z0-9_.-]*)*\Z")


@dataclass(frozen=True)
class AppRole:
    """What an AppRole login takes."""

    role_id: str
    secret_id: str = field(repr=False)


@dataclass(frozen=True)
class VaultSettings:
    """Where Vault is, and as whom this process comes.

    Attributes:
        address: `https://host:port`; plain http only for loopback.
        mount: Mount of the transit engine.
        auth_mount: Mount of the AppRole method.
        namespace: Namespace of OpenBao or Vault Enterprise, or None.
        ca_file: PEM file of the authority that signed the server's certificate, or None for the usual ones.
        credentials: Folder with one `<role>.json` for each role that this process may take; these come first.
        approle: One AppRole for everything, when there are no files.
        token: A token for everything, when there is neither.
        deadline_s: Longest time for one operation, all retries together.
        bound: Whether files of credentials must name the server that they are for: where somebody else than the owner of the files may
            say which server it is, credentials without a name would go to whichever that is.

    Raises:
        BadVaultSettings: One of them cannot be used.
    """

    address: str
    mount: str = "transit"
    auth_mount: str = "approle"
    namespace: str | None = None
    ca_file: Path | None = None
    credentials: Path | None = None
    approle: AppRole | None = None
    token: str | None = field(default=None, repr=False)
    deadline_s: float = 10.0
    bound: bool = False

    def __post_init__(self) -> None:
        _check_address(self.address)
        for what, mount in (("BYOK_VAULT_MOUNT", self.mount), ("BYOK_VAULT_AUTH_MOUNT", self.auth_mount)):
            if not _MOUNT.match(mount) or ".." in mount:
                raise BadVaultSettings(f"{what} is not the path of a mount", hint="for example transit, or teams/transit")
        if self.ca_file is not None and not self.ca_file.is_file():
            raise BadVaultSettings(f"there is no file {self.ca_file}", hint="BYOK_VAULT_CA_FILE names a PEM file")
        for what, secret in (("token", self.token), ("secret id", self.approle and self.approle.secret_id)):
            if secret is not None and not (secret and secret.isascii() and secret.isprintable() and " " not in secret):
                raise BadVaultSettings(
                    f"the {what} for Vault is empty or has characters that no HTTP header can carry", hint="give it alone"
                )
        if not 0 < self.deadline_s <= 300:
            raise BadVaultSettings("BYOK_VAULT_DEADLINE_S lies between 0 and 300 seconds", hint="10 is the default")

    @classmethod
    def from_environment(cls, home: Home, environment: Mapping[str, str] | None = None) -> VaultSettings | None:
        """The settings that the `BYOK_VAULT_…` variables give; None when Vault is not configured.

        Raises:
            BadVaultSettings: One of them cannot be used.
            KeyStoreDenied: A file with a secret can be read by others.
        """
        env = os.environ if environment is None else environment
        address = env.get("BYOK_VAULT_ADDR", "").strip()
        if not address:
            return None
        folder = env.get("BYOK_VAULT_CREDENTIALS")
        ca_file = env.get("BYOK_VAULT_CA_FILE")
        role_id, secret_id = env.get("BYOK_VAULT_ROLE_ID"), _secret(env, "BYOK_VAULT_SECRET_ID")
        if bool(role_id) != bool(secret_id):
            raise BadVaultSettings(
                "an AppRole takes both a role id and a secret id", hint="BYOK_VAULT_ROLE_ID and BYOK_VAULT_SECRET_ID_FILE"
            )
        try:
            deadline_s = float(env.get("BYOK_VAULT_DEADLINE_S") or 10)
        except ValueError:
            deadline_s = -1.0
        return cls(
            address=address.rstrip("/"),
            mount=(env.get("BYOK_VAULT_MOUNT") or "transit").strip("/"),
            auth_mount=(env.get("BYOK_VAULT_AUTH_MOUNT") or "approle").strip("/"),
            namespace=env.get("BYOK_VAULT_NAMESPACE") or None,
            ca_file=Path(ca_file).expanduser() if ca_file else None,
            credentials=Path(folder).expanduser() if folder else home.vault_credentials,
            approle=AppRole(role_id, secret_id) if role_id and secret_id else None,
            token=_secret(env, "BYOK_VAULT_TOKEN"),
            deadline_s=deadline_s,
        )

    def login_of(self, role: Role) -> AppRole | str | None:
        """How this process becomes a role: an AppRole, a token, or None when it cannot.

        Raises:
            KeyStoreDenied: The file can be read by others, or is none.
            BadVaultSettings: The file is for another server.
        """
        path = self.credentials / f"{role}.json" if self.credentials is not None else None
        if path is not None and path.exists():
            told = _read_private(path)
            try:
                found = orjson.loads(told)
                approle, server = AppRole(str(found["role_id"]), str(found["secret_id"])), found.get("address")
            except (ValueError, KeyError, TypeError, AttributeError):
                raise KeyStoreDenied(f"{path} does not hold a role_id and a secret_id", hint="make it anew: byok vault setup") from None
            if server != self.address and (server is not None or self.bound):
                raise BadVaultSettings(
                    f"{path} is not for the server {self.address}: nothing of it is sent there", hint="make it anew: byok vault setup"
                )
            return approle
        return self.approle or self.token


def _check_address(address: str) -> None:
    hint = "write it like https://vault.example:8200"
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise BadVaultSettings("the address of Vault cannot be read", hint=hint) from None
    if (
        parts.scheme not in ("http", "https")
        or not host
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
        or parts.path not in ("", "/")
    ):
        raise BadVaultSettings("the address of Vault is not a plain http or https address", hint=hint)
    if parts.scheme == "http" and not _loopback(host):
        raise BadVaultSettings("plain http would show tokens and keys to the network", hint=hint)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _secret(env: Mapping[str, str], name: str) -> str | None:
    """A secret from a variable, or from the file that `<name>_FILE` names."""
    if env.get(name):
        return env[name].strip()
    named = env.get(f"{name}_FILE")
    return _read_private(Path(named).expanduser()).strip() if named else None


def _read_private(path: Path) -> str:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise BadVaultSettings(f"{path} cannot be read", hint="it should hold a secret for Vault, readable by you alone") from None
    if mode & 0o077:
        raise KeyStoreDenied(f"{path} can be read by others (mode {mode:o})", hint=f"chmod 600 {path}")
    return text
