"""Everything that a command or a task works with, opened once from the environment."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Literal

from byok.access import Actor, Administration, AuditLog, Grants, actor_from_environment, read_signing_key
from byok.access.heads import Heads
from byok.control import ControlPlane, open_control
from byok.datasets import Datasets
from byok.grading import Judges
from byok.home import Home
from byok.keystore import KeyStore, VaultSettings, open_keystore
from byok.ledger import Ledger
from byok.pricing import PriceBook
from byok.registry import FrontDoor, Health, Registry
from byok.warehouse import Warehouse


@dataclass(frozen=True)
class Services:
    """The open parts of one installation, and who is asking."""

    home: Home
    control: ControlPlane
    keystore: KeyStore
    warehouse: Warehouse
    actor: Actor
    registry: Registry
    datasets: Datasets
    judges: Judges
    audit: AuditLog
    administration: Administration
    grants: Grants
    front_door: FrontDoor
    health: Health
    ledger: Ledger
    prices: PriceBook


def open_audit(home: Home, control: ControlPlane) -> AuditLog:
    """The audit log of an installation.

    Raises:
        SigningKeyMissing, SigningKeyExposed: Its key cannot be used.
    """
    return AuditLog(control, read_signing_key(home.signing_key_file, "audit-v1"), home.audit_heads)


def open_ledger(home: Home, control: ControlPlane, audit: AuditLog) -> Ledger:
    """The ledgers of an installation.

    Raises:
        SigningKeyMissing, SigningKeyExposed: What they are signed with cannot be used.
    """
    return Ledger(control, audit, read_signing_key(home.signing_key_file, "ledger-v1"), Heads(home.ledger_heads))


def open_services(home: Home | None = None, vault: VaultSettings | Literal["local"] | None = None) -> Services:
    """Open the installation that the environment names, as the member whose token it holds.

    Args:
        home: The installation; by default that of the environment.
        vault: Settings of Vault, or `local` for the embedded store; by default what the environment says.

    Raises:
        NotInitialised: `byok init` has not been run.
        NotPermitted: There is no token, or it is not valid.
        OutsideError: The key store's file, or the signing key, cannot be read.
    """
    # A process that may hold a key leaves no image of its memory behind.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    home = (home or Home.from_environment()).require()
    control = open_control(home.database_url)
    audit = open_audit(home, control)
    actor = actor_from_environment(control, home, audit)
    keystore = open_keystore(home, vault)
    warehouse = Warehouse(home.warehouse, home.spool)
    ledger = open_ledger(home, control, audit)
    registry = Registry(control, keystore, warehouse, audit, ledger)
    registry.sweep(actor.org_id)
    grants = Grants(control, audit, read_signing_key(home.signing_key_file, "grant-v1"))
    return Services(
        home=home,
        control=control,
        keystore=keystore,
        warehouse=warehouse,
        actor=actor,
        registry=registry,
        datasets=Datasets(control, home.datasets, warehouse),
        judges=Judges(control, registry),
        audit=audit,
        administration=Administration(control, audit),
        grants=grants,
        front_door=FrontDoor(registry, grants),
        health=Health(control, registry, warehouse, audit, ledger),
        ledger=ledger,
        prices=PriceBook(control, audit),
    )
