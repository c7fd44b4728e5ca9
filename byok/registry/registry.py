"""Register, look up, probe and disable models, and open their keys."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr
from sqlalchemy import select, update

from byok.access import MODELS_READ, MODELS_WRITE, ORG_ADMIN, Actor, require
from byok.billing import charges_for, rate_card
from byok.clock import iso, utcnow
from byok.control import ControlPlane
from byok.control.tables import model as model_table
from byok.control.tables import model_secret
from byok.endpoint import ChatClient, EgressPolicy, ProbeResult, probe
from byok.engine.plan import ModelRef
from byok.errors import InputError, NotFound, OutsideError
from byok.ids import natural_id, new_id
from byok.keystore import KeyStore, SealContext, mask
from byok.registry.models import Model, RegisterRequest
from byok.warehouse import Warehouse
from byok.warehouse.rows import AttemptRow


class ModelExists(InputError):
    """The key is taken by a model of this organisation."""

    code = "model_exists"


class ModelNotFound(NotFound):
    """No model of this organisation has the key."""

    code = "model_not_registered"


class ModelIsDisabled(InputError):
    """The model is disabled: its secret is gone."""

    code = "model_disabled"


class SecretGone(OutsideError):
    """The sealed key of a model is no longer stored."""

    code = "secret_gone"


class Registry:
    """The models of the organisations.

    Args:
        control: Where models and sealed keys are stored.
        keystore: What seals and opens the keys.
        warehouse: Where models and probes are reported to.
    """

    def __init__(self, control: ControlPlane, keystore: KeyStore, warehouse: Warehouse) -> None:
        self._control, self._keystore, self._warehouse = control, keystore, warehouse

    async def register(self, actor: Actor, request: RegisterRequest, api_key: SecretStr | None) -> Model:
        """Seal the key, probe the endpoint with it, and store both; or refuse, and store nothing.

        Raises:
            ScopeMissing: The actor lacks `models:write` (or, for a public model, `org:admin`).
            ModelExists: The key of the model is taken.
            InputError: The address cannot be used.
            EndpointError: The probe failed.
        """
        require(actor, MODELS_WRITE)
        if request.public:
            require(actor, ORG_ADMIN)
        self._refuse_taken(actor, request.key)
        base = EgressPolicy.from_environment().check_base_url(request.base_url)
        now, model_id = utcnow(), new_id()
        version = None if api_key is None else 1
        model = Model(
            id=model_id,
            org_id=actor.org_id,
            key=request.key,
            name=request.name,
            description=request.description,
            base_url=base.url,
            origin=base.origin,
            remote_id=request.remote_id,
            tags=request.tags,
            max_tokens=request.max_tokens,
            extra_payload=request.extra_payload,
            public=request.public,
            price_input=request.price_input,
            price_output=request.price_output,
            status="active",
            key_version=version,
            key_mask=None if api_key is None else mask(api_key.get_secret_value()),
            capabilities={},
            revision=1,
            created_at=now,
            updated_at=now,
        )
        sealed: dict[str, Any] | None = None
        if api_key is not None and version is not None:
            secret = api_key.get_secret_value()
            context = SealContext(actor.org_id, model_id, version, base.origin)
            sealed = {
                "model_id": model_id,
                "version": version,
                "org_id": actor.org_id,
                "store": self._keystore.name,
                "sealed": self._keystore.seal(secret, context),
                "fingerprint": self._keystore.fingerprint(secret, actor.org_id),
                "state": "active",
                "created_at": now,
            }
        # Probed with the key that was sealed, opened again: a store that cannot give it back is found out now.
        opened = None if sealed is None else self._keystore.open(sealed["sealed"], SealContext(actor.org_id, model_id, 1, base.origin))
        async with _client(model.ref(), opened, connections=1) as client:
            found = await probe(client)
        model = _with(model, capabilities=_capabilities(found))
        values = {name: getattr(model, name) for name in Model.__dataclass_fields__} | {"created_by": actor.member_id}
        with self._control.write() as connection:
            if connection.execute(_by_key(actor, request.key)).first() is not None:
                raise _taken(request.key)
            connection.execute(model_table.insert().values(**values))
            if sealed is not None:
                connection.execute(model_secret.insert().values(**sealed))
        self._report(model, found)
        return model

    def get(self, actor: Actor, key: str) -> Model:
        """One model.

        Raises:
            ModelNotFound: There is none of that key in the actor's organisation.
        """
        require(actor, MODELS_READ)
        with self._control.read() as connection:
            row = connection.execute(_by_key(actor, key)).first()
        if row is None:
            raise ModelNotFound(f"no model {key!r}", hint="list the models with: byok model list", model=key)
        return Model.of(row)

    def by_id(self, actor: Actor, model_id: str) -> Model:
        """One model by its id.

        Raises:
            ModelNotFound: There is none in the actor's organisation.
        """
        require(actor, MODELS_READ)
        with self._control.read() as connection:
            row = connection.execute(select(model_table).where(model_table.c.org_id == actor.org_id, model_table.c.id == model_id)).first()
        if row is None:
            raise ModelNotFound("no such model", hint="list the models with: byok model list")
        return Model.of(row)

    def list(self, actor: Actor) -> list[Model]:
        """All models of the actor's organisation, by key."""
        require(actor, MODELS_READ)
        with self._control.read() as connection:
            rows = connection.execute(select(model_table).where(model_table.c.org_id == actor.org_id).order_by(model_table.c.key)).all()
        return [Model.of(row) for row in rows]

    async def probe(self, actor: Actor, key: str) -> ProbeResult:
        """Probe a registered model again, and store what was found.

        Raises:
            ModelIsDisabled: It has no key any more.
            EndpointError: It does not answer; the model stays as it was.
        """
        require(actor, MODELS_WRITE)
        model = self.get(actor, key)
        if model.status != "active":
            raise ModelIsDisabled(f"model {key!r} is disabled", hint="register it again under a new key")
        async with self.client(model.ref(), actor.org_id, connections=1) as client:
            found = await probe(client)
        self._report(self._change(model, capabilities=_capabilities(found)), found)
        return found

    def disable(self, actor: Actor, key: str) -> Model:
        """Disable a model and destroy its secret; results stay. Doing it again changes nothing."""
        require(actor, MODELS_WRITE)
        model = self.get(actor, key)
        if model.status == "disabled":
            return model
        model = self._change(model, status="disabled")
        self._report(model, None)
        return model

    def open_key(self, ref: ModelRef, org_id: str) -> str | None:
        """The key of a model, in clear: for one local variable of one task run. None when the endpoint needs none.

        Raises:
            SecretGone: The sealed key has been destroyed.
            SecretIntegrity: It does not open in its place.
            OutsideError: The key store does not answer.
        """
        if ref.key_version is None:
            return None
        with self._control.read() as connection:
            row = connection.execute(
                select(model_secret).where(
                    model_secret.c.org_id == org_id, model_secret.c.model_id == ref.id, model_secret.c.version == ref.key_version
                )
            ).first()
        if row is None or row.sealed is None or row.state != "active":
            raise SecretGone(f"the key of model {ref.key!r} is no longer stored", hint="register the model again with its key")
        return self._keystore.open(row.sealed, SealContext(org_id, ref.id, ref.key_version, ref.origin))

    def client(self, ref: ModelRef, org_id: str, *, connections: int) -> ChatClient:
        """A client for a model, with its key opened once.

        Raises:
            SecretGone, SecretIntegrity, OutsideError: The key does not open.
            InputError: The address may not be called (any more).
        """
        return _client(ref, self.open_key(ref, org_id), connections=connections)

    def _refuse_taken(self, actor: Actor, key: str) -> None:
        with self._control.read() as connection:
            if connection.execute(_by_key(actor, key)).first() is not None:
                raise _taken(key)

    def _change(self, model: Model, **values: Any) -> Model:
        changed = _with(model, **values, revision=model.revision + 1, updated_at=utcnow())
        stored = {**values, "revision": changed.revision, "updated_at": changed.updated_at}
        with self._control.write() as connection:
            connection.execute(update(model_table).where(model_table.c.id == model.id).values(**stored))
            if changed.status == "disabled":
                connection.execute(update(model_secret).where(model_secret.c.model_id == model.id).values(sealed=None, state="destroyed"))
        return changed

    def _report(self, model: Model, found: ProbeResult | None) -> None:
        """Tell the warehouse: the model, and what a probe asked and cost (a probe's tokens are on the bill too)."""
        attempts = _probe_rows(model, found) if found else []
        card = rate_card(model.updated_at) if attempts else None
        charges = [charge for attempt in attempts if card for charge in charges_for(attempt, model.ref(), card)]
        self._warehouse.write_segment([model.row(), *attempts, *charges])
        self._warehouse.drain()


