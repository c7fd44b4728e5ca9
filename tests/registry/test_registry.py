"""Models are registered whole or not at all, and their keys open only in their place."""

import asyncio
import base64
import dataclasses
import urllib.parse

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import func, select, update

from byok.control.tables import model as model_table
from byok.control.tables import model_secret
from byok.endpoint import EndpointAuth, EndpointError, EndpointNotOpenAI, RemoteModelNotFound
from byok.errors import ByokError
from byok.ids import new_id
from byok.keystore import SecretIntegrity
from byok.registry import ModelExists, ModelIsDisabled, ModelNotFound, RegisterRequest, SecretGone
from byok.sandbox import Fault, Sandbox

KEY = "sk-registry-5a6b7c8d9e0f1a2b3c4d5e6f7a8b9c0d"


@pytest.fixture
def server(monkeypatch):
    with Sandbox([("1+1?", "2")], api_key=KEY, model_id="org/remote#1") as started:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", started.host_port)
        yield started


def register(services, server, key="m", secret=KEY, **options):
    request = RegisterRequest(**({"key": key, "name": "M", "base_url": server.base_url, "remote_id": server.model_id} | options))
    return asyncio.run(services.registry.register(services.actor, request, SecretStr(secret) if secret else None))


def counts(services):
    with services.control.read() as connection:
        return [connection.execute(select(func.count()).select_from(table)).scalar() for table in (model_table, model_secret)] + [
            services.warehouse.query(f"SELECT count(*) FROM v1.{view}").rows[0][0] for view in ("models", "attempts")
        ]


def test_a_model_is_stored_sealed_and_reported_with_its_probe(services, server):
    model = register(services, server, price_input="0.15")
    assert (model.status, model.key_mask) == ("active", "sk-regi…*****")
    assert model == services.registry.get(services.actor, "m") == services.registry.list(services.actor)[0]
    assert counts(services) == [1, 1, 1, 1]
    assert services.warehouse.query("SELECT status, prompt_tokens > 0, run_id, key_version FROM v1.attempts").rows == [
        ("ok", True, None, 1)
    ]
    charges = services.warehouse.query("SELECT sku, role, run_id, amount_usd IS NULL FROM v1.charges ORDER BY sku").rows
    assert charges == [("tokens/input", "probe", None, False), ("tokens/output", "probe", None, True)]
    assert services.registry.open_key(model.ref(), services.actor.org_id) == (KEY, 1)
    assert server.stats()["chat_requests"] == 1


def test_the_key_is_in_no_file(services, server):
    register(services, server)
    forms = [KEY.encode(), KEY.encode().hex().encode(), urllib.parse.quote(KEY, safe="").encode()]
    forms += [base64.b64encode(b"\0" * shift + KEY.encode())[4:-4] for shift in range(3)]
    for path in services.home.root.rglob("*"):
        if path.is_file():
            assert not [form for form in forms if form in path.read_bytes()], path


@pytest.mark.parametrize(
    ("options", "fault", "error"),
    [
        ({"secret": "sk-wrong-0000000000000000000000"}, None, EndpointAuth),
        ({"secret": None}, None, EndpointAuth),
        ({"remote_id": "something/else"}, None, RemoteModelNotFound),
        ({"base_url": "/wrong"}, None, EndpointError),
        ({}, Fault(body=b"<html>hello</html>", content_type="text/html"), EndpointNotOpenAI),
        ({}, Fault(status=402), EndpointError),
        ({}, Fault(cut=True), EndpointError),
    ],
)
def test_a_refused_model_leaves_nothing(services, monkeypatch, options, fault, error):
    with Sandbox([("1+1?", "2")], api_key=KEY, model_id="org/remote#1", faults=lambda number, question: fault) as server:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
        if "base_url" in options:
            options = {"base_url": server.base_url.removesuffix("/v1") + options["base_url"]}
        with pytest.raises(error) as caught:
            register(services, server, **options)
    assert caught.value.hint and KEY not in repr((caught.value, caught.value.fields, caught.value.hint))
    assert counts(services) == [0, 0, 0, 0]


