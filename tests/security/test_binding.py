"""A sealed key opens in its own place, in its own store, in its own version, and nowhere else: tests 10 to 14 and 24 to 26."""

import asyncio
import base64
import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import socket
import string
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from subprocess import PIPE, Popen

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import event, insert, select, update

from byok.app import open_services
from byok.cli.doctor import examine
from byok.cli.init import initialise
from byok.cli.main import run as byok_command
from byok.clock import utcnow
from byok.control.tables import keystore_rotation, model_secret
from byok.control.tables import model as model_table
from byok.datasets import Mapping
from byok.endpoint import EgressPolicy
from byok.ids import new_id
from byok.keystore import (
    BadOrgId,
    KeyStoreAuth,
    KeyStoreBusy,
    KeyStoreDenied,
    KeyStoreMismatch,
    KeyStoreRolledBack,
    KeyStoreUnreachable,
    LocalKeyStore,
    OrgKey,
    OrgKeyMissing,
    SealContext,
    SecretIntegrity,
    SecretVersionRetired,
    VaultSettings,
    check_org_id,
    create_kek,
    open_keystore,
    open_local,
)
from byok.keystore.setup import SetupConflict, VaultSetup, policy
from byok.keystore.transit import TransitKeyStore
from byok.registry import (
    BadSealedKey,
    KeyNeeded,
    KeyVersions,
    Migration,
    MigrationIncomplete,
    Model,
    ModelChanges,
    RegisterRequest,
    RewrapIncomplete,
    Rewrapper,
    RotationUnderWay,
    SealedKey,
    SecretGone,
)
from byok.runs import EvaluationRequest, answer_shard, bill_run, finish_run, probe_models, start_run
from byok.sandbox import Sandbox
from byok_testing.installation import Byok, clean_environment
from byok_testing.killing import killer, writable_memory
from byok_testing.leaks import hits
from byok_testing.raw_server import CLOSE, RawServer, http

MARK = "sk-binding-6Zr9Kq2Wm4Xt"
"""What all keys of these tests begin with."""

FIRST, SECOND, THIRD = (f"{MARK}-{one * 12}" for one in ("1a", "2b", "3c"))
QUESTIONS = [(f"What is {n} plus {n}?", str(2 * n)) for n in range(6)]
NO_GRACE = timedelta(0)


@pytest.fixture
def set_up(set_up):
    """As elsewhere, with names of their own for the policies of each organisation: all of them share one server."""

    def prepare(server, credentials, org_id, org_slug="acme", **options):
        return set_up(server, credentials, org_id, f"{org_slug}-{org_id[-12:]}", **options)

    return prepare


@pytest.fixture
def serve(monkeypatch):
    """Start sandboxes on loopback that may be called; they take all keys of these tests."""
    with ExitStack() as open_ones:
        started = []

        def start(**options):
            server = open_ones.enter_context(Sandbox(QUESTIONS, **({"api_key": FIRST, "model_id": "org/remote"} | options)))
            server.accept(FIRST, SECOND, THIRD)
            started.append(server.host_port)
            monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", ",".join(started))
            return server

        yield start


@pytest.fixture
def server(serve):
    return serve()


@pytest.fixture
def other_store(vaulted, openbao, set_up, monkeypatch):
    """The store that the installation does not use, ready to be used."""
    if vaulted.keystore.name == "transit":
        return open_local(vaulted.home.kek_file)
    return TransitKeyStore(set_up(openbao, vaulted.home.vault_credentials, vaulted.actor.org_id))


def register(services, server, key="m", secret=FIRST, **options):
    request = RegisterRequest(key=key, name="M", base_url=server.base_url, remote_id=server.model_id, **options)
    return asyncio.run(services.registry.register(services.actor, request, SecretStr(secret)))


def place(services, server, key="m", *secrets):
    """Store a model with its key, or keys: the older ones in their grace. What `register` does, without probing and reporting."""
    base = EgressPolicy.from_environment().check_base_url(server.base_url)
    request = RegisterRequest(key=key, name="M", base_url=base.url, remote_id=server.model_id)
    secrets = secrets or (FIRST,)
    versions, newest = KeyVersions(services.control, services.keystore), len(secrets)
    model = Model.new(services.actor.org_id, new_id(), request, base, key_mask="*").with_(key_version=newest)
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


def rotate(services, secret=SECOND, key="m", **options):
    return asyncio.run(services.registry.rotate(services.actor, key, SecretStr(secret), **options))


def rewrap(services, keystore=None, **options):
    return Rewrapper(services.control, keystore or services.keystore, services.audit).run(services.actor, **options)


def opened(services, ref):
    return services.registry.open_key(ref, services.actor.org_id)


def secrets_of(services):
    """All rows of sealed keys, as they are."""
    with services.control.read() as connection:
        return [dict(row._mapping) for row in connection.execute(select(model_secret).order_by(*model_secret.primary_key))]


def dump(services):
    """All rows of models and their keys."""
    with services.control.read() as connection:
        return [list(connection.execute(select(table))) for table in (model_table, model_secret)]


def put(services, row, **values):
    """Write a row of a sealed key over the one that is there."""
    row = row | values
    with services.control.write() as connection:
        where = (model_secret.c.model_id == row["model_id"], model_secret.c.version == row["version"])
        assert connection.execute(update(model_secret).where(*where).values(**row)).rowcount == 1


def edit(services, model_id, **values):
    with services.control.write() as connection:
        assert connection.execute(update(model_table).where(model_table.c.id == model_id).values(**values)).rowcount == 1


def events(services, action, outcome):
    """Details of entries in the organisation's audit log."""
    entries = services.audit.entries(services.actor.org_id)
    return [orjson.loads(entry.detail) for entry in entries if (entry.action, entry.outcome) == (action, outcome)]


def untouched(thief):
    return {"requests": 0, "chat_requests": 0}.items() <= thief.stats().items()


