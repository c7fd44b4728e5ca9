"""A control plane on PostgreSQL does what one on SQLite does, also when many write at once."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from functools import partial

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from byok.access import LastAdmin, authenticate
from byok.app import open_services
from byok.cli.init import initialise
from byok.control.tables import member, model_secret
from byok.errors import ByokError
from byok.registry import ModelChanged, RegisterRequest, Rewrapper
from byok.sandbox import Sandbox
from byok_testing.postgresql import new_database

KEY = "sk-postgres-0a1b2c3d4e5f60718293a4b5c6d7e8f9"


@pytest.fixture
def services(home, postgresql, monkeypatch):
    """An installation whose control plane is a new PostgreSQL database."""
    monkeypatch.setenv("BYOK_DATABASE_URL", new_database(postgresql))
    initialise(home, "acme", "owner@acme.example")
    opened = open_services()
    assert opened.control.engine.dialect.name == "postgresql"
    yield opened
    opened.control.close()


@pytest.fixture
def server(monkeypatch):
    with Sandbox([("1+1?", "2")], model_id="m") as started:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", started.host_port)
        yield started


def register(services, server):
    request = RegisterRequest(key="m", name="M", base_url=server.base_url, remote_id="m", price_input="0.15")
    return asyncio.run(services.registry.register(services.actor, request, SecretStr(KEY)))


def at_once(*acts):
    """Do all acts at the same time; what each gave, or its error."""
    ready, results = threading.Barrier(len(acts)), [None] * len(acts)

    def do(place, act):
        ready.wait()
        try:
            results[place] = act()
        except ByokError as error:
            results[place] = error

    threads = [threading.Thread(target=do, args=each) for each in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_key_is_registered_rotated_rewrapped_and_destroyed(services, server):
    register(services, server)
    changed = asyncio.run(services.registry.rotate(services.actor, "m", SecretStr(KEY + "2"), grace=timedelta(0)))
    assert services.registry.open_key(changed.ref(), services.actor.org_id) == (KEY + "2", 2)
    done = Rewrapper(services.control, services.keystore, services.audit).run(services.actor)
    assert (done.version, done.secrets, done.rewrapped) == (2, 1, 1)
    assert services.registry.open_key(changed.ref(), services.actor.org_id) == (KEY + "2", 2)
    services.registry.disable(services.actor, "m")
    with services.control.read() as connection:
        assert connection.execute(select(func.count(model_secret.c.sealed))).scalar() == 0
    assert services.audit.verify(services.actor.org_id).bad_seq is None


def test_entries_that_are_written_at_once_make_one_whole_chain(services):
    before = services.audit.verify(services.actor.org_id).entries

    def write():
        for number in range(25):
            services.audit.by(services.actor, "done", "test.act", str(number))

    assert at_once(*[write] * 4) == [None] * 4
    found = services.audit.verify(services.actor.org_id)
    assert (found.bad_seq, found.entries) == (None, before + 100)


def test_two_admins_cannot_suspend_each_other(services):
    made = services.administration.add_member(services.actor, "second@acme.example", "admin")
    other = authenticate(services.control, made.text, services.audit)
    results = at_once(
        partial(services.administration.set_active, services.actor, "second@acme.example", active=False),
        partial(services.administration.set_active, other, "owner@acme.example", active=False),
    )
    assert sorted(type(result).__name__ for result in results) == ["LastAdmin", "Member"], results
    assert any(isinstance(result, LastAdmin) for result in results)
    with services.control.read() as connection:
        active = select(func.count()).where(member.c.role == "admin", member.c.active.is_(True))
        assert connection.execute(active).scalar() == 1


def test_two_rotations_at_once_leave_one_active_version(services, server):
    register(services, server)

    def rotate(secret):
        return asyncio.run(services.registry.rotate(services.actor, "m", SecretStr(secret), grace=timedelta(0)))

    results = at_once(partial(rotate, KEY + "a"), partial(rotate, KEY + "b"))
    assert all(isinstance(result, ModelChanged) or result.key_version for result in results), results
    with services.control.read() as connection:
        states = [row.state for row in connection.execute(select(model_secret.c.state).order_by(model_secret.c.version))]
    assert states.count("active") == 1 and states.count("pending") == 0
    model = services.registry.get(services.actor, "m")
    assert services.registry.open_key(model.ref(), services.actor.org_id)[0].startswith(KEY)


def test_a_second_home_has_an_organisation_of_its_own_or_none(services, tmp_path):
    from byok.access import OrganisationExists
    from byok.home import Home

    rival = Home(tmp_path / "rival")
    initialise(rival, "rival", "owner@rival.example")
    opened = open_services(rival)
    try:
        assert opened.administration.members(opened.actor) != services.administration.members(services.actor)
    finally:
        opened.control.close()
    with pytest.raises(OrganisationExists):
        initialise(Home(tmp_path / "thief"), "acme", "owner@acme.example")
    assert not (tmp_path / "thief" / "token").exists()
    # Nothing was decided by that: the home takes another organisation.
    assert initialise(Home(tmp_path / "thief"), "honest", "owner@honest.example").made
    assert services.audit.verify(services.actor.org_id).bad_seq is None
