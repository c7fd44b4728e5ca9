"""Everything that a command or a task works with, opened once from the environment."""

from __future__ import annotations

from dataclasses import dataclass

from byok.access import Actor, actor_from_environment
from byok.control import ControlPlane, open_control
from byok.datasets import Datasets
from byok.grading import Judges
from byok.home import Home
from byok.keystore import KeyStore, open_keystore
from byok.registry import Registry
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


def open_services(home: Home | None = None) -> Services:
    """Open the installation that the environment names, as the member whose token it holds.

    Raises:
        NotInitialised: `byok init` has not been run.
        NotPermitted: There is no token, or it is not valid.
        OutsideError: The key store does not answer.
    """
    home = (home or Home.from_environment()).require()
    control = open_control(home.database_url)
    actor = actor_from_environment(control, home)
    keystore = open_keystore(home)
    warehouse = Warehouse(home.warehouse, home.spool)
    registry = Registry(control, keystore, warehouse)
    return Services(
        home=home,
        control=control,
        keystore=keystore,
        warehouse=warehouse,
        actor=actor,
        registry=registry,
        datasets=Datasets(control, home.datasets, warehouse),
        judges=Judges(control, registry),
    )
