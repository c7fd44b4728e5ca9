"""Rotate an organisation's key in the key store, and seal everything anew with the new version.

Rotate, rewrap in chunks, look that nothing old is left, retire the old versions. Each step finds out by itself what is still to be
done, so a killed rotation goes on where it was. No secret is opened on the way: with Vault, by an identity that could not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select, update

from byok.access import ORG_ADMIN, Actor, AuditLog, require
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import keystore_rotation, model, model_secret
from byok.errors import ByokError
from byok.ids import new_id
from byok.keystore import KeyStore, SealContext
from byok.registry.errors import MigrationUnderWay, RewrapIncomplete
from byok.registry.versions import KeyVersions

CHUNK = 100
"""Secrets between two commits."""

SERVICE_NOT_WITHIN = timedelta(hours=20)
"""Service members rotate no more often: whoever reaches Prefect can start a worker's flows; a daily schedule is the most that is meant."""

Progress = Callable[[int, int], None]
"""Called with how many secrets are done, and how many there are."""


@dataclass(frozen=True)
class Rewrapped:
    """How a rotation ended.

    Attributes:
        rotated: Whether a new version was made now.
        version: The version that everything is sealed with.
        rewrapped: Secrets that were sealed anew, those of an interrupted try included.
        secrets: Secrets that there are.
    """

    rotated: bool
    version: int
    rewrapped: int
    secrets: int


