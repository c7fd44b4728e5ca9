"""`byok init`: make an installation."""

from __future__ import annotations

from dataclasses import dataclass

from byok.cli.output import Json, emit
from byok.home import Home, private_dir, write_private

WORKER = "worker"
"""Name of the service member that `byok up` starts workers as."""


@dataclass(frozen=True)
class Initialised:
    """What `initialise` did; `token` is set only when it was made just now."""

    made: bool
    org: str
    owner: str
    token: str | None

    def __repr__(self) -> str:
        return f"Initialised(made={self.made}, org={self.org!r})"


def init(*, org: str, owner: str, json: Json = False) -> None:
    """Create the stores, the first organisation and its owner; running it again changes nothing.

    The owner's token is shown once and kept in a file that only you can read.

    Args:
        org: Name of the organisation: lower-case letters, digits, dashes.
        owner: E-mail address of its owner.
        json: Print JSON of a stable shape instead of text.
    """
    home = Home.from_environment()
    done = initialise(home, org, owner)
    told = {
        "made": done.made,
        "org": org,
        "owner": owner,
        "home": str(home.root),
        "token": done.token,
        "token_file": str(home.token_file),
    }

    def draw(out: object) -> None:
        if not done.made:
            print(f"nothing to do: {home.root} is the installation of {org}")
            return
        print(f"installation:  {home.root}\norganisation:  {org}\nowner:         {owner}")
        if done.token:
            print(f"member token:  {done.token}\n               (shown this once; kept in {home.token_file}, readable by you alone)")
        print("next:          byok model register --help")

    emit({"init": told}, json=json, human=draw)


def initialise(home: Home, org: str, owner: str) -> Initialised:
    """Make an installation, or finish one that was interrupted half way, or upgrade its stores.

    Raises:
        BadOrganisation: The name or the address cannot be used; nothing is made.
        OrganisationExists: The installation is another organisation's, or the organisation is another owner's.
    """
    from byok.access import (
        check_belongs,
        check_organisation,
        create_org,
        create_signing_key,
        ensure_service_member,
        has_entries,
        reissue,
        service_member_id,
    )
    from byok.app import open_audit
    from byok.control import migrate, open_control
    from byok.keystore import create_kek
    from byok.warehouse import Warehouse

    check_organisation(org, owner)
    complete = home.initialised
    for folder in (home.root, home.data, home.datasets, home.spool, home.runs, home.warehouse):
        private_dir(folder)
    changed = migrate(home.database_url)
    control = open_control(home.database_url)
    try:
        check_belongs(home, control, org)
        created = create_org(control, org, owner)
        if not complete:
            create_kek(home)
        # An installation that was made before there was an audit log gets its key now; a lost key is never replaced silently.
        if (not complete or not has_entries(control)) and create_signing_key(home.signing_key_file):
            open_audit(home, control).record("done", "org.create", org, chain=created.org_id, member_id=created.member_id, actor=owner)
        token = created.token
        if token is None and not complete and not home.token_file.exists():
            # Interrupted after the organisation was made and before its token was kept.
            token = reissue(control, created.member_id)
        if token is not None:
            write_private(home.token_file, token + "\n")
        worker = ensure_service_member(control, created.org_id, WORKER)
        if worker is None and not home.worker_token_file.exists():
            member_id = service_member_id(control, created.org_id, WORKER)
            worker = None if member_id is None else reissue(control, member_id)
        if worker is not None:
            write_private(home.worker_token_file, worker + "\n")
    finally:
        control.close()
    published = Warehouse(home.warehouse, home.spool).migrate().published
    if not complete:
        write_private(home.data / "initialised", "")
    return Initialised(not complete or changed or (published and not complete), org, owner, token)
