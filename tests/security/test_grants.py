"""A grant allows one act of one member on one model at one origin, once; a sealed key opens in one place."""

import asyncio
import base64
import dataclasses
import itertools
import threading
from datetime import timedelta
from functools import partial

import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import func, insert, select, update

from byok.access import BadGrant, GrantRefused, Grants, ScopeMissing, authenticate, read_signing_key
from byok.access.grants import _encode
from byok.clock import iso, utcnow
from byok.control.tables import grant, model, model_secret
from byok.endpoint import EndpointAuth
from byok.ids import new_id
from byok.keystore import KeyStoreMismatch, SecretIntegrity, open_local
from byok.registry import BadSealedKey, FrontDoor, ModelChanges, ModelExists, RegisterRequest, Registry, SealedKey
from byok.sandbox import Sandbox
from byok_testing.leaks import hits

KEY = "sk-grants-c1d2e3f4a5b6978869504a3b2c1d"
NEXT_KEY = "sk-grants-99887766554433221100ffeeddcc"


@pytest.fixture
def server(monkeypatch):
    # It takes any key: which one is opened is looked at in the store.
    with Sandbox([("1+1?", "2")], model_id="remote") as started:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", started.host_port)
        yield started


@pytest.fixture
def office(installation, server):
    """An installation with an editor, who makes grants, and the worker, who brings them."""
    return Office(installation("local"), server)


@pytest.fixture
def rival(office, installation, server):
    """The same of another organisation on the same control plane."""
    return Office(installation("local", "rival"), server)


class Office:
    def __init__(self, services, server):
        self.services, self.server = services, server
        self.editor = self.add(f"ed@{services.actor.org_slug}.example", "editor")
        self.worker = authenticate(services.control, services.home.worker_token_file.read_text().strip(), services.audit)
        self.origin = server.base_url.removesuffix("/v1")

    def add(self, email, role):
        made = self.services.administration.add_member(self.services.actor, email, role)
        return authenticate(self.services.control, made.text, self.services.audit)

    def grant(self, action="register", key="m", origin=None, by=None, lifetime=timedelta(hours=1)):
        return self.services.grants.make(by or self.editor, action, key, origin or self.origin, lifetime=lifetime)

    def seal(self, key="m", secret=KEY, base_url=None):
        return self.services.registry.seal(self.editor, key, SecretStr(secret), base_url=base_url or self.server.base_url)

    def seal_next(self, key="m", secret=NEXT_KEY):
        return self.services.registry.seal(self.editor, key, SecretStr(secret))

    def register(self, text, sealed=None, key="m", bearer=None, door=None, **options):
        request = RegisterRequest(**({"key": key, "name": "M", "base_url": self.server.base_url, "remote_id": "remote"} | options))
        sealed = sealed.text() if isinstance(sealed, SealedKey) else sealed
        return asyncio.run((door or self.services.front_door).register(bearer or self.worker, request, sealed, text))

    def rotate(self, text, sealed, key="m", bearer=None):
        sealed = sealed.text() if isinstance(sealed, SealedKey) else sealed
        return asyncio.run(self.services.front_door.rotate(bearer or self.worker, key, sealed, text))

    def registered(self, key="m"):
        """A model with a key of version 1."""
        return self.register(self.grant(key=key).text, self.seal(key), key)

    def counts(self):
        with self.services.control.read() as connection:
            return [connection.execute(select(func.count()).select_from(table)).scalar() for table in (model, model_secret)]

    def used(self, made):
        with self.services.control.read() as connection:
            return connection.execute(select(grant.c.used_at).where(grant.c.id == made.id)).scalar() is not None

    def last(self, chain=None):
        return self.services.audit.entries(chain or self.services.actor.org_id)[0]


def sign(key, grant_id, claims):
    """The text of a grant, as its documentation says that it is made."""
    body = f"byokgrant_{grant_id}_{_encode(orjson.dumps(claims))}"
    return f"{body}_{_encode(Grants(None, None, key)._sign(body))}"


def claims_of(office, made, **changed):
    told = {
        "org": office.editor.org_id,
        "member": office.editor.member_id,
        "action": made.action,
        "model": made.model_key,
        "origin": made.origin,
        "expires": iso(made.expires_at),
    }
    return list((told | changed).values())