class Rewrapper:
    """Rotates and rewraps.

    Args:
        control: Where the sealed keys are.
        keystore: What rewraps them.
        audit: Where it is recorded.
    """

    def __init__(self, control: ControlPlane, keystore: KeyStore, audit: AuditLog) -> None:
        self._control, self._keystore, self._audit = control, keystore, audit

    def run(self, actor: Actor, *, rotate: bool = True, progress: Progress = lambda done, all_: None) -> Rewrapped:
        """Rotate (unless told not to), rewrap, verify, retire. Goes on with a rotation that was interrupted.

        Args:
            actor: An admin, or a service member, at most every `SERVICE_NOT_WITHIN`: a schedule's runs have no person behind them, and
                nothing is opened or shown.
            rotate: Make a new version; False only rewraps what is not sealed with the newest.
            progress: Told after each chunk.

        Raises:
            ScopeMissing: The actor is neither.
            RewrapIncomplete: Some secrets could not be sealed anew; the old versions stay in force.
            KeyStoreMismatch: The keys are in another store than this process uses: nothing would be rewrapped, and it would look done.
            MigrationUnderWay: The keys are being moved to another store.
            ByokError: One of `byok.keystore.errors`.
        """
        by_service = actor.kind == "service"
        if not by_service:
            require(actor, ORG_ADMIN, "keystore.rotate")
        KeyVersions(self._control, self._keystore).check_store(actor.org_id)
        self._refuse_migrating(actor)
        under_way = self._unfinished(actor)
        rotated = under_way is None and rotate and not (by_service and self._recent(actor))
        if under_way is None:
            key = self._keystore.org_key(actor.org_id)
            secrets, old = self._count(actor, key.latest)
            if not rotated and not old and key.least == key.latest:
                return Rewrapped(False, key.latest, 0, secrets)
            under_way = self._begin(actor, key.latest, rotate=rotated)
        target = self._rotate_once(actor, under_way)
        rewrapped, failures = self._rewrap(actor, target, under_way, progress)
        secrets, old = self._count(actor, target)
        if old:
            self._fail(actor, target, old, failures)
        self._refuse_migrating(actor)
        if self._keystore.org_key(actor.org_id).least < target:
            self._keystore.retire(actor.org_id, target)
        rewrapped += under_way.rewrapped
        with self._audit.act(actor, "keystore.rotate", self._keystore.name, version=target, rewrapped=rewrapped) as connection:
            connection.execute(update(keystore_rotation).where(keystore_rotation.c.id == under_way.id).values(finished_at=utcnow()))
        return Rewrapped(rotated, target, rewrapped, secrets)

    def _begin(self, actor: Actor, latest: int, *, rotate: bool) -> Row[Any]:
        """Note what is about to happen; keys that were sealed before and arrive later are measured by it (see `KeyVersions.insert`)."""
        with self._audit.act(actor, "keystore.rotate.begin", self._keystore.name, before=latest) as connection:
            mine = (keystore_rotation.c.org_id == actor.org_id, keystore_rotation.c.store == self._keystore.name)
            unfinished = select(keystore_rotation).where(*mine, keystore_rotation.c.finished_at.is_(None))
            if connection.execute(unfinished).first() is None:
                values = {"org_id": actor.org_id, "store": self._keystore.name, "before": latest, "target": None if rotate else latest}
                connection.execute(keystore_rotation.insert().values(id=new_id(), started_at=utcnow(), rewrapped=0, **values))
            return connection.execute(unfinished).one()

    def _rotate_once(self, actor: Actor, under_way: Row[Any]) -> int:
        """The version to rewrap to; rotated exactly once, however often this is interrupted."""
        if under_way.target is not None:
            return int(under_way.target)
        key = self._keystore.org_key(actor.org_id)
        if key.latest <= under_way.before:
            key = self._keystore.rotate(actor.org_id)
        with self._control.write() as connection:
            connection.execute(update(keystore_rotation).where(keystore_rotation.c.id == under_way.id).values(target=key.latest))
        return key.latest

    def _rewrap(self, actor: Actor, target: int, under_way: Row[Any], progress: Progress) -> tuple[int, Counter[str]]:
        total, _ = self._count(actor, target)
        done, seen, failures = 0, 0, Counter[str]()
        last = ("", 0)
        while chunk := self._chunk(actor, last):
            last = (chunk[-1].model_id, chunk[-1].version)
            old, bad = [row for row in chunk if self._is_old(row, target)], list[tuple[Row[Any], ByokError]]()
            results = self._keystore.rewrap(actor.org_id, [(row.sealed, _context(row)) for row in old])
            with self._control.write() as connection:
                for row, result in zip(old, results, strict=True):
                    if isinstance(result, ByokError):
                        failures[result.code] += 1
                        bad.append((row, result))
                        continue
                    # Only over what was read: a key that was rotated or destroyed meanwhile is left alone.
                    done += connection.execute(
                        update(model_secret).where(*_is(row), model_secret.c.sealed == row.sealed).values(sealed=result)
                    ).rowcount
                connection.execute(
                    update(keystore_rotation).where(keystore_rotation.c.id == under_way.id).values(rewrapped=under_way.rewrapped + done)
                )
            for row, error in bad:
                self._audit.by(actor, "failed", "key.rewrap", row.key, version=row.version, reason=error.code)
            seen += len(chunk)
            progress(seen, total)
        return done, failures

    def _chunk(self, actor: Actor, last: tuple[str, int]) -> list[Row[Any]]:
        after = (model_secret.c.model_id > last[0]) | ((model_secret.c.model_id == last[0]) & (model_secret.c.version > last[1]))
        query = (
            select(model_secret, model.c.key)
            .join(model, model.c.id == model_secret.c.model_id)
            .where(*self._mine(actor), after)
            .order_by(model_secret.c.model_id, model_secret.c.version)
            .limit(CHUNK)
        )
        with self._control.read() as connection:
            return list(connection.execute(query))

    def _count(self, actor: Actor, target: int) -> tuple[int, int]:
        """How many secrets there are, and how many of them are sealed with another version than `target` or a later one that exists."""
        with self._control.read() as connection:
            rows = list(connection.execute(select(model_secret.c.sealed).where(*self._mine(actor))))
        # Asked after the rows were read: a version above it belongs to a key that was lost with a restored backup.
        newest = self._keystore.org_key(actor.org_id).latest
        return len(rows), sum(self._is_old(row, target) or self._keystore.sealed_version(row.sealed) > newest for row in rows)

    def _is_old(self, row: Row[Any], target: int) -> bool:
        try:
            return self._keystore.sealed_version(row.sealed) < target
        except ByokError:
            return True

    def _mine(self, actor: Actor) -> list[ColumnElement[bool]]:
        return [
            model_secret.c.org_id == actor.org_id,
            model_secret.c.store == self._keystore.name,
            model_secret.c.sealed.is_not(None),
        ]

    def _unfinished(self, actor: Actor) -> Row[Any] | None:
        return self._last(actor, keystore_rotation.c.finished_at.is_(None))

    def _recent(self, actor: Actor) -> bool:
        return self._last(actor, keystore_rotation.c.started_at > utcnow() - SERVICE_NOT_WITHIN) is not None

    def _last(self, actor: Actor, *which: ColumnElement[bool]) -> Row[Any] | None:
        mine = [keystore_rotation.c.org_id == actor.org_id, keystore_rotation.c.store == self._keystore.name, *which]
        with self._control.read() as connection:
            return connection.execute(select(keystore_rotation).where(*mine).order_by(keystore_rotation.c.started_at.desc())).first()

    def _refuse_migrating(self, actor: Actor) -> None:
        moving = select(func.count()).where(model_secret.c.org_id == actor.org_id, model_secret.c.next_store.is_not(None))
        with self._control.read() as connection:
            if connection.execute(moving).scalar():
                raise MigrationUnderWay(
                    "the keys are being moved to another store", hint="finish that first: byok vault migrate --to STORE"
                )

    def _fail(self, actor: Actor, target: int, old: int, failures: Counter[str]) -> None:
        why = ", ".join(f"{count} x {code}" for code, count in sorted(failures.items())) or "they changed meanwhile"
        self._audit.by(actor, "failed", "keystore.rotate", self._keystore.name, version=target, left=old, reason=why)
        raise RewrapIncomplete(
            f"{old} key(s) are not sealed with version {target} yet ({why}); older versions stay in force",
            hint="byok audit list --refused names them; byok model rotate KEY --compromised each, then run: byok vault rewrap",
            left=old,
        )


def _context(row: Row[Any]) -> SealContext:
    return SealContext(row.org_id, row.model_id, row.version, row.origin)


def _is(row: Row[Any]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return model_secret.c.model_id == row.model_id, model_secret.c.version == row.version
