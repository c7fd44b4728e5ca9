"""The control plane: its schema, its transactions, its file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, func, select, text

import byok.control
from byok.control import ControlPlaneUnreachable, ControlPlaneVersion, migrate, open_control
from byok.control.tables import member, metadata, model, org


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/deep/control.db"


@pytest.fixture
def control(url):
    migrate(url)
    opened = open_control(url)
    yield opened
    opened.close()


def test_the_migrations_lead_to_the_tables(control):
    with control.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_migrating_again_changes_nothing(url):
    assert migrate(url) and not migrate(url)


def test_models_that_are_older_than_rate_limits_have_none(url):
    migrate_to(url, "0003")
    older = create_engine(url)
    with older.begin() as connection:
        connection.execute(org.insert().values(id="o", slug="acme", created_at=_now()))
        connection.execute(
            member.insert().values(id="p", org_id="o", email="a@acme.example", kind="person", role="admin", active=True, created_at=_now())
        )
        facts = dict.fromkeys(("name", "description", "base_url", "origin", "remote_id"), "x")
        facts |= {"id": "m", "org_id": "o", "key": "m", "status": "active", "revision": 3, "created_by": "p", "public": False}
        facts |= {"tags": ["chat"], "extra_payload": {}, "capabilities": {}, "created_at": _now(), "updated_at": _now()}
        connection.execute(model.insert().values(facts))
    older.dispose()
    with pytest.raises(ControlPlaneVersion):
        open_control(url)
    assert migrate(url)
    control = open_control(url)
    with control.read() as connection:
        row = connection.execute(select(model)).one()
    control.close()
    assert (row.requests_per_minute, row.tokens_per_minute) == (None, None)
    assert (row.key, row.tags, row.revision) == ("m", ["chat"], 3)


def test_the_file_is_private_and_in_wal_mode(control, tmp_path):
    for path in (tmp_path / "deep").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    with control.read() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_a_database_of_another_version_is_refused_by_name(url, control):
    with control.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ControlPlaneVersion) as caught:
        open_control(url)
    assert caught.value.fields == {"found": "9999", "wanted": "0005"} and caught.value.hint


def test_an_empty_database_asks_for_init(tmp_path):
    with pytest.raises(ControlPlaneVersion):
        open_control(f"sqlite:///{tmp_path}/empty.db")


@pytest.mark.parametrize("bad", ["not a url", "postgresql+psycopg2nothing://localhost/x"])
def test_a_database_that_does_not_open_is_a_named_error_without_the_url(bad):
    with pytest.raises(ControlPlaneUnreachable) as caught:
        open_control(bad)
    assert bad not in caught.value.message


def test_a_failed_transaction_leaves_nothing(control):
    with pytest.raises(RuntimeError), control.write() as connection:
        connection.execute(org.insert().values(id="1", slug="acme", created_at=_now()))
        raise RuntimeError
    with control.read() as connection:
        assert connection.execute(select(func.count()).select_from(org)).scalar() == 0


def test_writers_of_several_processes_wait_for_each_other(control, url):
    """Each adds one to a number that it has read: a lost update would show."""
    with control.write() as connection:
        connection.execute(text("CREATE TABLE counter (n INTEGER)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))
    code = (
        "import sys; from sqlalchemy import text; from byok.control import open_control\n"
        "control = open_control(sys.argv[1])\n"
        "for _ in range(40):\n"
        "    with control.write() as c:\n"
        "        n = c.execute(text('SELECT n FROM counter')).scalar()\n"
        "        c.execute(text('UPDATE counter SET n = :n'), {'n': n + 1})\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, url], env=dict(os.environ)) for _ in range(4)]
    assert [child.wait(120) for child in children] == [0] * 4
    with control.read() as connection:
        assert connection.execute(text("SELECT n FROM counter")).scalar() == 160


def migrate_to(url, revision):
    """Make a control plane as an older version of byok left it."""
    config = Config()
    config.set_main_option("script_location", str(Path(byok.control.__file__).parent / "migrations"))
    Path(url.removeprefix("sqlite:///")).parent.mkdir()
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def _now():
    from byok.clock import utcnow

    return utcnow()
