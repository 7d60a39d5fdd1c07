"""PyMySQL connections that return by the deadline, whatever the server does."""

# pyright: basic, reportAttributeAccessIssue=false
# PyMySQL has no types, and the stubs that exist do not cover what a subclass overrides.
from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import cache
from socket import socket
from typing import Any

from pymysql.connections import Connection  # type: ignore[import-untyped]
from pymysql.constants import CR  # type: ignore[import-untyped]
from pymysql.err import OperationalError  # type: ignore[import-untyped]
from sqlalchemy import Connection as CoreConnection

from keyguard.runtime.deadlines import remaining
from keyguard.stores.sql.driver import Driver
from keyguard.stores.sql.session import DriverConnection

# Of keyguard's sessions, whatever the server's is.
_MODE = "STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION"

# With a timeout of 0 a socket never waits at all, and fails in another way.
_LEAST = 0.001


class MySqlConnection(Connection):  # type: ignore[misc]
    """A connection whose every wait ends with :func:`keyguard.runtime.deadlines.remaining`.

    PyMySQL itself takes timeouts only when it connects, and uses them for every later wait.
    """

    connect_timeout: float

    def connect(self, sock: socket | None = None) -> None:
        """Connect by the deadline, and within the ``connect_timeout`` of the URL."""
        left = remaining()
        if left is not None:
            self.connect_timeout = min(self.connect_timeout, max(left, _LEAST))
        super().connect(sock)

    def character_set_name(self) -> None:
        """Name none: SQLAlchemy would set again what has been set, in another round trip."""

    def _create_ssl_ctx(self, sslp: object) -> ssl.SSLContext:
        return super()._create_ssl_ctx(sslp) if sslp else _unverified()

    def _read_bytes(self, num_bytes: int) -> bytes:
        # PyMySQL's timeout is that of one read from the socket, so a server that sends a byte now
        # and then could hold a call for ever.
        arrived = bytearray()
        while len(arrived) < num_bytes:
            problem = "the deadline has passed"
            data = b""
            if remaining() != 0:
                self._read_timeout = self._current_timeout = _left()
                self._sock.settimeout(self._read_timeout)
                try:
                    data = self._rfile.read1(num_bytes - len(arrived))
                    problem = "the server closed the connection"
                except OSError as failure:
                    problem = str(failure)
            if not data:
                self._force_close()
                raise OperationalError(CR.CR_SERVER_LOST, f"lost the answer: {problem}")
            arrived += data
        return bytes(arrived)

    def _write_bytes(self, data: bytes) -> None:
        self._write_timeout = _left()
        super()._write_bytes(data)


async def _connect_awaited(**named: object) -> DriverConnection:
    connection = _awaited_class()(**named)
    await connection.connect()
    return connection


@cache
def _awaited_class() -> Callable[..., DriverConnection]:
    """Return asyncmy's class of connections, with a character set like the one above."""
    from asyncmy import Connection  # sync code need not have it

    return type("AsyncMySqlConnection", (Connection,), {"character_set_name": lambda _: None})


@cache
def _unverified() -> ssl.SSLContext:
    # What PyMySQL uses where the URL names no certificate: any server is accepted. PyMySQL would
    # still read all certificates of the system for each connection, which takes longer than a hit
    # may.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _left() -> float | None:
    left = remaining()
    return None if left is None else max(left, _LEAST)


def _version(connection: CoreConnection) -> object:
    driver: DriverConnection = connection.connection.driver_connection
    dialect: Any = connection.dialect
    return dialect._parse_server_version(driver.get_server_info())


# The server has told its version as the connection began; the mode is set, and known.
_ANSWERS: dict[str, Callable[[CoreConnection], object]] = {
    "_get_server_version_info": _version,
    "_get_default_schema_name": lambda connection: connection.engine.url.database,
    "get_default_isolation_level": lambda _: "REPEATABLE READ",
    "_detect_sql_mode": lambda connection: setattr(connection.dialect, "_sql_mode", _MODE),
    "_detect_casing": lambda _: 0,  # of names of tables, which keyguard writes as they are
}

PYMYSQL = Driver(
    MySqlConnection,
    lambda connection: connection._force_close(),
    _ANSWERS,
    {"sql_mode": _MODE},
)
"""PyMySQL, in sync code."""

ASYNCMY = Driver(
    _connect_awaited,
    lambda connection: connection.close(),
    _ANSWERS,
    {"sql_mode": f"'{_MODE}'"},  # asyncmy does not quote it
)
"""asyncmy, on asyncio."""
