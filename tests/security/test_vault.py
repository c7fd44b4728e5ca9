"""Vault's transit engine as the key store: rights, rotation, tokens, failures, and what must never leave for another place."""

import asyncio
import base64
import contextlib
import gzip
import ipaddress
import json
import logging
import pickle
import shutil
import socket
import ssl
import threading
import time
import traceback
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import hvac
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hvac.exceptions import InvalidRequest
from pydantic import SecretStr
from sqlalchemy import select, update

from byok.cli.init import initialise
from byok.cli.main import run
from byok.control.tables import keystore_rotation, model_secret
from byok.errors import ByokError
from byok.home import write_private
from byok.ids import new_id
from byok.keystore import (
    BadVaultSettings,
    KeyStoreAuth,
    KeyStoreBusy,
    KeyStoreDenied,
    KeyStoreError,
    KeyStoreRolledBack,
    KeyStoreSealed,
    KeyStoreUnreachable,
    OrgKey,
    OrgKeyDisabled,
    OrgKeyMissing,
    SealContext,
    SecretIntegrity,
    SecretVersionRetired,
    VaultSettings,
    open_keystore,
)
from byok.keystore.settings import ROLES, AppRole
from byok.keystore.setup import SetupConflict, VaultSetup
from byok.keystore.transit import TransitKeyStore
from byok.keystore.vault import Vault
from byok.registry import RegisterRequest, RewrapIncomplete, Rewrapper
from byok.sandbox import Sandbox
from byok_testing.leaks import hits
from byok_testing.raw_server import CLOSE, RawServer
from byok_testing.relay import Relay, SlowServer
from byok_testing.vault_rights import EVERYONE, PERMITTED, operations
from byok_testing.vault_tenant import Tenant, b64, damaged, moved, operate, told, vault_body

SECRET = "sk-vault-9b1f4e7a2c5d8036e9f1a4b7c0d3e6f9"
CONTEXT = SealContext("org", "model", 1, "https://api.example:443")
SECRET_ID = "c0ffee11-2233-4455-6677-8899aabbccdd"
GIVEN = "s.given-0123456789abcdef"
SEALED = "vault:v1:" + base64.b64encode(bytes(48)).decode()
GENEROUS_S = 8
"""Far over any deadline here, far under what a test without one would take."""


@pytest.fixture
def closing():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def tenant(openbao, set_up, tmp_path, closing):
    """Make an organisation, on the shared server unless told otherwise."""
    return lambda server=None, **options: Tenant(server or openbao, set_up, tmp_path, closing, **options)


@pytest.fixture
def relay(closing):
    """Put a relay before a server."""

    def start(server, *change):
        made = Relay(server.address, *change)
        closing.callback(made.close)
        return made

    return start


@pytest.fixture
def slow(closing):
    """Start a server whose answers do not end."""

    def start(first=b"", drip=b""):
        made = SlowServer(first, drip)
        closing.callback(made.close)
        return made

    return start


@pytest.fixture
def at(closing):
    """A key store at an address that needs no setup."""

    def make(address, **changes):
        made = TransitKeyStore(VaultSettings(**({"address": address, "token": GIVEN, "deadline_s": 1.5} | changes)))
        closing.callback(made.vault.close)
        return made

    return make


# 15, 16: rotation


def test_15_after_the_cutoff_old_copies_are_refused_and_rewrapped_ones_read(tenant):
    org = tenant()
    store = org.store()
    contexts = [org.context(f"m{number}") for number in range(3)]
    old = [store.seal(f"{SECRET}-{number}", context) for number, context in enumerate(contexts)]
    assert store.rotate(org.id) == OrgKey(2, 1)
    new = store.rewrap(org.id, list(zip(old, contexts, strict=True)))
    assert [store.sealed_version(one) for one in new] == [2, 2, 2]
    assert store.open(old[0], contexts[0]) == store.open(new[0], contexts[0])  # until the cutoff, both do

    store.retire(org.id, 2)
    assert store.org_key(org.id) == OrgKey(2, 2)
    assert told(org.server, org.key)["min_decryption_version"] == 2
    for number, context in enumerate(contexts):
        with pytest.raises(SecretVersionRetired) as caught:
            store.open(old[number], context)
        assert caught.value.code == "secret_version_retired" and not caught.value.retryable
        assert store.open(new[number], context) == f"{SECRET}-{number}"
    # Nor does an old copy come back by the other way that turns old into new.
    again = store.rewrap(org.id, [(old[0], contexts[0]), (new[1], contexts[1])])
    assert isinstance(again[0], SecretVersionRetired) and store.open(again[1], contexts[1]) == f"{SECRET}-1"
    # What pretends to be of a newer version is not opened either.
    with pytest.raises(SecretIntegrity):
        store.open(old[0].replace(":v1:", ":v2:"), contexts[0])


@pytest.fixture
def registered(installation, monkeypatch):
    """An installation on Vault with three models; gives it and their ids."""
    services = installation("transit", f"r-{new_id()[-12:]}")  # its roles are its own on the shared server
    with Sandbox([("1+1?", "2")], api_key=SECRET, model_id="remote") as server:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
        for key in ("one", "two", "three"):
            request = RegisterRequest(key=key, name=key, base_url=server.base_url, remote_id="remote")
            asyncio.run(services.registry.register(services.actor, request, SecretStr(SECRET)))
    models = {key: services.registry.get(services.actor, key) for key in ("one", "two", "three")}
    yield services, models
    services.keystore.vault.close()


def rows_of(services):
    """What is stored, by model."""
    with services.control.read() as connection:
        return {row.model_id: row.sealed for row in connection.execute(select(model_secret))}


def put(services, model_id, sealed):
    with services.control.write() as connection:
        connection.execute(update(model_secret).where(model_secret.c.model_id == model_id).values(sealed=sealed))


@pytest.mark.parametrize(
    ("spoil", "by_server"),
    [
        (lambda sealed, other: damaged(sealed), True),
        (lambda sealed, other: other, True),
        (lambda sealed, other: "vault:v1:not base64", False),
    ],
    ids=["damaged", "of another model", "not base64"],
)
def test_16_a_rotation_with_one_bad_item_says_so_and_is_not_complete_until_it_is_mended(registered, relay, closing, spoil, by_server):
    services, models = registered
    bad, other = models["two"].id, models["one"].id
    before = rows_of(services)
    spoilt = before | {bad: spoil(before[bad], before[other])}
    put(services, bad, spoilt[bad])
    between = relay(services.keystore.vault.settings)
    store = TransitKeyStore(moved(services.keystore.vault.settings, between.address))
    closing.callback(store.vault.close)
    rewrapper = Rewrapper(services.control, store, services.audit)

    with pytest.raises(RewrapIncomplete) as caught:
        rewrapper.run(services.actor)
    assert (caught.value.code, caught.value.fields) == ("rewrap_incomplete", {"left": 1})
    assert "1 x secret_integrity" in caught.value.message
    (batch,) = [one for one in between.exchanges if "/rewrap/" in one.path]
    results = batch.told["data"]["batch_results"]
    assert batch.status == 200 and len(results) == (3 if by_server else 2)  # the server itself calls the batch a success
    assert [bool(one.get("error")) for one in results].count(True) == (1 if by_server else 0)

    after = rows_of(services)
    assert after[bad] == spoilt[bad]
    assert {one: store.sealed_version(after[one]) for one in after if one != bad} == dict.fromkeys(set(after) - {bad}, 2)
    assert services.keystore.org_key(services.actor.org_id) == OrgKey(2, 1)  # the old version stays in force
    with services.control.read() as connection:
        (rotation,) = connection.execute(select(keystore_rotation)).all()
    assert (rotation.finished_at, rotation.target, rotation.rewrapped) == (None, 2, 2)
    latest = services.audit.entries(services.actor.org_id, limit=1)[0]
    assert (latest.outcome, latest.action) == ("failed", "keystore.rotate") and '"left":1' in latest.detail

    put(services, bad, before[bad])
    done = rewrapper.run(services.actor)
    assert (done.rotated, done.version, done.rewrapped, done.secrets) == (False, 2, 3, 3)  # finished, not begun anew
    assert services.keystore.org_key(services.actor.org_id) == OrgKey(2, 2)
    assert all(services.registry.open_key(model.ref(), services.actor.org_id) == (SECRET, 1) for model in models.values())
    put(services, bad, before[bad])
    with pytest.raises(SecretVersionRetired):
        services.registry.open_key(models["two"].ref(), services.actor.org_id)


