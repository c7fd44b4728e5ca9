"""Move all keys of an organisation from one key store to the other.

Each key is sealed in the new store beside the old ciphertext, and opened again to see that it is the same. When all are there, one
transaction makes the new ones count and destroys the old. Until then everything works as before; a killed move goes on where it was, and
opens what it finds again, since the new store may have lost or retired its keys meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select, update

from byok.access import ORG_ADMIN, Actor, AuditLog, require
from byok.control import ControlPlane
from byok.control.tables import keystore_rotation, model, model_secret
from byok.errors import ByokError
from byok.keystore import KeyStore, SealContext
from byok.registry.errors import MigrationIncomplete, RotationUnderWay
from byok.registry.rewrap import Progress


class _NotReady(Exception):
    """A key has come that is not in the new store yet."""


@dataclass(frozen=True)
class Migrated:
    """How a move ended.

    Attributes:
        to: The store that the keys are in now.
        moved: Keys that were moved by this call.
        keys: Keys that there are.
        cleaned: Whether the control plane let go of the space that held the old ciphertexts; False while others use it.
    """

    to: str
    moved: int
    keys: int
    cleaned: bool


class Migration:
    """Moves keys.

    Args:
        control: Where the sealed keys are.
        source: The store that they are in; opens them.
        target: The store that they go to; seals them, and opens them once to check.
        audit: Where it is recorded.
    """

    def __init__(self, control: ControlPlane, source: KeyStore, target: KeyStore, audit: AuditLog) -> None:
        self._control, self._source, self._target, self._audit = control, source, target, audit

    def run(self, actor: Actor, *, progress: Progress = lambda done, all_: None) -> Migrated:
        """Move all keys of the actor's organisation; the same call again moves what is left.

        Raises:
            ScopeMissing: The actor lacks `org:admin`.
            MigrationIncomplete: Some keys do not open or do not arrive whole; all stay where they were.
            RotationUnderWay: A rotation of the organisation's key is not finished.
            ByokError: One of `byok.keystore.errors`.
        """
        require(actor, ORG_ADMIN, "keystore.migrate")
        self._refuse_rotating(actor)
        self._recheck(actor)
        first_error: ByokError | None = None
        while True:
            waiting = self._waiting(actor)
            if not waiting:
                try:
                    moved = self._switch(actor)
                    break
                except _NotReady:
                    continue  # a key was registered or rotated meanwhile
            done = 0
            for row in waiting:
                try:
                    done += self._move(row)
                except ByokError as error:
                    first_error = first_error or error
                    if error.retryable:
                        raise  # the store is away: nothing else would go through
                    self._audit.by(actor, "failed", "key.migrate", row.key, version=row.version, reason=error.code)
                progress(done, len(waiting))
            if first_error is not None:
                raise self._failed(actor, first_error, len(waiting) - done)
        # The old ciphertexts are overwritten where they stood; this gives up the pages and the log that may still hold them.
        return Migrated(self._target.name, moved, self._count(actor), self._control.compact())

    def _refuse_rotating(self, actor: Actor) -> None:
        unfinished = select(func.count()).where(keystore_rotation.c.org_id == actor.org_id, keystore_rotation.c.finished_at.is_(None))
        with self._control.read() as connection:
            if connection.execute(unfinished).scalar():
                raise RotationUnderWay("a rotation of the organisation's key is not finished", hint="finish it first: byok vault rewrap")

    def _recheck(self, actor: Actor) -> None:
        """Open what an interrupted move left; what does not open to the same key is moved again."""
        ready = (*self._mine(actor), model_secret.c.store != self._target.name, model_secret.c.next_store == self._target.name)
        with self._control.read() as connection:
            rows = list(connection.execute(select(model_secret).where(*ready)))
        for row in rows:
            context = SealContext(row.org_id, row.model_id, row.version, row.origin)
            try:
                same = self._target.open(row.next_sealed, context) == self._source.open(row.sealed, context)
            except ByokError as error:
                if error.retryable:
                    raise
                same = False
            if not same:
                this = (model_secret.c.model_id == row.model_id, model_secret.c.version == row.version)
                with self._control.write() as connection:
                    connection.execute(update(model_secret).where(*this).values(next_store=None, next_sealed=None, next_fingerprint=None))

    def _waiting(self, actor: Actor) -> list[Row[Any]]:
        not_ready = model_secret.c.next_store.is_(None) | (model_secret.c.next_store != self._target.name)
        mine = (*self._mine(actor), model_secret.c.store != self._target.name, not_ready)
        query = select(model_secret, model.c.key).join(model, model.c.id == model_secret.c.model_id).where(*mine)
        with self._control.read() as connection:
            return list(connection.execute(query.order_by(model_secret.c.model_id, model_secret.c.version)))

    def _move(self, row: Row[Any]) -> int:
        context = SealContext(row.org_id, row.model_id, row.version, row.origin)
        secret = self._source.open(row.sealed, context)
        sealed = self._target.seal(secret, context)
        if self._target.open(sealed, context) != secret:
            raise MigrationIncomplete("a key did not arrive whole in the new store", hint="nothing was changed; try again")
        values = {
            "next_store": self._target.name,
            "next_sealed": sealed,
            "next_fingerprint": self._target.fingerprint(secret, row.org_id),
        }
        mine = (model_secret.c.model_id == row.model_id, model_secret.c.version == row.version, model_secret.c.sealed == row.sealed)
        with self._control.write() as connection:
            return connection.execute(update(model_secret).where(*mine).values(**values)).rowcount

    def _switch(self, actor: Actor) -> int:
        """Make the new ciphertexts count, all in one transaction; return how many.

        Raises:
            _NotReady: One is missing.
        """
        old = (*self._mine(actor), model_secret.c.store != self._target.name)
        with self._audit.act(actor, "keystore.migrate", self._target.name) as connection:
            ready = (*old, model_secret.c.next_store == self._target.name)
            count = select(func.count()).select_from(model_secret)
            if connection.execute(count.where(*old)).scalar() != connection.execute(count.where(*ready)).scalar():
                raise _NotReady
            moved = connection.execute(
                update(model_secret)
                .where(*ready)
                .values(
                    store=model_secret.c.next_store,
                    sealed=model_secret.c.next_sealed,
                    fingerprint=model_secret.c.next_fingerprint,
                    next_store=None,
                    next_sealed=None,
                    next_fingerprint=None,
                )
            ).rowcount
        return moved

    def _count(self, actor: Actor) -> int:
        with self._control.read() as connection:
            return connection.execute(select(func.count()).select_from(model_secret).where(*self._mine(actor))).scalar() or 0

    @staticmethod
    def _mine(actor: Actor) -> tuple[ColumnElement[bool], ...]:
        return model_secret.c.org_id == actor.org_id, model_secret.c.sealed.is_not(None)

    def _failed(self, actor: Actor, error: ByokError, left: int) -> MigrationIncomplete:
        self._audit.by(actor, "failed", "keystore.migrate", self._target.name, reason=error.code, left=left)
        return MigrationIncomplete(
            f"{left} key(s) were not moved ({error.code}: {error.message}); all keys stay where they were",
            hint="byok audit list --refused names them; byok model rotate KEY --compromised each, then run this again",
            left=left,
        )
