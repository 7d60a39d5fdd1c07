"""psycopg connections that return by the deadline, whatever the server does."""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen, PQGenConn
from psycopg.conninfo import conninfo_to_dict, timeout_from_conninfo
from psycopg.pq import TransactionStatus

from keyguard.runtime.deadlines import remaining

Result = TypeVar("Result")

# Seconds that psycopg waits at most before it checks for anything else, such as Ctrl-C.
_INTERVAL = 0.1


class PostgresConnection(psycopg.Connection[Any]):
    """A connection whose every wait ends with :func:`keyguard.runtime.deadlines.remaining`.

    psycopg itself only has a timeout for connecting, of at least two seconds.
    """

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Any]:
        gen = super()._connect_gen(conninfo)
        left = remaining()
        if left is None:
            return (yield from gen)
        # Wait here: psycopg would check the time ten times a second.
        patience = min(left, timeout_from_conninfo(conninfo_to_dict(conninfo)))
        return waiting.wait_conn(gen, interval=_INTERVAL, timeout=patience)

    def wait(
        self, gen: PQGen[Result], interval: float = _INTERVAL, timeout: float | None = None
    ) -> Result:
        """Run one exchange with the server.

        Raises:
            OperationalError: The deadline passed, and the connection is closed.
        """
        left = remaining()
        if left is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, left)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            self.close()
            raise psycopg.OperationalError("the database did not answer in time") from None


class AsyncPostgresConnection(psycopg.AsyncConnection[Any]):
    """A connection that closes at once when a wait for it is cancelled.

    psycopg itself would ask the server to cancel the statement, and wait up to ten seconds for it.
    """

    async def wait(
        self,
        gen: PQGen[Result],
        interval: float = _INTERVAL,
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's own signature
    ) -> Result:
        """Run one exchange with the server."""
        try:
            return await waiting.wait_async(
                gen, self.pgconn.socket, interval=interval, timeout=timeout
            )
        except BaseException as failure:
            if not isinstance(failure, Exception):
                self.pgconn.finish()
            raise