def test_16b_each_item_of_a_large_batch_gets_its_own_result_in_its_place(tenant, relay):
    org, stranger = tenant(), tenant()
    between = relay(org.server)
    store = org.store(address=between.address)
    context = org.context()
    good = store.seal(SECRET, context)
    items = [(good, context)] * 250
    wrong = {
        7: (damaged(good), context, SecretIntegrity),
        99: (good, org.context("other"), SecretIntegrity),
        100: ("vault:v7:" + good.rpartition(":")[2], context, KeyStoreRolledBack),
        101: ("no ciphertext", context, SecretIntegrity),
        102: ("", context, SecretIntegrity),
        103: ("vault:v1:" + b64("short"), context, SecretIntegrity),
        249: (stranger.store().seal(SECRET, stranger.context()), context, SecretIntegrity),
    }
    for place, (sealed, bound, _) in wrong.items():
        items[place] = (sealed, bound)
    store.rotate(org.id)
    between.exchanges.clear()
    found = store.rewrap(org.id, items)
    assert [(path, status) for path, status in between.seen() if path != "login"] == [(f"byok-{org.id}", 200)] * 3
    assert {place: type(one) for place, one in enumerate(found) if isinstance(one, ByokError)} == {
        place: kind for place, (_, _, kind) in wrong.items()
    }
    made = [one for one in found if isinstance(one, str)]
    assert len(set(made)) == 243 and {store.sealed_version(one) for one in made} == {2}
    assert store.open(found[248], context) == SECRET
    assert store.rewrap(org.id, []) == []


@pytest.mark.parametrize(
    "results",
    [
        None,
        [],
        [{"ciphertext": SEALED}],
        [{"ciphertext": SEALED}] * 3,
        "text",
        [{"ciphertext": SECRET}, {"error": SECRET}],
        [None, 7],
        [{"ciphertext": "local:v1:k:a:b"}, {}],
    ],
)
def test_16c_an_answer_to_a_batch_that_is_none_is_an_error_and_never_a_ciphertext(raw, reply, at, results):
    store = at(f"http://{raw(reply(200, {'data': {'ttl': 0}}), reply(200, {'data': {'batch_results': results}})).host_port}")
    try:
        found = store.rewrap("org", [(SEALED, CONTEXT), (SEALED, replace(CONTEXT, model_id="n"))])
    except ByokError as error:
        found = [error]
    assert {type(one) for one in found} == {KeyStoreError}
    assert not hits(repr([(one, one.fields, one.hint) for one in found]), [SECRET])


# 17: nothing of what passes stays in an error or a log


def everything(error):
    """All texts that hang on an exception."""
    seen, texts, waiting = set(), [], [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__, *[arg for arg in one.args if isinstance(arg, BaseException)]]
        texts += [str(one), repr(one), repr(one.args), repr(getattr(one, "__notes__", None)), repr(vars(one))]
        texts += traceback.format_exception(one)
        texts += [repr(getattr(one, name, None)) for name in ("request", "response", "text", "json", "errors")]
    return "\n".join([*texts, repr(pickle.dumps(error))])


@pytest.fixture
def all_logs(caplog, monkeypatch):
    """All records of all loggers at their most talkative, with the last line of defence switched off."""
    monkeypatch.setenv("BYOK_REDACTION", "off")
    caplog.set_level(logging.DEBUG)
    for name in {*logging.root.manager.loggerDict, "urllib3", "urllib3.connectionpool", "hvac", "requests", "byok"}:
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "level", logging.DEBUG)
        monkeypatch.setattr(logger, "propagate", True)
        monkeypatch.setattr(logger, "disabled", False)
    logging.root.manager._clear_cache()  # what a logger found out about its level
    yield lambda: "\n".join(f"{one.getMessage()} {one.args!r} {one.exc_text} {one.__dict__!r}" for one in caplog.records)
    logging.root.manager._clear_cache()


def test_17_a_partly_failed_batch_decrypt_leaves_no_plaintext_in_errors_or_logs(tenant, relay, closing, all_logs, capfd):
    org = tenant()
    store, context = org.store(), org.context()
    sealed = store.seal(SECRET, context)
    good = vault_body(sealed, context)
    between = relay(org.server)
    vault = Vault(replace(org.settings, address=between.address, credentials=None, token=org.server.root_token))
    closing.callback(vault.close)
    for bad in (vault_body(damaged(sealed), context), vault_body(sealed, org.context("other")), {"ciphertext": "x", "context": "y"}):
        with pytest.raises(ByokError) as caught:
            vault.ask("worker", "post", f"transit/decrypt/byok-{org.id}", {"batch_input": [good, bad, good]})
        exchange = between.exchanges[-1]
        assert exchange.status == 400 and hits(exchange.answer, [SECRET])  # the server did hand it out
        assert caught.value.code == "key_store_error" and not hits(everything(caught.value), [SECRET])
        assert caught.value.__cause__ is None
    logged = all_logs()
    assert f"/v1/transit/decrypt/byok-{org.id}" in logged  # urllib3 did speak
    assert not hits(logged, [SECRET, org.server.root_token])
    assert not hits("".join(capfd.readouterr()), [SECRET])

    # The library alone would leak, and the search above would have found it.
    client = hvac.Client(org.server.address, token=org.server.root_token)
    closing.callback(client.adapter.close)
    batch = [good, vault_body(damaged(sealed), context)]
    with pytest.raises(InvalidRequest) as leaky:
        client.secrets.transit.decrypt_data(f"byok-{org.id}", ciphertext=sealed, batch_input=batch)
    assert hits(everything(leaky.value), [SECRET])


def test_17b_no_operation_leaves_a_secret_or_a_token_in_errors_or_logs(tenant, all_logs, capfd):
    org = tenant()
    store, context = org.store(), org.context()
    sealed = store.seal(SECRET, context)
    assert store.open(sealed, context) == SECRET
    credentials = [json.loads((org.settings.credentials / f"{role}.json").read_text())["secret_id"] for role in ROLES]
    stranger = SealContext(new_id(), "m", 1, "https://api.example:443")
    errors = []
    for act in (
        lambda: store.open(damaged(sealed), context),
        lambda: store.open(sealed, org.context("other")),
        lambda: store.seal(SECRET, stranger),
        lambda: store.fingerprint(SECRET, stranger.org_id),
        lambda: org.store(address="http://127.0.0.1:1", deadline_s=0.2).seal(SECRET, context),
        lambda: org.as_root().seal(SECRET, stranger),
    ):
        with pytest.raises(ByokError) as caught:
            act()
        errors.append(everything(caught.value))
    secrets = [SECRET, org.server.root_token, *credentials]
    assert not hits("\n".join(errors), secrets)
    assert not hits(all_logs() + "".join(capfd.readouterr()), secrets)
    assert not hits(repr((store, store.vault, org.settings, org.as_root().vault.settings)), secrets)


@pytest.mark.parametrize("status", [200, 400, 403, 404, 412, 413, 418, 429, 500, 503])
def test_17c_a_server_that_repeats_what_it_was_sent_is_not_quoted(raw, reply, at, all_logs, status):
    echo = reply(status, {"errors": [f"1 error occurred: {SECRET}", b64(SECRET)], "data": {"note": SECRET, "ciphertext": SECRET}})
    store = at(f"http://{raw(reply(200, {'data': {'ttl': 0}}), echo).host_port}", deadline_s=0.3)
    with pytest.raises(ByokError) as caught:
        store.seal(SECRET, CONTEXT)
    assert not hits(everything(caught.value) + all_logs(), [SECRET])


# 18: who may do what


@pytest.mark.parametrize("role", ROLES)
def test_18_a_role_can_do_what_is_listed_for_it_and_nothing_else(tenant, role):
    ours, others = tenant(), tenant()
    store, theirs = ours.store(), others.store()
    mine = vault_body(store.seal(SECRET, ours.context()), ours.context())
    other = vault_body(theirs.seal(SECRET, others.context()), others.context())
    keys_before, others_before = told(ours.server, "transit/keys?list=true"), told(ours.server, others.key)
    ours_before = told(ours.server, ours.key)
    outcomes = {}
    for name, (method, path, body) in operations(ours.id, others.id, ours.slug, mine, other).items():
        try:
            store.vault.ask(role, method, path, body)
            outcomes[name] = "done"
        except KeyStoreDenied as error:
            assert error.fields == {"role": role, "path": path} and error.exit_code == 3
        except ByokError as error:
            outcomes[name] = error.code
    assert outcomes == PERMITTED[role]
    # And what was refused has not happened all the same.
    assert told(ours.server, others.key) == others_before
    assert theirs.open(other["ciphertext"], others.context()) == SECRET
    left = {"keys": [one for one in keys_before["keys"] if role != "key-admin" or one != f"byok-{ours.id}"]}
    assert told(ours.server, "transit/keys?list=true") == left
    if role in ("registrar", "worker"):
        assert told(ours.server, ours.key) == ours_before
    if role == "maintainer":
        assert told(ours.server, ours.key)["latest_version"] == 2 and store.open(mine["ciphertext"], ours.context()) == SECRET


