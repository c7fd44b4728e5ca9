"""How a model stands: its row in the control plane, and its health by the checks in a row."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, select, update

from byok.access import Actor, AuditLog
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import model as model_table
from byok.endpoint import EndpointError
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


class Standing:
    """Records what checks find.

    Args:
        control: Where models are stored.
        audit: Where a change of health is recorded.
    """

    def __init__(self, control: ControlPlane, audit: AuditLog) -> None:
        self._control, self._audit = control, audit

    def record(self, actor: Actor, model: Model, error: EndpointError | None) -> Model:
        """Count a check of a model; the model as it is then.

        A change of health is a new revision and an audit entry; anything else is not. A check of what the model was before somebody
        moved, rotated or disabled it counts for nothing.

        Args:
            actor: Who checked.
            model: The model as it was checked.
            error: Why the check failed; None when the model answered.
        """
        while True:
            with self._control.read() as connection:
                row = connection.execute(select(model_table).where(model_table.c.id == model.id)).one()
            now = Model.of(row)
            if (now.status, now.key_version, now.base_url) != ("active", model.key_version, model.base_url):
                return now
            try:
                return self._count(actor, now, error)
            except _Again:
                continue

    def _count(self, actor: Actor, model: Model, error: EndpointError | None) -> Model:
        health, failures = health_after(model.health, model.health_failures, error)
        values: dict[str, Any] = {"health": health, "health_failures": failures, "checked_at": utcnow()}
        if health == model.health:
            with self._control.write() as connection:
                self._write(connection, model, values)
            return model.with_(**values)
        values |= {"revision": model.revision + 1, "updated_at": utcnow()}
        told = {"before": model.health, "health": health, "failures": failures, "reason": None if error is None else error.code}
        with self._audit.act(actor, "model.health", model.key, **told) as connection:
            self._write(connection, model, values)
        return model.with_(**values)

    @staticmethod
    def _write(connection: Connection, model: Model, values: dict[str, Any]) -> None:
        same = [model_table.c[name] == getattr(model, name) for name in ("id", "status", "revision", "health", "health_failures")]
        if connection.execute(update(model_table).where(*same).values(**values)).rowcount != 1:
            raise _Again
