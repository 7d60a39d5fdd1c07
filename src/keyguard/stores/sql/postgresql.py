"""psycopg connections that come back when the time is over, whatever the server does."""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen, PQGenConn
from psycopg.pq import TransactionStatus

from keyguard.runtime.deadlines import remaining

__all__ = ["AsyncDeadlineConnection", "DeadlineConnection"]

Result = TypeVar("Result")

# How long psycopg waits at most before it looks whether something else has happened.
_INTERVAL = 0.1


class DeadlineConnection(psycopg.Connection[Any]):
    """A connection whose every wait ends with :func:`keyguard.runtime.deadlines.remaining`.

    psycopg itself has no timeout but one for connecting, of at least two seconds.
    """

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Any]:
        gen = super()._connect_gen(conninfo)
        left = remaining()
        if left is None:
            return (yield from gen)
        # Waited for here, for psycopg would look at the time ten times a second.
        return waiting.wait_conn(gen, interval=_INTERVAL, timeout=left)

    def wait(
        self, gen: PQGen[Result], interval: float = _INTERVAL, timeout: float | None = None
    ) -> Result:
        """Run one exchange with the server.

        Raises:
            OperationalError: The time is over; the connection is closed.
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


class AsyncDeadlineConnection(psycopg.AsyncConnection[Any]):
    """A connection that is closed, at once, when a wait for it is cancelled.

    psycopg itself would ask the server to cancel the statement, and wait for it for ten seconds.
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
