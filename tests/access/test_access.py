"""Members, tokens and scopes: denied unless granted."""

import dataclasses
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from byok.access import (
    ROLES,
    SCOPES,
    BadOrganisation,
    OrganisationExists,
    ScopeMissing,
    TokenFileExposed,
    TokenMissing,
    TokenRejected,
    actor_from_environment,
    authenticate,
    require,
)
from byok.access.tokens import new_token, public_id
from byok.app import open_services
from byok.cli.init import initialise
from byok.clock import utcnow
from byok.control.tables import member, token


def test_a_token_has_the_known_shape():
    made = new_token()
    assert made.text.startswith(f"byok_{made.id}_") and len(made.text) == 5 + 12 + 1 + 43 + 6
    assert public_id(made.text) == made.id and made.text not in repr(made)


@given(place=st.integers(0, 66), char=st.sampled_from(string.ascii_letters + string.digits + "_-"))
def test_any_mistyped_character_is_told_without_asking_anyone(place, char):
    made = new_token().text
    changed = made[:place] + char + made[place + 1 :]
    assert (public_id(changed) is None) == (changed != made)


def test_the_token_itself_is_stored_in_its_own_file_alone(services):
    text = services.home.token_file.read_text().strip()
    assert services.home.token_file.stat().st_mode & 0o777 == 0o600
    holders = [path for path in services.home.root.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]
    assert holders == [services.home.token_file]


def test_every_role_holds_its_scopes_and_no_other(services):
    assert ROLES["admin"] == SCOPES and ROLES["viewer"] == {"models:read"}
    assert "org:admin" not in ROLES["editor"] and "models:write" not in ROLES["service"]
    for role, scopes in ROLES.items():
        actor = dataclasses.replace(services.actor, role=role, scopes=scopes)
        for scope in SCOPES:
            if scope in scopes:
                require(actor, scope, "test")
            else:
                with pytest.raises(ScopeMissing):
                    require(actor, scope, "test")
    with pytest.raises(ValueError, match="no such scope"):
        require(services.actor, "models:everything", "test")


@pytest.mark.parametrize("call", ["register", "disable", "add", "create"])
def test_the_services_check_whoever_calls_them(services, call):
    viewer = dataclasses.replace(services.actor, role="viewer", scopes=ROLES["viewer"])
    with pytest.raises(ScopeMissing):
        match call:
            case "register":
                services.registry.register(viewer, None, None).send(None)
            case "disable":
                services.registry.disable(viewer, "m")
            case "add":
                services.datasets.add(viewer, "d", services.home.root, None)
            case "create":
                services.judges.create(viewer, "j", "m", "binary", "rubric")


def test_expired_revoked_and_inactive_are_refused(services):
    text = services.home.token_file.read_text().strip()
    assert authenticate(services.control, text).email == "owner@acme.example"
    for table, change in (
        (token, {"expires_at": utcnow()}),
        (token, {"expires_at": utcnow().replace(year=2999), "revoked_at": utcnow()}),
        (token, {"revoked_at": None}),
        (member, {"active": False}),
    ):
        with services.control.write() as connection:
            connection.execute(update(table).values(**change))
        if change == {"revoked_at": None}:
            authenticate(services.control, text)
        else:
            with pytest.raises(TokenRejected):
                authenticate(services.control, text)


def test_a_stored_digest_is_no_token(services):
    with services.control.read() as connection:
        digest = connection.execute(token.select()).first().digest
    with pytest.raises(TokenRejected):
        authenticate(services.control, digest)


def test_unknown_tokens_of_good_shape_are_refused(services):
    with pytest.raises(TokenRejected):
        authenticate(services.control, new_token().text)


def test_where_the_token_comes_from(services, monkeypatch, tmp_path):
    assert actor_from_environment(services.control, services.home).role == "admin"
    monkeypatch.setenv("BYOK_TOKEN", services.home.worker_token_file.read_text())
    assert actor_from_environment(services.control, services.home).kind == "service"
    monkeypatch.delenv("BYOK_TOKEN")
    services.home.token_file.chmod(0o644)
    with pytest.raises(TokenFileExposed):
        actor_from_environment(services.control, services.home)
    monkeypatch.setenv("BYOK_TOKEN_FILE", str(tmp_path / "nothing"))
    with pytest.raises(TokenMissing):
        actor_from_environment(services.control, services.home)


def test_initialising_again_changes_nothing(services):
    before = {
        path: path.read_bytes() for path in services.home.root.rglob("*") if path.is_file() and path.suffix not in (".db-shm", ".db-wal")
    }
    again = initialise(services.home, "acme", "owner@acme.example")
    assert not again.made and again.token is None
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("lost", [["data/initialised"], ["data/initialised", "token"], ["data/initialised", "keys/worker.token"]])
def test_an_interrupted_initialisation_is_finished(services, lost):
    for name in lost:
        (services.home.root / name).unlink()
    assert initialise(services.home, "acme", "owner@acme.example").made
    assert open_services().actor.role == "admin"
    assert authenticate(services.control, services.home.worker_token_file.read_text().strip()).role == "service"


def test_kept_tokens_that_have_expired_are_replaced_and_revoked_ones_are_not(services):
    for path in (services.home.token_file, services.home.worker_token_file):
        with services.control.write() as connection:
            connection.execute(update(token).values(expires_at=utcnow()))
        before = path.read_text()
        assert initialise(services.home, "acme", "owner@acme.example").token is not None or path == services.home.worker_token_file
        assert path.read_text() != before
        authenticate(services.control, path.read_text().strip())
    assert [entry.action for entry in services.audit.entries(services.actor.org_id)].count("token.reissue") == 4
    with services.control.write() as connection:
        connection.execute(update(token).values(expires_at=utcnow(), revoked_at=utcnow()))
    assert initialise(services.home, "acme", "owner@acme.example").token is None


def test_another_organisation_and_bad_names_are_refused(services, home):
    with pytest.raises(OrganisationExists):
        initialise(home, "other", "owner@acme.example")
    with pytest.raises(OrganisationExists):
        initialise(home, "acme", "stranger@acme.example")


@pytest.mark.parametrize(
    ("org", "owner"), [("Acme", "a@b.c"), ("-a", "a@b.c"), ("a/../b", "a@b.c"), ("", "a@b.c"), ("a" * 64, "a@b.c"), ("acme", "nobody")]
)
def test_names_that_cannot_be_used_make_nothing(home, org, owner):
    with pytest.raises(BadOrganisation):
        initialise(home, org, owner)
    assert not home.root.exists()