# 10: the URL


def test_10_a_new_base_url_without_the_key_is_refused_and_changes_nothing(vaulted, server, serve):
    model, thief = register(vaulted, server), serve()
    before = dump(vaulted)
    for base_url in (thief.base_url, server.base_url + "/other", "https://llm.example/v1"):
        for changes in ({}, {"name": "N", "remote_id": "x"}):
            with pytest.raises(KeyNeeded) as caught:
                asyncio.run(vaulted.registry.update(vaulted.actor, "m", ModelChanges(base_url=base_url, **changes)))
            assert caught.value.code == "key_needed" and caught.value.hint
    assert dump(vaulted) == before and untouched(thief)
    assert opened(vaulted, model.ref()) == (FIRST, 1)


def test_10_the_command_line_refuses_a_new_base_url_without_the_key(vaulted, server, serve, capsys):
    register(vaulted, server)
    thief, before = serve(), dump(vaulted)
    assert byok_command(["model", "update", "m", "--base-url", thief.base_url, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "key_needed"
    assert dump(vaulted) == before and untouched(thief)


EDITS = [
    (("base_url",), ()),
    (("origin",), ()),
    (("base_url", "origin"), ()),
    (("base_url", "origin"), ("origin",)),
    (("base_url",), ("origin",)),
]
"""Columns of the model and of its sealed key that somebody writes into the control plane."""


def test_10_an_edited_url_does_not_open_the_key_and_nothing_is_sent_there(vaulted, server, serve):
    model, thief = place(vaulted, server), serve()
    theirs = {"base_url": thief.base_url, "origin": thief.base_url.removesuffix("/v1")}
    (row,), asked = secrets_of(vaulted), server.stats()["requests"]
    for of_model, of_secret in EDITS:
        edit(vaulted, model.id, **{"base_url": model.base_url, "origin": model.origin} | {name: theirs[name] for name in of_model})
        put(vaulted, row, **{name: theirs[name] for name in of_secret})
        with pytest.raises(SecretIntegrity):
            opened(vaulted, vaulted.registry.get(vaulted.actor, "m").ref())
        with pytest.raises(SecretIntegrity) as caught:
            asyncio.run(vaulted.registry.probe(vaulted.actor, "m"))
        assert caught.value.code == "secret_integrity" and caught.value.hint
        # What was pinned before the edit still calls the address that the key was given for.
        assert opened(vaulted, model.ref()) == (FIRST, 1)
    assert events(vaulted, "key.open", "failed") == [{"reason": "secret_integrity", "version": 1}] * 2 * len(EDITS)
    assert untouched(thief) and server.stats()["requests"] == asked
    assert vaulted.audit.verify(vaulted.actor.org_id).bad_seq is None


def test_10_a_new_key_is_not_sent_to_an_edited_url(vaulted, server, serve):
    model, thief = place(vaulted, server), serve()
    edit(vaulted, model.id, base_url=thief.base_url)
    with pytest.raises(SecretIntegrity):
        rotate(vaulted)
    assert [(row["state"], row["sealed"] is None) for row in secrets_of(vaulted)] == [("active", False), ("destroyed", True)]
    assert untouched(thief)


def test_10_an_edited_origin_of_a_sealed_key_keeps_it_from_being_rewrapped_and_sends_it_nowhere(vaulted, server, serve):
    model, thief = place(vaulted, server), serve()
    put(vaulted, secrets_of(vaulted)[0], origin=thief.base_url.removesuffix("/v1"))
    with pytest.raises(RewrapIncomplete):
        rewrap(vaulted)
    assert events(vaulted, "keystore.rotate", "failed")[0]["reason"] == "1 x secret_integrity"
    assert opened(vaulted, model.ref()) == (FIRST, 1)  # for the address that it was given for
    asyncio.run(vaulted.registry.probe(vaulted.actor, "m"))
    assert untouched(thief)


def test_10_an_edited_plan_of_a_run_does_not_open_the_key(vaulted, server, serve, tmp_path):
    place(vaulted, server)
    thief, plan = serve(), started_run(vaulted, tmp_path)
    path = vaulted.home.runs / plan.run_id / "plan.json"
    for names in (("base_url",), ("base_url", "origin")):
        told = json.loads(plan.model_dump_json())
        theirs = {"base_url": thief.base_url, "origin": thief.base_url.removesuffix("/v1")}
        told["model"] |= {name: theirs[name] for name in names}
        path.write_text(json.dumps(told))
        for stage in (probe_models(vaulted, plan.run_id), answer_shard(vaulted, plan.run_id, 0)):
            with pytest.raises(SecretIntegrity):
                asyncio.run(stage)
    assert untouched(thief)


def started_run(services, folder, **options):
    """A run over the questions, planned and not begun."""
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in QUESTIONS))
    services.datasets.add(services.actor, "sums", path, Mapping())
    request = EvaluationRequest(**({"model": "m", "dataset": "sums", "graders": ["numeric"]} | options))
    return start_run(services, request, new_id())


# 11: swaps


@pytest.mark.parametrize("store", ["local", "transit"])
def test_11_no_ciphertext_opens_in_the_place_of_another(installation, server, store):
    both = [installation(store), installation(store, "rival")]
    places = []
    for services in both:
        for key in ("one", "two"):
            second = place(services, server, key, FIRST, SECOND).ref()
            first = second.model_copy(update={"key_version": 1})
            places += [(services, first, FIRST), (services, second, SECOND)]
    # Read through one of them: both share the control plane.
    rows = {(row["model_id"], row["version"]): row for row in secrets_of(both[0])}
    assert len(places) == len(rows) == 8
    for services, ref, secret in places:
        mine = rows[ref.id, ref.key_version]
        for other, its, _ in places:
            if its == ref:
                continue
            put(services, mine, sealed=rows[its.id, its.key_version]["sealed"])
            # Each embedded store has key-encryption keys of its own; each organisation in Vault has a key of its own.
            expected = OrgKeyMissing if store == "local" and services is not other else SecretIntegrity
            with pytest.raises(expected) as caught:
                opened(services, ref)
            assert MARK not in repr((caught.value, caught.value.hint, caught.value.fields))
        put(services, mine)
        assert opened(services, ref) == (secret, ref.key_version)