def refuse(office, do, reason, *, by=None, requests=None):
    """It is refused, nothing is stored or sent, and one entry says who brought it and why it was refused."""
    before, asked = office.counts(), office.server.stats()["requests"]
    number = office.last().seq
    with pytest.raises(GrantRefused) as caught:
        do()
    assert caught.value.exit_code == 3 and caught.value.hint
    assert office.counts() == before and office.server.stats()["requests"] == asked
    last = office.last()
    assert (last.seq, last.action, last.outcome, last.actor) == (
        number + 1,
        "grant.use",
        "refused",
        by or "worker@service.invalid",
    )
    assert reason in orjson.loads(last.detail)["reason"]


# --- what a grant allows


def test_34_a_grant_and_a_sealed_key_let_a_worker_register_and_rotate_on_the_maker_s_behalf(office):
    made = office.registered()
    with office.services.control.read() as connection:
        assert connection.execute(select(model.c.created_by)).scalar() == office.editor.member_id
    assert office.services.registry.open_key(made.ref(), made.org_id) == (KEY, 1)
    changed = office.rotate(office.grant("rotate").text, office.seal_next())
    assert office.services.registry.open_key(changed.ref(), changed.org_id) == (NEXT_KEY, 2)
    done = [(entry.action, entry.actor) for entry in office.services.audit.entries(made.org_id) if entry.outcome == "done"]
    assert done[:6] == [
        ("model.rotate", "ed@acme.example"),
        ("model.rotate.begin", "ed@acme.example"),
        ("grant.use", "ed@acme.example"),
        ("key.seal", "ed@acme.example"),
        ("grant.make", "ed@acme.example"),
        ("model.register", "ed@acme.example"),
    ]
    used = next(entry for entry in office.services.audit.entries(made.org_id) if entry.action == "grant.use")
    assert orjson.loads(used.detail)["brought_by"] == "worker@service.invalid"


def test_34_an_endpoint_without_a_key_needs_a_grant_all_the_same(office):
    refuse(office, lambda: office.register(None), "there is none")
    assert office.register(office.grant().text).key_version is None


def test_34_a_grant_lives_between_a_minute_and_a_week(office):
    for lifetime in (timedelta(0), timedelta(seconds=59), timedelta(days=7, seconds=1), timedelta(days=-1)):
        with pytest.raises(BadGrant):
            office.grant(lifetime=lifetime)
    with office.services.control.read() as connection:
        assert connection.execute(select(func.count()).select_from(grant)).scalar() == 0


def test_34_who_may_not_register_grants_nothing(office):
    for role in ("viewer", "service"):
        other = office.add(f"{role}@acme.example", role)
        with pytest.raises(ScopeMissing):
            office.grant(by=other)
        last = office.last()
        assert (last.action, last.outcome, last.actor) == ("grant.make", "refused", f"{role}@acme.example")


# --- what it does not allow


def test_34_without_a_grant_as_from_the_prefect_ui_nothing_is_registered_or_rotated(office):
    office.registered()
    sealed, following = office.seal("new"), office.seal_next()
    no_grants = (None, "", " ", "x", KEY, "byokgrant_", "byokgrant___", "byokgrant_a_b_c", "_" * 100, "a" * 1_000_000, "\0")
    # Not even an admin's own worker goes without: the grant is the authority.
    for text, bearer in itertools.product(no_grants, (office.worker, office.services.actor)):
        reason = "there is none" if not text else "it is not genuine"
        refuse(office, partial(office.register, text, sealed, "new", bearer), reason, by=bearer.email)
        refuse(office, partial(office.rotate, text, following, "m", bearer), reason, by=bearer.email)
    assert not hits(repr(office.services.audit.entries(office.worker.org_id)), [KEY])


def test_34_a_grant_works_once(office):
    made, sealed = office.grant(), office.seal()
    office.register(made.text, sealed)
    refuse(office, lambda: office.register(made.text, sealed), "used already")
    another = office.seal("n")
    refuse(office, lambda: office.register(made.text, another), "used already")
    rotation = office.grant("rotate")
    office.rotate(rotation.text, office.seal_next())
    following = office.seal_next(secret=KEY)
    refuse(office, lambda: office.rotate(rotation.text, following), "used already")


