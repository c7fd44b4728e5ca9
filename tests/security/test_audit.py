"""The audit log tells of every privileged act and of every refusal, and shows every later change to itself."""

import asyncio
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import timedelta

import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from byok.access import ROLES, MemberExists, OrganisationExists, ScopeMissing, TokenRejected, authenticate
from byok.access.heads import HeadsUnreadable
from byok.access.tokens import new_token
from byok.app import open_audit, open_services
from byok.cli.init import initialise
from byok.cli.main import run
from byok.control import open_control
from byok.control.tables import audit, token
from byok.endpoint import EndpointAuth
from byok.home import Home
from byok.registry import ModelChanges, RegisterRequest, Rewrapper
from byok.sandbox import Sandbox
from byok_testing.leaks import hits

KEY = "sk-audit-3f2e1d0c9b8a79685746352413021f0e"
NEXT_KEY = "sk-audit-0a1b2c3d4e5f60718293a4b5c6d7e8f9"
WORKER = "worker@service.invalid"


def told(services, *, since=0, chain=None):
    """What the log tells, oldest first: who, what, to what, how it ended."""
    entries = reversed(services.audit.entries(chain or services.actor.org_id))
    return [(entry.actor.split("@")[0], entry.action, entry.target, entry.outcome) for entry in entries if entry.seq > since]


def count(services):
    return len(services.audit.entries(services.actor.org_id))


def work(services, number=6):
    """So many entries more."""
    for _ in range(number):
        services.administration.issue(services.actor, None, lifetime=timedelta(hours=1))


@pytest.fixture
def server(monkeypatch):
    with Sandbox([("1+1?", "2")], model_id="remote") as started:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", started.host_port)
        yield started


# --- what is told


def test_34b_every_privileged_act_has_an_entry_and_none_has_two(services, server):
    administration, registry, owner, grants = services.administration, services.registry, services.actor, services.grants
    assert told(services) == [("owner", "org.create", "acme", "done")]
    ada = administration.add_member(owner, "ada@acme.example", "editor")
    administration.set_role(owner, "ada@acme.example", "viewer")
    administration.set_active(owner, "ada@acme.example", active=False)
    administration.set_active(owner, "ada@acme.example", active=True)
    made = administration.issue(owner, None, lifetime=timedelta(days=1))
    administration.rotate(owner, made.id)
    administration.revoke(owner, ada.id)
    request = RegisterRequest(key="m", name="M", base_url=server.base_url, remote_id="remote")
    asyncio.run(registry.register(owner, request, SecretStr(KEY)))
    asyncio.run(registry.probe(owner, "m"))
    asyncio.run(registry.update(owner, "m", ModelChanges(name="N")))
    asyncio.run(registry.rotate(owner, "m", SecretStr(NEXT_KEY)))
    sealed = registry.seal(owner, "m", SecretStr(KEY))
    grant = grants.make(owner, "rotate", "m", sealed.origin, lifetime=timedelta(hours=1))
    worker = authenticate(services.control, services.home.worker_token_file.read_text().strip(), services.audit)
    asyncio.run(services.front_door.rotate(worker, "m", sealed.text(), grant.text))
    other = grants.make(owner, "rotate", "m", sealed.origin, lifetime=timedelta(hours=1))
    grants.revoke(owner, other.id)
    Rewrapper(services.control, services.keystore, services.audit).run(owner)
    registry.disable(owner, "m")
    assert told(services, since=1) == [
        ("owner", "member.add", "ada@acme.example", "done"),
        ("owner", "member.role", "ada@acme.example", "done"),
        ("owner", "member.suspend", "ada@acme.example", "done"),
        ("owner", "member.restore", "ada@acme.example", "done"),
        ("owner", "token.issue", "owner@acme.example", "done"),
        ("owner", "token.rotate", made.id, "done"),
        ("owner", "token.revoke", ada.id, "done"),
        ("owner", "model.register", "m", "done"),
        ("owner", "model.probe", "m", "done"),
        ("owner", "model.update", "m", "done"),
        ("owner", "model.rotate.begin", "m", "done"),
        ("owner", "model.rotate", "m", "done"),
        ("owner", "key.seal", "m", "done"),
        ("owner", "grant.make", "m", "done"),
        ("owner", "grant.use", "m", "done"),
        ("owner", "model.rotate.begin", "m", "done"),
        ("owner", "model.rotate", "m", "done"),
        ("owner", "grant.make", "m", "done"),
        ("owner", "grant.revoke", other.id, "done"),
        ("owner", "keystore.rotate.begin", "local", "done"),
        ("owner", "keystore.rotate", "local", "done"),
        ("owner", "model.disable", "m", "done"),
    ]
    assert services.audit.verify(owner.org_id).bad_seq is None