@pytest.mark.parametrize("store", ["local", "transit"])
def test_11_a_whole_row_of_another_organisation_does_not_open_under_either_name(installation, server, store):
    mine, rival = installation(store), installation(store, "rival")
    ours, theirs = place(mine, server).ref(), place(rival, server, "m", SECOND).ref()
    stolen = next(row for row in secrets_of(mine) if row["org_id"] == rival.actor.org_id)
    own = next(row for row in secrets_of(mine) if row["org_id"] == mine.actor.org_id)
    put(mine, stolen | {"model_id": own["model_id"], "org_id": own["org_id"]})
    with pytest.raises(OrgKeyMissing if store == "local" else SecretIntegrity):
        opened(mine, ours)
    # With the context that it was sealed under: the one has not the key, the other may not use it.
    context = SealContext(rival.actor.org_id, theirs.id, 1, theirs.origin)
    with pytest.raises(OrgKeyMissing if store == "local" else KeyStoreDenied):
        mine.keystore.open(stolen["sealed"], context)
    with pytest.raises(SecretGone):
        mine.registry.open_key(theirs, mine.actor.org_id)
    assert opened(rival, theirs) == (SECOND, 1)


def test_11_a_ciphertext_opens_under_no_context_but_its_own(sealed):
    text, context, store = sealed
    others = [
        dataclasses.replace(context, model_id=new_id()),
        dataclasses.replace(context, key_version=context.key_version + 1),
        dataclasses.replace(context, origin=context.origin + ":444"),
        dataclasses.replace(context, origin=context.origin.replace("https", "http")),
        # The same characters, cut in other places.
        dataclasses.replace(context, model_id=context.model_id + "3", origin=context.origin[1:]),
        dataclasses.replace(context, model_id=context.model_id[:-1], origin=context.model_id[-1] + context.origin),
    ]
    for other in others:
        assert refused(store, text, other) is SecretIntegrity
    # Vault's policies let nobody here use another organisation's key; the embedded store would.
    with pytest.raises(KeyStoreDenied if store.name == "transit" else SecretIntegrity):
        store.open(text, dataclasses.replace(context, org_id=new_id()))
    assert store.open(text, context) == FIRST


# 12: damage


def parts_of(sealed):
    """The position classes of a ciphertext: name of the class to its positions."""
    raw, places, start = sealed.split(":"), {}, 0
    names = ("prefix", "format", "kek", "wrapped", "body") if raw[0] == "local" else ("prefix", "version", "body")
    for name, part in zip(names, raw, strict=True):
        span = range(start, start + len(part))
        if name in ("wrapped", "body"):
            padding = len(part) - len(part.rstrip("="))
            # 12 bytes of nonce are 16 characters, 16 bytes of tag the last 22 or so.
            places[f"{name} nonce"], places[f"{name} inside"] = span[:16], span[16 : len(part) - padding - 22]
            places[f"{name} tag"], places[f"{name} padding"] = (
                span[len(part) - padding - 22 : len(part) - padding],
                span[-padding:][:padding],
            )
        else:
            places[name] = span
        start += len(part) + 1
    places["separator"] = [place for place, char in enumerate(sealed) if char == ":"]
    return places


@pytest.fixture(params=["local", "transit"])
def sealed(request, home, openbao, set_up):
    """A ciphertext, its context, and its store."""
    context = SealContext(new_id(), new_id(), 3, "https://llm.example")
    if request.param == "local":
        create_kek(home)
        store = open_local(home.kek_file)
    else:
        store = TransitKeyStore(set_up(openbao, home.vault_credentials, context.org_id))
    return store.seal(FIRST, context), context, store


def refused(store, text, context):
    """The error of opening a text; it tells nothing of the secret."""
    with pytest.raises((SecretIntegrity, OrgKeyMissing, KeyStoreRolledBack, SecretVersionRetired, KeyStoreMismatch)) as caught:
        store.open(text, context)
    assert caught.value.code and MARK not in repr((caught.value, caught.value.hint, caught.value.fields))
    return type(caught.value)


def test_12_a_ciphertext_that_is_changed_at_any_place_does_not_open(sealed):
    text, context, store = sealed
    found = {}
    for name, places in parts_of(text).items():
        for place in places:
            for char in {"A", "z", "7", "=", ":", "-", "+"} - {text[place]}:
                found.setdefault(name, set()).add(refused(store, text[:place] + char + text[place + 1 :], context))
    assert {name for name, places in parts_of(text).items() if not places} <= {"body padding", "wrapped padding"}
    # A changed version is one that the store does not have; everything else is damage.
    versions = {"version": {SecretIntegrity, KeyStoreRolledBack}, "kek": {SecretIntegrity, OrgKeyMissing, KeyStoreRolledBack}}
    for name, errors in found.items():
        assert errors == versions.get(name, {SecretIntegrity}), name
    assert store.open(text, context) == FIRST


def test_12_a_ciphertext_with_any_bit_flipped_does_not_open(sealed):
    text, context, store = sealed
    standard = text.startswith("vault:")
    encode, decode = (base64.b64encode, base64.b64decode) if standard else (base64.urlsafe_b64encode, base64.urlsafe_b64decode)
    head = text.split(":")
    for part in range(2, len(head)) if standard else range(3, len(head)):
        raw = decode(head[part])
        for place in range(len(raw)):
            changed = raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :]
            assert refused(store, ":".join([*head[:part], encode(changed).decode(), *head[part + 1 :]]), context) is SecretIntegrity


