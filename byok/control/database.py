"""Open the control plane, and bring its schema to this version."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from byok.errors import InputError, OutsideError
from byok.home import private_dir

_MIGRATIONS = Path(__file__).parent / "migrations"

BUSY_TIMEOUT_MS = 30_000
"""How long a writer waits for another one on SQLite."""


class ControlPlaneVersion(InputError):
    """The database holds another version of the schema than this program."""

    code = "control_plane_version"


class ControlPlaneUnreachable(OutsideError):
    """The database does not open."""

    code = "control_plane_unreachable"


class ControlPlane:
    """Connections to the control plane.

    Args:
        engine: The SQLAlchemy engine.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, queue: str | None = None) -> Iterator[Connection]:
        """A connection in a transaction that commits at the end.

        On SQLite it takes the one write lock at once. On PostgreSQL, transactions of the same queue follow each other, so that what one
        reads before it writes (the last entry of a chain, the last admin) stays true until it has written.

        Args:
            queue: Name of the queue; without one, only the rows that are written are locked.
        """
        with self.engine.connect().execution_options(byok_write=True) as connection, connection.begin():
            if queue is not None and self.engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:queue, 0))"), {"queue": queue})
            yield connection

    def compact(self) -> bool:
        """On SQLite, let go of the pages and the log that may still hold what was overwritten; elsewhere the server's own work.

        Returns:
            Whether it could; not while other processes use the file.
        """
        if self.engine.dialect.name != "sqlite":
            return True
        with self.engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            try:
                connection.exec_driver_sql("VACUUM")
                busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            except OperationalError:
                busy = 1
            connection.exec_driver_sql("BEGIN")
        return not busy

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def open_control(url: str) -> ControlPlane:
    """Open a control plane of this version.

    Raises:
        ControlPlaneVersion: Its schema is older or newer than this program.
        ControlPlaneUnreachable: It does not open.
    """
    engine = _engine(url)
    found, wanted = _revision(engine), _newest()
    if found != wanted:
        engine.dispose()
        raise ControlPlaneVersion(
            "the control plane is of another version of byok",
            hint="run byok init again with the same organisation and owner to upgrade it, or use the newer byok",
            found=found,
            wanted=wanted,
        )
    return ControlPlane(engine)


def migrate(url: str) -> bool:
    """Bring a control plane to this version; make it when there is none.

    Returns:
        Whether anything was changed.

    Raises:
        ControlPlaneUnreachable: It does not open.
    """
    from alembic import command
    from alembic.config import Config

    engine = _engine(url)
    try:
        before = _revision(engine)
        with engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        return before != _revision(engine)
    finally:
        engine.dispose()


def _newest() -> str:
    """The revision of this program: the number that its last migration's file begins with."""
    return max(path.name.split("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def _revision(engine: Engine) -> str | None:
    """The revision of a database; None when it is empty. (Alembic's own look-up would cost every command its import.)"""
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    except SQLAlchemyError as error:
        raise ControlPlaneUnreachable(
            f"the control plane does not open ({type(error).__name__})", hint="check BYOK_DATABASE_URL, or the folder's permissions"
        ) from None


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ControlPlaneUnreachable(
            "BYOK_DATABASE_URL is not a database URL", hint="for example postgresql+psycopg://host/byok"
        ) from None
    if parsed.get_backend_name() != "sqlite":
        try:
            return create_engine(parsed, pool_pre_ping=True, hide_parameters=True)
        except (SQLAlchemyError, ImportError):
            raise ControlPlaneUnreachable(
                f"there is no driver for {parsed.drivername}", hint="install it, for example psycopg for postgresql+psycopg://"
            ) from None
    if parsed.database:
        path = Path(parsed.database)
        private_dir(path.parent)
        # Made here, so that it never exists with wider permissions; SQLite gives its side files the same mode. A file that is there is not
        # even opened: to close it would drop the locks of this process's other connections (POSIX), and others would clear away their log.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    engine = create_engine(parsed, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # The driver's own implicit BEGIN is switched off; `begin` below says which kind is meant.
        # secure_delete: a destroyed ciphertext is overwritten in the file, not only unlinked.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON", "synchronous=FULL", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("byok_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