def test_18b_every_operation_is_refused_to_a_role_of_another_organisation(tenant):
    ours, others = tenant(), tenant()
    mine = vault_body(ours.store().seal(SECRET, ours.context()), ours.context())
    before = told(ours.server, ours.key)
    stranger = others.store()
    for role in ROLES:
        outcomes = {}
        for name, (method, path, body) in operations(ours.id, ours.id, ours.slug, mine, mine).items():
            try:
                stranger.vault.ask(role, method, path, body)
                outcomes[name] = "done"
            except KeyStoreDenied:
                pass
        assert outcomes == EVERYONE, role
    assert told(ours.server, ours.key) == before
    # Through the store's own face too: the other organisation's credentials lie in this process, and are of no use.
    for act in (
        lambda: stranger.seal(SECRET, ours.context()),
        lambda: stranger.open(mine["ciphertext"], ours.context()),
        lambda: stranger.fingerprint(SECRET, ours.id),
        lambda: stranger.org_key(ours.id),
        lambda: stranger.rotate(ours.id),
        lambda: stranger.rewrap(ours.id, [(mine["ciphertext"], ours.context())]),
        lambda: stranger.retire(ours.id, 1),
    ):
        with pytest.raises(KeyStoreDenied):
            act()


def test_18c_namespaces_are_worlds_of_their_own(tenant, set_up, tmp_path, closing):
    outside = tenant()
    server, spaces = outside.server, [f"n-{outside.slug}-{letter}" for letter in "ab"]
    stores = []
    for space in spaces:
        told(server, f"sys/namespaces/{space}", "POST")
        settings = set_up(server, tmp_path / space, outside.id, outside.slug, namespace=space)
        stores.append(TransitKeyStore(settings))
        closing.callback(stores[-1].vault.close)
    inside, other = stores
    context = outside.context()
    sealed = inside.seal(SECRET, context)
    assert inside.open(sealed, context) == SECRET
    for store in (other, outside.store()):  # the same organisation, mount and names, and another key
        with pytest.raises(SecretIntegrity):
            store.open(sealed, context)
    inside.rotate(outside.id)
    assert (inside.org_key(outside.id).latest, other.org_key(outside.id).latest, outside.store().org_key(outside.id).latest) == (2, 1, 1)

    only = new_id()
    set_up(server, tmp_path / "only", only, "only", namespace=spaces[0])
    status, _ = operate(server, "GET", f"transit/keys/byok-{only}", namespace=spaces[0])
    assert status == 200
    assert [operate(server, "GET", f"transit/keys/byok-{only}", namespace=space)[0] for space in (None, spaces[1])] == [404, 404]
    # Credentials of one are nothing in another.
    astray = TransitKeyStore(replace(inside.vault.settings, namespace=spaces[1]))
    closing.callback(astray.vault.close)
    with pytest.raises(KeyStoreAuth):
        astray.open(sealed, context)


# 20: tokens


def token_of(exchange):
    return exchange.told["auth"]["client_token"]


def test_20_a_revoked_token_is_replaced_by_one_new_login(tenant, relay):
    org = tenant()
    between = relay(org.server)
    store = org.store(address=between.address)
    store.seal(SECRET, org.context())
    token = token_of(between.exchanges[0])
    assert between.seen() == [("login", 200), (f"byok-{org.id}", 200)]
    told(org.server, "auth/token/revoke", "POST", {"token": token})
    assert store.sealed_version(store.seal(SECRET, org.context())) == 1
    assert between.seen() == [(f"byok-{org.id}", 403), ("login", 200), (f"byok-{org.id}", 200)]


def test_20_a_used_up_token_is_replaced_by_one_new_login(tenant, relay):
    org = tenant()
    org.approle("registrar", token_num_uses=1)
    between = relay(org.server)
    store = org.store(address=between.address)
    store.seal(SECRET, org.context())
    assert between.seen() == [("login", 200), (f"byok-{org.id}", 200)]
    store.seal(SECRET, org.context())
    assert between.seen() == [(f"byok-{org.id}", 403), ("login", 200), (f"byok-{org.id}", 200)]


def expire(server, token):
    """Wait until a server does not know a token any more."""
    limit = time.monotonic() + 30
    while operate(server, "GET", "auth/token/lookup-self", token=token)[0] == 200:
        assert time.monotonic() < limit
        time.sleep(0.1)


@pytest.mark.parametrize("kind", ["batch", "service"])
def test_20_an_expired_token_is_replaced_by_one_new_login(tenant, relay, kind):
    org = tenant()
    org.approle("registrar", token_ttl="2s", token_max_ttl="2s", token_type=kind)
    between = relay(org.server)
    store = org.store(address=between.address)
    store.seal(SECRET, org.context())
    expire(org.server, token_of(between.exchanges[0]))
    between.seen()
    store.seal(SECRET, org.context())
    # A batch token cannot be renewed, so that nobody knows of its end before it is refused.
    refused = ("renew-self", 403) if kind == "service" else (f"byok-{org.id}", 403)
    assert between.seen() == [refused, ("login", 200), (f"byok-{org.id}", 200)]


def test_20_a_token_that_the_server_does_not_know_is_key_store_auth_after_one_new_login(tenant, relay):
    org = tenant()

    def forge(exchange):
        if not exchange.path.endswith("/login"):
            return None
        return json.dumps({"auth": exchange.told["auth"] | {"client_token": "s.unknown"}}).encode()

    between = relay(org.server, forge)
    store = org.store(address=between.address)
    with pytest.raises(KeyStoreAuth) as caught:
        store.seal(SECRET, org.context())
    assert (caught.value.code, caught.value.fields, caught.value.retryable) == ("key_store_auth", {"role": "registrar"}, False)
    assert between.seen() == [("login", 200), (f"byok-{org.id}", 403)] * 2
    assert not hits(everything(caught.value), ["s.unknown"])


def test_20_a_destroyed_secret_id_ends_in_key_store_auth(tenant, relay):
    org = tenant()
    between = relay(org.server)
    store = org.store(address=between.address)
    sealed = store.seal(SECRET, org.context())
    token = token_of(between.exchanges[0])
    org.destroy_secret_id("registrar")
    between.seen()
    store.seal(SECRET, org.context())  # its tokens live on
    assert between.seen() == [(f"byok-{org.id}", 200)]
    told(org.server, "auth/token/revoke", "POST", {"token": token})
    for expected in ([(f"byok-{org.id}", 403), ("login", 400)], [("login", 400)]):
        with pytest.raises(KeyStoreAuth) as caught:
            store.seal(SECRET, org.context())
        assert caught.value.fields == {"role": "registrar"} and between.seen() == expected
    assert store.open(sealed, org.context()) == SECRET  # another role, with a login of its own


def test_20_a_role_without_credentials_is_key_store_auth_and_nothing_is_sent(tenant, relay):
    org = tenant()
    between = relay(org.server)
    (org.settings.credentials / "worker.json").unlink()
    with pytest.raises(KeyStoreAuth, match="no Vault credentials for the role worker"):
        org.store(address=between.address).open(SEALED, org.context())
    assert between.seen() == []


@pytest.mark.parametrize("end", ["unknown", "revoked", "expired", "used up"])
def test_20_a_given_token_that_ends_is_key_store_auth_without_any_login(tenant, relay, end):
    org = tenant()
    body = {"policies": [f"byok-{org.slug}-registrar"]} | {"expired": {"ttl": "3s"}, "used up": {"num_uses": 2}}.get(end, {})
    _, made = operate(org.server, "POST", "auth/token/create", body)
    token = made["auth"]["client_token"]
    between = relay(org.server)
    store = org.store(address=between.address, credentials=None, token="s.unknown" if end == "unknown" else token)
    if end != "unknown":
        store.seal(SECRET, org.context())
        assert between.seen() == [("lookup-self", 200), (f"byok-{org.id}", 200)]
        if end == "revoked":
            told(org.server, "auth/token/revoke", "POST", {"token": token})
        if end == "expired":
            expire(org.server, token)
    with pytest.raises(KeyStoreAuth) as caught:
        store.seal(SECRET, org.context())
    assert caught.value.fields.get("role", "registrar") == "registrar" and not hits(everything(caught.value), [token])
    assert between.seen() == {
        "unknown": [("lookup-self", 403)],
        "expired": [("renew-self", 403), (f"byok-{org.id}", 403)],
    }.get(end, [(f"byok-{org.id}", 403)])


