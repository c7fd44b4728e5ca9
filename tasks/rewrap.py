"""Rotate the organisation's key in the key store, and rewrap what was sealed with older versions."""

from __future__ import annotations

from prefect import task

from byok.registry import Rewrapped, Rewrapper
from tasks.opening import open_services
from tasks.policies import SETTINGS


@task(name="rewrap", **SETTINGS)
def rewrap(rotate: bool) -> Rewrapped:
    """Rotate and rewrap; goes on with a rotation that was interrupted."""
    services = open_services()
    return Rewrapper(services.control, services.keystore, services.audit).run(services.actor, rotate=rotate)
