"""How a model stands: its row in the control plane, and its health by the checks in a row."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select, update

from byok.access import Actor, AuditLog
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import model as model_table
from byok.endpoint import EndpointError
from byok.errors import Field
from byok.pricing import write_entry
from byok.registry.errors import ModelChanged
from byok.registry.models import Model

FAILURES: Final = 3
"""Failed checks in a row after which a model is no longer called ok: one or two may be a restart, or a full queue."""

CONNECTION_LIKE: Final = frozenset(
    {
        "endpoint_unreachable",
        "endpoint_tls",
        "endpoint_timeout",
        "endpoint_not_openai",
        "endpoint_redirect",
        "endpoint_forbidden_address",
    }
)
"""Errors by which no model is reached at all. After any other one something answers, and does not work."""


_CHECKED = ("key_version", "base_url", "remote_id", "provider", "extra_payload", "tags")
"""What a check is about: when one of these changes, it was the check of another model."""


Findings = Callable[[Model], dict[str, Any]]
"""From a model as it is stored to its new capabilities."""


class _Again(Exception):
    """Somebody else has recorded a check meanwhile; nothing is written."""


def health_after(health: str, failures: int, error: EndpointError | None) -> tuple[str, int]:
    """Health, and failed checks in a row, after one more check.

    Args:
        health: What it was: unknown, ok, degraded or unreachable.
        failures: Failed checks in a row before.
        error: Why the check failed; None when the model answered.
    """
    if error is None:
        return "ok", 0
    failures += 1
    if failures < FAILURES:
        return health, failures
    return "unreachable" if error.code in CONNECTION_LIKE else "degraded", failures


def store(connection: Connection, model: Model, **values: Any) -> Model:
    """Write changed columns of a model, as a new revision.

    Raises:
        ModelChanged: Somebody else has changed it since it was read.
    """
    changed = model.with_(**values, revision=model.revision + 1, updated_at=utcnow())
    stored = {**values, "revision": changed.revision, "updated_at": changed.updated_at}
    done = connection.execute(
        update(model_table).where(model_table.c.id == model.id, model_table.c.revision == model.revision).values(**stored)
    )
    if done.rowcount != 1:
        raise ModelChanged(f"somebody else changed {model.key!r} meanwhile", hint="look at it: byok model show " + model.key)
    return changed


def enter_price(
    connection: Connection, actor: Actor, model: Model, *, before: Model | None = None, effective_from: datetime | None = None
) -> None:
    """Enter the prices of a model in the price book, when they are new.

    Args:
        connection: The transaction that writes the model.
        actor: Who, as somebody else has allowed.
        model: The model as it is from now on.
        before: The model as it was; None: there was none.
        effective_from: From when on they hold; None: now.
    """
    old = (None, None) if before is None else (before.price_input, before.price_output)
    if (model.price_input, model.price_output) != old:
        start, prices = effective_from or utcnow(), {"input": model.price_input, "output": model.price_output}
        write_entry(connection, model.org_id, model.id, actor.member_id, "token", start, **prices)


class Standing:
    """Records what checks find.

    Args:
        control: Where models are stored.
        audit: Where a change of health is recorded.
    """

    def __init__(self, control: ControlPlane, audit: AuditLog) -> None:
        self._control, self._audit = control, audit

    def record(
        self,
        actor: Actor,
        model: Model,
        error: EndpointError | None,
        findings: Callable[[Model], dict[str, Any]] | None = None,
        **told: Field,
    ) -> Model:
        """Count a check of a model, and store what it found; the model as it is then.

        A change of health, and findings, are a new revision and an audit entry; anything else is not. A check of what the model was before
        somebody moved, changed, rotated or disabled it counts for nothing, and finds nothing.

        Args:
            actor: Who checked.
            model: The model as it was checked.
            error: Why the check failed; None when the model answered.
            findings: From the model as it is then to its new capabilities; None: there are none to be stored.
            **told: What the audit entry of findings says.
        """
        while True:
            now = self.now(model)
            if any(getattr(now, name) != getattr(model, name) for name in _CHECKED) or now.status != "active":
                return now
            try:
                return self._count(actor, now, error, findings, told)
            except _Again:
                continue

    def now(self, model: Model) -> Model:
        """The model as it is stored now."""
        with self._control.read() as connection:
            return Model.of(connection.execute(select(model_table).where(model_table.c.id == model.id)).one())

    def _count(
        self,
        actor: Actor,
        model: Model,
        error: EndpointError | None,
        findings: Findings | None,
        told: dict[str, Field],
    ) -> Model:
        health, failures = health_after(model.health, model.health_failures, error)
        values: dict[str, Any] = {"health": health, "health_failures": failures, "checked_at": utcnow()}
        changes: dict[str, Field] = {"before": model.health, "health": health, "failures": failures}
        changes["reason"] = None if error is None else error.code
        if findings is None and health == model.health:
            with self._control.write() as connection:
                self._write(connection, model, values)
            return model.with_(**values)
        values |= {"revision": model.revision + 1, "updated_at": utcnow()}
        if findings is not None:
            values["capabilities"] = findings(model)
        action, detail = ("model.health", changes) if findings is None else ("model.probe", told)
        with self._audit.act(actor, action, model.key, **detail) as connection:
            self._write(connection, model, values)
        if findings is not None and health != model.health:
            self._audit.by(actor, "done", "model.health", model.key, **changes)
        return model.with_(**values)

    @staticmethod
    def _write(connection: Connection, model: Model, values: dict[str, Any]) -> None:
        same = [model_table.c[name] == getattr(model, name) for name in ("id", "status", "revision", "health", "health_failures")]
        if connection.execute(update(model_table).where(*same).values(**values)).rowcount != 1:
            raise _Again
