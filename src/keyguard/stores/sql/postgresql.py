"""psycopg connections that return by the deadline, whatever the server does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen
from psycopg.rows import TupleRow
from sqlalchemy import Connection

from keyguard.runtime.deadlines import remaining
from keyguard.stores.sql.driver import Driver
from keyguard.stores.sql.session import DriverConnection

Result = TypeVar("Result")

# Seconds that psycopg waits at most before it checks for anything else, such as Ctrl-C.
_INTERVAL = 0.1
_SHORTEST = 0.001


class PostgresConnection(psycopg.Connection[TupleRow]):
    """A connection whose every wait ends with :func:`keyguard.runtime.deadlines.remaining`.

    psycopg itself only has a timeout for connecting.
    """

    def wait(
        self, gen: PQGen[Result], interval: float = _INTERVAL, *arguments: Any, **options: Any
    ) -> Result:
        """Run one exchange with the server.

        Raises:
            OperationalError: The deadline passed, and the connection is closed.
        """
        left = remaining()
        if left is not None:
            gen = self._in_time(gen)
            # Whole intervals, so that the last one ends with the deadline.
            interval = max(left, _SHORTEST) / max(1, math.ceil(left / _INTERVAL))
        return super().wait(gen, interval, *arguments, **options)

    def _in_time(self, gen: PQGen[Result]) -> PQGen[Result]:
        ready: Any = None
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as end:
                result: Result = end.value
                return result
            ready = yield wanted
            left = remaining()
            if left is not None and left <= 0:
                self.close()
                raise psycopg.OperationalError("the database did not answer in time")


class AsyncPostgresConnection(psycopg.AsyncConnection[TupleRow]):
    """A connection that closes at once when a wait for it is cancelled.

    psycopg itself would ask the server to cancel the statement, and wait up to ten seconds for it.
    """

    async def wait(
        self, gen: PQGen[Result], interval: float = _INTERVAL, *arguments: Any, **options: Any
    ) -> Result:
        """Run one exchange with the server."""
        try:
            return await waiting.wait_async(
                gen, self.pgconn.socket, interval, *arguments, **options
            )
        except BaseException as failure:
            if not isinstance(failure, Exception):
                self.pgconn.finish()
            raise


def _version(connection: Connection) -> tuple[int, int]:
    driver = connection.connection.driver_connection
    return divmod(0 if driver is None else driver.info.server_version, 10_000)


# The server has told its version as the connection began.
_ANSWERS: dict[str, Callable[[Connection], object]] = {
    "_get_server_version_info": _version,
    "_get_default_schema_name": lambda _: None,
    "get_default_isolation_level": lambda _: "READ COMMITTED",
    "_set_backslash_escapes": lambda _: None,  # for literals; keyguard passes parameters
}


def _drop(connection: DriverConnection) -> None:
    connection.pgconn.finish()


PSYCOPG = Driver(
    PostgresConnection.connect,
    _drop,
    _ANSWERS,
    {"client_encoding": "utf8"},
)
"""psycopg in sync code."""

ASYNC_PSYCOPG = PSYCOPG._replace(connect=AsyncPostgresConnection.connect)
"""psycopg on asyncio."""