def test_34_a_grant_is_used_up_by_an_act_that_fails_later(office):
    made, sealed = office.grant(), office.seal()
    office.server.accept("another key")
    with pytest.raises(EndpointAuth):
        office.register(made.text, sealed)
    assert office.counts() == [0, 0] and office.used(made)
    refuse(office, lambda: office.register(made.text, sealed), "used already")


def test_34_of_eight_takers_at_once_one_wins(office):
    made, takers = office.grant(), 8
    barrier, won, lost = threading.Barrier(takers), [], []

    def take():
        barrier.wait()
        try:
            won.append(office.services.grants.take(office.worker, made.text, "register", "m", office.origin))
        except GrantRefused as error:
            lost.append(error.code)

    threads = [threading.Thread(target=take) for _ in range(takers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [actor.email for actor in won] == ["ed@acme.example"] and lost == ["grant_refused"] * (takers - 1)
    entries = [entry for entry in office.services.audit.entries(office.worker.org_id) if entry.action == "grant.use"]
    assert sorted(entry.outcome for entry in entries) == ["done"] + ["refused"] * (takers - 1)
    assert office.services.audit.verify(office.worker.org_id).bad_seq is None


def test_34_a_grant_is_for_one_act_on_one_model_at_one_origin(office):
    office.registered("n")
    office.registered("o")
    registration, rotation, sealed = office.grant(), office.grant("rotate", "n"), office.seal()
    next_n, next_o = office.seal_next("n"), office.seal_next("o")
    elsewhere = "https://elsewhere.example:8443/v1"
    refuse(office, lambda: office.register(registration.text, sealed, "other"), "it is for register of 'm'")
    refuse(office, lambda: office.register(registration.text, sealed, base_url=elsewhere), f"at {office.origin}")
    refuse(office, lambda: office.rotate(registration.text, next_n, "n"), "it is for register")
    refuse(office, lambda: office.register(rotation.text, sealed), "it is for rotate")
    refuse(office, lambda: office.rotate(rotation.text, next_o, "o"), "it is for rotate of 'n'")
    assert not office.used(registration) and not office.used(rotation)
    office.register(registration.text, sealed)
    office.rotate(rotation.text, next_n, "n")


def test_34_a_grant_does_not_follow_a_model_to_another_origin(office, monkeypatch):
    office.registered()
    made, sealed = office.grant("rotate"), office.seal_next()
    with Sandbox([("1+1?", "2")], model_id="remote") as other:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", f"{office.server.host_port},{other.host_port}")
        changes = ModelChanges(base_url=other.base_url)
        asyncio.run(office.services.registry.update(office.editor, "m", changes, SecretStr(KEY)))
        refuse(office, lambda: office.rotate(made.text, sealed), f"at {office.origin}")
        assert other.stats()["chat_requests"] == 1


def test_34_no_grant_allows_a_public_model(office):
    made, sealed = office.grant(by=office.services.actor), office.seal()
    refuse(office, lambda: office.register(made.text, sealed, public=True), "public")
    assert not office.used(made)


def test_34_another_organisation_s_worker_cannot_bring_it(office, rival):
    made, sealed = office.grant(), office.seal()
    refuse(rival, lambda: rival.register(made.text, sealed), "it is not genuine")
    # Nor with acme's own front door, as a worker that has taken over its home would.
    number = rival.last().seq
    with pytest.raises(GrantRefused):
        office.register(made.text, sealed, bearer=rival.worker)
    last = rival.services.audit.entries(rival.worker.org_id)[0]
    assert (last.seq, last.outcome, last.action) == (number + 1, "refused", "grant.use")
    assert not office.used(made) and office.counts() == [0, 0]
    office.register(made.text, sealed)


def test_34_any_changed_character_is_refused(office):
    text = office.grant().text
    for place in range(0, len(text), 5):
        other = "A" if text[place] != "A" else "B"
        refuse(office, lambda place=place, other=other: office.register(text[:place] + other + text[place + 1 :]), "it is not genuine")
    for cut in (text[:-1], text[1:], text + "A", text + "=", text.rpartition("_")[0], text.rpartition("_")[0] + "_", text.upper()):
        refuse(office, partial(office.register, cut), "it is not genuine")


def test_34_neither_a_forged_nor_a_foreign_signature_counts(office, rival):
    made = office.grant()
    own, foreign = (read_signing_key(one.services.home.signing_key_file, "grant-v1") for one in (office, rival))
    audit_key = read_signing_key(office.services.home.signing_key_file, "audit-v1")
    changes = [
        {},
        {"model": "other"},
        {"action": "rotate"},
        {"origin": "https://elsewhere.example"},
        {"expires": "2099-01-01T00:00:00.000000+00:00"},
        {"member": office.services.actor.member_id},
        {"org": rival.worker.org_id},
    ]
    for changed in changes:
        claims = claims_of(office, made, **changed)
        forged = [sign(key, made.id, claims) for key in (foreign, audit_key, b"", bytes(32))]
        # Even who has the signing key changes nothing about a grant that is on record, and makes none that is not.
        forged += [sign(own, made.id, claims)] if changed else []
        forged += [sign(own, new_id(), claims), sign(own, "", claims), sign(own, made.id, claims[:-1])]
        for text in forged:
            refuse(office, partial(office.register, text), "it is not genuine")
            elsewhere = partial(office.register, text, None, "other", base_url="https://elsewhere.example/v1")
            refuse(office, elsewhere, "it is not genuine")
    for nothing in (None, {}, "x", []):
        refuse(office, partial(office.register, sign(own, made.id, nothing)), "it is not genuine")
    assert not office.used(made)


def test_34_a_row_that_was_written_without_the_signing_key_is_no_grant(office):
    now = utcnow()
    values = {"action": "register", "model_key": "m", "origin": office.origin, "created_at": now, "expires_at": now + timedelta(hours=1)}
    row = {"id": new_id(), "org_id": office.editor.org_id, "member_id": office.services.actor.member_id, **values}
    with office.services.control.write() as connection:
        connection.execute(insert(grant).values(**row))
    claims = [row["org_id"], row["member_id"], "register", "m", office.origin, iso(row["expires_at"])]
    body = f"byokgrant_{row['id']}_{_encode(orjson.dumps(claims))}"
    for text in (body, body + "_", f"{body}_{_encode(bytes(32))}", sign(b"guess", row["id"], claims), row["id"]):
        refuse(office, partial(office.register, text), "it is not genuine")


def test_34_a_row_that_was_edited_is_no_grant_any_more(office, rival):
    edits = {
        "expires_at": utcnow() + timedelta(days=300),
        "member_id": office.services.actor.member_id,
        "model_key": "other",
        "action": "rotate",
        "origin": "https://elsewhere.example",
        "org_id": rival.worker.org_id,
    }
    for column, value in edits.items():
        made = office.grant()
        with office.services.control.write() as connection:
            connection.execute(update(grant).where(grant.c.id == made.id).values(**{column: value}))
        refuse(office, partial(office.register, made.text), "it is not genuine")


def test_34_a_grant_expires(office):
    made = office.grant()
    past = utcnow() - timedelta(seconds=1)
    with office.services.control.write() as connection:
        connection.execute(update(grant).values(expires_at=past))
    # As it would have been made an hour ago.
    key = read_signing_key(office.services.home.signing_key_file, "grant-v1")
    expired = sign(key, made.id, claims_of(office, made, expires=iso(past)))
    refuse(office, lambda: office.register(expired), "it has expired")
    with office.services.control.write() as connection:
        connection.execute(update(grant).values(expires_at=made.expires_at))
    assert sign(key, made.id, claims_of(office, made)) == made.text
    office.register(made.text)


def test_34_a_suspended_or_demoted_maker_s_grants_stop_at_once(office):
    made, administration, owner = office.grant(), office.services.administration, office.services.actor
    administration.set_active(owner, "ed@acme.example", active=False)
    refuse(office, lambda: office.register(made.text), "its maker may not do this any more")
    administration.set_active(owner, "ed@acme.example", active=True)
    administration.set_role(owner, "ed@acme.example", "viewer")
    refuse(office, lambda: office.register(made.text), "its maker may not do this any more")
    administration.set_role(owner, "ed@acme.example", "editor")
    office.register(made.text)


def test_34_a_revoked_grant_and_a_grant_of_a_revoked_token_stop_at_once(office):
    one, other = office.grant(), office.grant()
    office.services.grants.revoke(office.editor, one.id)
    refuse(office, lambda: office.register(one.text), "it has been revoked")
    office.services.administration.revoke(office.services.actor, office.editor.token_id)
    refuse(office, lambda: office.register(other.text), "it has been revoked")


def test_34_a_grant_ends_with_the_token_that_it_was_made_with(office):
    made, administration = office.grant(), office.services.administration
    administration.rotate(office.editor, office.editor.token_id, grace=timedelta(0))
    refuse(office, lambda: office.register(made.text), "the token that it was made with has ended")


def test_34_no_grant_rotates_the_key_of_a_public_model(office):
    owner = office.services.actor
    request = RegisterRequest(key="house", name="House", base_url=office.server.base_url, remote_id="remote", public=True)
    asyncio.run(office.services.registry.register(owner, request, SecretStr(KEY)))
    sealed = office.services.registry.seal(owner, "house", SecretStr(NEXT_KEY))
    made = office.grant("rotate", "house", by=owner)
    refuse(office, lambda: office.rotate(made.text, sealed, "house"), "public")
    assert not office.used(made)


def test_34_no_grant_is_made_for_what_cannot_be_a_models_key(office):
    for key in ("", "Upper", "a/../b", "a" * 64, "m\n"):
        with pytest.raises(BadGrant):
            office.grant(key=key)


# --- sealed keys


def test_34_neither_text_holds_the_key_in_any_form(office):
    sealed, made = office.seal(), office.grant()
    text = sealed.text()
    body = text.removeprefix("byoksealed_")
    inside = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    claims = made.text.split("_")[2].replace(".", "_")
    faces = [text, inside, repr(sealed), made.text, base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)), repr(made)]
    assert [hits(face, [KEY]) for face in faces] == [[]] * len(faces)
    assert SealedKey.parse(f"  {text}\n") == sealed and text.replace("_", "").replace("-", "").isalnum()
    assert made.text not in repr(made)
    # The same key sealed twice is not seen to be the same.
    assert office.seal().sealed != sealed.sealed


