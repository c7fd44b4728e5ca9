"""The keys of an organisation are sealed anew without being opened, and none is lost: test 14."""

import dataclasses
import os
import random
import shutil
import signal
import sys
from subprocess import PIPE, Popen

import pytest

from byok.ids import new_id
from byok.keystore import KeyStoreAuth, KeyStoreBusy, KeyStoreDenied, OrgKey, SealContext, SecretVersionRetired
from byok.keystore.transit import TransitKeyStore
from byok.registry import RewrapIncomplete, RotationUnderWay
from byok_testing.installation import clean_environment
from byok_testing.keys import (
    FIRST,
    MARK,
    NO_GRACE,
    SECOND,
    Meanwhile,
    dump,
    events,
    fill,
    move,
    opened,
    place,
    put,
    register,
    rewrap,
    rotate,
    rotations,
    secrets_of,
    set_up_apart,
)
from byok_testing.killing import killer, writable_memory
from byok_testing.leaks import hits


@pytest.fixture
def set_up(set_up):
    return set_up_apart(set_up)


# 14: rotate and rewrap


def sealed_versions(services):
    return {services.keystore.sealed_version(row["sealed"]) for row in secrets_of(services) if row["sealed"] is not None}


@pytest.fixture
def maintainer(vaulted, tmp_path):
    """The environment of a scheduled process: the service member, and with Vault the credentials of the role maintainer alone."""
    home = vaulted.home
    environment = clean_environment(home.root) | {"BYOK_TOKEN_FILE": str(home.worker_token_file), "BYOK_TEST_CANARY": f"canary-{new_id()}"}
    if vaulted.keystore.name == "transit":
        folder = tmp_path / "maintainer"
        folder.mkdir(mode=0o700)
        shutil.copy(home.vault_credentials / "maintainer.json", folder)
        environment |= {"BYOK_VAULT_ADDR": os.environ["BYOK_VAULT_ADDR"], "BYOK_VAULT_CREDENTIALS": str(folder)}
    return environment


def test_14_a_thousand_keys_are_rewrapped_over_kills_without_being_opened(vaulted, maintainer):
    stored = fill(vaulted, 1000)
    before = vaulted.keystore.org_key(vaulted.actor.org_id)
    old = random.sample(secrets_of(vaulted), 5)
    with killer(maintainer) as work:
        moments = [
            {"call": "org_key"},
            {"call": "rotate"},
            {"call": "rotate", "after": True},
            {"call": "rewrap", "after": True},
            {"call": "rewrap", "number": 3},
            *({"call": "rewrap", "number": 6, "within_s": random.uniform(0.02, 0.4)} for _ in range(4)),
        ]
        for moment in moments:
            assert work.run("rewrap", **moment)["signal"] == signal.SIGKILL, moment
            for ref, secret in random.sample(stored, 10):
                assert opened(vaulted, ref) == (secret, 1)
        # A process that has half of them in its hands, or had them just now.
        held = work.run("rewrap", call="rewrap", number=10, after=True, sent=signal.SIGSTOP)
        memory = writable_memory(held["pid"])
        seen, found = maintainer["BYOK_TEST_CANARY"].encode() in memory, hits(memory, [MARK])
        assert seen and found == []
        assert work.end()["signal"] == signal.SIGKILL
        assert work.run("rewrap", call="retire")["signal"] == signal.SIGKILL
        # All are sealed anew, and nothing is retired yet.
        assert sealed_versions(vaulted) == {before.latest + 1}
        assert vaulted.keystore.org_key(vaulted.actor.org_id) == OrgKey(before.latest + 1, before.latest)
        assert work.run("rewrap", call="retire", after=True)["signal"] == signal.SIGKILL
    done = rewrap(vaulted)
    assert (done.rotated, done.version, done.rewrapped, done.secrets) == (False, before.latest + 1, 1000, 1000)
    assert sealed_versions(vaulted) == {done.version}
    assert vaulted.keystore.org_key(vaulted.actor.org_id) == OrgKey(done.version, done.version)
    (rotation,) = rotations(vaulted)
    assert rotation.finished_at is not None and (rotation.target, rotation.rewrapped) == (done.version, 1000)
    assert [len(events(vaulted, action, "done")) for action in ("keystore.rotate.begin", "keystore.rotate")] == [1, 1]
    assert vaulted.audit.verify(vaulted.actor.org_id).bad_seq is None
    for ref, secret in stored:
        assert opened(vaulted, ref) == (secret, 1)
    for row in old:
        with pytest.raises(SecretVersionRetired):
            vaulted.keystore.open(row["sealed"], SealContext(row["org_id"], row["model_id"], row["version"], row["origin"]))


def test_14_a_scan_of_a_process_that_does_open_a_key_finds_it():
    """The counterpart: what the scan above looks at is where a key would be."""
    code = f"import sys, time; held = ''.join(['{MARK[:9]}', '{MARK[9:]}', '-x']); print('ready', flush=True); sys.stdin.read()"
    with Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE) as child:
        assert child.stdout.readline()
        found = hits(writable_memory(child.pid), [MARK])
        child.stdin.close()
    assert found == ["secret 0, form 0"]