def test_34b_looking_at_things_makes_no_entry(services, capsys):
    number = count(services)
    for command in (["model", "list"], ["member", "list"], ["token", "list"], ["audit", "list"], ["audit", "verify"], ["vault", "status"]):
        assert run(command) == 0
    assert count(services) == number


def test_34b_an_act_and_its_entry_are_stored_together_or_not_at_all(services):
    number = count(services)
    with pytest.raises(MemberExists):
        services.administration.add_member(services.actor, "owner@acme.example", "viewer")
    with pytest.raises(RuntimeError), services.audit.act(services.actor, "token.revoke", "all") as connection:
        connection.execute(token.delete())
        raise RuntimeError
    with services.control.read() as connection:
        assert len(connection.execute(select(token)).all()) == 2
    assert count(services) == number and services.audit.verify(services.actor.org_id).bad_seq is None


def test_34b_a_token_that_is_made_to_finish_an_interrupted_init_has_an_entry(services):
    home, number = services.home, count(services)
    for path in (home.data / "initialised", home.token_file, home.worker_token_file):
        path.unlink()
    assert initialise(home, "acme", "owner@acme.example").token
    assert [(action, target) for _, action, target, _ in told(services, since=number)] == [
        ("token.reissue", "owner@acme.example"),
        ("token.reissue", "worker"),
    ]
    assert services.audit.verify(services.actor.org_id).bad_seq is None