def test_20_a_token_is_renewed_at_half_its_life_and_replaced_at_its_longest_without_a_failure(tenant, relay):
    org = tenant()
    org.approle("registrar", token_ttl="5s", token_max_ttl="7s")
    between = relay(org.server)
    store = org.store(address=between.address)
    began = time.monotonic()
    renewed_after = None
    while [one.path for one in between.exchanges].count("auth/approle/login") < 2:
        assert time.monotonic() - began < 60, "no second login"
        store.seal(SECRET, org.context())
        if renewed_after is None and any(one.path == "auth/token/renew-self" for one in between.exchanges):
            renewed_after = time.monotonic() - began
        time.sleep(0.05)
    steps = [one for one in between.exchanges if not one.path.startswith("transit/")]
    assert {one.status for one in between.exchanges if one not in steps} == {200}  # no operation waited for its token's end
    assert [(one.path.rpartition("/")[2], one.status) for one in steps][:2] == [("login", 200), ("renew-self", 200)]
    assert renewed_after >= 2.4  # half of five seconds, not at every call
    tokens = [one.headers["x-vault-token"] for one in between.exchanges if one.path.startswith("transit/")]
    assert len(set(tokens)) <= 2 and tokens[0] == token_of(steps[0])
    store.seal(SECRET, org.context())
    assert between.exchanges[-1].headers["x-vault-token"] == token_of(steps[-1]) != tokens[0]


def test_20b_nothing_of_vaults_own_variables_or_of_the_proxys_is_used(tenant, relay, raw, reply, home, monkeypatch, tmp_path):
    org = tenant()
    between = relay(org.server)
    trap = raw(reply(200, {"auth": {"client_token": "t"}, "data": {"ciphertext": SEALED}}))
    where = f"http://{trap.host_port}"
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login root password s.netrc\n")
    (tmp_path / "netrc").chmod(0o600)
    for name, value in {
        "VAULT_ADDR": where,
        "VAULT_AGENT_ADDR": where,
        "VAULT_TOKEN": org.server.root_token,
        "VAULT_NAMESPACE": "elsewhere",
        "VAULT_SKIP_VERIFY": "true",
        "VAULT_CACERT": str(tmp_path / "none.pem"),
        "BAO_ADDR": where,
        "BAO_TOKEN": org.server.root_token,
        "HTTP_PROXY": where,
        "http_proxy": where,
        "HTTPS_PROXY": where,
        "ALL_PROXY": where,
        "NETRC": str(tmp_path / "netrc"),
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".vault-token").write_text(org.server.root_token)
    assert VaultSettings.from_environment(home) is None

    monkeypatch.setenv("BYOK_VAULT_ADDR", between.address)
    monkeypatch.setenv("BYOK_VAULT_CREDENTIALS", str(moved(org.settings, between.address).credentials))
    store = open_keystore(home)
    try:
        assert store.open(store.seal(SECRET, org.context()), org.context()) == SECRET
    finally:
        store.vault.close()
    assert trap.connections == 0 and len(between.exchanges) == 4
    for one in between.exchanges:
        assert not hits(repr((one.headers, one.body)), [org.server.root_token])
        assert "x-vault-namespace" not in one.headers and "authorization" not in one.headers
    assert "x-vault-token" not in between.exchanges[0].headers
    # Without credentials of ours there is no way in, whatever stands there.
    monkeypatch.setenv("BYOK_VAULT_CREDENTIALS", str(tmp_path / "empty"))
    bare = open_keystore(home)
    with pytest.raises(KeyStoreAuth):
        bare.seal(SECRET, org.context())
    bare.vault.close()
    assert trap.connections == 0


def test_20c_many_threads_share_a_store_without_a_mix_up(tenant):
    org = tenant()
    store = org.store()

    def work(thread):
        for number in range(50):
            secret, context = f"{SECRET}-{thread}-{number}", org.context(f"m{thread}", number + 1)
            if store.open(store.seal(secret, context), context) != secret:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [True] * 8


def test_20d_threads_whose_token_is_revoked_share_one_new_login(tenant, relay):
    org = tenant()
    between = relay(org.server)
    store = org.store(address=between.address)
    sealed = store.seal(SECRET, org.context())
    assert store.open(sealed, org.context()) == SECRET
    token = token_of(between.exchanges[2])
    start = threading.Barrier(9)

    def work(_):
        start.wait(30)
        return [store.open(sealed, org.context()) for _ in range(6)]

    with ThreadPoolExecutor(8) as pool:
        doing = [pool.submit(work, number) for number in range(8)]
        start.wait(30)
        told(org.server, "auth/token/revoke", "POST", {"token": token})
        assert [one.result(60) for one in doing] == [[SECRET] * 6] * 8
    assert store.open(sealed, org.context()) == SECRET
    assert [one.path for one in between.exchanges].count("auth/approle/login") == 3  # the registrar's, and the worker's two


# 21: keys that are gone, and servers that have forgotten


def test_21_missing_soft_deleted_and_rolled_back_keys_are_three_different_errors(tenant):
    gone, hidden, behind = tenant(), tenant(), tenant()
    sealed = {org.id: org.store().seal(SECRET, org.context()) for org in (gone, hidden, behind)}
    told(gone.server, f"{gone.key}/config", "POST", {"deletion_allowed": True})
    told(gone.server, gone.key, "DELETE")
    told(hidden.server, f"{hidden.key}/soft-delete", "DELETE")
    newer = "vault:v2:" + sealed[behind.id].rpartition(":")[2]
    found = {}
    for org, text in ((gone, sealed[gone.id]), (hidden, sealed[hidden.id]), (behind, newer)):
        store = org.store()
        with pytest.raises(ByokError) as caught:
            store.open(text, org.context())
        try:
            (item,) = store.rewrap(org.id, [(text, org.context())])
        except ByokError as error:
            item = error
        assert type(item) is type(caught.value) and not caught.value.retryable
        found[type(caught.value)] = caught.value.code
    assert found == {OrgKeyMissing: "org_key_missing", OrgKeyDisabled: "org_key_disabled", KeyStoreRolledBack: "key_store_rolled_back"}

    for org, kind in ((gone, OrgKeyMissing), (hidden, OrgKeyDisabled)):
        store = org.as_root()
        for act in (
            lambda store=store, org=org: store.seal(SECRET, org.context()),
            lambda store=store, org=org: store.org_key(org.id),
            lambda store=store, org=org: store.rotate(org.id),
        ):
            with pytest.raises(kind):
                act()
    # A soft-deleted key comes back, and with it what it sealed.
    told(hidden.server, f"{hidden.key}/soft-delete-restore", "POST", {})
    assert hidden.store().open(sealed[hidden.id], hidden.context()) == SECRET
    # A key that is made anew under the old name opens nothing of the old one.
    told(gone.server, gone.key, "POST", {"type": "aes256-gcm96", "derived": True})
    with pytest.raises(SecretIntegrity):
        gone.store().open(sealed[gone.id], gone.context())


def test_21_no_key_is_made_by_sealing_not_even_for_an_identity_that_may_create(tenant):
    org, nobody = tenant(), SealContext(new_id(), "m", 1, "https://api.example:443")
    server = org.server
    policy = 'path "transit/*" { capabilities = ["create", "update"] }'
    told(server, f"sys/policies/acl/{org.slug}-creator", "PUT", {"policy": policy})
    _, made = operate(server, "POST", "auth/token/create", {"policies": [f"{org.slug}-creator"]})
    before = told(server, "transit/keys?list=true")
    for token in (made["auth"]["client_token"], server.root_token):
        store = org.store(credentials=None, token=token)
        with pytest.raises(OrgKeyMissing):
            store.seal(SECRET, nobody)
        with pytest.raises(OrgKeyMissing):
            store.open(SEALED, nobody)
        with pytest.raises(OrgKeyMissing):
            store.fingerprint(SECRET, nobody.org_id)
        with pytest.raises(OrgKeyMissing):
            store.rewrap(nobody.org_id, [(SEALED, nobody)])
    assert told(server, "transit/keys?list=true") == before

    # The registrar has no right to create, so that Vault refuses it before it looks for the key.
    told(server, f"{org.key}/config", "POST", {"deletion_allowed": True})
    told(server, org.key, "DELETE")
    with pytest.raises(KeyStoreDenied):
        org.store().seal(SECRET, org.context())
    assert f"byok-{org.id}" not in told(server, "transit/keys?list=true")["keys"]


