"""The database under the store: opened, shared by several processes, and its faults explained.

SQLite by default. Its write-ahead log lets readers go on while one process writes, and a writer
takes its lock at the start of its transaction, so it waits for another instead of failing midway.
"""

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import stamina
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
)

from podproof.monitor.errors import StoreUnavailable
from podproof.monitor.tables import METADATA
from podproof.runtime.errors import Problem

# The option of a connection that names how its transaction begins. One that reads first and writes
# later fails at once when another has written in between; BEGIN IMMEDIATE waits for its turn.
_BEGIN = "podproof_begin"

# What the database says (lower case), what that means, and the way out.
_FAULTS = (
    ("locked", "another process kept it locked for too long", "end that process, or try again"),
    ("readonly", "it is read-only", "make the file and its folder writable, or name another file"),
    ("unable to open", "it cannot be opened", "name a file in a folder that you may write"),
    ("is full", "the disk is full", "make room on the disk; nothing that was stored is lost"),
    ("disk i/o", "the disk fails", "move the store to another disk"),
    ("not a database", "it is not an SQLite file", "name another file"),
    ("malformed", "it is damaged", "move it away; every run still has its own events.jsonl"),
)


class Database:
    """An engine that several processes can share, and whose failures say the way out."""

    def __init__(self, url: str | URL, *, busy_timeout_s: float) -> None:
        """Open the database and make the tables that are missing; raise StoreUnavailable."""
        self._url = _read_url(url)
        with self._explained():
            self._engine = _engine(self._url, busy_timeout_s)
            try:
                self._prepare(busy_timeout_s)
            except BaseException:
                # Nobody will close a store that was never opened.
                self._engine.dispose()
                raise

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that sees one state of the database throughout."""
        with self._explained(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give the connection of one transaction: all of it is kept, or none if it raises."""
        with self._explained(), self._engine.connect() as plain:
            connection = plain.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
            with connection.begin():
                yield connection

    def _prepare(self, busy_timeout_s: float) -> None:
        if self._engine.dialect.name == "sqlite":
            # Two processes that open a new file at once: SQLite does not wait for this one lock.
            patient = stamina.retry(
                on=_is_locked,
                attempts=None,
                timeout=busy_timeout_s,
                wait_initial=0.02,
                wait_max=0.5,
            )
            patient(_use_write_ahead_log)(self._engine)
        with self.writing() as connection:
            METADATA.create_all(connection)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ModuleNotFoundError as error:
            what = f"needs the Python package {error.name}"
            raise StoreUnavailable(
                Problem(self._place, what, f"pip install {error.name}, or use a path")
            ) from error
        except (DatabaseError, InterfaceError) as error:
            if not _is_the_databases_fault(error):
                raise
            raise StoreUnavailable(_fault(self._place, str(error.orig))) from error

    @property
    def _place(self) -> str:
        if self._url.drivername.startswith("sqlite"):
            return str(self._url.database)
        return self._url.render_as_string(hide_password=True)


def _read_url(url: str | URL) -> URL:
    """Parse the URL; refuse what cannot be shared, without ever showing a password."""
    way_out = "give a path, or a URL such as sqlite:////home/me/runs.db"
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError) as error:
        raise StoreUnavailable(Problem("store", "not the URL of a database", way_out)) from error
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        what = f"{parsed.get_backend_name()} is not supported"
        raise StoreUnavailable(Problem("store", what, way_out))
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        what = "a database in memory is seen by one thread only"
        raise StoreUnavailable(Problem("store", what, way_out))
    return parsed


def _engine(url: URL, busy_timeout_s: float) -> Engine:
    is_sqlite = url.get_backend_name() == "sqlite"
    engine = create_engine(
        url,
        connect_args={"timeout": busy_timeout_s} if is_sqlite else {},
        json_serializer=functools.partial(json.dumps, allow_nan=False),
        pool_pre_ping=not is_sqlite,
    )
    if is_sqlite:
        event.listen(engine, "connect", _leave_transactions_to_us)
        event.listen(engine, "begin", _begin)
    return engine


def _leave_transactions_to_us(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None


def _begin(connection: Connection) -> None:
    statement = connection.get_execution_options().get(_BEGIN, "BEGIN")
    if statement is not None:
        connection.exec_driver_sql(statement)


def _use_write_ahead_log(engine: Engine) -> None:
    with engine.connect() as plain:
        connection = plain.execution_options(**{_BEGIN: None})  # no mode can change in one
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")


def _is_locked(error: Exception) -> bool:
    return "locked" in str(error)


def _is_the_databases_fault(error: DatabaseError | InterfaceError) -> bool:
    """Tell a disk, file or server that fails from a mistake of ours, which must be seen as one."""
    return type(error) in {DatabaseError, InterfaceError, OperationalError}


def _fault(place: str, said: str) -> Problem:
    for sign, meaning, way_out in _FAULTS:
        if sign in said.lower():
            return Problem(place, f"{meaning} ({said})", way_out)
    return Problem(place, said, "check that the database is there and takes connections")
