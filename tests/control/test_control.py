"""The control plane: its schema, its transactions, its file."""

import os
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import func, select, text

from byok.control import ControlPlaneUnreachable, ControlPlaneVersion, migrate, open_control
from byok.control.tables import metadata, org


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
    assert caught.value.fields == {"found": "9999", "wanted": "0003"} and caught.value.hint


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


def _now():
    from byok.clock import utcnow

    return utcnow()