def refuse_sealed(office, do, made, wrong=None):
    """It is refused before the grant is taken; nothing is stored or sent."""
    before, asked = office.counts(), office.server.stats()["requests"]
    with pytest.raises(KeyStoreMismatch if wrong == "key store" else BadSealedKey) as caught:
        do()
    assert office.counts() == before and office.server.stats()["requests"] == asked and not office.used(made)
    assert not hits(repr((caught.value.as_dict(), str(caught.value))), [KEY, NEXT_KEY])
    if wrong is not None:
        assert f"another {wrong}" in caught.value.message
        last = office.last()
        assert (last.action, last.outcome) == ("key.use", "refused") and wrong in last.detail


def test_34_a_key_that_was_sealed_for_something_else_is_refused_and_the_grant_stays(office, rival):
    office.registered("n")
    made, good = office.grant(), office.seal()
    with office.services.control.read() as connection:
        used = connection.execute(select(model_secret)).one()
    # The sealed key that the model n was registered with, as it may have been copied from a log of the Prefect UI.
    again = SealedKey(used.org_id, used.model_id, 1, used.origin, "local", used.sealed, used.fingerprint)
    for wrong, sealed in (
        ("origin", office.seal(base_url="https://elsewhere.example/v1")),
        ("model", office.seal_next("n")),
        ("model", again),
        ("organisation", rival.seal()),
        ("version", dataclasses.replace(good, version=2)),
        ("key store", dataclasses.replace(good, store="transit")),
    ):
        refuse_sealed(office, partial(office.register, made.text, sealed), made, wrong)
    assert office.register(made.text, good).key_version == 1


