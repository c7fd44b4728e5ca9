"""Probe a model that is registered, or is about to be: with its own payload, by its tags, and with a note of all that was asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from byok.endpoint import EndpointClient, EndpointError, ProbeResult, probe
from byok.endpoint.capabilities import embeds_only
from byok.endpoint.probing.full import OWN_LIMITS, full_probe
from byok.endpoint.probing.record import ProbeLog
from byok.engine.plan import ModelRef
from byok.registry.keyring import Keyring, in_use, make_client
from byok.registry.models import Model

Cause = Literal["register", "update", "command", "schedule"]
Progress = Callable[[str], None]
"""Told what is being looked at, in words."""


def silent(what: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Probed:
    """One probe outside a run, as it is stored.

    Attributes:
        cause: Why it was made.
        full: Whether the capabilities were asked for.
        log: The requests to the model.
        found: What it found; None when it failed.
        error: Why it failed; None when it did not.
    """

    cause: Cause
    full: bool
    log: ProbeLog
    found: ProbeResult | None
    error: EndpointError | None


async def probe_with(
    model: Model, secret: str | None, cause: Cause, *, full: bool = False, progress: Progress = silent, log: ProbeLog | None = None
) -> tuple[Probed, ProbeResult]:
    """Probe a model, which need not be stored yet, with credentials in clear; `log` notes what was asked, also when it fails.

    Returns:
        The probe, and what it found.

    Raises:
        EndpointError: It does not answer as it should.
    """
    log = ProbeLog() if log is None else log
    with in_use(secret):
        async with make_client(for_probe(model.ref()), secret, connections=1) as client:
            found = await _probe(client, model, log, full=full, progress=progress)
    return Probed(cause, full, log, found, None), found


async def probe_stored(keyring: Keyring, model: Model, cause: Cause, *, full: bool = False, progress: Progress = silent) -> Probed:
    """Probe a registered model with its own key; an endpoint that fails is a finding, not an error.

    Raises:
        ByokError: The key does not open; see `Keyring.open_key`.
    """
    log = ProbeLog()
    try:
        async with keyring.client(for_probe(model.ref()), model.org_id, connections=1) as client:
            return Probed(cause, full, log, await _probe(client, model, log, full=full, progress=progress), None)
    except EndpointError as error:
        return Probed(cause, full, log, None, error)


async def _probe(client: EndpointClient, model: Model, log: ProbeLog, *, full: bool, progress: Progress) -> ProbeResult:
    if full:
        return await full_probe(client, tags=model.tags, owners=model.extra_payload.keys(), log=log, progress=progress)
    return await probe(client, embeddings=embeds_only(model.tags), log=log)


def for_probe(ref: ModelRef) -> ModelRef:
    """The model without the owner's own limits of the answer, which would set what a probe costs."""
    payload: dict[str, Any] = {name: value for name, value in ref.extra_payload.items() if name not in OWN_LIMITS}
    return ref.model_copy(update={"extra_payload": payload})