def test_21b_a_server_restored_from_an_old_backup_is_named_as_such(tenant, new_openbao, tmp_path):
    server = new_openbao()
    org = tenant(server)
    first = org.store().seal(SECRET, org.context())
    server.stop()
    storage = tmp_path / "bao-0" / "storage"
    shutil.copytree(storage, tmp_path / "backup")
    server.start()
    store = org.store()
    store.rotate(org.id)
    second = store.seal(SECRET, org.context())
    assert store.open(second, org.context()) == SECRET
    server.stop()
    shutil.rmtree(storage)
    shutil.move(tmp_path / "backup", storage)
    server.start()
    after = org.store()
    assert after.org_key(org.id) == OrgKey(1, 1)
    with pytest.raises(KeyStoreRolledBack):
        after.open(second, org.context())
    assert isinstance(after.rewrap(org.id, [(second, org.context())])[0], KeyStoreRolledBack)
    assert after.open(first, org.context()) == SECRET


def snapshot(server, org):
    """All that a setup decides about."""
    names = [f"byok-{org.slug}-{role}" for role in ROLES]
    return (
        [told(server, f"transit/keys/{prefix}{org.id}") for prefix in ("byok-", "byok-fp-")],
        [told(server, f"sys/policies/acl/{name}") for name in names],
        [told(server, f"auth/approle/role/{name}") for name in names],
        [sorted(told(server, f"auth/approle/role/{name}/secret-id?list=true")["keys"]) for name in names],
        told(server, "transit/config/keys"),
        {path.name: path.read_bytes() for path in org.settings.credentials.iterdir()},
    )


def test_21c_a_setup_that_runs_again_changes_nothing(tenant):
    org = tenant()
    before = snapshot(org.server, org)
    operator = replace(org.settings, token=org.server.root_token)
    steps = list(VaultSetup(operator).run(org.id, org.slug, also=("key-admin",)))
    assert len(steps) == 17 and {step.done.split(" ")[0] for step in steps} == {"found"}
    assert snapshot(org.server, org) == before
    assert {path.stat().st_mode & 0o777 for path in org.settings.credentials.iterdir()} == {0o600}
    key = before[0][0]
    assert (key["type"], key["derived"], key["auto_rotate_period"]) == ("aes256-gcm96", True, 31536000)
    assert not any(key[name] for name in ("exportable", "allow_plaintext_backup", "convergent_encryption", "deletion_allowed"))


def test_21c_a_setup_mends_what_was_changed_and_nothing_else(tenant):
    org = tenant()
    before = snapshot(org.server, org)
    wider = f'path "transit/+/byok-{org.id}" {{ capabilities = ["update"] }}'
    told(org.server, f"sys/policies/acl/byok-{org.slug}-worker", "PUT", {"policy": wider})
    org.destroy_secret_id("registrar")
    operator = replace(org.settings, token=org.server.root_token)
    steps = [step for step in VaultSetup(operator).run(org.id, org.slug) if not step.done.startswith("found")]
    assert [(step.what, step.done.split(" ")[0]) for step in steps] == [
        (f"policy byok-{org.slug}-worker", "changed"),
        ("credentials of registrar", "made"),
    ]
    assert [one["policy"] for one in snapshot(org.server, org)[1]] == [one["policy"] for one in before[1]]
    store = org.store()
    assert store.open(store.seal(SECRET, org.context()), org.context()) == SECRET


@pytest.mark.parametrize(
    ("prepare", "what"),
    [
        (lambda mount, org_id: [(f"sys/mounts/{mount}", {"type": "kv"})], "engine of type kv"),
        (lambda mount, org_id: [(f"{mount}/keys/byok-{org_id}", {"derived": False})], "another derived"),
        (lambda mount, org_id: [(f"{mount}/keys/byok-{org_id}", {"derived": True, "exportable": True})], "another exportable"),
        (lambda mount, org_id: [(f"{mount}/keys/byok-{org_id}", {"type": "rsa-2048"})], "another type"),
        (
            lambda mount, org_id: [(f"{mount}/keys/byok-{org_id}", {"derived": True, "convergent_encryption": True})],
            "another convergent_encryption",
        ),
        (
            lambda mount, org_id: [
                (f"{mount}/keys/byok-{org_id}", {"derived": True}),
                (f"{mount}/keys/byok-{org_id}/config", {"allow_plaintext_backup": True}),
            ],
            "another allow_plaintext_backup",
        ),
        (lambda mount, org_id: [(f"{mount}/keys/byok-fp-{org_id}", {"derived": True})], "another derived"),
        (lambda mount, org_id: [(f"sys/auth/{mount}-auth", {"type": "userpass"})], "method of type userpass"),
    ],
)
def test_21d_what_is_of_another_kind_is_not_taken_for_ours(openbao, tmp_path, prepare, what):
    org_id, mount = new_id(), f"m-{new_id()[-12:]}"
    wanted = prepare(mount, org_id)
    if not wanted[0][0].startswith("sys/mounts"):
        told(openbao, f"sys/mounts/{mount}", "POST", {"type": "transit"})
    for path, body in wanted:
        told(openbao, path, "POST", body)
    operator = VaultSettings(
        address=openbao.address, credentials=tmp_path / "c", token=openbao.root_token, mount=mount, auth_mount=f"{mount}-auth"
    )
    policies = told(openbao, "sys/policies/acl?list=true")
    with pytest.raises(SetupConflict, match=what) as caught:
        list(VaultSetup(operator).run(org_id, mount))
    assert caught.value.code == "vault_setup_conflict"
    assert told(openbao, "sys/policies/acl?list=true") == policies and not (tmp_path / "c").exists()


def test_21d_roles_are_not_taken_from_another_organisation_of_the_same_name(tenant, set_up, tmp_path):
    org = tenant()
    before = snapshot(org.server, org)
    with pytest.raises(SetupConflict, match="another organisation's"):
        set_up(org.server, tmp_path / "other", new_id(), org.slug)
    assert snapshot(org.server, org) == before and not (tmp_path / "other").exists()


def test_21d_an_organisation_cannot_be_named_like_anothers_fingerprint_key(tenant, set_up, tmp_path):
    org = tenant()
    with pytest.raises(SetupConflict):
        set_up(org.server, tmp_path / "other", f"fp-{org.id}", f"fp-{org.slug}")
    with pytest.raises(SetupConflict):
        set_up(org.server, tmp_path / "other", new_id(), "../worker")
    assert not (tmp_path / "other").exists()


# 22: a server that fails

ONCE, AGAIN = False, True
LOOKUP = {"data": {"ttl": 0}}

