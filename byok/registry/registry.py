"""Register, look up, probe, change, rotate and disable models."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from pydantic import SecretStr
from sqlalchemy import select

from byok.access import MODELS_WRITE, ORG_ADMIN, Actor, AuditLog, require
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import model as model_table
from byok.endpoint import BaseUrl, Credentials, EgressPolicy, EndpointError, ProbeResult, check_resolved
from byok.endpoint.capabilities import check_claims
from byok.endpoint.probing.record import ProbeLog
from byok.errors import ByokError
from byok.ids import new_id
from byok.keystore import KeyStore, SealContext
from byok.ledger import Ledger
from byok.registry.errors import BadSealedKey, KeyNeeded, ModelChanged, SameKey
from byok.registry.lookup import Lookup, by_key, taken
from byok.registry.models import CHANGEABLE, Model, ModelChanges, RegisterRequest, seen
from byok.registry.probing import Probed, Progress, probe_stored, probe_with, silent
from byok.registry.reporting import Accounts, capabilities, report_model
from byok.registry.sealed import SealedKey
from byok.registry.standing import Standing, enter_price, store
from byok.registry.versions import GRACE, check_grace
from byok.warehouse import Warehouse


class Registry(Lookup):
    """The models of the organisations, and (see `Lookup` and `Keyring`) their keys for those who call them.

    Args:
        control: Where models and sealed keys are stored.
        keystore: What seals and opens the keys.
        warehouse: Where models and probes are reported to.
        audit: Where every change, and every key that does not open, is recorded.
        ledger: What the probes of public models are drawn from.
    """

    def __init__(self, control: ControlPlane, keystore: KeyStore, warehouse: Warehouse, audit: AuditLog, ledger: Ledger) -> None:
        super().__init__(control, keystore, audit)
        self._warehouse = warehouse
        self._standing = Standing(control, audit)
        self._accounts = Accounts(control, ledger)

    async def register(
        self,
        actor: Actor,
        request: RegisterRequest,
        api_key: SecretStr | None,
        *,
        full: bool = False,
        strict: bool = False,
        progress: Progress = silent,
    ) -> Model:
        """Seal the key, probe the endpoint with it, and store both; or refuse, and store nothing.

        Args:
            actor: Who.
            request: The model.
            api_key: Its key, or the text of `Credentials`; None for an endpoint that needs none.
            full: Find out what the model can do, and warn of tags that claim more.
            strict: Refuse tags that claim more; takes a full probe.
            progress: Told of each step of a full probe.

        Raises:
            CapabilityMissing: With `strict`, a tag claims what the probe did not find.
            ScopeMissing: The actor lacks `models:write` (or, for a public model, `org:admin`).
            ModelExists: The key of the model is taken.
            InputError: The address cannot be used.
            EndpointError: The probe failed.
            ByokError: The key store does not seal; see `byok.keystore.errors`.
        """
        base = await self._admit(actor, request)
        secret = _plain(api_key)
        model_id, row = new_id(), None
        if secret is not None:
            self._versions.check_store(actor.org_id)
            row = await asyncio.to_thread(self._versions.seal, secret, SealContext(actor.org_id, model_id, 1, base.origin))
        return await self._register(actor, request, base, model_id, secret, row, full=full or strict, strict=strict, progress=progress)

    async def register_sealed(self, actor: Actor, request: RegisterRequest, sealed: SealedKey | None) -> Model:
        """Like `register`, with a key that was sealed before; its ciphertext is stored as it is.

        Raises:
            BadSealedKey: It is for another organisation, model or origin.
        """
        base = await self._admit(actor, request)
        if sealed is None:
            return await self._register(actor, request, base, new_id(), None, None)
        self.check_sealed(actor, sealed, origin=base.origin)
        self._versions.check_store(actor.org_id)
        secret = await asyncio.to_thread(self._open_sealed, actor, request.key, sealed)
        row = self._versions.row(sealed.sealed, sealed.fingerprint, sealed.context)
        return await self._register(actor, request, base, sealed.model_id, secret, row)

    def seal(self, actor: Actor, key: str, api_key: SecretStr, *, base_url: str | None = None) -> SealedKey:
        """Seal a key so that it can travel: for a model to be registered (with its base URL), or the next version of one that is.

        Raises:
            ScopeMissing: The actor lacks `models:write`.
            ModelNotFound: There is no such model, and no base URL was given.
            ModelExists: There is one, and a base URL was given.
            InputError: The address cannot be used.
        """
        require(actor, MODELS_WRITE, "key.seal")
        secret = api_key.get_secret_value()
        Credentials.parse(secret)
        self._versions.check_store(actor.org_id)
        if base_url is not None:
            self._refuse_taken(actor, key)
            base = EgressPolicy.from_environment().check_base_url(base_url)
            context = SealContext(actor.org_id, new_id(), 1, base.origin)
        else:
            model = self._changeable(actor, key, "key.seal")
            context = SealContext(actor.org_id, model.id, self._next_version(model), model.origin)
        row = self._versions.seal(secret, context)
        self._audit.by(actor, "done", "key.seal", key, origin=context.origin, version=context.key_version)
        return SealedKey(
            *(context.org_id, context.model_id, context.key_version, context.origin), row["store"], row["sealed"], row["fingerprint"]
        )

    async def probe(self, actor: Actor, key: str, *, full: bool = False, progress: Progress = silent) -> ProbeResult:
        """Probe a registered model again, and store what was found; a failure too counts for its health.

        Args:
            actor: Who.
            key: Key of the model.
            full: Find out what the model can do, and warn of tags that claim more.
            progress: Told of each step of a full probe.

        Raises:
            ModelIsDisabled: It has no key any more.
            EndpointError: It does not answer; what is known of its capabilities stays.
        """
        require(actor, MODELS_WRITE, "model.probe")
        model = self._active(actor, key)
        probed = await probe_stored(self, model, "command", full=full, progress=progress)
        found, now = probed.found, model
        try:
            findings = None if found is None else lambda now: capabilities(found, now.capabilities)
            now = self._standing.record(actor, model, probed.error, findings, scope="full" if full else "basic")
        finally:
            report_model(self._warehouse, now, probed, asked=model, accounts=self._accounts)
        if found is None:
            assert probed.error is not None
            raise probed.error
        return found

    async def update(
        self, actor: Actor, key: str, changes: ModelChanges, api_key: SecretStr | None = None, *, grace: timedelta = GRACE
    ) -> Model:
        """Change a model. A new base URL demands the key again: a stored key is never sent to another address.

        Raises:
            KeyNeeded: The base URL changes and no key was given.
            ModelIsDisabled, ScopeMissing, InputError, EndpointError: Nothing is changed.
        """
        model = self._changeable(actor, key, "model.update")
        base = EgressPolicy.from_environment().check_base_url(changes.base_url or model.base_url)
        moved = base.url != model.base_url
        if moved and model.key_version is not None and api_key is None:
            raise KeyNeeded("a new base URL needs the key again", hint="add --api-key-stdin: the stored key stays with the old address")
        values, secret = changes.values(), _plain(api_key)
        if api_key is None and not moved:
            if values.keys() & {"remote_id", "provider"}:
                # Nothing is known of what it is now.
                values |= {"capabilities": {}, "health": "unknown", "health_failures": 0}
            with self._audit.act(actor, "model.update", key, fields=sorted(changes.values())) as connection:
                changed = store(connection, model, **values)
                if values.keys() & {"price_input", "price_output"}:
                    enter_price(connection, actor, changed)
            report_model(self._warehouse, changed, None)
            return changed
        await check_resolved(base, EgressPolicy.from_environment())
        changed = model.with_(**values, base_url=base.url, origin=base.origin)
        if secret is None:
            return await self._probe_and_switch(actor, "model.update", model, changed, None, grace)
        return await self._replace_key(actor, "model.update", model, changed, secret, grace)

    async def rotate(self, actor: Actor, key: str, api_key: SecretStr, *, grace: timedelta = GRACE) -> Model:
        """Give a model a new key: pending, probed, then active. The old one retires: runs in flight may use it until the grace ends.

        Args:
            actor: Who.
            key: Key of the model.
            api_key: The new key.
            grace: 0 (a compromised key) destroys the old one at once.

        Raises:
            SameKey: It is the one in use.
            EndpointError: The probe failed; the old key stays active.
            ScopeMissing, ModelIsDisabled, BadGrace, ByokError: Likewise.
        """
        model = self._changeable(actor, key, "model.rotate")
        secret = api_key.get_secret_value()
        Credentials.parse(secret)
        return await self._replace_key(actor, "model.rotate", model, model, secret, grace)

    async def rotate_sealed(self, actor: Actor, key: str, sealed: SealedKey, *, grace: timedelta = GRACE) -> Model:
        """Like `rotate`, with a key that was sealed before.

        Raises:
            BadSealedKey: It is not for the next version of this model.
        """
        model = self._changeable(actor, key, "model.rotate")
        self.check_sealed(actor, sealed, origin=model.origin, model=model)
        secret = await asyncio.to_thread(self._open_sealed, actor, key, sealed)
        return await self._replace_key(actor, "model.rotate", model, model, secret, grace, sealed)

    def disable(self, actor: Actor, key: str) -> Model:
        """Disable a model and destroy all versions of its key; results stay. Doing it again changes nothing."""
        require(actor, MODELS_WRITE, "model.disable")
        model = self.get(actor, key)
        if model.status == "disabled":
            return model
        model = self._changeable(actor, key, "model.disable")
        with self._audit.act(actor, "model.disable", key) as connection:
            model = store(connection, model, status="disabled")
            self._versions.destroy_all(connection, model.id)
        report_model(self._warehouse, model, None)
        return model

    async def _admit(self, actor: Actor, request: RegisterRequest) -> BaseUrl:
        """Whether this actor may register this; the checked address."""
        require(actor, MODELS_WRITE, "model.register")
        if request.public:
            require(actor, ORG_ADMIN, "model.register")
        self._refuse_taken(actor, request.key)
        policy = EgressPolicy.from_environment()
        base = policy.check_base_url(request.base_url)
        await check_resolved(base, policy)
        return base

    async def _register(
        self,
        actor: Actor,
        request: RegisterRequest,
        base: BaseUrl,
        model_id: str,
        secret: str | None,
        row: dict[str, Any] | None,
        *,
        full: bool = False,
        strict: bool = False,
        progress: Progress = silent,
    ) -> Model:
        shown = None if secret is None else Credentials.parse(secret)
        model = Model.new(actor.org_id, model_id, request, base, shown)
        try:
            probed, found = await probe_with(model, secret, "register", full=full, progress=progress)
            if strict:
                check_claims(found.capabilities or (), model.tags)
        except ByokError as error:
            self._audit.by(actor, "failed", "model.register", request.key, origin=base.origin, reason=error.code)
            raise
        model = model.with_(capabilities=capabilities(found, {}), health="ok", checked_at=utcnow())
        with self._audit.act(actor, "model.register", request.key, origin=base.origin, key_mask=model.key_mask) as connection:
            if connection.execute(by_key(actor.org_id, request.key)).first() is not None:
                raise taken(request.key)
            if connection.execute(select(model_table.c.id).where(model_table.c.id == model_id)).first() is not None:
                raise BadSealedKey("this sealed key has been used", hint="seal the key again: byok key seal")
            connection.execute(model_table.insert().values(**model.columns(), created_by=actor.member_id))
            enter_price(connection, actor, model, effective_from=model.created_at)
            if row is not None:
                self._versions.insert(connection, row | {"state": "active"})
        report_model(self._warehouse, model, probed, accounts=self._accounts)
        return model

    async def _replace_key(
        self, actor: Actor, action: str, model: Model, changed: Model, secret: str, grace: timedelta, sealed: SealedKey | None = None
    ) -> Model:
        """Pending, probed, active: the new key of a model that may move at the same time."""
        check_grace(grace)
        self._versions.check_store(actor.org_id)
        version = self._next_version(model)
        context = SealContext(actor.org_id, model.id, version, changed.origin)
        if sealed is None:
            row = await asyncio.to_thread(self._versions.seal, secret, context)
        else:
            row = self._versions.row(sealed.sealed, sealed.fingerprint, context)
        self._refuse_same(model, changed, row["fingerprint"])
        with self._audit.act(actor, f"{action}.begin", model.key, version=version) as connection:
            if self._versions.next_version(connection, model.id) != version:
                raise ModelChanged(f"somebody else is changing the key of {model.key!r}", hint="look at it: byok model show " + model.key)
            self._versions.insert(connection, row)
        changed = changed.with_(key_version=version, **seen(Credentials.parse(secret)))
        return await self._probe_and_switch(actor, action, model, changed, secret, grace)

    async def _probe_and_switch(
        self, actor: Actor, action: str, model: Model, changed: Model, secret: str | None, grace: timedelta
    ) -> Model:
        new_key = changed.key_version != model.key_version
        version = changed.key_version or 0
        told = {"version": changed.key_version, "origin": changed.origin}
        log, found = ProbeLog(), None
        try:
            probed, found = await probe_with(changed, secret, "update", log=log)
            with self._audit.act(actor, action, model.key, **told, grace_s=int(grace.total_seconds())) as connection:
                # A check may have counted meanwhile, which is no change of what is changed here.
                now = Model.of(connection.execute(select(model_table).where(model_table.c.id == model.id)).one())
                if any(getattr(now, name) != getattr(model, name) for name in (*CHANGEABLE, "status")):
                    raise ModelChanged(f"somebody else changed {model.key!r} meanwhile", hint="look at it: byok model show " + model.key)
                if new_key:
                    self._versions.activate(connection, model.id, version, grace)
                values = {name: getattr(changed, name) for name in CHANGEABLE if getattr(changed, name) != getattr(model, name)}
                same = not values.keys() & {"base_url", "remote_id", "provider"}
                stored = store(connection, now, **values, capabilities=capabilities(found, now.capabilities if same else {}))
                enter_price(connection, actor, stored, before=now, effective_from=log.started_at)
        except BaseException as error:
            if new_key:
                self._versions.drop(model.id, version)
            if isinstance(error, ByokError):
                self._audit.by(actor, "failed", action, model.key, **told, reason=error.code)
                failure = error if isinstance(error, EndpointError) else None
                # What was asked may have cost tokens, whatever came of it.
                tried = Probed("update", False, log, found, failure)
                report_model(self._warehouse, self._standing.now(model), tried, asked=changed, accounts=self._accounts)
            raise
        stored = self._standing.record(actor, stored, None)
        report_model(self._warehouse, stored, probed, accounts=self._accounts)
        return stored

    def _refuse_same(self, model: Model, changed: Model, fingerprint: str) -> None:
        active = next((row for row in self._versions.list(model.id) if row["state"] == "active"), None)
        if active is not None and active["fingerprint"] == fingerprint and active["origin"] == changed.origin:
            raise SameKey("this is the key that is in use already", hint="make a new one at the provider")


def _plain(api_key: SecretStr | None) -> str | None:
    """The key in clear, if it can be one: what no header can carry would show up in the error of whoever tries to encode it."""
    secret = None if api_key is None else api_key.get_secret_value()
    Credentials.parse(secret)
    return secret
