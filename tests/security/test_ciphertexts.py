"""A ciphertext opens as it was made, in its own place and its own version, and not otherwise: tests 11 to 13."""

import asyncio
import base64
import dataclasses
import shutil
import string
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byok.clock import utcnow
from byok.ids import new_id
from byok.keystore import (
    KeyStoreDenied,
    KeyStoreMismatch,
    KeyStoreRolledBack,
    OrgKeyMissing,
    SealContext,
    SecretIntegrity,
    SecretVersionRetired,
    create_kek,
    open_local,
)
from byok.keystore.transit import TransitKeyStore
from byok.registry import RewrapIncomplete, SecretGone
from byok_testing.keys import (
    FIRST,
    MARK,
    NO_GRACE,
    SECOND,
    THIRD,
    events,
    opened,
    place,
    put,
    rewrap,
    rotate,
    secrets_of,
    set_up_apart,
)


@pytest.fixture
def set_up(set_up):
    return set_up_apart(set_up)


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
        for place in places:  # noqa: F402
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
        for place in range(len(raw)):  # noqa: F402
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
