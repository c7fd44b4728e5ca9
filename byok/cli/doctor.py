"""`byok doctor`: is this installation sound, and if not, how is it mended?"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.text import Text

from byok.cli.output import Json, emit
from byok.cli.processes import read_standing_server
from byok.errors import ByokError
from byok.home import Home
from byok.resources import shipped
from byok.text import visible

LEAST_FREE_BYTES = 500_000_000


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        ok: Whether it is as it should be.
        detail: What was found.
        mend: What to do, when it is not.
    """

    name: str
    ok: bool
    detail: str
    mend: str = ""


def doctor(*, json: Json = False) -> int:
    """Check this installation, say what is wrong and how to mend it; leaves with 1 when anything is.

    Args:
        json: Print JSON of a stable shape instead of a list.
    """
    checks = list(examine(Home.from_environment()))
    emit({"checks": [asdict(check) for check in checks]}, json=json, human=lambda out: _draw(out, checks))
    return 0 if all(check.ok for check in checks) else 1


def examine(home: Home) -> Iterator[Check]:
    """Look at everything; a check that fails does not keep the others from being made."""
    yield _python()
    yield from _versions()
    yield _shipped()
    yield Check("home", home.initialised, str(home.root), "run: byok init --org ORG --owner EMAIL")
    if not home.initialised:
        return
    yield _private("home folder", home.root)
    if not os.environ.get("BYOK_VAULT_ADDR"):
        yield _private("key-encryption key", home.kek_file)
    yield _private("signing key", home.signing_key_file)
    if home.worker_token_file.exists():
        yield _private("worker token file", home.worker_token_file)
    yield _room(home)
    yield _guarded("control plane", lambda: _control(home))
    yield _guarded("member token", lambda: _token(home))
    yield _guarded("worker token", lambda: _worker(home))
    yield _guarded("key store", lambda: _keystore(home))
    yield _guarded("audit log", lambda: _audit(home))
    yield _guarded("ECU ledger", lambda: _ledger(home))
    yield _guarded("warehouse", lambda: _warehouse(home))
    yield _rejected(home)
    yield _guarded("endpoint allow-list", _allowed)
    server = read_standing_server(home)
    yield Check("server", True, f"running at {server}" if server else "none is running (byok up starts one; byok evaluate does without)")


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer")


def _versions() -> Iterator[Check]:
    for name, wanted in (("prefect", "3.8.8"), ("duckdb", "1.5"), ("fastapi", "")):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Check(name, False, "not installed", "run: make setup")
            continue
        good = found.startswith(wanted) and (name != "fastapi" or tuple(map(int, found.split(".")[:2])) < (0, 151))
        yield Check(name, good, found, "run: make setup (the lock holds versions that work together)")


def _shipped() -> Check:
    missing = [name for name in ("data/judges", "data/rates", "data/datasets", "deployments/prefect.yaml") if not shipped(name).exists()]
    return Check("shipped files", not missing, "all there" if not missing else "missing: " + ", ".join(missing), "install byok again")


def _private(name: str, path: Path) -> Check:
    if not path.exists():
        return Check(name, False, f"{path} does not exist", "restore it from a backup, or point its variable at the right place")
    mode = stat.S_IMODE(path.stat().st_mode)
    right = "700" if path.is_dir() else "600"
    return Check(name, mode & 0o077 == 0, f"{path} has mode {mode:o}", f"run: chmod {right} {path}")


def _room(home: Home) -> Check:
    free = shutil.disk_usage(home.root).free
    return Check("disk", free >= LEAST_FREE_BYTES, f"{free // 1_000_000} MB free", "make room: runs need some 2 KB a row")


