"""Vault as the key store: who may do what, and in which namespace (18)."""

from dataclasses import replace

import pytest

from byok.errors import ByokError
from byok.ids import new_id
from byok.keystore import KeyStoreAuth, KeyStoreDenied, SecretIntegrity
from byok.keystore.settings import ROLES
from byok.keystore.transit import TransitKeyStore
from byok_testing.vault_cases import SECRET
from byok_testing.vault_rights import EVERYONE, PERMITTED, operations
from byok_testing.vault_tenant import operate, told, vault_body


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
