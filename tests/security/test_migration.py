"""All keys move from one key store to the other, or none does: test 14b."""

import asyncio
import random
import signal
from contextlib import contextmanager

import pytest

from byok.app import open_services
from byok.cli.main import run as byok_command
from byok.keystore import KeyStoreMismatch, KeyStoreUnreachable, SealContext
from byok.registry import MigrationIncomplete
from byok.runs import answer_shard, bill_run, finish_run, probe_models
from byok_testing.installation import Byok, clean_environment
from byok_testing.keys import (
    FIRST,
    MARK,
    NO_GRACE,
    SECOND,
    Meanwhile,
    events,
    fill,
    move,
    opened,
    place,
    put,
    register,
    rotate,
    secrets_of,
    set_up_apart,
    started_run,
)
from byok_testing.killing import killer


@pytest.fixture
def set_up(set_up):
    return set_up_apart(set_up)


# 14b: from one store to the other


def use(other, services, monkeypatch):
    """The installation as a process sees it that is set up for the other store."""
    if other.name == "transit":
        monkeypatch.setenv("BYOK_VAULT_ADDR", other.vault.settings.address)
    else:
        monkeypatch.delenv("BYOK_VAULT_ADDR")
    return open_services(services.home)


@contextmanager
def used(other, services, monkeypatch):
    found = use(other, services, monkeypatch)
    try:
        assert found.keystore.name == other.name
        yield found
    finally:
        found.control.close()


def traces(services, rows):
    """In which files of the installation's data the ciphertexts of rows can be found."""
    found = set()
    for path in services.home.data.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found |= {path.name for row in rows if row["sealed"][-60:].encode() in data}
    return found


def test_14b_keys_move_over_kills_and_the_old_ciphertexts_are_gone(vaulted, other_store, openbao, monkeypatch):
    stored = fill(vaulted, 40)
    old = secrets_of(vaulted)
    assert traces(vaulted, old) & {"control.db", "control.db-wal"}
    byok = Byok(vaulted.home.root, clean_environment(vaulted.home.root) | {"BYOK_VAULT_ADDR": openbao.address})
    job = f"migrate {other_store.name}"
    with killer(byok.environment) as work:
        moments = [
            {"call": "seal"},
            {"call": "seal", "number": 3, "after": True},
            {"call": "open", "number": 12},
            {"call": "fingerprint", "number": 12, "after": True},
            *({"call": "control.compact", "within_s": random.uniform(0.02, 0.4)} for _ in range(3)),
        ]
        for moment in moments:
            assert work.run(job, **moment)["signal"] == signal.SIGKILL, moment
            if secrets_of(vaulted)[0]["store"] == vaulted.keystore.name:
                assert [{"sealed": row["sealed"]} for row in secrets_of(vaulted)] == [{"sealed": row["sealed"]} for row in old]
                for ref, secret in random.sample(stored, 5):
                    assert opened(vaulted, ref) == (secret, 1)
        # Moved, and the pages that were written over are still in the log.
        assert work.run(job, call="control.compact")["signal"] == signal.SIGKILL
    told = byok.json("vault", "migrate", "--to", other_store.name)["migrate"]
    assert told == {"to": other_store.name, "moved": 0, "keys": 40, "cleaned": True}
    rows = secrets_of(vaulted)
    assert {(row["store"], row["next_store"], row["next_sealed"], row["next_fingerprint"]) for row in rows} == {
        (other_store.name, None, None, None)
    }
    assert traces(vaulted, old) == set() and traces(vaulted, rows) == {"control.db"}
    for ref, _ in stored[:3]:
        with pytest.raises(KeyStoreMismatch):
            opened(vaulted, ref)
    with used(other_store, vaulted, monkeypatch) as after:
        for ref, secret in stored:
            assert opened(after, ref) == (secret, 1)
        assert after.audit.verify(after.actor.org_id).bad_seq is None


def test_14b_the_command_moves_all_keys_there_and_back(vaulted, other_store, openbao, server, monkeypatch):
    ref = place(vaulted, server).ref()
    monkeypatch.setenv("BYOK_VAULT_ADDR", openbao.address)
    assert byok_command(["vault", "migrate", "--to", other_store.name]) == 0
    before = secrets_of(vaulted)
    with used(other_store, vaulted, monkeypatch) as after:
        assert opened(after, ref) == (FIRST, 1)
        # Whether two keys are the same is still known.
        with pytest.raises(Exception, match="in use already"):
            rotate(after, FIRST)
    monkeypatch.setenv("BYOK_VAULT_ADDR", openbao.address)
    assert byok_command(["vault", "migrate", "--to", vaulted.keystore.name]) == 0
    assert opened(vaulted, ref) == (FIRST, 1)
    assert traces(vaulted, before) == set()


