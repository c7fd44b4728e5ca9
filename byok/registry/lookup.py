"""Look models and their keys' versions up, and refuse what may not be done with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, select

from byok.access import MODELS_READ, MODELS_WRITE, ORG_ADMIN, Actor, AuditLog, require
from byok.control import ControlPlane
from byok.control.tables import model as model_table
from byok.keystore import KeyStore, KeyStoreMismatch, SecretIntegrity
from byok.registry.errors import BadSealedKey, ModelExists, ModelIsDisabled, ModelNotFound
from byok.registry.keyring import Keyring
from byok.registry.models import Model
from byok.registry.sealed import SealedKey
from byok.registry.versions import KeyVersions


class Lookup(Keyring):
    """The models of the organisations, as they are stored, and (see `Keyring`) their keys for those who call them.

    Args:
        control: Where models and sealed keys are stored.
        keystore: What seals and opens the keys.
        audit: Where every refusal, and every key that does not open, is recorded.
    """

    def __init__(self, control: ControlPlane, keystore: KeyStore, audit: AuditLog) -> None:
        super().__init__(KeyVersions(control, keystore), audit)
        self._control, self._keystore = control, keystore

    def get(self, actor: Actor, key: str) -> Model:
        """One model.

        Raises:
            ModelNotFound: There is none of that key in the actor's organisation.
        """
        require(actor, MODELS_READ, "model.show")
        with self._control.read() as connection:
            row = connection.execute(by_key(actor.org_id, key)).first()
        if row is None:
            raise ModelNotFound(f"no model {key!r}", hint="list the models with: byok model list", model=key)
        return Model.of(row)

    def by_id(self, actor: Actor, model_id: str) -> Model:
        """One model by its id.

        Raises:
            ModelNotFound: There is none in the actor's organisation.
        """
        require(actor, MODELS_READ, "model.show")
        with self._control.read() as connection:
            row = connection.execute(select(model_table).where(model_table.c.org_id == actor.org_id, model_table.c.id == model_id)).first()
        if row is None:
            raise ModelNotFound("no such model", hint="list the models with: byok model list")
        return Model.of(row)

    def list(self, actor: Actor) -> list[Model]:
        """All models of the actor's organisation, by key."""
        require(actor, MODELS_READ, "model.list")
        with self._control.read() as connection:
            rows = connection.execute(select(model_table).where(model_table.c.org_id == actor.org_id).order_by(model_table.c.key)).all()
        return [Model.of(row) for row in rows]

    def key_versions(self, actor: Actor, key: str) -> Sequence[dict[str, Any]]:
        """The versions of a model's key, the newest first: state, store, origin and times, never the key."""
        return self._versions.list(self.get(actor, key).id)

    def _changeable(self, actor: Actor, key: str, action: str) -> Model:
        """An active model that this actor may change; of a public one, whose tokens the platform pays, an admin alone."""
        require(actor, MODELS_WRITE, action)
        model = self._active(actor, key)
        if model.public:
            require(actor, ORG_ADMIN, action)
        return model

    def _active(self, actor: Actor, key: str) -> Model:
        model = self.get(actor, key)
        if model.status != "active":
            raise ModelIsDisabled(f"model {key!r} is disabled", hint="register it again under a new key")
        return model

    def _next_version(self, model: Model) -> int:
        with self._control.read() as connection:
            return self._versions.next_version(connection, model.id)

    def _refuse_taken(self, actor: Actor, key: str) -> None:
        with self._control.read() as connection:
            if connection.execute(by_key(actor.org_id, key)).first() is not None:
                raise taken(key)

    def _is_registered(self, model_id: str) -> bool:
        with self._control.read() as connection:
            return connection.execute(select(model_table.c.id).where(model_table.c.id == model_id)).first() is not None

    def check_sealed(self, actor: Actor, sealed: SealedKey, *, origin: str, model: Model | None = None) -> None:
        """Refuse a key that was not sealed for this: the next version of a model's key or, without one, the first of a new model's.

        Raises:
            BadSealedKey: It was sealed for something else, or has been used. Recorded.
            KeyStoreMismatch: Another key store sealed it. Recorded.
        """
        wrong = (
            "organisation"
            if sealed.org_id != actor.org_id
            else "model"
            if (self._is_registered(sealed.model_id) if model is None else sealed.model_id != model.id)
            else "origin"
            if sealed.origin != origin
            else "version"
            if sealed.version != (1 if model is None else self._next_version(model))
            else "key store"
            if sealed.store != self._keystore.name
            else None
        )
        if wrong is not None:
            self._audit.by(actor, "refused", "key.use", sealed.model_id, reason=f"sealed for another {wrong}")
            if wrong == "key store":
                raise KeyStoreMismatch(
                    f"this key was sealed by another key store than {self._keystore.name!r}, which this process uses",
                    hint="seal it again where the key store of the installation is used: byok key seal",
                )
            raise BadSealedKey(f"this key was sealed for another {wrong}", hint="seal it again: byok key seal")

    def _open_sealed(self, actor: Actor, key: str, sealed: SealedKey) -> str:
        try:
            return self._keystore.open(sealed.sealed, sealed.context)
        except SecretIntegrity as error:
            self._audit.by(actor, "failed", "key.open", key, reason=error.code, version=sealed.version)
            raise


def by_key(org_id: str, key: str) -> Select[Any]:
    """The query for one model of an organisation."""
    return select(model_table).where(model_table.c.org_id == org_id, model_table.c.key == key)


def taken(key: str) -> ModelExists:
    """The error of a key that another model has."""
    return ModelExists(f"a model {key!r} is registered already", hint="choose another key, or see it with: byok model show " + key)
