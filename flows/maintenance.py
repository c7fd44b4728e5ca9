"""Maintenance of the key store: rotate the organisation's key, rewrap what was sealed with older versions, retire those."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.rewrap import rewrap


@flow(name="rotate_transit", persist_result=False, validate_parameters=True)
def rotate_transit(rotate: bool = True) -> State[Any]:
    """Rotate, rewrap, verify, retire. An interrupted rotation is finished first; no key is opened on the way.

    Args:
        rotate: Make a new version (at most one in 20 hours); without it, only what an older version sealed is rewrapped.
    """
    done = rewrap(rotate)
    return Completed(message=f"{done.secrets} key(s) sealed with version {done.version}, {done.rewrapped} of them rewrapped")