def test_14b_one_key_that_does_not_open_keeps_all_where_they_are(vaulted, other_store, server, monkeypatch):
    stored, bad = fill(vaulted, 8), place(vaulted, server)
    before = secrets_of(vaulted)
    row = next(row for row in before if row["model_id"] == bad.id)
    put(vaulted, row, sealed=row["sealed"][:-8] + "AAAAAAA=")
    for _ in range(2):
        with pytest.raises(MigrationIncomplete) as caught:
            move(vaulted, other_store)
        assert caught.value.fields["left"] == 1 and "secret_integrity" in caught.value.message
    assert events(vaulted, "keystore.migrate", "failed")[0]["reason"] == "secret_integrity"
    assert [(one["store"], one["sealed"]) for one in secrets_of(vaulted) if one["model_id"] != bad.id] == [
        (one["store"], one["sealed"]) for one in before if one["model_id"] != bad.id
    ]
    for ref, secret in stored:
        assert opened(vaulted, ref) == (secret, 1)
    new = register(vaulted, server, "new").ref()
    vaulted.registry.disable(vaulted.actor, "m")
    done = move(vaulted, other_store)
    assert (done.moved, done.keys) == (9, 9)
    with used(other_store, vaulted, monkeypatch) as after:
        for ref, secret in [*stored, (new, FIRST)]:
            assert opened(after, ref) == (secret, 1)


def test_14b_what_an_interrupted_move_left_is_opened_again_before_it_counts(vaulted, other_store, monkeypatch):
    stored, org_id = fill(vaulted, 4), vaulted.actor.org_id

    def gone():
        raise KeyStoreUnreachable("away")

    with pytest.raises(KeyStoreUnreachable):
        move(vaulted, Meanwhile(other_store, "seal", gone, number=4))
    left = [row for row in secrets_of(vaulted) if row["next_sealed"] is not None]
    assert len(left) == 3
    # The new store has retired what it sealed, one row was written over, and one has another's ciphertext.
    other_store.retire(org_id, other_store.rotate(org_id).latest)
    put(vaulted, left[0], next_sealed=other_store.seal(MARK, SealContext(org_id, left[0]["model_id"], 1, left[0]["origin"])))
    put(vaulted, left[1], next_sealed=left[2]["next_sealed"])
    assert move(vaulted, other_store).moved == 4
    with used(other_store, vaulted, monkeypatch) as after:
        for ref, secret in stored:
            assert opened(after, ref) == (secret, 1)


def test_14b_keys_that_come_and_go_during_a_move_are_not_lost(vaulted, other_store, server, monkeypatch):
    stored = fill(vaulted, 2)
    for key in ("replaced", "given-up", "disabled"):
        place(vaulted, server, key)
    refs = {}

    def meanwhile():
        refs["new"] = register(vaulted, server, "new", SECOND).ref()
        refs["replaced"] = rotate(vaulted, key="replaced").ref()
        refs["given-up"] = rotate(vaulted, key="given-up", grace=NO_GRACE).ref()
        vaulted.registry.disable(vaulted.actor, "disabled")

    # After the last key has been sealed anew: those that it had been done for change once more.
    left = []

    def progress(done, waiting):
        if done == waiting == 5:
            left.append(meanwhile())

    move(vaulted, other_store, progress=progress)
    assert len(left) == 1
    with used(other_store, vaulted, monkeypatch) as after:
        for name, ref in refs.items():
            assert opened(after, ref) == (SECOND, 1 if name == "new" else 2)
        assert opened(after, refs["replaced"].model_copy(update={"key_version": 1})) == (FIRST, 1)
        for ref, secret in stored:
            assert opened(after, ref) == (secret, 1)
    gone = [row for row in secrets_of(vaulted) if row["state"] == "destroyed"]
    assert len(gone) == 2 and all(row["sealed"] is None for row in gone)


def test_14b_a_store_that_goes_away_leaves_all_where_they_are(vaulted, other_store):
    stored = fill(vaulted, 6)
    before = [(row["store"], row["sealed"]) for row in secrets_of(vaulted)]

    def gone():
        raise KeyStoreUnreachable("away")

    with pytest.raises(KeyStoreUnreachable):
        move(vaulted, Meanwhile(other_store, "fingerprint", gone))
    assert [(row["store"], row["sealed"]) for row in secrets_of(vaulted)] == before
    for ref, secret in stored:
        assert opened(vaulted, ref) == (secret, 1)
    assert move(vaulted, other_store).keys == 6


def test_14b_a_run_goes_on_in_the_other_store(vaulted, other_store, server, tmp_path, monkeypatch):
    place(vaulted, server)
    plan = started_run(vaulted, tmp_path, shard_size=3)
    asyncio.run(probe_models(vaulted, plan.run_id))
    assert asyncio.run(answer_shard(vaulted, plan.run_id, 0)).finished == 3
    move(vaulted, other_store)
    with pytest.raises(KeyStoreMismatch):
        asyncio.run(answer_shard(vaulted, plan.run_id, 1))
    with used(other_store, vaulted, monkeypatch) as after:
        assert asyncio.run(answer_shard(after, plan.run_id, 1)).finished == 3
        bill_run(after, plan.run_id)
        finished = finish_run(after, plan.run_id)
    assert finished.status == "completed" and finished.passed
    assert server.stats()["chat_requests"] == 1 + 6
