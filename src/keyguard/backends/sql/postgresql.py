"""psycopg connections that come back when the time is over, whatever the server does."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen, PQGenConn

from keyguard.deadlines import remaining

__all__ = ["AsyncDeadlineConnection", "DeadlineConnection"]

Result = TypeVar("Result")
State = TypeVar("State")
Ready = TypeVar("Ready")

# How long psycopg waits at most before it looks whether something else has happened.
_INTERVAL = 0.1


class DeadlineConnection(psycopg.Connection[Any]):
    """A connection whose every wait ends with :func:`keyguard.deadlines.remaining`.

    psycopg itself has no timeout but one for connecting, of at least two seconds.
    """

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Any]:
        left = remaining()
        gen = super()._connect_gen(conninfo)
        return gen if left is None else _until(time.monotonic() + left, gen)

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
            return super().wait(_until(time.monotonic() + left, gen), min(interval, left), timeout)
        except _TooLate:
            self.close()
            raise


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


class _TooLate(psycopg.OperationalError):
    """The time is over."""


def _until(
    deadline: float, gen: Generator[State, Ready, Result]
) -> Generator[State, Ready, Result]:
    """Pass on what psycopg's generator and its waiter say to one another, until it is too late."""
    try:
        state = next(gen)
        while True:
            ready = yield state
            if time.monotonic() >= deadline:
                raise _TooLate("the database did not answer in time")
            state = gen.send(ready)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        gen.close()