FAILURES = {
    "sealed": (503, {"errors": ["Vault is sealed"]}, KeyStoreSealed, AGAIN),
    "not initialised": (501, {"errors": ["Vault is not initialized"]}, KeyStoreSealed, AGAIN),
    "disaster recovery secondary": (472, None, KeyStoreSealed, AGAIN),
    "performance standby": (473, None, KeyStoreSealed, AGAIN),
    "token not taken": (403, {"errors": ["permission denied"]}, KeyStoreAuth, ONCE),
    "policy denies": (403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}, KeyStoreDenied, ONCE),
    "key missing": (400, {"errors": ["encryption key not found"]}, OrgKeyMissing, ONCE),
    "key missing when rotated": (400, {"errors": ["key not found"]}, OrgKeyMissing, ONCE),
    "key missing when configured": (400, {"errors": ["no existing key named byok-org could be found"]}, OrgKeyMissing, ONCE),
    "key missing when read": (404, {"errors": []}, OrgKeyMissing, ONCE),
    "wrong context": (400, {"errors": ["cipher: message authentication failed"]}, SecretIntegrity, ONCE),
    "tampered": (400, {"errors": ["invalid ciphertext: could not be decoded"]}, SecretIntegrity, ONCE),
    "under the cutoff": (
        400,
        {"errors": ["ciphertext or signature version is disallowed by policy (too old)"]},
        SecretVersionRetired,
        ONCE,
    ),
    "above the keyring": (400, {"errors": ["invalid ciphertext: version is too new"]}, KeyStoreRolledBack, ONCE),
    "soft-deleted": (400, {"errors": ["refusing to use soft-deleted key"]}, OrgKeyDisabled, ONCE),
    "soft-deleted, when rotated": (500, {"errors": ["1 error occurred:\n\t* refusing to use soft-deleted key\n\n"]}, OrgKeyDisabled, ONCE),
    "quota": (429, {"errors": ["request path: rate limit quota exceeded"]}, KeyStoreBusy, AGAIN),
    "body too big": (413, {"errors": ["request body too large"]}, KeyStoreError, ONCE),
    "JSON too big": (400, {"errors": ["json payload exceeds allowed complexity: high complexity"]}, KeyStoreError, ONCE),
    "unknown words": (400, {"errors": ["something else"]}, KeyStoreError, ONCE),
    "errors that are none": (400, {"errors": [7, None, {"a": "b"}]}, KeyStoreError, ONCE),
    "no words": (400, None, KeyStoreError, ONCE),
    "a batch that failed in part": (400, {"data": {"batch_results": [{"plaintext": "eA=="}]}}, KeyStoreError, ONCE),
    "replication behind": (412, {"errors": ["required index state not present"]}, KeyStoreUnreachable, AGAIN),
    "error of the server": (500, {"errors": ["internal error"]}, KeyStoreUnreachable, AGAIN),
    "bad gateway": (502, "<html>bad gateway</html>", KeyStoreUnreachable, AGAIN),
    "gateway timeout": (504, "<html>timeout</html>", KeyStoreUnreachable, AGAIN),
    "HTML": (200, "<html>welcome</html>", KeyStoreError, ONCE),
    "JSON of another kind": (200, [1, 2, 3], KeyStoreError, ONCE),
    "no data": (200, {"data": None}, KeyStoreError, ONCE),
    "a teapot": (418, None, KeyStoreError, ONCE),
    "a redirect to itself": (307, None, KeyStoreError, ONCE),
}


@pytest.mark.parametrize("situation", FAILURES)
def test_22_each_failure_has_its_name_and_is_tried_again_only_where_waiting_helps(raw, reply, at, situation):
    status, body, kind, again = FAILURES[situation]
    bad = reply(status, body or b"", **({"location": "/v1/transit/encrypt/byok-org"} if status == 307 else {}))
    server = raw(reply(200, LOOKUP), bad)
    began = time.monotonic()
    with pytest.raises(ByokError) as caught:
        at(f"http://{server.host_port}").seal(SECRET, CONTEXT)
    assert type(caught.value) is kind and caught.value.retryable == again == (kind in (KeyStoreSealed, KeyStoreBusy, KeyStoreUnreachable))
    paths = [first.split(" ")[1] for first, _, _ in server.requests]
    assert paths[0] == "/v1/auth/token/lookup-self" and set(paths[1:]) == {"/v1/transit/encrypt/byok-org"}
    assert len(paths[1:]) <= (6 if again else 1)
    assert time.monotonic() - began < GENEROUS_S
    if again:
        server = raw(reply(200, LOOKUP), bad, bad, reply(200, {"data": {"ciphertext": SEALED}}))
        assert at(f"http://{server.host_port}", deadline_s=20).seal(SECRET, CONTEXT) == SEALED
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, {"errors": ["Vault is sealed"]}, KeyStoreSealed),
        (429, {"errors": ["quota"]}, KeyStoreBusy),
        (500, None, KeyStoreUnreachable),
        (412, None, KeyStoreUnreachable),
        (400, {"errors": ["invalid role or secret ID"]}, KeyStoreAuth),
        (403, {"errors": ["permission denied"]}, KeyStoreAuth),
        (404, {"errors": ["no handler for route"]}, KeyStoreAuth),
        (307, None, KeyStoreError),
        (418, None, KeyStoreError),
        (200, "<html>welcome</html>", KeyStoreError),
        (200, {"auth": {"client_token": 7}}, KeyStoreError),
    ],
)
def test_22_a_login_that_fails_is_not_taken_for_bad_credentials_unless_the_server_says_so(raw, reply, at, status, body, kind):
    options = {"token": None, "approle": AppRole("role", SECRET_ID)}
    server = raw(reply(status, body or b""))
    with pytest.raises(ByokError) as caught:
        at(f"http://{server.host_port}", **options).seal(SECRET, CONTEXT)
    assert type(caught.value) is kind and not hits(everything(caught.value), [SECRET_ID, SECRET])
    assert {first.split(" ")[1] for first, _, _ in server.requests} == {"/v1/auth/approle/login"}
    assert len(server.requests) <= (6 if caught.value.retryable else 1)
    if caught.value.retryable:
        good = reply(200, {"auth": {"client_token": GIVEN}}), reply(200, {"data": {"ciphertext": SEALED}})
        assert at(f"http://{raw(reply(status, body or b''), *good).host_port}", deadline_s=20, **options).seal(SECRET, CONTEXT) == SEALED


def test_22_a_failure_that_passes_is_not_seen_by_the_caller(raw, reply, at):
    sealed, busy = reply(503, {"errors": ["Vault is sealed"]}), reply(429, {"errors": ["quota"]})
    server = raw(reply(200, LOOKUP), sealed, busy, CLOSE, reply(200, {"data": {"ciphertext": SEALED}}))
    assert at(f"http://{server.host_port}", deadline_s=20).seal(SECRET, CONTEXT) == SEALED
    assert len(server.requests) == 5


@pytest.mark.parametrize("answer", [CLOSE, b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n", b"no http\r\n\r\n"])
def test_22_a_rotation_is_sent_once_whatever_comes_of_it(raw, reply, at, answer):
    server = raw(reply(200, LOOKUP), answer)
    with pytest.raises(KeyStoreUnreachable):
        at(f"http://{server.host_port}", deadline_s=5).rotate("org")
    assert len(server.requests) == 2


def test_22_a_refused_connection_is_unreachable_within_the_deadline(at):
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(KeyStoreUnreachable) as caught:
        at(f"http://127.0.0.1:{port}", deadline_s=1.0).seal(SECRET, CONTEXT)
    assert 0.5 < time.monotonic() - began < GENEROUS_S  # it was tried again
    assert caught.value.retryable and not hits(everything(caught.value), [SECRET])


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"", b""),
        (b"", b"H"),
        (b"HTTP/1.1 2", b"0"),
        (OK + b"x-more: ", b"x"),
        (OK, b"a: b\r\n"),
        (OK + b"content-length: 100000\r\n\r\n", b""),
        (OK + b"content-length: 100000\r\n\r\n", b"x"),
        (OK + b"transfer-encoding: chunked\r\n\r\n1;", b"x"),
        (OK + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=[
        "hangs",
        "status line",
        "status code",
        "header",
        "headers",
        "hangs in the body",
        "body",
        "size of a chunk",
        "chunks",
        "interim answers",
    ],
)
def test_22_a_server_that_hangs_or_drips_is_left_at_the_deadline(slow, at, first, drip):
    server = slow(first, drip)
    began = time.monotonic()
    with pytest.raises(KeyStoreUnreachable):
        at(server.address, deadline_s=0.5).seal(SECRET, CONTEXT)
    assert time.monotonic() - began < GENEROUS_S and 1 <= server.connections <= 5


def test_22_health_is_bounded_too(slow, at):
    server = slow(b"", b"H")
    began = time.monotonic()
    with pytest.raises(KeyStoreUnreachable):
        at(server.address, deadline_s=0.5).vault.health()
    assert time.monotonic() - began < GENEROUS_S


def test_22_a_connection_that_once_was_slow_keeps_its_time_for_the_next_request(raw, reply, at):
    server = raw(reply(200, LOOKUP), reply(200, {"data": {"ciphertext": SEALED}}))
    store = at(f"http://{server.host_port}", deadline_s=5)
    assert {store.seal(SECRET, CONTEXT) for _ in range(20)} == {SEALED}
    assert server.connections == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: OK + b"content-length: 80000000\r\n\r\n" + b"x" * 80_000_000,
        lambda: OK + b"content-encoding: gzip\r\nconnection: close\r\n\r\n" + gzip.compress(b"0" * 100_000_000),
        lambda: OK + b"x: y\r\n" * 200 + b"\r\n",
        lambda: OK + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["body", "gzip bomb", "many headers", "long header"],
)
def test_22_a_giant_answer_is_not_read_to_its_end(raw, at, make):
    server = raw(make())
    tracemalloc.start()
    try:
        with pytest.raises(KeyStoreUnreachable):
            at(f"http://{server.host_port}", deadline_s=1.0).seal(SECRET, CONTEXT)
        assert tracemalloc.get_traced_memory()[1] < 64_000_000
    finally:
        tracemalloc.stop()


