"""The engines that keyguard makes for a database URL: one to find things, one to change them.

A look-up is one statement, with no BEGIN before and no ROLLBACK after it. A change is a
transaction. Switching a pooled connection between the two would cost round trips, at a moment when
SQLAlchemy does not notice that the connection is dead. So each has an engine.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from sqlalchemy import URL, Dialect, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from keyguard.runtime.connecting import AsyncConnector, Connector, SyncConnector
from keyguard.runtime.deadlines import Patience, remaining
from keyguard.runtime.sync import run_sync
from keyguard.stores.sql import options
from keyguard.stores.sql.driver import Driver
from keyguard.stores.sql.errors import is_read_only, place_of, unavailable
from keyguard.stores.sql.session import DIRECT, DriverConnection
from keyguard.stores.sql.turns import MOST_READS, MOST_WRITES

AnyEngine = TypeVar("AnyEngine", Engine, AsyncEngine)

_Options: TypeAlias = dict[str, Any]
READS: _Options = {
    "hide_parameters": True,
    "isolation_level": "AUTOCOMMIT",
    "skip_autocommit_rollback": True,
    "execution_options": {DIRECT: True},
    "pool_size": MOST_READS // 2,
    "max_overflow": MOST_READS - MOST_READS // 2,
}
"""What engines are told that find things."""

WRITES: _Options = {
    "hide_parameters": True,
    "pool_size": MOST_WRITES,  # limits are counted through them
    "max_overflow": 0,
    # Each operation ends its own transaction. Another rollback when the connection comes back would
    # be one more round trip on MySQL, and a silent server would hold up a change already made.
    "pool_reset_on_return": None,
}
"""What engines are told that change things."""

_EPOCH = "keyguard_epoch"
_LEAST_TIMEOUT = 2
"""The seconds that psycopg waits for each host at least."""


class Way(Enum):
    """How an operation uses the database."""

    READ = auto()
    """Each statement stands alone, and changes nothing."""
    WRITE = auto()
    """All statements are one transaction."""
    SWAP = auto()
    """Each statement stands alone, and may change something."""

    __hash__ = object.__hash__
    """That of :class:`enum.Enum` is no function of C, and each look-up needs it."""


class Engines(Generic[AnyEngine]):
    """The engines of one process, or of one event loop in it.

    Args:
        reads: The engine that finds things.
        writes: The engine that changes things, in transactions.
        swaps: The engine whose statements change things and stand alone, if that costs no extra
            round trip; otherwise None.
        connectors: The connectors that open their connections; none for SQLite.

    Attributes:
        by_way: The engine for each way.
        pools: The engines with a pool of their own.
    """

    def __init__(
        self,
        reads: AnyEngine,
        writes: AnyEngine,
        swaps: AnyEngine | None = None,
        connectors: tuple[Connector[DriverConnection], ...] = (),
    ) -> None:
        self.by_way: dict[Way, AnyEngine] = {
            Way.READ: reads,
            Way.WRITE: writes,
            Way.SWAP: swaps or writes,
        }
        self.pools: tuple[AnyEngine, ...] = (reads, writes)
        self.connectors = connectors

    def note_loss(self) -> None:
        """Note that a call got no connection in time, or got it too late to use it."""
        for connector in self.connectors:
            connector.note_loss()


def engines(url: URL, patience: Patience, create: Callable[..., AnyEngine]) -> Engines[AnyEngine]:
    """Make the engines of a database server.

    Args:
        url: The database, with the name of the driver.
        patience: How long connecting may take, and how long connections last.
        create: Makes an engine of SQLAlchemy's: ``create_engine``, or for one event loop
            ``create_async_engine``.
    """
    reads, read = _engine(url, patience, create, writes=False)
    writes, write = _engine(url, patience, create, writes=True)
    swaps = None
    if writes.dialect.name == "postgresql":
        # The engine of writes sets its level by no option: of two options, either may hold.
        swaps = writes.execution_options(isolation_level="AUTOCOMMIT")
    return Engines(reads, writes, swaps, (read, write))


def engines_of(host: AnyEngine) -> Engines[AnyEngine]:
    """Make engines over the connections of a host's engine."""
    if host.dialect.name != "postgresql":
        return Engines(host, host)
    # Without BEGIN and ROLLBACK around it a look-up is one round trip. At a level above READ
    # COMMITTED, which a host may have chosen, PostgreSQL refuses a change that waited for another.
    # To set a level costs no round trip here, unlike on MySQL.
    reads = host.execution_options(isolation_level="AUTOCOMMIT")
    return Engines(reads, host.execution_options(isolation_level="READ COMMITTED"), reads)