def test_12_a_ciphertext_cut_at_any_length_does_not_open(sealed):
    text, context, store = sealed
    for length in range(len(text)):
        refused(store, text[:length], context)
        refused(store, text[length + 1 :], context)
    for padding in ("=", "A", "AAAA", ":", "\n", " ", "\0"):
        assert refused(store, text + padding, context) is SecretIntegrity
        assert refused(store, padding + text, context) is SecretIntegrity
    assert refused(store, "", context) is SecretIntegrity


def test_12_a_ciphertext_in_another_alphabet_does_not_open(sealed):
    text, context, store = sealed
    head, _, body = text.rpartition(":")
    raw = base64.b64decode(body + "==", altchars=None if text.startswith("vault:") else b"-_")
    other = base64.urlsafe_b64encode if text.startswith("vault:") else base64.b64encode
    # Bytes whose two spellings differ, so that the other alphabet is seen.
    spelled = other(b"\xfb\xff\xfe" + raw[3:]).decode()
    # Tells the same bytes to a decoder that does not look at the bits that are left over.
    loose = body.rstrip("=")
    last = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    texts = [
        f"{head}:{spelled}",
        f"{head}:{base64.b32encode(raw).decode()}",
        f"{head}:{raw.hex()}",
        f"{head}:{body.swapcase()}",
        f"{head}:{body[:10]}\n{body[10:]}",
        f"{head}:{''.join(chr(ord(char) + 0xFEE0) for char in body)}",
        f"{head}:{body[:-1]}\u0430",
        f"{head}:\ud800{body[1:]}",
        text.upper(),
        text.replace(":", "\uff1a"),
        text.replace("v1", "v\u0661", 1),
        text.replace("v1", "v01", 1),
        text.replace("v1", "v0", 1),
    ]
    if body.endswith("="):
        texts += [f"{head}:{loose}", f"{head}:{loose}===="]
        texts += [f"{head}:{loose[:-1]}{char}{body[len(loose) :]}" for char in last if char != loose[-1]]
    for changed in texts:
        assert refused(store, changed, context) is SecretIntegrity, changed.startswith("vault")


def test_12_whatever_is_done_to_a_ciphertext_it_does_not_open(sealed):
    text, context, store = sealed
    alphabet = string.ascii_letters + string.digits + "-_=+/: \n\0é"

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        start=st.integers(0, len(text)), length=st.integers(0, 12), filling=st.one_of(st.text(alphabet, max_size=12), st.text(max_size=6))
    )
    def check(start, length, filling):
        changed = text[:start] + filling + text[start + length :]
        if changed != text:
            refused(store, changed, context)

    check()


def test_12_damage_is_a_security_event_and_nothing_is_sent(vaulted, server):
    ref = place(vaulted, server).ref()
    row, asked = secrets_of(vaulted)[0], server.stats()["requests"]
    for changed in (row["sealed"][:-6] + "AAAAA=", row["sealed"][:20], ""):
        put(vaulted, row, sealed=changed)
        with pytest.raises(SecretIntegrity):
            asyncio.run(vaulted.registry.probe(vaulted.actor, "m"))
    assert len(events(vaulted, "key.open", "failed")) == 3
    assert server.stats()["requests"] == asked
    put(vaulted, row)
    assert opened(vaulted, ref) == (FIRST, 1)


# 13: old versions put back


def test_13_a_destroyed_version_that_is_put_back_as_it_was_is_refused(vaulted, server):
    old = place(vaulted, server).ref()
    copy = secrets_of(vaulted)[0]
    new = rotate(vaulted, grace=NO_GRACE).ref()
    assert copy["state"] == "active" and secrets_of(vaulted)[0]["sealed"] is None
    put(vaulted, copy)
    # A run that is pinned to the old version goes on with the new one, and everything else never asks for the old one.
    assert opened(vaulted, old) == opened(vaulted, new) == (SECOND, 2)
    with pytest.raises(SecretGone):
        put(vaulted, secrets_of(vaulted)[1], state="destroyed", sealed=None)
        opened(vaulted, old)


def test_13_a_retired_version_that_is_put_back_after_its_grace_is_refused(vaulted, server):
    old = place(vaulted, server).ref()
    rotate(vaulted, grace=timedelta(minutes=1))
    copy = secrets_of(vaulted)[0]
    assert copy["state"] == "retiring" and opened(vaulted, old) == (FIRST, 1)
    past = copy | {"grace_until": utcnow() - timedelta(seconds=1)}
    put(vaulted, past)
    rotate(vaulted, THIRD)
    assert opened(vaulted, old) == (THIRD, 3)
    assert secrets_of(vaulted)[0]["sealed"] is None
    for row in (past, past | {"state": "active"}, past | {"state": "pending"}, past | {"grace_until": None}):
        put(vaulted, row)
        assert opened(vaulted, old) == (THIRD, 3)


@pytest.mark.parametrize("end", ["compromised", "grace over"])
def test_13_a_version_that_is_over_is_refused_though_its_row_grants_it_time(vaulted, server, end):
    old = place(vaulted, server).ref()
    rotate(vaulted, grace=timedelta(hours=1))
    copy = secrets_of(vaulted)[0]
    assert copy["state"] == "retiring" and opened(vaulted, old) == (FIRST, 1)
    if end == "compromised":
        rotate(vaulted, THIRD, grace=NO_GRACE)
    else:
        put(vaulted, copy | {"grace_until": utcnow() - timedelta(seconds=1)})
        vaulted.registry.sweep(vaulted.actor.org_id)
    put(vaulted, copy)
    assert opened(vaulted, old)[0] != FIRST


def test_13_a_key_of_a_disabled_model_that_is_put_back_is_refused(vaulted, server):
    ref = place(vaulted, server).ref()
    copy = secrets_of(vaulted)[0]
    vaulted.registry.disable(vaulted.actor, "m")
    for changes in ({}, {"state": "retiring", "grace_until": utcnow() + timedelta(hours=1)}):
        put(vaulted, copy, **changes)
        with pytest.raises(SecretGone):
            opened(vaulted, ref)


