"""PyMySQL connections that come back when the time is over, whatever the server does."""

# pyright: basic, reportAttributeAccessIssue=false
# PyMySQL has no types, and what it has in their place is not meant for subclasses.
from __future__ import annotations

import ssl
from functools import cache
from typing import Any

from pymysql.connections import Connection, MysqlPacket  # type: ignore[import-untyped]

from keyguard.runtime.deadlines import remaining

__all__ = ["DeadlineConnection"]

# A socket takes a timeout of nothing as one that never waits, and fails in another way.
_LEAST = 0.001


class DeadlineConnection(Connection):  # type: ignore[misc]
    """A connection whose every wait ends with :func:`keyguard.runtime.deadlines.remaining`.

    PyMySQL itself takes timeouts only when it connects, the same for all that follows.
    """

    def connect(self, sock: Any = None) -> None:
        """Connect, within the time."""
        left = remaining()
        if left is not None:
            self.connect_timeout = max(left, _LEAST)
        super().connect(sock)

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        return super()._create_ssl_ctx(sslp) if sslp else _unverified()

    def _read_packet(self, packet_type: Any = MysqlPacket) -> Any:
        self._read_timeout = _left()
        return super()._read_packet(packet_type)

    def _write_bytes(self, data: bytes) -> None:
        self._write_timeout = _left()
        super()._write_bytes(data)


@cache
def _unverified() -> ssl.SSLContext:
    # What PyMySQL uses where the URL names no certificate, which is for any server. It would read
    # all of the system's for each connection, and take longer over it than a hit may.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _left() -> float | None:
    left = remaining()
    return None if left is None else max(left, _LEAST)