def test_a_taken_key_is_refused_before_anything_is_asked(services, server):
    register(services, server)
    asked = server.stats()["requests"]
    with pytest.raises(ModelExists):
        register(services, server)
    assert server.stats()["requests"] == asked and counts(services)[0] == 1


@pytest.mark.parametrize(
    "change",
    [{"origin": "http://127.0.0.1:1"}, {"key_version": 2}, {"id": new_id()}],
)
def test_a_changed_row_does_not_open_the_key(services, server, change):
    ref = register(services, server).ref()
    with services.control.write() as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        connection.execute(update(model_table).values(**change))
        if "id" in change:
            connection.execute(update(model_secret).values(model_id=change["id"]))
        if "key_version" in change:
            connection.execute(update(model_secret).values(version=2))
    changed = services.registry.get(services.actor, "m").ref()
    assert changed != ref
    with pytest.raises(SecretIntegrity):
        services.registry.open_key(changed, services.actor.org_id)


def test_swapped_ciphertexts_do_not_open(services, server):
    one, two = register(services, server, "one").ref(), register(services, server, "two").ref()
    with services.control.write() as connection:
        rows = {row.model_id: row.sealed for row in connection.execute(select(model_secret))}
        for mine, other in ((one, two), (two, one)):
            connection.execute(update(model_secret).where(model_secret.c.model_id == mine.id).values(sealed=rows[other.id]))
    for ref in (one, two):
        with pytest.raises(SecretIntegrity):
            services.registry.open_key(ref, services.actor.org_id)


def test_disabling_destroys_the_secret_and_keeps_the_model(services, server):
    ref = register(services, server).ref()
    assert services.registry.disable(services.actor, "m").status == "disabled"
    services.registry.disable(services.actor, "m")
    with services.control.read() as connection:
        row = connection.execute(select(model_secret)).first()
    assert (row.sealed, row.state) == (None, "destroyed")
    with pytest.raises(SecretGone):
        services.registry.open_key(ref, services.actor.org_id)
    with pytest.raises(ModelIsDisabled):
        asyncio.run(services.registry.probe(services.actor, "m"))
    assert services.warehouse.query("SELECT status, revision FROM v1.models").rows == [("disabled", 2)]


def test_probing_again_counts_and_warns(services, server):
    register(services, server)
    found = asyncio.run(services.registry.probe(services.actor, "m"))
    assert found.models_listed and services.registry.get(services.actor, "m").revision == 2
    assert services.warehouse.query("SELECT count(*) FROM v1.attempts WHERE role = 'probe'").rows == [(2,)]


def test_an_endpoint_without_a_key_needs_none(services, monkeypatch):
    with Sandbox([("1+1?", "2")], model_id="open") as server:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
        model = register(services, server, secret=None)
    assert (model.key_version, model.key_mask) == (None, None)
    assert services.registry.open_key(model.ref(), services.actor.org_id) is None


def test_another_organisation_sees_nothing(services, server):
    ref = register(services, server).ref()
    stranger = dataclasses.replace(services.actor, org_id=new_id(), org_slug="other")
    assert services.registry.list(stranger) == []
    for call in (services.registry.get, services.registry.disable):
        with pytest.raises(ModelNotFound):
            call(stranger, "m")
    with pytest.raises(ByokError):
        services.registry.open_key(ref, stranger.org_id)


@pytest.mark.parametrize(
    "options",
    [
        {"key": "Upper"},
        {"key": "a/../b"},
        {"key": ""},
        {"extra_payload": {"messages": []}},
        {"extra_payload": {"stream": True}},
        {"tags": ["two words"]},
        {"max_tokens": 0},
        {"price_input": "-1"},
        {"api_key": "sk-not-here"},
    ],
)
def test_requests_that_cannot_be_meant(options):
    with pytest.raises(ValidationError):
        RegisterRequest(**({"key": "m", "name": "M", "base_url": "https://a.example/v1", "remote_id": "r"} | options))