def test_13_an_old_ciphertext_under_the_new_versions_number_does_not_open(vaulted, server):
    old = place(vaulted, server).ref()
    copy = secrets_of(vaulted)[0]
    new = rotate(vaulted, grace=NO_GRACE).ref()
    put(vaulted, secrets_of(vaulted)[1], sealed=copy["sealed"])
    for ref in (old, new):
        with pytest.raises(SecretIntegrity):
            opened(vaulted, ref)


def test_13_a_copy_of_the_whole_control_plane_is_refused_after_the_organisations_key_was_rotated(vaulted, server, tmp_path, monkeypatch):
    ref = place(vaulted, server).ref()
    database = vaulted.home.data / "control.db"
    vaulted.control.compact()
    shutil.copy(database, tmp_path / "backup.db")
    rotate(vaulted, grace=NO_GRACE)
    rewrap(vaulted)
    vaulted.control.close()
    for path in database.parent.glob("control.db*"):
        path.unlink()
    shutil.copy(tmp_path / "backup.db", database)
    asked = server.stats()["requests"]
    assert opened_again(vaulted) == ref
    with pytest.raises(SecretVersionRetired):
        opened(vaulted, ref)
    with pytest.raises(SecretVersionRetired):
        asyncio.run(vaulted.registry.probe(vaulted.actor, "m"))
    assert server.stats()["requests"] == asked
    with pytest.raises(RewrapIncomplete):
        rewrap(vaulted)
    # The audit log tells too that it was cut back.
    assert vaulted.audit.verify(vaulted.actor.org_id).bad_seq is not None


def opened_again(services):
    return services.registry.get(services.actor, "m").ref()


# 14: rotate and rewrap


def fill(services, count):
    """Store sealed keys without probing anything; gives each model with its key."""
    base = EgressPolicy().check_base_url("https://llm.example/v1")
    versions, models, rows, found = KeyVersions(services.control, services.keystore), [], [], []
    for number in range(count):
        secret = f"{MARK}-{number:06d}-{os.urandom(8).hex()}"
        request = RegisterRequest(key=f"f{number:04d}", name="F", base_url=base.url, remote_id="r")
        model = Model.new(services.actor.org_id, new_id(), request, base, key_mask="*")
        context = SealContext(model.org_id, model.id, 1, base.origin)
        rows.append(versions.row(services.keystore.seal(secret, context), "0" * 8, context) | {"state": "active"})
        models.append(model.columns() | {"created_by": services.actor.member_id})
        found.append((model.ref(), secret))
    with services.control.write() as connection:
        connection.execute(insert(model_table), models)
        connection.execute(insert(model_secret), rows)
    return found


def rotations(services):
    with services.control.read() as connection:
        return list(connection.execute(select(keystore_rotation)))


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


class Meanwhile:
    """A key store in whose use something else happens, once, after a call of a name."""

    def __init__(self, real, call, act, number=1):
        self._real, self._call, self._act, self._left = real, call, act, number

    def __getattr__(self, name):
        found = getattr(self._real, name)
        if name != self._call:
            return found

        def called(*arguments):
            done = found(*arguments)
            self._left -= 1
            if self._left == 0:
                self._act()
            return done

        return called


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


# 14b: from one store to the other


def move(services, other, **options):
    return Migration(services.control, services.keystore, other, services.audit).run(services.actor, **options)


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


# 24: ids of organisations

BAD_IDS = [
    "../x",
    "a/b",
    "a/../b",
    "a%2fb",
    "a" * 300,
    "a" * 64,
    "",
    "größe",
    "a\u0661",
    "\uff41bc",
    "a'b",
    'a"b',
    "x'; DROP TABLE org; --",
    "a\0b",
    "Acme",
    "acme\n",
    " acme",
    "-acme",
    ".",
    "{{org}}",
    "*",
]


def uses_of(org_id, store):
    """All that a key store can be asked for about an organisation."""
    yield lambda: store.seal(FIRST, SealContext(org_id, "m", 1, "https://llm.example"))
    yield lambda: store.open("vault:v1:AAAA", SealContext(org_id, "m", 1, "https://llm.example"))
    yield lambda: store.fingerprint(FIRST, org_id)
    yield lambda: store.org_key(org_id)
    yield lambda: store.rotate(org_id)
    yield lambda: store.rewrap(org_id, [("vault:v1:AAAA", SealContext("acme", "m", 1, "https://llm.example"))])
    yield lambda: store.retire(org_id, 1)


@pytest.fixture
def listening():
    """Settings of a Vault that counts who comes, and the server."""
    with closing(RawServer([http(200, {"data": {}})])) as vault:
        yield VaultSettings(address=f"http://{vault.host_port}", token="t", deadline_s=1), vault


def test_24_a_bad_id_of_an_organisation_never_reaches_a_key_store(tmp_path, listening):
    vault_settings, vault = listening
    file = tmp_path / "kek.json"
    stores = [TransitKeyStore(vault_settings), LocalKeyStore({"k1-0": bytes(32)}, path=file)]
    for org_id in BAD_IDS:
        for use_it in (
            *itertools.chain.from_iterable(uses_of(org_id, store) for store in stores),
            lambda org_id=org_id: check_org_id(org_id),
            lambda org_id=org_id: list(VaultSetup(vault_settings).run(org_id, "acme")),
            lambda org_id=org_id: policy("worker", org_id, "transit"),
        ):
            with pytest.raises(BadOrgId) as caught:
                use_it()
            assert caught.value.code == "bad_org_id" and caught.value.hint and caught.value.exit_code == 2
    assert vault.connections == 0 and list(tmp_path.iterdir()) == []
    assert check_org_id("a" * 63) and check_org_id("0-")