def _engine(
    url: URL, patience: Patience, create: Callable[..., AnyEngine], *, writes: bool
) -> tuple[AnyEngine, Connector[DriverConnection]]:
    """Make an engine whose connections are opened in the background."""
    is_postgresql = url.get_backend_name() == "postgresql"
    driver = _driver(url, awaited=create is create_async_engine)
    given: _Options = dict(WRITES if writes else READS)
    told: _Options = dict(driver.options)
    if is_postgresql:
        given["use_native_hstore"] = False  # a question, for a type that keyguard does not use
        if writes:  # changes must be able to wait for one another; a database may refuse that
            given["isolation_level"] = "READ COMMITTED"
        told[options.PREPARE] = options.prepare_threshold(url.query)
    elif not writes:
        told["autocommit"] = True  # otherwise SQLAlchemy sets it later, in a round trip
    patience, told["connect_timeout"] = _timeouts(url, patience)
    plain = url.difference_update_query([options.PREPARE])
    engine = create(plain, pool_recycle=patience.in_pool, **given)
    core: Engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    positional, named = core.dialect.create_connect_args(plain)
    for name, answer in driver.answers.items():
        setattr(core.dialect, name, answer)
    connect = partial(driver.connect, *positional, **{**named, **told})
    connector: Connector[DriverConnection]
    if isinstance(engine, AsyncEngine):
        connector = AsyncConnector(connect, driver.drop, patience)
        event.listen(core, "do_connect", partial(_connect_awaited, connector))
    else:

        async def connected() -> DriverConnection:
            return connect()

        connector = SyncConnector(connected, driver.drop, patience)
        event.listen(core, "do_connect", partial(_connect, connector, place_of(url)))
    event.listen(core, "connect", partial(_note_epoch, connector))
    event.listen(core, "checkout", partial(_refuse_distrusted, connector))
    event.listen(core, "invalidate", lambda *_: connector.note_loss())
    event.listen(core, "handle_error", partial(_note_failure, connector))
    return engine, connector


def _connect(connector: Connector[DriverConnection], place: str, *_: object) -> object:
    try:
        return run_sync(connector.take())
    except TimeoutError as late:
        raise unavailable(place) from late


def _connect_awaited(
    connector: Connector[DriverConnection], dialect: Dialect, *_: object
) -> object:
    # SQLAlchemy wraps what the function returns.
    return dialect.connect(async_creator_fn=connector.take)


def _note_epoch(
    connector: Connector[DriverConnection], driver: DriverConnection, entry: ConnectionPoolEntry
) -> None:
    del driver
    entry.info[_EPOCH] = connector.epoch


def _refuse_distrusted(
    connector: Connector[DriverConnection],
    driver: DriverConnection,
    entry: ConnectionPoolEntry,
    borrowed: object,
) -> None:
    """Make the pool replace a connection that was opened before the others were distrusted."""
    del driver, borrowed
    if entry.info[_EPOCH] != connector.epoch:
        raise DisconnectionError


def _note_failure(connector: Connector[DriverConnection], failure: ExceptionContext) -> None:
    """Replace the other connections when one was lost, but not when a call took too long.

    A connection to a former primary counts as lost. The server refused the change, so nothing was
    made.
    """
    if is_read_only(failure.original_exception):
        failure.is_disconnect = True
    if remaining() == 0:  # a lock, or the distance, may have taken the time
        failure.invalidate_pool_on_disconnect = False
    if failure.is_disconnect and failure.invalidate_pool_on_disconnect:
        connector.distrust()


def _timeouts(url: URL, patience: Patience) -> tuple[Patience, int]:
    """Return how long opening may take in all, and the timeout of the driver for each host."""
    hosts = url.query.get("host", "")
    number = len(hosts) if isinstance(hosts, tuple) else hosts.count(",") + 1
    each = int(str(url.query.get("connect_timeout", 0)))
    if each:
        return patience._replace(connect_timeout=each * number), each
    return patience, max(_LEAST_TIMEOUT, int(patience.connect_timeout / number))


def _driver(url: URL, *, awaited: bool) -> Driver:
    if url.get_backend_name() == "postgresql":
        from keyguard.stores.sql import postgresql

        return postgresql.ASYNC_PSYCOPG if awaited else postgresql.PSYCOPG
    from keyguard.stores.sql import mysql

    return mysql.ASYNCMY if awaited else mysql.PYMYSQL