def test_22_a_real_quota_is_busy_and_passes(tenant):
    org = tenant(mount=f"q-{new_id()[-12:]}")
    sealed = org.store().seal(SECRET, org.context())
    told(org.server, f"sys/quotas/rate-limit/{org.slug}", "POST", {"path": f"{org.mount}/", "rate": 1, "interval": "1h"})
    store = org.store(deadline_s=1.5)
    found = set()
    for _ in range(3):
        try:
            assert store.open(sealed, org.context()) == SECRET
        except ByokError as error:
            found.add(type(error))
    assert found == {KeyStoreBusy}
    told(org.server, f"sys/quotas/rate-limit/{org.slug}", "DELETE")
    assert store.open(sealed, org.context()) == SECRET


def certificate(folder, name, issuer=None, *, host="127.0.0.1", days=1):
    """A certificate and its key, by an issuer or by itself; gives both and their files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signer, by = (issuer[1], issuer[0].subject) if issuer else (key, subject)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(made.public_bytes(pem))
    write_private(files[1], key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode())
    return made, key, *files


@pytest.fixture
def authority(tmp_path):
    return certificate(tmp_path, "authority")


def test_22b_a_private_authority_is_trusted_by_its_file_alone(tenant, new_openbao, authority, tmp_path, home, capsys, monkeypatch):
    *_, chain, key = certificate(tmp_path, "server", authority)
    server = new_openbao(tls=(chain, key, authority[2]))
    org = tenant(server, ca_file=authority[2])
    store = org.store()
    assert store.open(store.seal(SECRET, org.context()), org.context()) == SECRET

    stranger = certificate(tmp_path, "stranger")[2]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority[2]))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(authority[2]))
    for ca_file in (stranger, None):
        with pytest.raises(KeyStoreUnreachable) as caught:
            org.store(ca_file=ca_file, deadline_s=0.6).seal(SECRET, org.context())
        assert "SSLError" in caught.value.message
    # Plain http to the same port is answered by an error of the server's, and is no way in.
    with pytest.raises(ByokError):
        org.store(address=server.address.replace("https", "http"), ca_file=None, deadline_s=0.6).seal(SECRET, org.context())

    # The same server, sealed, as the command line sees it.
    initialise(home, org.slug, "owner@acme.example")
    server.seal()
    monkeypatch.setenv("BYOK_VAULT_ADDR", server.address)
    monkeypatch.setenv("BYOK_VAULT_CA_FILE", str(authority[2]))
    monkeypatch.setenv("BYOK_VAULT_CREDENTIALS", str(org.settings.credentials))
    monkeypatch.setenv("BYOK_VAULT_DEADLINE_S", "1.5")
    capsys.readouterr()
    assert run(["vault", "status", "--json"]) == 1
    status = json.loads(capsys.readouterr().out)["vault"]
    assert (status["store"], status["state"], status["ok"]) == ("transit", "sealed", False)
    assert "key_store_sealed" in status["error"]


@pytest.mark.parametrize("wrong", ["authority", "host", "expired", "plain"])
def test_22b_nothing_is_sent_to_a_server_that_cannot_prove_itself(closing, reply, authority, tmp_path, wrong):
    options = {"host": "127.0.0.2"} if wrong == "host" else {"days": -1} if wrong == "expired" else {}
    *_, chain, key = certificate(tmp_path, "server", certificate(tmp_path, "stranger") if wrong == "authority" else authority, **options)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain, key)
    server = RawServer([reply(200, LOOKUP)], tls=None if wrong == "plain" else tls)
    closing.callback(server.close)
    store = TransitKeyStore(VaultSettings(address=f"https://{server.host_port}", token=GIVEN, ca_file=authority[2], deadline_s=0.6))
    closing.callback(store.vault.close)
    with pytest.raises(KeyStoreUnreachable) as caught:
        store.seal(SECRET, CONTEXT)
    assert server.requests == [] and server.connections >= 1
    assert not hits(everything(caught.value), [SECRET, GIVEN])


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({"BYOK_VAULT_ADDR": "vault.example:8200"}, "plain http or https"),
        ({"BYOK_VAULT_ADDR": "ftp://vault.example"}, "plain http or https"),
        ({"BYOK_VAULT_ADDR": "https://"}, "plain http or https"),
        ({"BYOK_VAULT_ADDR": "https://user:pw@vault.example"}, "plain http or https"),
        ({"BYOK_VAULT_ADDR": "https://vault.example/v1"}, "plain http or https"),
        ({"BYOK_VAULT_ADDR": "https://vault.example?x=y"}, "plain http or https"),
        ({"BYOK_VAULT_ADDR": "https://vault.example:99999"}, "cannot be read"),
        ({"BYOK_VAULT_ADDR": "https://[::1"}, "cannot be read"),
        ({"BYOK_VAULT_ADDR": "http://vault.example:8200"}, "plain http would show"),
        ({"BYOK_VAULT_ADDR": "http://10.0.0.1:8200"}, "plain http would show"),
        ({"BYOK_VAULT_ADDR": "http://localhost.vault.example:8200"}, "plain http would show"),
        ({"BYOK_VAULT_MOUNT": "../sys"}, "BYOK_VAULT_MOUNT"),
        ({"BYOK_VAULT_MOUNT": "transit/../sys"}, "BYOK_VAULT_MOUNT"),
        ({"BYOK_VAULT_MOUNT": "a b"}, "BYOK_VAULT_MOUNT"),
        ({"BYOK_VAULT_MOUNT": "transit?x"}, "BYOK_VAULT_MOUNT"),
        ({"BYOK_VAULT_AUTH_MOUNT": "approle/login#"}, "BYOK_VAULT_AUTH_MOUNT"),
        ({"BYOK_VAULT_DEADLINE_S": "soon"}, "BYOK_VAULT_DEADLINE_S"),
        ({"BYOK_VAULT_DEADLINE_S": "0"}, "BYOK_VAULT_DEADLINE_S"),
        ({"BYOK_VAULT_DEADLINE_S": "-1"}, "BYOK_VAULT_DEADLINE_S"),
        ({"BYOK_VAULT_DEADLINE_S": "nan"}, "BYOK_VAULT_DEADLINE_S"),
        ({"BYOK_VAULT_DEADLINE_S": "inf"}, "BYOK_VAULT_DEADLINE_S"),
        ({"BYOK_VAULT_CA_FILE": "/nowhere/ca.pem"}, "there is no file"),
        ({"BYOK_VAULT_ROLE_ID": "role"}, "both a role id and a secret id"),
        ({"BYOK_VAULT_SECRET_ID": "secret"}, "both a role id and a secret id"),
        ({"BYOK_VAULT_TOKEN_FILE": "/nowhere/token"}, "cannot be read"),
    ],
)
def test_22c_a_setting_that_cannot_be_used_is_named(home, environment, what):
    with pytest.raises(BadVaultSettings, match=what) as caught:
        VaultSettings.from_environment(home, {"BYOK_VAULT_ADDR": "https://vault.example:8200"} | environment)
    assert caught.value.code == "bad_vault_settings" and caught.value.hint and "user:pw" not in repr(vars(caught.value))


def test_22c_a_store_that_is_configured_wrongly_does_not_become_the_other_one(home, monkeypatch):
    initialise(home, "acme", "owner@acme.example")
    assert open_keystore(home).name == "local"
    monkeypatch.setenv("BYOK_VAULT_ADDR", "http://vault.example:8200")
    with pytest.raises(BadVaultSettings):
        open_keystore(home)


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_22c_files_with_secrets_that_others_can_read_are_refused_before_anything_is_sent(home, relay, tenant, tmp_path, mode):
    org = tenant()
    between = relay(org.server)
    (org.settings.credentials / "registrar.json").chmod(mode)
    with pytest.raises(KeyStoreDenied, match="can be read by others"):
        org.store(address=between.address).seal(SECRET, org.context())
    write_private(tmp_path / "token", GIVEN)
    (tmp_path / "token").chmod(mode)
    for name in ("BYOK_VAULT_TOKEN_FILE", "BYOK_VAULT_SECRET_ID_FILE"):
        environment = {"BYOK_VAULT_ADDR": between.address, name: str(tmp_path / "token")}
        with pytest.raises(KeyStoreDenied) as caught:
            VaultSettings.from_environment(home, environment)
        assert not hits(everything(caught.value), [GIVEN])
    assert between.seen() == []


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '"text"', '{"role_id": "a"}', "\x00"])
def test_22c_a_file_of_credentials_that_holds_none_is_named(tenant, content):
    org = tenant()
    (org.settings.credentials / "worker.json").write_text(content)
    with pytest.raises(KeyStoreDenied, match="does not hold a role_id and a secret_id"):
        org.store().open(SEALED, org.context())


def test_22c_the_block_gives_the_settings_that_the_variables_give(home, tmp_path, monkeypatch):
    from blocks import KeyStore

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ca.pem").write_text("")
    for options in (
        {"address": "https://vault.example:8200"},
        {"address": " https://vault.example:8200/ ", "mount": "teams/transit/", "auth_mount": "/teams/approle", "namespace": "team"},
        {"address": "https://vault.example:8200", "ca_file": "~/ca.pem", "credentials": "~/vault", "namespace": ""},
        {"address": "http://127.0.0.1:8200", "ca_file": str(tmp_path / "ca.pem"), "credentials": "", "mount": "", "auth_mount": ""},
    ):
        names = {"address": "ADDR", "mount": "MOUNT", "auth_mount": "AUTH_MOUNT", "namespace": "NAMESPACE"}
        names |= {"ca_file": "CA_FILE", "credentials": "CREDENTIALS"}
        environment = {f"BYOK_VAULT_{names[name]}": value for name, value in options.items()}
        # Others than the owner of the credentials may change a block: these must name the server.
        assert KeyStore(**options).settings(home) == replace(VaultSettings.from_environment(home, environment), bound=True), options
    assert KeyStore(store="local").settings(home) is None
    for address in (None, "", "  ", "http://vault.example:8200"):  # never the embedded store by mistake
        with pytest.raises(BadVaultSettings):
            KeyStore(address=address).settings(home)


def test_22d_setup_and_status_through_the_command_line(home, openbao, tmp_path, capsys, monkeypatch):
    def byok(*arguments):
        code = run([*arguments, "--json"])
        out, err = capsys.readouterr()
        printed.append(out + err)
        return code, json.loads(out)

    printed = []
    slug = f"c-{new_id()[-12:]}"
    initialise(home, slug, "owner@acme.example")
    capsys.readouterr()
    code, found = byok("vault", "status")
    assert (code, found["vault"]["store"], found["vault"]["ok"]) == (0, "local", True)
    code, found = byok("vault", "setup")
    assert (code, found["error"]["code"]) == (2, "vault_not_configured")
    monkeypatch.setenv("BYOK_VAULT_ADDR", openbao.address)
    code, found = byok("vault", "setup")
    assert (code, found["error"]["code"]) == (2, "vault_not_configured")
    code, found = byok("vault", "status")
    assert (code, found["vault"]["roles"]) == (1, dict.fromkeys(("registrar", "worker", "maintainer"), "key_store_auth"))

    write_private(tmp_path / "operator", openbao.root_token + "\n")
    monkeypatch.setenv("BYOK_VAULT_TOKEN_FILE", str(tmp_path / "operator"))
    (tmp_path / "operator").chmod(0o644)
    code, found = byok("vault", "setup")
    assert (code, found["error"]["code"]) == (3, "key_store_denied") and not home.vault_credentials.exists()
    (tmp_path / "operator").chmod(0o600)
    code, found = byok("vault", "setup")
    assert code == 0 and {step["done"].split(" ")[0] for step in found["vault"]["steps"]} >= {"made"}
    assert sorted(path.name for path in home.vault_credentials.iterdir()) == ["maintainer.json", "registrar.json", "worker.json"]
    assert {path.stat().st_mode & 0o777 for path in home.vault_credentials.iterdir()} == {0o600}
    code, found = byok("vault", "setup")
    assert code == 0 and {step["done"].split(" ")[0] for step in found["vault"]["steps"]} == {"found"}

    monkeypatch.delenv("BYOK_VAULT_TOKEN_FILE")
    code, found = byok("vault", "status")
    status = found["vault"]
    assert code == 0 and status["ok"] and status["roles"] == dict.fromkeys(("registrar", "worker", "maintainer"), "ok")
    assert (status["store"], status["address"], status["state"], status["key_version"]) == ("transit", openbao.address, "active", 1)
    assert run(["vault", "status"]) == 0
    printed.append("".join(capsys.readouterr()))
    secrets = [json.loads(path.read_text())["secret_id"] for path in home.vault_credentials.iterdir()]
    assert not hits("".join(printed), [openbao.root_token, *secrets])

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("BYOK_VAULT_ADDR", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("BYOK_VAULT_DEADLINE_S", "0.3")
    code, found = byok("vault", "status")
    assert code == 1 and "key_store_unreachable" in found["vault"]["error"]


# 23: redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("stage", ["login", "look-up", "operation", "health"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_23_a_redirect_takes_neither_token_nor_body_elsewhere(raw, reply, at, closing, status, stage, host):
    trap = raw(reply(200, {"auth": {"client_token": "t"}, "data": {"ciphertext": SEALED, "plaintext": b64(SECRET)}}))
    redirect = reply(status, b"", location=f"http://{host}:{trap.port}/v1/transit/encrypt/byok-org")
    fake = raw(*([reply(200, LOOKUP), redirect] if stage == "operation" else [redirect]))
    options = {"token": None, "approle": AppRole("role", SECRET_ID)} if stage == "login" else {}
    store = at(f"http://{fake.host_port}", deadline_s=5, **options)
    if stage == "health":
        assert store.vault.health() == {"status": status}
    else:
        with pytest.raises(KeyStoreError) as caught:
            store.seal(SECRET, CONTEXT)
        assert "redirect" in caught.value.message and not hits(everything(caught.value), [SECRET, SECRET_ID, GIVEN])
    assert trap.connections == 0 and trap.requests == []
    assert len(fake.requests) == (2 if stage == "operation" else 1)


def test_23b_the_same_redirect_would_take_both_along_if_the_library_had_its_way(raw, reply, closing):
    trap = raw(reply(200, {"data": {"ciphertext": SEALED}}))
    fake = raw(reply(307, b"", location=f"http://localhost:{trap.port}/v1/transit/encrypt/byok-org"))
    client = hvac.Client(f"http://{fake.host_port}", token=GIVEN)
    closing.callback(client.adapter.close)
    client.secrets.transit.encrypt_data("byok-org", plaintext=b64(SECRET))
    ((_, headers, body),) = trap.requests
    assert headers["x-vault-token"] == GIVEN and hits(body, [SECRET])


def test_23c_a_renewal_that_is_redirected_takes_the_token_nowhere(raw, reply, at):
    trap = raw(reply(200, {"auth": {"client_token": "t", "lease_duration": 9, "renewable": True}}))
    login = reply(200, {"auth": {"client_token": "s.first", "lease_duration": 0.2, "renewable": True}})
    redirect = reply(307, b"", location=f"http://localhost:{trap.port}/v1/auth/token/renew-self")
    good = reply(200, {"data": {"ciphertext": SEALED}})
    fake = raw(login, good, redirect, login, good)
    store = at(f"http://{fake.host_port}", token=None, approle=AppRole("role", SECRET_ID), deadline_s=5)
    assert store.seal(SECRET, CONTEXT) == SEALED
    time.sleep(0.15)  # more than half its life
    assert store.seal(SECRET, CONTEXT) == SEALED
    assert [first.split(" ")[1].rpartition("/")[2] for first, _, _ in fake.requests] == [
        "login",
        "byok-org",
        "renew-self",
        "login",
        "byok-org",
    ]
    assert trap.connections == 0


def test_23d_credentials_are_sent_only_to_the_server_that_they_name(tenant, relay, home):
    from blocks import KeyStore

    org = tenant()
    elsewhere = relay(org.server)
    folder = org.settings.credentials

    def tries(settings):
        store = TransitKeyStore(settings)
        try:
            return store.seal(SECRET, org.context())
        finally:
            store.vault.close()

    block = KeyStore(address=elsewhere.address, credentials=str(folder)).settings(home)
    assert tries(KeyStore(address=org.server.address, credentials=str(folder)).settings(home))
    for settings in (block, replace(org.settings, address=elsewhere.address)):
        with pytest.raises(BadVaultSettings, match="is not for the server"):
            tries(settings)
    assert elsewhere.seen() == []
    # Files without a name go where their owner says, and nowhere else.
    for path in folder.iterdir():
        path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "address"}))
    with pytest.raises(BadVaultSettings):
        tries(block)
    assert elsewhere.seen() == [] and tries(replace(org.settings, address=elsewhere.address))
