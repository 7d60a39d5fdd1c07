"""Whether enough replicas have a change before it is acknowledged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from keyguard.exceptions import NotDurableError
from keyguard.runtime.deadlines import within
from keyguard.stores.redis.lending import patience
from keyguard.stores.redis.scripts import DONE, Command, Reply, pack, text_of, texts_of

Ask: TypeAlias = Callable[[Command], Awaitable[Reply]]
"""Sends a command on the connection that made a change, and returns the reply."""

_LONGEST = 1.0
"""Seconds that a change waits for replicas at most."""


class Durability:
    """How many replicas must have a change.

    Replication is one stream, and WAIT asks how many replicas have read it as far as the last write
    of its own connection. So it follows the change on the same connection. Another connection could
    lead to a replica that took over meanwhile and never had the change.

    Args:
        replicas: The number.
        place: The server's address, without secrets.
    """

    def __init__(self, replicas: int, place: str) -> None:
        self._replicas = replicas
        self._place = place

    async def confirm(self, reply: Reply, ask: Ask) -> None:
        """Wait until the replicas have a change, if there was one.

        Args:
            reply: What the script that makes the change has answered.
            ask: Reaches the server on the script's connection.

        Raises:
            NotDurableError: Too few of them had it in time, or the server did not answer.
        """
        if texts_of(reply)[0] != DONE:
            return
        seconds = min(_LONGEST, patience() / 2)
        wait = pack("WAIT", str(self._replicas), str(max(1, round(seconds * 1000))))
        try:
            # Stop waiting for a silent server before the deadline of the whole call.
            with within(1.5 * seconds):
                reached = int(text_of(await ask(wait)))
        except Exception as failure:
            raise self._not_durable(seconds) from failure
        if reached < self._replicas:
            raise self._not_durable(seconds)

    def _not_durable(self, seconds: float) -> NotDurableError:
        wanted = "one replica" if self._replicas == 1 else f"{self._replicas} replicas"
        return NotDurableError(
            f"{self._place} made the change, but fewer than {wanted} had it within {seconds:g} "
            "seconds, and a failover now would lose it; check that the replicas are connected "
            "('keyguard doctor' reports it), then make the change again if it ends something"
        )
