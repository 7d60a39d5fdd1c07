"""From an address to redis-py's pools and clients."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.asyncio.sentinel
import redis.connection
import redis.sentinel
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from keyguard.stores.redis.addresses import Address, Kind
from keyguard.stores.redis.pools import (
    DEFAULTS,
    AsyncTimely,
    TimelyPool,
    TimelySentinelPool,
    timely,
)

__all__ = ["make_async_clients", "make_cluster", "make_pool", "sentinels_of"]


def make_pool(address: Address) -> Any:
    """Return a pool, for sync code, of connections to one server or to what Sentinels name."""
    options: dict[str, Any] = {**DEFAULTS, **address.options}
    if address.kind is Kind.SENTINEL:
        sentinel: Any = redis.sentinel.Sentinel([])
        sentinel.sentinels = [
            redis.Redis(
                connection_pool=TimelyPool(
                    _connection_class(one, redis.connection),
                    _share(address),
                    **_to_one(one),
                    **one.options,
                )
            )
            for one in sentinels_of(address)
        ]
        managed = (
            redis.sentinel.SentinelManagedSSLConnection
            if address.tls
            else redis.sentinel.SentinelManagedConnection
        )
        return TimelySentinelPool(
            address.service, sentinel, connection_class=timely(managed), **options
        )
    return TimelyPool(
        connection_class=_connection_class(address, redis.connection), **_to_one(address), **options
    )


def make_cluster(address: Address) -> Any:
    """Return a client for a cluster, for sync code, once it has read the layout."""
    (host, port), *others = address.nodes
    options: dict[str, Any] = {"protocol": 2, **address.options}
    make: Any = redis.RedisCluster
    # Made "from a URL" it takes the class of its connections and of its pools.
    return make(
        url=f"redis://{host if ':' not in host else f'[{host}]'}:{port}",
        startup_nodes=[ClusterNode(*node) for node in others],
        connection_pool_class=TimelyPool,
        connection_class=_connection_class(address, redis.connection),
        retry=Retry(NoBackoff(), 0),
        **options,
    )


def make_async_clients(address: Address) -> list[Any]:
    """Return the client to use, and others that it uses itself."""
    options: dict[str, Any] = {
        **DEFAULTS,
        "socket_timeout": None,
        "socket_connect_timeout": None,
        **address.options,
    }
    retry = AsyncRetry(NoBackoff(), 0)
    if address.kind is Kind.CLUSTER:
        cluster: Any = redis.asyncio.RedisCluster(
            startup_nodes=[AsyncClusterNode(*node) for node in address.nodes],
            retry=retry,
            ssl=address.tls,
            **options,
        )
        return [cluster]
    if address.kind is Kind.SENTINEL:
        pool_of: Any = redis.asyncio.ConnectionPool
        sentinel: Any = redis.asyncio.sentinel.Sentinel([])
        sentinel.sentinels = [
            redis.asyncio.Redis.from_pool(
                pool_of(
                    connection_class=timely(
                        _connection_class(one, redis.asyncio.connection),
                        _share(address),
                        AsyncTimely,
                    ),
                    retry=retry,
                    **_to_one(one),
                    **{**options, "db": 0, **one.options},
                )
            )
            for one in sentinels_of(address)
        ]
        primary = sentinel.master_for(address.service, retry=retry, ssl=address.tls, **options)
        return [primary, *sentinel.sentinels]
    pool = redis.asyncio.ConnectionPool(
        connection_class=_connection_class(address, redis.asyncio.connection),
        retry=retry,
        **_to_one(address),
        **options,
    )
    return [redis.asyncio.Redis.from_pool(pool)]


def _to_one(address: Address) -> dict[str, Any]:
    if "path" in address.options:
        return {}
    host, port = address.nodes[0]
    return {"host": host, "port": port}


def _share(address: Address) -> float:
    # One Sentinel that is silent leaves time for the others, and for the primary.
    return 1 / (len(address.nodes) + 1)


def sentinels_of(address: Address) -> list[Address]:
    """Return the address of each Sentinel."""
    if address.kind is not Kind.SENTINEL:
        return []
    return [
        Address(
            kind=Kind.STANDALONE,
            nodes=(node,),
            tls=address.sentinel_tls,
            options=address.sentinel_options,
        )
        for node in address.nodes
    ]


def _connection_class(address: Address, module: Any) -> type:
    if address.connection_class is not None:
        return address.connection_class  # type: ignore[no-any-return]  # a class of the client's
    if "path" in address.options:
        return module.UnixDomainSocketConnection  # type: ignore[no-any-return]  # likewise
    return module.SSLConnection if address.tls else module.Connection  # type: ignore[no-any-return]
