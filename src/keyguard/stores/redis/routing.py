"""Finds the nodes of a cluster for commands."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import AskError, ClusterDownError, MovedError

from keyguard.stores.redis.durability import Durability
from keyguard.stores.redis.scripts import Command, Replies, pack


class Routing(ABC):
    """The routing to the nodes of a cluster, for the ports of both flavours."""

    @abstractmethod
    def doubt_layout(self) -> None:
        """Read the layout of a cluster again before the next command."""

    @abstractmethod
    async def _node(self, cluster: Any, key: str) -> Any:
        """Return the node of a key by the present layout."""

    @abstractmethod
    async def _exchange_on(
        self, node: Any, commands: Sequence[Command], durability: Durability | None
    ) -> Replies:
        """Send commands to a node."""

    async def _node_after(self, move: Any, cluster: Any, key: str) -> Any:
        """Return the node of a key.

        Args:
            move: The answer that said last that the key is elsewhere, a ``MovedError``, whose
                attributes redis-py does not type; None if there was none.
            cluster: The client.
            key: The key.
        """
        if move is None:
            return await self._node(cluster, key)
        self.doubt_layout()
        node = await self._node(cluster, key)
        # The layout may come from a node that has not heard of it yet.
        return cluster.get_node(move.host, move.port) or node

    async def _routed(
        self,
        cluster: Any,
        commands: Sequence[Command],
        key: str,
        durability: Durability | None,
    ) -> Replies:
        """Send commands to the node of a key, and those that it did not run to another node."""
        try:
            replies = await self._exchange_on(await self._node(cluster, key), commands, durability)
            moved = [
                number for number, reply in enumerate(replies) if isinstance(reply, MovedError)
            ]
            if moved:
                node = await self._node_after(replies[moved[0]], cluster, key)
                again = [commands[number] for number in moved]
                found = await self._exchange_on(node, again, durability)
                for number, reply in zip(moved, found, strict=True):
                    replies[number] = reply
        except (redis.ConnectionError, redis.TimeoutError, asyncio.CancelledError):
            self.doubt_layout()
            raise
        for number, reply in enumerate(replies):
            if isinstance(reply, AskError) and not isinstance(reply, MovedError):
                asked: Any = reply  # redis-py has no types for these
                node = cluster.get_node(asked.host, asked.port)
                if node is not None:
                    pair = pack("ASKING"), commands[number]
                    replies[number] = (await self._exchange_on(node, pair, durability))[-1]
                    continue
            if isinstance(reply, AskError | ClusterDownError | redis.ConnectionError):
                self.doubt_layout()
        return replies