def test_14_the_maintainer_in_vault_cannot_open_what_it_rewraps(installation, server, maintainer_only):
    services = installation("transit")
    ref = place(services, server).ref()
    (row,) = secrets_of(services)
    context = SealContext(services.actor.org_id, ref.id, 1, ref.origin)
    alone = TransitKeyStore(maintainer_only(services, "maintainer"))
    rewrapped, again = alone.rewrap(services.actor.org_id, [(row["sealed"], context)] * 2)
    assert len({rewrapped, again, row["sealed"]}) == 3 and services.keystore.open(rewrapped, context) == FIRST
    with pytest.raises(KeyStoreAuth):
        alone.open(row["sealed"], context)
    # Its token in the place of the worker's.
    with pytest.raises(KeyStoreDenied) as caught:
        TransitKeyStore(maintainer_only(services, "worker")).open(row["sealed"], context)
    assert caught.value.fields["path"].startswith("transit/decrypt/")


@pytest.fixture
def maintainer_only(tmp_path):
    """Settings of a process with the maintainer's credentials alone, under the name of a role."""

    def make(services, role):
        folder = tmp_path / f"as-{role}"
        folder.mkdir(mode=0o700)
        shutil.copy(services.home.vault_credentials / "maintainer.json", folder / f"{role}.json")
        return dataclasses.replace(services.keystore.vault.settings, credentials=folder)

    return make


def test_14_progress_is_counted_and_a_second_call_rotates_again(vaulted):
    stored, told = fill(vaulted, 230), []
    done = rewrap(vaulted, progress=lambda *counted: told.append(counted))
    assert told == [(100, 230), (200, 230), (230, 230)]
    assert (done.rotated, done.rewrapped, done.secrets) == (True, 230, 230)
    again = rewrap(vaulted, rotate=False)
    assert (again.rotated, again.version, again.rewrapped) == (False, done.version, 0)
    assert rewrap(vaulted).version == done.version + 1
    for ref, secret in stored[::23]:
        assert opened(vaulted, ref) == (secret, 1)


@pytest.mark.parametrize("call", ["rotate", "rewrap"])
def test_14_keys_that_come_and_go_in_the_middle_of_a_rewrap_are_not_lost(vaulted, server, call):
    stored = fill(vaulted, 3)
    place(vaulted, server, "replaced")
    place(vaulted, server, "given-up")
    place(vaulted, server, "disabled")
    refs = {}

    def meanwhile():
        refs["new"] = register(vaulted, server, "new", SECOND).ref()
        refs["replaced"] = rotate(vaulted, key="replaced").ref()
        refs["given-up"] = rotate(vaulted, key="given-up", grace=NO_GRACE).ref()
        vaulted.registry.disable(vaulted.actor, "disabled")

    done = rewrap(vaulted, Meanwhile(vaulted.keystore, call, meanwhile))
    assert sealed_versions(vaulted) == {done.version}
    for name, ref in refs.items():
        assert opened(vaulted, ref) == (SECOND, 1 if name == "new" else 2)
    for ref, secret in stored:
        assert opened(vaulted, ref) == (secret, 1)
    gone = [row for row in secrets_of(vaulted) if row["state"] == "destroyed"]
    assert len(gone) == 2 and all(row["sealed"] is None for row in gone)
    # The replaced one is in its grace: it was rewrapped too.
    kept = opened(vaulted, refs["replaced"].model_copy(update={"key_version": 1}))
    assert kept == (FIRST, 1)


def test_14_a_key_that_was_sealed_before_a_rotation_and_comes_after_it_is_refused_and_not_lost(vaulted, serve):
    during = []
    server = serve(faults=lambda number, question: during and during.pop()() and None)
    during.append(lambda: rewrap(vaulted))
    with pytest.raises(KeyStoreBusy) as caught:
        register(vaulted, server)
    assert caught.value.retryable and dump(vaulted) == [[], []]
    ref = register(vaulted, server).ref()
    # A new key is stored before it is probed: the rewrap finds it.
    during.append(lambda: rewrap(vaulted))
    new = rotate(vaulted).ref()
    assert not during and sealed_versions(vaulted) == {vaulted.keystore.org_key(vaulted.actor.org_id).least} == {3}
    assert opened(vaulted, new) == (SECOND, 2) and opened(vaulted, ref) == (FIRST, 1)


def test_14_one_damaged_key_keeps_the_old_versions_in_force(vaulted, other_store):
    stored = fill(vaulted, 120)
    row = secrets_of(vaulted)[60]
    parts = row["sealed"].split(":")
    place = 3 if parts[0] == "local" else 2
    damaged = parts[place][:30] + ("A" if parts[place][30] != "A" else "B") + parts[place][31:]
    put(vaulted, row, sealed=":".join([*parts[:place], damaged, *parts[place + 1 :]]))
    for _ in range(2):
        with pytest.raises(RewrapIncomplete) as caught:
            rewrap(vaulted)
        assert caught.value.code == "rewrap_incomplete" and caught.value.fields["left"] == 1
    assert events(vaulted, "keystore.rotate", "failed")[0]["reason"] == "1 x secret_integrity"
    assert vaulted.keystore.org_key(vaulted.actor.org_id) == OrgKey(2, 1)
    (rotation,) = rotations(vaulted)
    assert rotation.finished_at is None
    with pytest.raises(RotationUnderWay):
        move(vaulted, other_store)
    # What the old version sealed still opens, wherever it is.
    put(vaulted, row)
    for ref, secret in stored:
        assert opened(vaulted, ref) == (secret, 1)
    done = rewrap(vaulted)
    assert (done.rotated, done.version, done.rewrapped) == (False, 2, 120)
    assert vaulted.keystore.org_key(vaulted.actor.org_id) == OrgKey(2, 2)