def test_32b_a_refusal_tells_who_wanted_what_and_why_not(services, capsys, monkeypatch):
    ada = services.administration.add_member(services.actor, "ada@acme.example", "viewer")
    monkeypatch.setenv("BYOK_TOKEN", ada.text)
    for command, action, scope in (
        (["member", "add", "bob@acme.example"], "member.add", "org:admin"),
        (["model", "disable", "m"], "model.disable", "models:write"),
        (["audit", "list"], "audit.list", "org:admin"),
        (["audit", "verify"], "audit.verify", "org:admin"),
        (["evaluate", "m", "d"], "run.start", "runs:write"),
        (["bill", "show", "latest"], "bill.show", "billing:read"),
    ):
        assert run(command) == 3
        last = services.audit.entries(services.actor.org_id)[0]
        assert (last.actor, last.action, last.target, last.outcome) == ("ada@acme.example", action, scope, "refused")
        assert orjson.loads(last.detail) == {"reason": "scope_missing"} and last.member_id is not None
    monkeypatch.delenv("BYOK_TOKEN")
    capsys.readouterr()
    assert run(["audit", "list", "--refused", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["entries"]
    assert [entry["action"] for entry in shown][:2] == ["bill.show", "run.start"] and {entry["outcome"] for entry in shown} == {"refused"}


def test_32b_an_unknown_token_is_told_in_the_installation_s_own_chain(services):
    number, public = count(services), services.home.token_file.read_text().split("_")[1]
    unknown = new_token()
    with pytest.raises(TokenRejected):
        authenticate(services.control, unknown.text, services.audit)
    # Who holds a part of a member's token cannot write into the organisation's chain.
    assert count(services) == number
    assert told(services, chain=services.audit.installation) == [("unknown", "token.use", unknown.id, "refused")]
    assert public != unknown.id and services.audit.verify(services.audit.installation).entries == 1


def test_34b_no_entry_holds_a_secret(services, monkeypatch, capsys):
    administration, owner = services.administration, services.actor
    with Sandbox([("1+1?", "2")], api_key=KEY, model_id="remote") as server:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
        request = RegisterRequest(key="m", name="M", base_url=server.base_url, remote_id="remote")
        asyncio.run(services.registry.register(owner, request, SecretStr(KEY)))
        with pytest.raises(EndpointAuth):
            asyncio.run(services.registry.rotate(owner, "m", SecretStr(NEXT_KEY)))
        sealed = services.registry.seal(owner, "m", SecretStr(NEXT_KEY))
        grant = services.grants.make(owner, "rotate", "m", sealed.origin, lifetime=timedelta(hours=1))
        with pytest.raises(EndpointAuth):
            asyncio.run(services.front_door.rotate(owner, "m", sealed.text(), grant.text))
    ada = administration.add_member(owner, "ada@acme.example", "viewer")
    again = administration.rotate(owner, ada.id)
    administration.revoke(owner, again.id)
    stranger = new_token().text
    for text in (again.text, stranger, KEY, ada.text[:-1] + "?"):
        monkeypatch.setenv("BYOK_TOKEN", text)
        assert run(["model", "list"]) == 3
    secrets = [KEY, NEXT_KEY, ada.text, again.text, stranger, grant.text, sealed.text(), sealed.sealed]
    secrets += [services.home.token_file.read_text().strip(), services.home.signing_key_file.read_text().strip()]
    with services.control.read() as connection:
        rows = connection.execute(select(audit)).all()
    assert len(rows) > 10 and not hits(repr(rows), secrets)
    assert not hits(services.home.audit_heads.read_bytes(), secrets)
    assert services.home.audit_heads.stat().st_mode & 0o777 == 0o600
    assert not hits(capsys.readouterr().err, secrets)


# --- what shows


def change(services, *statements):
    """Write into the database past the product, as who holds the file alone could."""
    with closing(sqlite3.connect(services.home.data / "control.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement.replace("ACME", f"'{services.actor.org_id}'"))


ROW = "WHERE chain = ACME AND seq ="
MOVED = "UPDATE audit SET seq = seq + 100 WHERE chain = ACME AND seq {}; UPDATE audit SET seq = seq - {} WHERE chain = ACME AND seq > 100"
COPY = (
    "INSERT INTO audit SELECT chain, {}, at, member_id, actor, action, target, outcome, detail, previous, mac FROM audit WHERE chain = ACME"
)

TAMPERINGS = {
    **{
        f"edited {column}": ([f"UPDATE audit SET {column} = {value} {ROW} 4"], 4)
        for column, value in {
            "at": "'2020-01-01T00:00:00.000000+00:00'",
            "member_id": "NULL",
            "actor": "'somebody@acme.example'",
            "action": "'token.list'",
            "target": "target || ' '",
            "outcome": "'refused'",
            "detail": """'{"name":"x"}'""",
            "previous": "'" + "0" * 64 + "'",
            "mac": "'" + "0" * 64 + "'",
            "chain": "'elsewhere'",
        }.items()
    },
    "edited first": ([f"UPDATE audit SET actor = 'x' {ROW} 1"], 1),
    "edited last": ([f"UPDATE audit SET actor = 'x' {ROW} 8"], 8),
    "deleted in the middle": ([f"DELETE FROM audit {ROW} 4"], 4),
    "deleted first": ([f"DELETE FROM audit {ROW} 1"], 1),
    "deleted and closed up": ([f"DELETE FROM audit {ROW} 4", *MOVED.format("> 4", 101).split("; ")], 4),
    "tail cut": (["DELETE FROM audit WHERE chain = ACME AND seq > 6"], 7),
    "last cut": ([f"DELETE FROM audit {ROW} 8"], 8),
    "all deleted": (["DELETE FROM audit WHERE chain = ACME"], 1),
    "head cut and renumbered": (["DELETE FROM audit WHERE chain = ACME AND seq < 4", *MOVED.format("> 0", 103).split("; ")], 1),
    "copied to the end": ([COPY.format(9) + " AND seq = 4"], 9),
    "inserted in the middle": ([*MOVED.format("> 3", 99).split("; "), COPY.format(4) + " AND seq = 2"], 4),
    "two swapped": (
        [f"UPDATE audit SET seq = 99 {ROW} 3", f"UPDATE audit SET seq = 3 {ROW} 5", f"UPDATE audit SET seq = 5 {ROW} 99"],
        3,
    ),
    "far number": ([f"UPDATE audit SET seq = 1000000 {ROW} 8"], 8),
    "below the first": ([COPY.format(0) + " AND seq = 1"], 1),
}


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """A home with a chain of eight entries, to be copied."""
    root = tmp_path_factory.mktemp("worked") / "home"
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("BYOK_DATABASE_URL", raising=False)
        initialise(Home(root), "acme", "owner@acme.example")
        services = open_services(Home(root))
        work(services, 7)
        services.control.close()
    return root


@pytest.fixture
def chain(worked, home):
    """An installation with a chain of eight entries, and a few in the installation's own."""
    shutil.copytree(worked, home.root)
    services = open_services(home)
    assert services.audit.verify(services.actor.org_id).entries == 8
    yield services
    services.control.close()


@pytest.mark.parametrize("how", TAMPERINGS)
def test_34b_verify_names_the_first_bad_entry(chain, how, capsys):
    statements, bad = TAMPERINGS[how]
    change(chain, *statements)
    found = chain.audit.verify(chain.actor.org_id)
    assert found.bad_seq == bad and found.reason and found.entries == bad - 1
    assert run(["audit", "verify", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)["audit"]
    assert [(one["chain"], one["whole"], one["bad_seq"]) for one in shown] == [("acme", False, bad), ("installation", True, None)]
    assert run(["audit", "verify"]) == 1 and f"entry {bad} is" in capsys.readouterr().out
    # Going on does not heal it.
    work(chain)
    assert chain.audit.verify(chain.actor.org_id).bad_seq is not None


def test_34b_who_has_the_database_but_not_the_key_cannot_write_an_entry(chain):
    with chain.control.read() as connection:
        last = connection.execute(select(audit).where(audit.c.chain == chain.actor.org_id).order_by(audit.c.seq.desc())).first()
    facts = [last.chain, 9, "2026-01-01T00:00:00.000000+00:00", None, "x", "member.add", "y", "done", "{}", last.mac]
    # A plain hash, and the MAC under keys that can be guessed or are in the database.
    for mac in (hashlib.sha256(orjson.dumps(facts)).hexdigest(), last.mac, "0" * 64, ""):
        with closing(sqlite3.connect(chain.home.data / "control.db")) as connection, connection:
            connection.execute("DELETE FROM audit WHERE seq = 9")
            connection.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [*facts, mac])
        found = chain.audit.verify(chain.actor.org_id)
        assert (found.bad_seq, found.entries) == (9, 8)


def test_34b_an_older_copy_of_the_whole_database_shows_and_goes_on_showing(chain):
    org, database = chain.actor.org_id, chain.home.data / "control.db"
    older = chain.home.root / "older.db"
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(older)) as target:
        source.backup(target)
    work(chain, 4)
    assert chain.audit.verify(org).entries == 12
    chain.control.close()
    for path in chain.home.data.glob("control.db*"):
        path.unlink()
    shutil.copy(older, database)
    found = chain.audit.verify(org)
    assert (found.bad_seq, found.entries) == (9, 8) and "12 entries were seen" in found.reason
    # Not even when the restored chain has grown past the one that was seen here.
    for _ in range(8):
        work(chain, 1)
        assert chain.audit.verify(org).bad_seq in range(9, 13)
    assert count(chain) == 16
    assert chain.audit.verify(org).bad_seq == 12 and chain.audit.verify(org).reason == "not the entry that was seen here before"


def test_34b_genuine_entries_of_two_histories_cannot_be_spliced(chain):
    org, database = chain.actor.org_id, chain.home.data / "control.db"
    work(chain, 2)
    with closing(sqlite3.connect(database)) as connection:
        ninth, tenth = connection.execute("SELECT * FROM audit WHERE chain = ? AND seq > 8 ORDER BY seq", [org]).fetchall()
    change(chain, "DELETE FROM audit WHERE chain = ACME AND seq > 8")
    work(chain, 1)
    with closing(sqlite3.connect(database)) as connection, connection:
        other = connection.execute("SELECT * FROM audit WHERE chain = ? AND seq = 9", [org]).fetchone()
        connection.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", tenth)
    assert other != ninth
    found = chain.audit.verify(org)
    assert (found.bad_seq, found.reason) == (10, "does not follow the entry before it")


def test_34b_damaged_heads_are_named_and_lose_no_act(chain, capsys):
    for damaged in (b"", b"{", b"[]", b'{"x": 1}', b"\0\xff"):
        chain.home.audit_heads.write_bytes(damaged)
        with pytest.raises(HeadsUnreadable):
            chain.audit.verify(chain.actor.org_id)
        assert run(["audit", "verify", "--json"]) == 4
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "heads_unreadable"
        number = count(chain)
        work(chain, 1)
        assert count(chain) == number + 1 and chain.home.audit_heads.read_bytes() == damaged


# --- who writes

WRITER = """
import sys
from byok.app import open_services
services = open_services()
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    services.audit.by(services.actor, "done", "test", f"{sys.argv[1]}-{number}")
services.control.close()
"""


def test_34b_eight_writers_at_once_leave_a_whole_chain(chain):
    """Two processes and six threads, each with connections of its own."""
    children = [
        subprocess.Popen([sys.executable, "-c", WRITER, f"p{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    failed = []

    def write(name):
        control = open_control(chain.home.database_url)
        log = open_audit(chain.home, control)
        try:
            for number in range(10):
                log.by(chain.actor, "done", "test", f"{name}-{number}")
        except Exception as error:
            failed.append(error)
        finally:
            control.close()

    threads = [threading.Thread(target=write, args=(f"t{n}",)) for n in range(6)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for child in children:
        with child:
            child.communicate()
        assert child.returncode == 0
    assert not failed
    found = chain.audit.verify(chain.actor.org_id)
    assert (found.bad_seq, found.entries) == (None, 8 + 80)
    targets = [target for _, action, target, _ in told(chain) if action == "test"]
    assert sorted(targets) == sorted(f"{name}-{number}" for name in ("p0", "p1", *(f"t{n}" for n in range(6))) for number in range(10))
    # The head that is kept is the newest one, whoever wrote it.
    change(chain, f"DELETE FROM audit {ROW} 88")
    assert chain.audit.verify(chain.actor.org_id).bad_seq == 88


def test_34b_the_chains_of_two_organisations_do_not_mix(installation, monkeypatch, capsys):
    acme, rival = installation("local"), installation("local", "rival")
    work(acme, 3)
    work(rival, 2)
    work(acme, 1)
    with pytest.raises(TokenRejected):
        # A member of one at the home of the other is a stranger there.
        authenticate(acme.control, rival.home.token_file.read_text().strip(), acme.audit, organisation="acme")
    for services, entries in ((acme, 5), (rival, 3)):
        found = services.audit.verify(services.actor.org_id)
        assert (found.bad_seq, found.entries) == (None, entries)
        assert {actor for actor, *_ in told(services)} == {"owner"}
        assert {entry.actor for entry in services.audit.entries(services.actor.org_id)} == {services.actor.email}
    assert acme.audit.installation != rival.audit.installation
    assert [outcome for *_, outcome in told(acme, chain=acme.audit.installation)] == ["refused"]
    assert told(acme, chain=rival.audit.installation) == []
    # Each home signs with a key of its own.
    assert acme.audit.verify(rival.actor.org_id).bad_seq == rival.audit.verify(acme.actor.org_id).bad_seq == 1
    monkeypatch.setenv("BYOK_HOME", str(rival.home.root))
    assert run(["audit", "list", "--json"]) == 0
    shown = capsys.readouterr().out
    assert "acme" not in shown and len(json.loads(shown)["entries"]) == 3
    change(acme, f"UPDATE audit SET chain = '{rival.actor.org_id}', seq = 4 {ROW} 5")
    assert rival.audit.verify(rival.actor.org_id).bad_seq == 4 and acme.audit.verify(acme.actor.org_id).bad_seq == 5


def test_34b_a_home_without_the_signing_key_makes_no_token_and_no_entry(services, monkeypatch):
    monkeypatch.setenv("BYOK_DATABASE_URL", services.home.database_url)
    number = count(services)
    elsewhere = Home(services.home.root.parent / "elsewhere")
    with pytest.raises(OrganisationExists):
        initialise(elsewhere, "acme", "owner@acme.example")
    elsewhere.signing_key_file.parent.mkdir(parents=True, exist_ok=True)
    elsewhere.signing_key_file.write_bytes(hashlib.sha256().hexdigest()[:43].encode() + b"=")
    elsewhere.signing_key_file.chmod(0o600)
    with pytest.raises(OrganisationExists):
        initialise(elsewhere, "acme", "owner@acme.example")
    assert not elsewhere.token_file.exists() and not elsewhere.worker_token_file.exists()
    with services.control.read() as connection:
        assert len(connection.execute(select(token)).all()) == 2
    assert count(services) == number and services.audit.verify(services.actor.org_id).bad_seq is None


def test_32b_a_scope_that_is_missing_is_recorded_for_whoever_acts(services):
    worker = authenticate(services.control, services.home.worker_token_file.read_text().strip(), services.audit)
    assert worker.scopes == ROLES["service"]
    with pytest.raises(ScopeMissing):
        services.registry.disable(worker, "m")
    last = services.audit.entries(worker.org_id)[0]
    assert (last.actor, last.action, last.outcome) == (WORKER, "model.disable", "refused")