@pytest.mark.parametrize("store", ["local", "transit"])
def test_24_a_bad_id_of_an_organisation_is_refused_before_any_statement(installation, server, listening, store):
    first = installation(store)
    ref = place(first, server).ref()
    before, asked, said = dump(first), server.stats()["requests"], []
    vault_settings, vault = listening
    services = open_services(first.home, vault_settings if store == "transit" else None)
    with closing(services.control):
        versions, rewrapper = (
            KeyVersions(services.control, services.keystore),
            Rewrapper(services.control, services.keystore, services.audit),
        )
        event.listen(services.control.engine, "before_cursor_execute", lambda *told: said.append(told[2]))
        for org_id in BAD_IDS:
            stranger = dataclasses.replace(services.actor, org_id=org_id)
            for use_it in (
                lambda org_id=org_id: services.registry.open_key(ref, org_id),
                lambda org_id=org_id: versions.check_store(org_id),
                lambda stranger=stranger: services.registry.seal(stranger, "m", SecretStr(FIRST), base_url=server.base_url),
                lambda stranger=stranger: rewrapper.run(stranger),
            ):
                with pytest.raises(BadOrgId):
                    use_it()
        assert said == []
        for org_id in BAD_IDS:
            stranger = dataclasses.replace(services, actor=dataclasses.replace(services.actor, org_id=org_id))
            with pytest.raises(BadOrgId):
                register(stranger, server, "n")
    assert vault.connections == 0
    assert dump(first) == before and server.stats()["requests"] == asked


def test_24_a_sealed_key_with_a_bad_id_is_none():
    good = SealedKey("acme", new_id(), 1, "https://llm.example", "transit", "vault:v1:AAAA", "0" * 8)
    assert SealedKey.parse(good.text()) == good
    for org_id in BAD_IDS:
        with pytest.raises(BadSealedKey):
            SealedKey.parse(dataclasses.replace(good, org_id=org_id).text())


def test_24_an_organisation_of_a_bad_name_is_not_made(home, listening, capsys):
    vault_settings, vault = listening
    for name in BAD_IDS:
        assert byok_command(["init", f"--org={name}", "--owner", "owner@acme.example", "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "bad_organisation"
        with pytest.raises(SetupConflict):
            list(VaultSetup(vault_settings).run("acme", name))
    assert not home.root.exists() and vault.connections == 0


# 25: the other store is no way out


@contextmanager
def away(kind):
    """The address of a Vault that is down in some way."""
    if kind == "refused":
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    elif kind == "hanging":
        with socket.create_server(("127.0.0.1", 0)) as taken:
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
    else:
        answer = {"closing": CLOSE, "failing": http(500, {"errors": ["internal error"]}), "no-tls": http(200, {})}[kind]
        with closing(RawServer([answer])) as server:
            yield f"{'https' if kind == 'no-tls' else 'http'}://{server.host_port}"


def test_25_a_vault_that_is_down_is_named_and_nothing_is_stored_or_sent(installation, server, tmp_path, monkeypatch, capsys):
    services = installation("transit")
    ref = place(services, server).ref()
    plan = started_run(services, tmp_path)
    before, asked = dump(services), server.stats()["requests"]
    assert services.home.kek_file.is_file()
    monkeypatch.setenv("BYOK_VAULT_DEADLINE_S", "0.3")
    for kind in ("refused", "hanging", "closing", "failing", "no-tls"):
        with away(kind) as address, ExitStack() as kept:
            monkeypatch.setenv("BYOK_VAULT_ADDR", address)
            monkeypatch.setenv("BYOK_VAULT_CREDENTIALS", str(credentials_for(services, tmp_path / kind, address)))
            down = open_services()
            kept.callback(down.control.close)
            assert down.keystore.name == "transit"
            uses = list(uses_of_keys(down, server, ref, plan.run_id))
            if kind not in ("refused", "hanging"):
                del uses[2:]
            for use_it in uses:
                began = time.monotonic()
                with pytest.raises(KeyStoreUnreachable) as caught:
                    use_it()
                assert caught.value.code == "key_store_unreachable" and caught.value.retryable and caught.value.exit_code == 4
                # The deadline is 0.3 s; the rest is for a busy machine.
                assert time.monotonic() - began < 10
            if kind == "refused":
                (found,) = [check for check in examine(down.home) if check.name == "key store"]
                assert not found.ok and found.mend
                assert byok_command(["vault", "status", "--json"]) == 1
                assert "key_store_unreachable" in json.loads(capsys.readouterr().out)["vault"]["error"]
    assert [dump(services), server.stats()["requests"], len(rotations(services))] == [before, asked, 0]
    # It is there again: the run goes on.
    asyncio.run(probe_models(services, plan.run_id))
    assert asyncio.run(answer_shard(services, plan.run_id, 0)).finished == len(QUESTIONS)


def uses_of_keys(services, server, ref, run_id):
    """All that takes the key store."""
    moved = ModelChanges(base_url=server.base_url + "/x")
    yield lambda: register(services, server, "n", SECOND)
    yield lambda: opened(services, ref)
    yield lambda: rotate(services)
    yield lambda: asyncio.run(services.registry.update(services.actor, "m", moved, SecretStr(SECOND)))
    yield lambda: services.registry.seal(services.actor, "m", SecretStr(SECOND))
    yield lambda: services.registry.seal(services.actor, "n", SecretStr(SECOND), base_url=server.base_url)
    yield lambda: asyncio.run(services.registry.probe(services.actor, "m"))
    yield lambda: asyncio.run(probe_models(services, run_id))
    yield lambda: asyncio.run(answer_shard(services, run_id, 0))
    yield lambda: rewrap(services)


def credentials_for(services, folder, address):
    """A copy of the installation's credentials that names another server."""
    shutil.copytree(services.home.vault_credentials, folder)
    for path in folder.iterdir():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"address": address}))
    return folder