def test_34_a_key_that_was_sealed_for_another_version_or_model_rotates_nothing(office, rival):
    office.registered()
    office.registered("n")
    made, good = office.grant("rotate"), office.seal_next()
    for wrong, sealed in (
        ("model", office.seal_next("n")),
        ("model", office.seal("new")),
        ("version", dataclasses.replace(good, version=1)),
        ("version", dataclasses.replace(good, version=3)),
        ("origin", dataclasses.replace(good, origin="https://elsewhere.example")),
        ("organisation", rival.seal()),
        ("key store", dataclasses.replace(good, store="transit")),
    ):
        refuse_sealed(office, partial(office.rotate, made.text, sealed), made, wrong)
    # Somebody rotates meanwhile: what was sealed for version 2 is not taken for version 3.
    asyncio.run(office.services.registry.rotate(office.editor, "m", SecretStr("sk-grants-in-between-0123456789abcdef")))
    refuse_sealed(office, lambda: office.rotate(made.text, good), made, "version")
    assert office.rotate(made.text, office.seal_next()).key_version == 3


def test_34_a_key_sealed_in_one_store_is_not_taken_where_the_other_is_in_use(installation, server, monkeypatch):
    # Vault is shared by all tests, and knows one organisation of a name.
    vaulted = Office(installation("transit", "granted"), server)
    made, sealed = vaulted.grant(), vaulted.seal()
    services = vaulted.services
    registry = Registry(services.control, open_local(services.home.kek_file), services.warehouse, services.audit, services.ledger)
    door = FrontDoor(registry, services.grants)
    refuse_sealed(vaulted, lambda: vaulted.register(made.text, sealed, door=door), made, "key store")
    lying = dataclasses.replace(sealed, store="local")
    with pytest.raises(KeyStoreMismatch):
        vaulted.register(vaulted.grant().text, lying, door=door)
    assert vaulted.counts() == [0, 0]
    registered = vaulted.register(made.text, sealed)
    assert services.registry.open_key(registered.ref(), registered.org_id) == (KEY, 1)
    changed = vaulted.rotate(vaulted.grant("rotate").text, vaulted.seal_next())
    assert services.registry.open_key(changed.ref(), changed.org_id) == (NEXT_KEY, 2)


