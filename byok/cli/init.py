"""`byok init`: make an installation."""

from __future__ import annotations

from dataclasses import dataclass

from byok.cli.output import Json, emit
from byok.home import Home, private_dir, write_private

WORKER = "worker"
"""Name of the service member that `byok up` starts workers as."""

WELCOME_ECU = "1000"
"""What a new organisation is given, so that its first runs need no top-up: 20,000 judge calls by the rate card that ships."""

_BRING_KEYS = "to use it from here too, bring its signing key (BYOK_SIGNING_KEY_FILE), and its Vault settings or key file (BYOK_KEK_FILE)"


@dataclass(frozen=True)
class Initialised:
    """What `initialise` did; `token` is set only when it was made just now."""

    made: bool
    org: str
    owner: str
    token: str | None

    def __repr__(self) -> str:
        return f"Initialised(made={self.made}, org={self.org!r})"


def init(*, org: str, owner: str, credit: str = WELCOME_ECU, json: Json = False) -> None:
    """Create the stores, the first organisation and its owner; running it again changes nothing.

    The owner's token is shown once and kept in a file that only you can read.

    Args:
        org: Name of the organisation: lower-case letters, digits, dashes.
        owner: E-mail address of its owner.
        credit: ECU that a new organisation is given, to begin with.
        json: Print JSON of a stable shape instead of text.
    """
    home = Home.from_environment()
    done = initialise(home, org, owner, credit)
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


def initialise(home: Home, org: str, owner: str, credit: str = WELCOME_ECU) -> Initialised:
    """Make an installation, or finish one that was interrupted half way, or upgrade its stores.

    Raises:
        BadAmount: The credit is no amount of ECU; nothing is made.
        BadOrganisation: The name or the address cannot be used; nothing is made.
        OrganisationExists: The installation is another organisation's, the organisation is another owner's, or it was made from another
            home and this one does not have its signing key.
    """
    from byok.access import (
        OrganisationExists,
        check_belongs,
        check_organisation,
        create_org,
        create_signing_key,
        ensure_service_member,
        find_org,
        has_entries,
        kept_token_ended,
        reissue,
        service_member_id,
    )
    from byok.app import open_audit, open_ledger
    from byok.control import migrate, open_control
    from byok.keystore import create_kek
    from byok.ledger import ship
    from byok.money import micro_ecu
    from byok.warehouse import Warehouse

    check_organisation(org, owner)
    given = micro_ecu(credit, what="--credit")
    complete = home.initialised
    for folder in (home.root, home.data, home.datasets, home.spool, home.runs, home.warehouse):
        private_dir(folder)
    changed = migrate(home.database_url)
    control = open_control(home.database_url)
    try:
        check_belongs(home, control, org)
        known = find_org(control, org)
        # The keys come before the organisation, so a home without them is another one's, not an interrupted one. An installation that was
        # made before there was an audit log gets its signing key now; a lost key is never replaced silently.
        if known is None or (complete and not has_entries(control, known)):
            create_signing_key(home.signing_key_file)
        if known is None:
            create_kek(home)
        if known is not None and not complete and not home.signing_key_file.exists():
            raise OrganisationExists(f"the organisation {org!r} was made from another home", hint=_BRING_KEYS, org=org)
        audit = open_audit(home, control)
        if known is not None and not complete and audit.verify(known).bad_seq is not None:
            raise OrganisationExists(f"the signing key here is not that of the organisation {org!r}", hint=_BRING_KEYS, org=org)
        home.belong_to(org)
        created = create_org(control, org, owner, audit)
        token = created.token
        # One that was never kept, or is at its end. A lost one is not replaced by itself: its owner may keep it elsewhere.
        if token is None and (not complete or home.token_file.exists()) and kept_token_ended(control, home.token_file):
            audit.record("done", "token.reissue", owner, chain=created.org_id, actor="byok init")
            token = reissue(control, created.member_id)
        if token is not None:
            write_private(home.token_file, token + "\n")
        worker = ensure_service_member(control, created.org_id, WORKER)
        if worker is None and kept_token_ended(control, home.worker_token_file):
            member_id = service_member_id(control, created.org_id, WORKER)
            audit.record("done", "token.reissue", WORKER, chain=created.org_id, actor="byok init")
            worker = None if member_id is None else reissue(control, member_id)
        if worker is not None:
            write_private(home.worker_token_file, worker + "\n")
        if given:
            open_ledger(home, control, audit).welcome(created.org_id, given)
        warehouse = Warehouse(home.warehouse, home.spool)
        # What a new warehouse is to show is loaded together with its tables.
        new = not warehouse.snapshot.exists() and ship(control, warehouse, created.org_id)
        published = warehouse.migrate().published
        if not new and ship(control, warehouse, created.org_id):
            warehouse.drain()
    finally:
        control.close()
    if not complete:
        write_private(home.data / "initialised", "")
    return Initialised(not complete or changed or (published and not complete), org, owner, token)
