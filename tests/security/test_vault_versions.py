"""Vault as the key store: the cutoff of old versions (15) and batches of which a part is bad (16)."""

import asyncio
from dataclasses import replace

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from byok.control.tables import keystore_rotation, model_secret
from byok.errors import ByokError
from byok.ids import new_id
from byok.keystore import KeyStoreError, KeyStoreRolledBack, OrgKey, SecretIntegrity, SecretVersionRetired
from byok.keystore.transit import TransitKeyStore
from byok.registry import RegisterRequest, RewrapIncomplete, Rewrapper
from byok.sandbox import Sandbox
from byok_testing.leaks import hits
from byok_testing.vault_cases import CONTEXT, SEALED, SECRET
from byok_testing.vault_tenant import b64, damaged, moved, told


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