def _guarded(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except ByokError as error:
        return Check(name, False, error.message, error.hint)


def _control(home: Home) -> str:
    from byok.control import open_control

    control = open_control(home.database_url)
    control.close()
    return "answers, and is of this version"


def _token(home: Home) -> str:
    from byok.access import actor_from_environment
    from byok.control import open_control

    control = open_control(home.database_url)
    try:
        actor = actor_from_environment(control, home)
    finally:
        control.close()
    return f"{actor.email}, {actor.role} of {actor.org_slug}"


def _worker(home: Home) -> str:
    from byok.access import authenticate
    from byok.control import open_control
    from byok.errors import InputError

    if not home.worker_token_file.exists():
        raise InputError("the worker has no token", hint="run byok init again with the same organisation and owner")
    control = open_control(home.database_url)
    try:
        token = home.worker_token_file.read_text(encoding="utf-8").strip()
        actor = authenticate(control, token, organisation=home.organisation)
    finally:
        control.close()
    return f"{actor.email}, {actor.role}"


def _keystore(home: Home) -> str:
    from byok.ids import new_id
    from byok.keystore import SealContext, open_keystore

    store = open_keystore(home)
    if store.name == "transit":
        return _vault(home)
    context = SealContext(org_id=new_id(), model_id=new_id(), key_version=1, origin="https://doctor.invalid:443")
    sealed = store.seal("doctor", context)
    if store.open(sealed, context) != "doctor":
        from byok.keystore import SecretIntegrity

        raise SecretIntegrity("a sealed text did not come back", hint="restore the key-encryption key from a backup")
    return f"{store.name} store seals and opens"


def _vault(home: Home) -> str:
    from byok.app import open_services
    from byok.cli.vault import examine_keystore
    from byok.errors import OutsideError

    services = open_services(home)
    try:
        told = examine_keystore(services)
    finally:
        services.control.close()
    if not told["ok"]:
        raise OutsideError(str(told["error"]), hint="see: byok vault status")
    roles = ", ".join(f"{role} {state}" for role, state in told.get("roles", {}).items())
    return f"Vault {told.get('version')} at {told['address']} is {told['state']}; {roles}"


def _ledger(home: Home) -> str:
    from byok.access import actor_from_environment
    from byok.app import open_audit, open_ledger
    from byok.control import open_control
    from byok.errors import OutsideError

    control = open_control(home.database_url)
    try:
        ledger = open_ledger(home, control, open_audit(home, control))
        found = ledger.check(actor_from_environment(control, home).org_id)
    finally:
        control.close()
    if found.bad is not None:
        raise OutsideError(f"{found.bad}: {found.reason}", hint="see: byok bill verify; compare with a backup")
    return f"{found.transactions} transactions, signed and chained"


def _audit(home: Home) -> str:
    from byok.access import actor_from_environment
    from byok.app import open_audit
    from byok.control import open_control
    from byok.errors import OutsideError

    control = open_control(home.database_url)
    try:
        audit = open_audit(home, control)
        found = audit.verify(actor_from_environment(control, home).org_id)
    finally:
        control.close()
    if found.bad_seq is not None:
        raise OutsideError(f"entry {found.bad_seq} is {found.reason}", hint="see: byok audit verify; compare with a backup")
    return f"whole, {found.entries} entries"


def _warehouse(home: Home) -> str:
    from byok.warehouse import Warehouse

    warehouse = Warehouse(home.warehouse, home.spool)
    warehouse.drain()
    (row,) = warehouse.query("SELECT count(*) FROM v1.runs").rows
    return f"snapshot answers, {row[0]} run(s)"


def _rejected(home: Home) -> Check:
    rejected = sorted((home.spool / "segments" / "rejected").glob("*.ndjson"))
    return Check(
        "segments",
        not rejected,
        f"{len(rejected)} rejected",
        f"read the .reason files in {home.spool / 'segments' / 'rejected'} and report them",
    )


def _allowed() -> str:
    from byok.endpoint import EgressPolicy

    EgressPolicy.from_environment()
    return os.environ.get("BYOK_ENDPOINT_ALLOW") or "empty: only public https endpoints"


def _draw(out: Console, checks: list[Check]) -> None:
    for check in checks:
        mark = Text("ok   ", style="green") if check.ok else Text("wrong", style="bold red")
        out.print(Text.assemble(mark, f" {check.name}: {visible(check.detail)}"), soft_wrap=True)
        if not check.ok and check.mend:
            out.print(Text(f"      mend: {visible(check.mend)}"), soft_wrap=True)
