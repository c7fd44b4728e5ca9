"""Sealed keys of models: how the tests store, read, change and replace them, and what their fixtures do."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import insert, select, update

from byok.app import Services
from byok.clock import utcnow
from byok.control.tables import keystore_rotation, model_secret
from byok.control.tables import model as model_table
from byok.datasets import Mapping
from byok.endpoint import Credentials, EgressPolicy
from byok.engine.plan import ModelRef, RunPlan
from byok.ids import new_id
from byok.keystore import KeyStore, SealContext, VaultSettings, open_local
from byok.keystore.openbao import LocalOpenBao
from byok.keystore.transit import TransitKeyStore
from byok.registry import KeyVersions, Migrated, Migration, Model, RegisterRequest, Rewrapped, Rewrapper
from byok.runs import EvaluationRequest, start_run
from byok.sandbox import Sandbox

MARK = "sk-binding-6Zr9Kq2Wm4Xt"
"""What all keys of these tests begin with."""

FIRST, SECOND, THIRD = (f"{MARK}-{one * 12}" for one in ("1a", "2b", "3c"))
QUESTIONS = [(f"What is {n} plus {n}?", str(2 * n)) for n in range(6)]
NO_GRACE = timedelta(0)


def set_up_apart(set_up: Callable[..., VaultSettings]) -> Callable[..., VaultSettings]:
    """As elsewhere, with names of their own for the policies of each organisation: all of them share one server."""

    def prepare(server: LocalOpenBao, credentials: Path, org_id: str, org_slug: str = "acme", **options: Any) -> VaultSettings:
        return set_up(server, credentials, org_id, f"{org_slug}-{org_id[-12:]}", **options)

    return prepare


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Sandbox]]:
    """Start sandboxes on loopback that may be called; they take all keys of these tests."""
    with ExitStack() as open_ones:
        started: list[str] = []

        def start(**options: Any) -> Sandbox:
            server = open_ones.enter_context(Sandbox(QUESTIONS, **({"api_key": FIRST, "model_id": "org/remote"} | options)))
            server.accept(FIRST, SECOND, THIRD)
            started.append(server.host_port)
            monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", ",".join(started))
            return server

        yield start


def store_not_used(services: Services, openbao: LocalOpenBao, set_up: Callable[..., VaultSettings]) -> KeyStore:
    """The store that the installation does not use, ready to be used."""
    if services.keystore.name == "transit":
        return open_local(services.home.kek_file)
    return TransitKeyStore(set_up(openbao, services.home.vault_credentials, services.actor.org_id))


def register(services: Services, server: Sandbox, key: str = "m", secret: str = FIRST, **options: Any) -> Model:
    request = RegisterRequest(key=key, name="M", base_url=server.base_url, remote_id=server.model_id, **options)
    return asyncio.run(services.registry.register(services.actor, request, SecretStr(secret)))


def place(services: Services, server: Sandbox, key: str = "m", *secrets: str) -> Model:
    """Store a model with its key, or keys: the older ones in their grace. What `register` does, without probing and reporting."""
    base = EgressPolicy.from_environment().check_base_url(server.base_url)
    request = RegisterRequest(key=key, name="M", base_url=base.url, remote_id=server.model_id)
    secrets = secrets or (FIRST,)
    versions, newest = KeyVersions(services.control, services.keystore), len(secrets)
    model = Model.new(services.actor.org_id, new_id(), request, base, Credentials.parse(FIRST)).with_(key_version=newest)
    rows = []
    for version, secret in enumerate(secrets, 1):
        row = versions.seal(secret, SealContext(model.org_id, model.id, version, base.origin))
        state = {"state": "active", "grace_until": None}
        if version < newest:
            state = {"state": "retiring", "grace_until": utcnow() + timedelta(hours=1)}
        rows.append(row | state)
    with services.control.write() as connection:
        connection.execute(insert(model_table), model.columns() | {"created_by": services.actor.member_id})
        connection.execute(insert(model_secret), rows)
    return model


def fill(services: Services, count: int) -> list[tuple[ModelRef, str]]:
    """Store sealed keys without probing anything; gives each model with its key."""
    base = EgressPolicy().check_base_url("https://llm.example/v1")
    versions, models, rows, found = KeyVersions(services.control, services.keystore), [], [], []
    for number in range(count):
        secret = f"{MARK}-{number:06d}-{os.urandom(8).hex()}"
        request = RegisterRequest(key=f"f{number:04d}", name="F", base_url=base.url, remote_id="r")
        model = Model.new(services.actor.org_id, new_id(), request, base, Credentials.parse(FIRST))
        context = SealContext(model.org_id, model.id, 1, base.origin)
        rows.append(versions.row(services.keystore.seal(secret, context), "0" * 8, context) | {"state": "active"})
        models.append(model.columns() | {"created_by": services.actor.member_id})
        found.append((model.ref(), secret))
    with services.control.write() as connection:
        connection.execute(insert(model_table), models)
        connection.execute(insert(model_secret), rows)
    return found


def rotate(services: Services, secret: str = SECOND, key: str = "m", **options: Any) -> Model:
    return asyncio.run(services.registry.rotate(services.actor, key, SecretStr(secret), **options))


def rewrap(services: Services, keystore: Any = None, **options: Any) -> Rewrapped:
    return Rewrapper(services.control, keystore or services.keystore, services.audit).run(services.actor, **options)


def move(services: Services, other: Any, **options: Any) -> Migrated:
    return Migration(services.control, services.keystore, other, services.audit).run(services.actor, **options)


def opened(services: Services, ref: ModelRef) -> tuple[str, int] | None:
    return services.registry.open_key(ref, services.actor.org_id)


def secrets_of(services: Services) -> list[dict[str, Any]]:
    """All rows of sealed keys, as they are."""
    with services.control.read() as connection:
        return [dict(row._mapping) for row in connection.execute(select(model_secret).order_by(*model_secret.primary_key))]


def dump(services: Services) -> list[list[Any]]:
    """All rows of models and their keys."""
    with services.control.read() as connection:
        return [list(connection.execute(select(table))) for table in (model_table, model_secret)]


def put(services: Services, row: dict[str, Any], **values: Any) -> None:
    """Write a row of a sealed key over the one that is there."""
    row = row | values
    with services.control.write() as connection:
        where = (model_secret.c.model_id == row["model_id"], model_secret.c.version == row["version"])
        assert connection.execute(update(model_secret).where(*where).values(**row)).rowcount == 1


def rotations(services: Services) -> list[Any]:
    with services.control.read() as connection:
        return list(connection.execute(select(keystore_rotation)))


def events(services: Services, action: str, outcome: str) -> list[Any]:
    """Details of entries in the organisation's audit log."""
    entries = services.audit.entries(services.actor.org_id)
    return [orjson.loads(entry.detail) for entry in entries if (entry.action, entry.outcome) == (action, outcome)]


def started_run(services: Services, folder: Path, **options: Any) -> RunPlan:
    """A run over the questions, planned and not begun."""
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in QUESTIONS))
    services.datasets.add(services.actor, "sums", path, Mapping())
    request = EvaluationRequest(**({"model": "m", "dataset": "sums", "graders": ["numeric"]} | options))
    return start_run(services, request, new_id())


class Meanwhile:
    """A key store in whose use something else happens, once, after a call of a name."""

    def __init__(self, real: KeyStore, call: str, act: Callable[[], None], number: int = 1) -> None:
        self._real, self._call, self._act, self._left = real, call, act, number

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name != self._call:
            return found

        def called(*arguments: Any) -> Any:
            done = found(*arguments)
            self._left -= 1
            if self._left == 0:
                self._act()
            return done

        return called