def test_25_a_vault_that_is_stopped_and_started_again_gives_the_same_keys(home, new_openbao, set_up, server, monkeypatch):
    vault = new_openbao()
    initialise(home, "acme", "owner@acme.example")
    with ExitStack() as kept:
        first = open_services()
        kept.callback(first.control.close)
        services = open_services(home, dataclasses.replace(set_up(vault, home.vault_credentials, first.actor.org_id), deadline_s=1))
        kept.callback(services.control.close)
        ref = register(services, server).ref()
        vault.stop()
        before = dump(services)
        for use_it in (lambda: opened(services, ref), lambda: register(services, server, "n"), lambda: rotate(services)):
            with pytest.raises(KeyStoreUnreachable):
                use_it()
        assert dump(services) == before
        vault.start()
        assert opened(services, ref) == (FIRST, 1)
        assert rotate(services).key_version == 2


def test_25_a_ciphertext_of_one_store_is_refused_by_the_other(vaulted, other_store, server):
    ref = place(vaulted, server).ref()
    (row,) = secrets_of(vaulted)
    context = SealContext(vaulted.actor.org_id, ref.id, 1, ref.origin)
    assert vaulted.keystore.open(row["sealed"], context) == other_store.open(other_store.seal(FIRST, context), context) == FIRST
    for store, text in ((other_store, row["sealed"]), (vaulted.keystore, other_store.seal(FIRST, context))):
        for use_it in (lambda store=store, text=text: store.open(text, context), lambda store=store, text=text: store.sealed_version(text)):
            with pytest.raises(KeyStoreMismatch) as caught:
                use_it()
            assert caught.value.code == "key_store_mismatch" and caught.value.hint
        (told,) = store.rewrap(vaulted.actor.org_id, [(text, context)])
        assert isinstance(told, KeyStoreMismatch)
    asked = server.stats()["requests"]
    foreign = other_store.seal(FIRST, context)
    for changes in ({"sealed": foreign}, {"sealed": foreign, "store": other_store.name}, {"store": other_store.name}):
        put(vaulted, row, **changes)
        with pytest.raises(KeyStoreMismatch):
            opened(vaulted, ref)
        with pytest.raises(KeyStoreMismatch):
            asyncio.run(vaulted.registry.probe(vaulted.actor, "m"))
    assert server.stats()["requests"] == asked


@pytest.mark.parametrize("forged", [False, True], ids=["honest", "forged"])
def test_25_a_sealed_key_of_the_other_store_does_not_travel_into_this_one(vaulted, other_store, server, forged):
    model = place(vaulted, server)
    before, asked = dump(vaulted), server.stats()["requests"]
    named = vaulted.keystore.name if forged else other_store.name

    def travelling(model_id, version):
        context = SealContext(vaulted.actor.org_id, model_id, version, model.origin)
        made = SealedKey(*(context.org_id, model_id, version, context.origin), named, other_store.seal(SECOND, context), "0" * 8)
        return SealedKey.parse(made.text())

    request = RegisterRequest(key="n", name="N", base_url=server.base_url, remote_id=server.model_id)
    for use_it in (
        lambda: vaulted.registry.rotate_sealed(vaulted.actor, "m", travelling(model.id, 2)),
        lambda: vaulted.registry.register_sealed(vaulted.actor, request, travelling(new_id(), 1)),
    ):
        with pytest.raises(KeyStoreMismatch):
            asyncio.run(use_it())
    assert dump(vaulted) == before and server.stats()["requests"] == asked


def test_25_a_process_that_is_set_up_for_another_store_does_not_begin_a_second_one(vaulted, server, tmp_path, monkeypatch):
    ref = place(vaulted, server).ref()
    plan = started_run(vaulted, tmp_path)
    before, keks = dump(vaulted), vaulted.home.kek_file.read_bytes()
    asked = server.stats()["requests"]
    with closing(RawServer([http(200, {"data": {}})])) as vault, ExitStack() as kept:
        if vaulted.keystore.name == "transit":
            monkeypatch.delenv("BYOK_VAULT_ADDR")
        else:
            monkeypatch.setenv("BYOK_VAULT_ADDR", f"http://{vault.host_port}")
        astray = open_services()
        kept.callback(astray.control.close)
        assert {astray.keystore.name, vaulted.keystore.name} == {"local", "transit"}
        for use_it in uses_of_keys(astray, server, ref, plan.run_id):
            with pytest.raises(KeyStoreMismatch) as caught:
                use_it()
            assert caught.value.hint
        assert vault.connections == 0
    assert dump(vaulted) == before and rotations(vaulted) == []
    assert vaulted.home.kek_file.read_bytes() == keks and server.stats()["requests"] == asked


# 26: the file of the embedded store


def rewritten(told, change):
    told["keks"][0]["key"] = base64.b64encode(change(base64.b64decode(told["keks"][0]["key"]))).decode()
    return told


def renamed(told, kek_id):
    told["keks"][0]["id"] = kek_id
    return told


def too_short(path):
    path.write_text(json.dumps(rewritten(json.loads(path.read_text()), lambda key: key[:16])))


def too_long(path):
    path.write_text(json.dumps(rewritten(json.loads(path.read_text()), lambda key: key + key)))


def not_base64(path):
    path.write_text(path.read_text().replace('"key": "', '"key": "*'))


def folder(path):
    path.unlink()
    path.mkdir(mode=0o700)


def link_to_open(path):
    target = path.with_name("elsewhere.json")
    path.rename(target)
    target.chmod(0o644)
    path.symlink_to(target)


def link_to_nothing(path):
    path.unlink()
    path.symlink_to(path.with_name("nothing.json"))


