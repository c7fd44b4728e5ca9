"""Checks of registered models by those who run them: on a schedule, without the right to change a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from byok.access import RUNS_WRITE, Actor, AuditLog, require
from byok.control import ControlPlane
from byok.ledger import Ledger
from byok.registry.errors import ModelIsDisabled
from byok.registry.probing import probe_stored
from byok.registry.registry import Registry
from byok.registry.reporting import Accounts, capabilities, report_model
from byok.registry.standing import Standing
from byok.warehouse import Warehouse


@dataclass(frozen=True)
class Checked:
    """How a check of one model ended.

    Attributes:
        key: Key of the model.
        health: Its health after it: unknown, ok, degraded or unreachable.
        failures: Failed checks in a row, this one included.
        error_code: Named error of a failed one; None when the model answered.
        latency_ms: Of the answered request; None when none was.
        requests: Requests to the model.
    """

    key: str
    health: str
    failures: int
    error_code: str | None
    latency_ms: float | None
    requests: int

    @property
    def ok(self) -> bool:
        """Whether the model answered."""
        return self.error_code is None

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Health:
    """Checks models.

    It takes what a run takes (`runs:write`), since it spends tokens as a run does: the worker's own member can do it.

    Args:
        control: Where models are stored.
        registry: Who opens their keys.
        warehouse: Where checks are reported to.
        audit: Where a change of health is recorded.
        ledger: What the checks of public models are drawn from.
    """

    def __init__(self, control: ControlPlane, registry: Registry, warehouse: Warehouse, audit: AuditLog, ledger: Ledger) -> None:
        self._registry, self._warehouse = registry, warehouse
        self._standing, self._accounts = Standing(control, audit), Accounts(control, ledger)

    def to_check(self, actor: Actor, keys: Sequence[str] = ()) -> list[str]:
        """Keys to check: those named, or of all models when none is; disabled models are left out.

        A key that no model has is kept: its check says so, and keeps no other from being made.

        Raises:
            ScopeMissing: The actor lacks `runs:write` or `models:read`.
        """
        require(actor, RUNS_WRITE, "model.check")
        status = {model.key: model.status for model in self._registry.list(actor)}
        return [key for key in dict.fromkeys(keys or status) if status.get(key, "active") == "active"]

    async def check(self, actor: Actor, key: str, *, full: bool = False) -> Checked:
        """Probe a model, count the outcome for its health, and store both. An endpoint that fails is a finding, not an error.

        Args:
            actor: Who checks.
            key: Key of the model.
            full: Ask for its capabilities too.

        Raises:
            ScopeMissing: The actor lacks `runs:write` or `models:read`.
            ModelNotFound, ModelIsDisabled: There is no such model, or no key for it any more.
            ByokError: The key does not open; nothing is counted. See `byok.keystore.errors`.
        """
        require(actor, RUNS_WRITE, "model.check")
        model = self._registry.get(actor, key)
        if model.status != "active":
            raise ModelIsDisabled(f"model {key!r} is disabled", hint="register it again under a new key")
        probed = await probe_stored(self._registry, model, "schedule", full=full)
        found, now = probed.found, model
        try:
            findings = None if found is None or not full else lambda now: capabilities(found, now.capabilities)
            now = self._standing.record(actor, model, probed.error, findings, scope="full")
        finally:
            report_model(self._warehouse, now, probed, asked=model, accounts=self._accounts)
        code = None if probed.error is None else probed.error.code
        return Checked(key, now.health, now.health_failures, code, None if found is None else found.latency_ms, len(probed.log.attempts))