def test_34_an_envelope_that_lies_about_its_key_opens_nothing_and_is_recorded(office):
    sealed = office.seal()
    elsewhere = office.seal(base_url="https://elsewhere.example/v1")
    asked = office.server.stats()["requests"]
    # The envelope is not signed, and need not be: the key inside opens only under what it was sealed with.
    for lie in (
        dataclasses.replace(sealed, model_id=new_id()),
        dataclasses.replace(elsewhere, origin=office.origin),
        dataclasses.replace(sealed, sealed=elsewhere.sealed),
    ):
        with pytest.raises(SecretIntegrity):
            office.register(office.grant().text, lie)
        last = office.last()
        assert (last.action, last.outcome, last.target, last.actor) == ("key.open", "failed", "m", "ed@acme.example")
    assert office.counts() == [0, 0] and office.server.stats()["requests"] == asked


def _packed(value):
    return "byoksealed_" + base64.urlsafe_b64encode(orjson.dumps(value)).decode().rstrip("=")


def test_34_what_is_no_sealed_key_is_refused_without_being_repeated(office):
    made, good = office.grant(), office.seal()
    told = dataclasses.asdict(good)
    for wrong in (
        *(KEY, "byoksealed_", "byoksealed_" + KEY, "byoksealed_!!!", good.text()[:-4], good.text()[11:], "\0", "a" * 1_000_000),
        *(_packed(value) for value in ([], None, "x", 1, {}, {"org_id": told["org_id"]}, told | {"more": 1})),
        *(_packed(told | {name: None}) for name in told),
        *(_packed(told | {"version": value}) for value in ("1", 1.0, True, [1])),
        *(_packed(told | {"org_id": value}) for value in ("../x", "", "a/b", "ACME", "a" * 300)),
        *(_packed(told | {"fingerprint": value}) for value in ("", KEY, "zzzzzzzz", "0" * 9)),
        *(_packed(told | {"model_id": value}) for value in ("", "../x", "m'; DROP TABLE model; --", "\x1b[2J")),
    ):
        refuse_sealed(office, partial(office.register, made.text, wrong), made)
    assert not hits(repr(office.services.audit.entries(office.worker.org_id)), [KEY])
    office.register(made.text, good)


def test_34_two_runs_with_one_sealed_key_register_one_model(office):
    """Two grants, one sealed key: whoever comes second finds it used."""
    sealed = office.seal()
    office.register(office.grant().text, sealed)
    other = office.grant(key="n")
    refuse_sealed(office, lambda: office.register(other.text, sealed, "n"), other, "model")
    with pytest.raises(ModelExists):
        office.register(office.grant().text, office.seal("fresh"))
    assert office.counts() == [1, 1]