SPOILT = {
    "missing": (lambda path: path.unlink(), KeyStoreUnreachable),
    "missing folder": (lambda path: shutil.rmtree(path.parent), KeyStoreUnreachable),
    "0644": (lambda path: path.chmod(0o644), KeyStoreDenied),
    "0640": (lambda path: path.chmod(0o640), KeyStoreDenied),
    "0602": (lambda path: path.chmod(0o602), KeyStoreDenied),
    "too short": (too_short, KeyStoreDenied),
    "too long": (too_long, KeyStoreDenied),
    "not JSON": (lambda path: path.write_text("not json"), KeyStoreDenied),
    "not base64": (not_base64, KeyStoreDenied),
    "no keys": (lambda path: path.write_text('{"keks": []}'), KeyStoreDenied),
    "a list": (lambda path: path.write_text("[]"), KeyStoreDenied),
    "empty": (lambda path: path.write_bytes(b""), KeyStoreDenied),
    "folder": (folder, KeyStoreUnreachable),
    "link to an open file": (link_to_open, KeyStoreDenied),
    "link to nothing": (link_to_nothing, KeyStoreUnreachable),
}


def tree(root):
    """All files but those of the database, with their modes and bytes."""
    found = {}
    for path in sorted(root.rglob("*")):
        if not path.name.startswith("control.db"):
            kind = "link" if path.is_symlink() else "folder" if path.is_dir() else path.read_bytes()
            found[str(path.relative_to(root))] = (path.lstat().st_mode, kind)
    return found


@pytest.fixture
def embedded(home, server, monkeypatch):
    """An installation with the embedded store, whose key file has a folder of its own, and a model `m`."""
    monkeypatch.setenv("BYOK_KEK_FILE", str(home.root / "keks" / "kek.json"))
    initialise(home, "acme", "owner@acme.example")
    services = open_services()
    place(services, server)
    yield services
    services.control.close()


def test_26_a_key_file_that_is_missing_exposed_or_none_is_refused_and_never_made_anew(embedded, server, tmp_path, capsys):
    home, path = embedded.home, embedded.home.kek_file
    org_id, context = embedded.actor.org_id, SealContext(embedded.actor.org_id, "m", 1, "https://llm.example")
    key = json.loads(path.read_text())["keks"][0]["key"]
    rows, asked = dump(embedded), server.stats()["requests"]
    shutil.copytree(path.parent, tmp_path / "kept", symlinks=True)
    for name, (spoil, error) in SPOILT.items():
        spoil(path)
        before = tree(home.root)
        for use_it in (
            open_services,
            lambda: open_keystore(home),
            lambda: open_local(path),
            # A process that had it open before does not go on sealing with what it remembers.
            lambda: register(embedded, server, "n", SECOND),
            lambda: rotate(embedded),
            lambda: embedded.keystore.seal(SECOND, context),
            lambda: embedded.keystore.org_key(org_id),
            lambda: embedded.keystore.rotate(org_id),
            lambda: embedded.keystore.retire(org_id, 1),
            lambda: rewrap(embedded),
        ):
            with pytest.raises(error) as caught:
                use_it()
            assert caught.value.hint and key[1:-1] not in repr((caught.value, caught.value.hint, caught.value.fields)), name
        assert byok_command(["model", "probe", "m", "--json"]) == error.exit_code, name
        assert json.loads(capsys.readouterr().out)["error"]["code"] == error.code, name
        # Running `init` again mends what was interrupted, never a lost key file.
        initialise(home, "acme", "owner@acme.example")
        assert tree(home.root) == before and dump(embedded) == rows, name
        shutil.rmtree(path.parent, ignore_errors=True)
        shutil.copytree(tmp_path / "kept", path.parent, symlinks=True)
    assert server.stats()["requests"] == asked
    assert opened(embedded, embedded.registry.get(embedded.actor, "m").ref()) == (FIRST, 1)


def test_26_a_lost_key_file_is_what_doctor_finds(embedded):
    embedded.home.kek_file.unlink()
    (found,) = [check for check in examine(embedded.home) if check.name == "key store"]
    assert not found.ok and found.mend and not embedded.home.kek_file.exists()


def test_26_a_key_file_with_a_wrong_key_opens_nothing_and_sends_nothing(embedded, server):
    path, rows, asked = embedded.home.kek_file, dump(embedded), server.stats()["requests"]
    right = path.read_text()
    for change, error in (
        (lambda told: rewritten(told, lambda key: bytes(byte ^ 1 for byte in key)), SecretIntegrity),
        (lambda told: renamed(told, "k1-ffffffff"), OrgKeyMissing),
        (lambda told: renamed(told, "foreign"), OrgKeyMissing),
        (lambda told: renamed(told, "k2-ffffffff"), SecretVersionRetired),
    ):
        path.write_text(json.dumps(change(json.loads(right))))
        before, services = path.read_bytes(), open_services()
        with closing(services.control):
            for use_it in (
                lambda services=services: opened(services, services.registry.get(services.actor, "m").ref()),
                lambda services=services: asyncio.run(services.registry.probe(services.actor, "m")),
            ):
                with pytest.raises(error) as caught:
                    use_it()
                assert caught.value.hint
        assert path.read_bytes() == before
    assert server.stats()["requests"] == asked and dump(embedded) == rows


def test_26_a_link_to_a_private_file_is_as_good_as_the_file(embedded):
    path = embedded.home.kek_file
    target = path.with_name("elsewhere.json")
    path.rename(target)
    path.symlink_to(target)
    services = open_services()
    with closing(services.control):
        assert opened(services, services.registry.get(services.actor, "m").ref()) == (FIRST, 1)


@pytest.mark.parametrize("link", [link_to_open, link_to_nothing])
def test_26_a_link_in_the_usual_place_is_no_way_around_the_check(home, link):
    initialise(home, "acme", "owner@acme.example")
    link(home.kek_file)
    before = tree(home.root)
    with pytest.raises(KeyStoreDenied if link is link_to_open else KeyStoreUnreachable):
        open_services()
    assert tree(home.root) == before