def _by_key(actor: Actor, key: str) -> Any:
    return select(model_table).where(model_table.c.org_id == actor.org_id, model_table.c.key == key)


def _taken(key: str) -> ModelExists:
    return ModelExists(f"a model {key!r} is registered already", hint="choose another key, or see it with: byok model show " + key)


def _with(model: Model, **values: Any) -> Model:
    return Model(**({name: getattr(model, name) for name in Model.__dataclass_fields__} | values))


def _client(ref: ModelRef, key: str | None, *, connections: int) -> ChatClient:
    options = {"token_parameter": ref.capabilities["token_parameter"]} if "token_parameter" in ref.capabilities else {}
    return ChatClient(
        ref.base_url,
        ref.remote_id,
        key,
        policy=EgressPolicy.from_environment(),
        extra_payload=ref.extra_payload,
        connections=connections,
        **options,
    )


def _capabilities(found: ProbeResult) -> dict[str, Any]:
    return {
        "chat": True,
        "models_listed": found.models_listed,
        "token_parameter": found.token_parameter,
        "latency_ms": round(found.latency_ms, 3),
        "warnings": found.warnings,
        "probed_at": iso(utcnow()),
    }


def _probe_rows(model: Model, found: ProbeResult) -> list[AttemptRow]:
    unit = natural_id("probe", model.id, model.revision)
    return [
        AttemptRow(
            org_id=model.org_id,
            attempt_id=natural_id("attempt", unit, number),
            run_id=None,
            role="probe",
            model_id=model.id,
            model_key=model.key,
            sample_id=None,
            judge=None,
            judge_version=None,
            number=number,
            status=attempt.status,
            error_code=attempt.error_code,
            http_status=attempt.http_status,
            latency_ms=attempt.latency_ms,
            prompt_tokens=attempt.usage.prompt_tokens,
            completion_tokens=attempt.usage.completion_tokens,
            cached_tokens=attempt.usage.cached_tokens,
            reasoning_tokens=attempt.usage.reasoning_tokens,
            usage_class=attempt.usage.usage_class,
            provider_request_id=attempt.request_id,
            key_version=model.key_version,
            opened_at=attempt.opened_at,
            closed_at=attempt.closed_at,
            recorded_at=utcnow(),
        )
        for number, attempt in enumerate(found.attempts, 1)
    ]
