"""Vault as the key store: keys that are gone, servers that have forgotten, and what a setup makes, mends and refuses (21)."""

import shutil
from dataclasses import replace

import pytest

from byok.errors import ByokError
from byok.ids import new_id
from byok.keystore import (
    KeyStoreDenied,
    KeyStoreRolledBack,
    OrgKey,
    OrgKeyDisabled,
    OrgKeyMissing,
    SealContext,
    SecretIntegrity,
    VaultSettings,
)
from byok.keystore.settings import ROLES
from byok.keystore.setup import SetupConflict, VaultSetup
from byok_testing.vault_cases import SEALED, SECRET
from byok_testing.vault_tenant import operate, told


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
