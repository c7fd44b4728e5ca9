"""The versions of a model's key: pending, active, retiring, destroyed. The one place that reads and writes sealed keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select, update

from byok.access import MODELS_READ, Actor, require
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import keystore_rotation, model, model_secret
from byok.engine.plan import ModelRef
from byok.errors import ByokError
from byok.keystore import KeyStore, KeyStoreBusy, KeyStoreMismatch, SealContext, SecretIntegrity, SecretVersionRetired, check_org_id
from byok.registry.errors import BadGrace, SecretGone

GRACE = timedelta(hours=24)
"""How long runs in flight may go on using a version that was replaced as planned."""

LONGEST_GRACE = timedelta(days=30)

_ABANDONED = timedelta(hours=1)
"""No probe takes that long: a version that is still pending was left by a process that died."""

LIVE = ("pending", "active", "retiring")
"""States in which there is a ciphertext."""


def check_grace(grace: timedelta) -> timedelta:
    """A grace that may be given.

    Raises:
        BadGrace: It is negative, or longer than 30 days.
    """
    if not timedelta(0) <= grace <= LONGEST_GRACE:
        raise BadGrace("the grace of a key lies between 0 and 30 days", hint="for example --grace 24h; --compromised means 0")
    return grace


def check_place(ref: ModelRef) -> None:
    """Refuse a model whose base URL does not lie at its origin: opening the key proves the origin alone, and the base URL is called.

    Raises:
        SecretIntegrity: One of the two was edited.
    """
    if ref.base_url != ref.origin and not ref.base_url.startswith(f"{ref.origin}/"):
        raise SecretIntegrity(
            f"the base URL of model {ref.key!r} is not at the origin that its key was given for",
            hint="the control plane was changed outside byok; set the URL again, with a new key: byok model update",
        )


def stored_secrets(control: ControlPlane, actor: Actor, keystore: KeyStore) -> list[dict[str, Any]]:
    """How many keys of the actor's organisation are sealed in which store, with which version of its key.

    Args:
        control: Where they are.
        actor: Whose organisation.
        keystore: The store in use; of keys in another one, the version is not told.

    Raises:
        ScopeMissing: The actor lacks `models:read`.
    """
    require(actor, MODELS_READ, "keystore.status")
    with control.read() as connection:
        rows = connection.execute(
            select(model_secret.c.store, model_secret.c.sealed).where(
                model_secret.c.org_id == actor.org_id, model_secret.c.sealed.is_not(None)
            )
        ).all()
    counted = Counter((row.store, _version(keystore, row.store, row.sealed)) for row in rows)
    return [{"store": store, "key_version": version, "keys": count} for (store, version), count in sorted(counted.items(), key=str)]


def _version(keystore: KeyStore, store: str, sealed: str) -> int | None:
    try:
        return keystore.sealed_version(sealed) if store == keystore.name else None
    except ByokError:
        return None


class KeyVersions:
    """Sealed keys in the control plane.

    Args:
        control: Where they are.
        keystore: What seals and opens them.
    """

    def __init__(self, control: ControlPlane, keystore: KeyStore) -> None:
        self._control, self._keystore = control, keystore

    def seal(self, secret: str, context: SealContext) -> dict[str, Any]:
        """The row of a new version, pending and not stored yet.

        Raises:
            ByokError: One of `byok.keystore.errors`.
        """
        return self.row(self._keystore.seal(secret, context), self._keystore.fingerprint(secret, context.org_id), context)

    def row(self, sealed: str, fingerprint: str, context: SealContext) -> dict[str, Any]:
        """The row of a ciphertext that was sealed elsewhere (by `byok key seal`)."""
        return {
            "model_id": context.model_id,
            "version": context.key_version,
            "org_id": context.org_id,
            "store": self._keystore.name,
            "sealed": sealed,
            "fingerprint": fingerprint,
            "state": "pending",
            "created_at": utcnow(),
            "origin": context.origin,
        }

    def check_store(self, org_id: str) -> None:
        """Refuse to seal with another store than the one that the organisation's keys are in.

        Raises:
            KeyStoreMismatch: They are in another one. A process without Vault's address must not begin a second store silently.
            BadOrgId: The organisation's id is none.
        """
        check_org_id(org_id)
        query = select(model_secret.c.store, func.count()).where(
            model_secret.c.org_id == org_id, model_secret.c.state.in_(LIVE), model_secret.c.store != self._keystore.name
        )
        with self._control.read() as connection:
            found = connection.execute(query.group_by(model_secret.c.store)).first()
        if found is not None:
            other, count = found
            mend = "set BYOK_VAULT_ADDR" if other == "transit" else "unset BYOK_VAULT_ADDR"
            raise KeyStoreMismatch(
                f"{count} key(s) of this organisation are in the store {other!r}, and this process uses {self._keystore.name!r}",
                hint=f"{mend}, or move them: byok vault migrate --to {self._keystore.name}",
            )

    def insert(self, connection: Connection, row: dict[str, Any]) -> None:
        """Store a version.

        Raises:
            KeyStoreBusy: The organisation's key was rotated, or all keys moved to another store, between sealing and storing.
        """
        elsewhere = select(func.count()).where(
            model_secret.c.org_id == row["org_id"], model_secret.c.state.in_(LIVE), model_secret.c.store != row["store"]
        )
        if connection.execute(elsewhere).scalar():
            raise KeyStoreBusy("the keys have just been moved to another store", hint="set this process up for that store, and try again")
        newest = select(func.max(keystore_rotation.c.target)).where(
            keystore_rotation.c.store == row["store"], keystore_rotation.c.org_id == row["org_id"]
        )
        if self._keystore.sealed_version(row["sealed"]) < (connection.execute(newest).scalar() or 0):
            raise KeyStoreBusy("the organisation's key is being rotated", hint="try again")
        connection.execute(model_secret.insert().values(**row))

    def next_version(self, connection: Connection, model_id: str) -> int:
        """The number of the next version of a model's key."""
        return (connection.execute(select(func.max(model_secret.c.version)).where(model_secret.c.model_id == model_id)).scalar() or 0) + 1

    def activate(self, connection: Connection, model_id: str, version: int, grace: timedelta) -> None:
        """Make a pending version the active one; the one before it retires, or is destroyed at once when there is no grace."""
        mine = model_secret.c.model_id == model_id
        if grace:
            old = {"state": "retiring", "grace_until": utcnow() + grace}
            connection.execute(update(model_secret).where(mine, model_secret.c.state == "active").values(**old))
        else:
            self._destroy(connection, mine, model_secret.c.state.in_(("active", "retiring")))
            connection.execute(update(model).where(model.c.id == model_id).values(least_key_version=version))
        connection.execute(update(model_secret).where(mine, model_secret.c.version == version).values(state="active"))

    def drop(self, model_id: str, version: int) -> None:
        """Destroy a pending version whose probe failed."""
        with self._control.write() as connection:
            self._destroy(
                connection, model_secret.c.model_id == model_id, model_secret.c.version == version, model_secret.c.state == "pending"
            )

    def destroy_all(self, connection: Connection, model_id: str) -> None:
        """Destroy all versions of a model's key."""
        self._destroy(connection, model_secret.c.model_id == model_id)

    def sweep(self, org_id: str) -> Sequence[tuple[str, int]]:
        """Destroy versions whose grace has ended, and pending ones that an interrupted rotation left.

        Returns:
            Model and version of each.
        """
        check_org_id(org_id)
        now = utcnow()
        ended = (model_secret.c.org_id == org_id) & or_(
            and_(model_secret.c.state == "retiring", model_secret.c.grace_until <= now),
            and_(model_secret.c.state == "pending", model_secret.c.created_at <= now - _ABANDONED),
        )
        with self._control.read() as connection:
            found = [(row.model_id, row.version, row.state) for row in connection.execute(select(model_secret).where(ended))]
        if found:
            with self._control.write() as connection:
                self._destroy(connection, ended)
                for model_id, version, state in found:
                    if state == "retiring":
                        newer = (model.c.id == model_id, model.c.least_key_version <= version)
                        connection.execute(update(model).where(*newer).values(least_key_version=version + 1))
        return [(model_id, version) for model_id, version, _ in found]

    def usable(self, ref: ModelRef, org_id: str, *, refused: int | None = None) -> int:
        """The version that a run which is pinned to `ref` uses now: its own while that lasts, else the active one.

        Args:
            ref: The model as the run has it.
            org_id: The organisation.
            refused: A version that the endpoint does not take (any more), whatever grace it was given here: the active one counts.

        Raises:
            SecretGone: There is none any more.
            SecretVersionRetired: Its own has been retired, and the new one is for another address.
        """
        return int(self._usable(ref, org_id, refused).version)

    def open(self, ref: ModelRef, org_id: str, *, refused: int | None = None) -> tuple[str, int]:
        """The key that `usable` means, in clear, and its version: for one local variable of one task run.

        Raises:
            SecretGone, SecretVersionRetired: See `usable`.
            KeyStoreMismatch: It is in another store.
            ByokError: One of `byok.keystore.errors`.
        """
        row = self._usable(ref, org_id, refused)
        if row.store != self._keystore.name:
            mend = "set BYOK_VAULT_ADDR" if row.store == "transit" else "unset BYOK_VAULT_ADDR"
            raise KeyStoreMismatch(
                f"the key of model {ref.key!r} is in the store {row.store!r}, and this process uses {self._keystore.name!r}", hint=mend
            )
        check_place(ref)
        # The origin comes from what will be called, not from the row: an edited URL does not open.
        return self._keystore.open(row.sealed, SealContext(org_id, ref.id, row.version, ref.origin)), row.version

    def _usable(self, ref: ModelRef, org_id: str, refused: int | None) -> Row[Any]:
        check_org_id(org_id)
        mine = (model_secret.c.org_id == org_id, model_secret.c.model_id == ref.id)
        with self._control.read() as connection:
            found = connection.execute(
                select(model.c.key_version, model.c.least_key_version).where(
                    model.c.org_id == org_id, model.c.id == ref.id, model.c.status == "active"
                )
            ).first()
            rows = {row.version: row for row in connection.execute(select(model_secret).where(*mine))}
        current, least = found if found is not None else (None, 0)
        row = rows.get(ref.key_version or 0)
        # Only forwards: a run whose newer key is refused too does not go back to the older one.
        first = max(least, (refused or 0) + 1)
        if row is not None and row.version >= first and row.sealed is not None and self._in_force(row, current):
            return row
        active = rows.get(current or 0)
        if active is None or active.sealed is None or active.state != "active":
            raise SecretGone(f"the key of model {ref.key!r} is no longer stored", hint="give the key again: byok model rotate")
        if active.origin != ref.origin:
            raise SecretVersionRetired(
                f"the key of model {ref.key!r} for {ref.origin} has been retired", hint="start a new run: the model has moved"
            )
        return active

    @staticmethod
    def _in_force(row: Row[Any], current: int | None) -> bool:
        """Whether a version may be used. A retired row that is put back does not count: an active one is the model's own version.

        A disabled model has no version (`current` is None), whatever its rows say.
        """
        if current is None:
            return False
        if row.state == "active":
            return bool(row.version == current)
        return bool(row.state == "retiring" and row.grace_until is not None and row.grace_until > utcnow())

    @staticmethod
    def _destroy(connection: Connection, *which: Any) -> int:
        gone = {
            "sealed": None,
            "state": "destroyed",
            "grace_until": None,
            "next_store": None,
            "next_sealed": None,
            "next_fingerprint": None,
        }
        return connection.execute(update(model_secret).where(*which, model_secret.c.state != "destroyed").values(**gone)).rowcount

    def fingerprint(self, model_id: str, org_id: str, version: int) -> str | None:
        """The fingerprint of a version of a model's key; None when there is no such version."""
        mine = (model_secret.c.org_id == org_id, model_secret.c.model_id == model_id, model_secret.c.version == version)
        with self._control.read() as connection:
            found: str | None = connection.execute(select(model_secret.c.fingerprint).where(*mine)).scalar()
            return found

    def list(self, model_id: str) -> list[dict[str, Any]]:
        """The versions of a model's key, the newest first; never what they hold."""
        shown = ("version", "state", "store", "fingerprint", "origin", "created_at", "grace_until")
        with self._control.read() as connection:
            rows = connection.execute(
                select(*(model_secret.c[name] for name in shown))
                .where(model_secret.c.model_id == model_id)
                .order_by(model_secret.c.version.desc())
            )
            return [dict(zip(shown, row, strict=True)) for row in rows]
