"""redis-py's clients: those that keyguard makes, and what it asks of those that are passed in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial, partialmethod
from typing import Any, TypeAlias

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry
from redis.sentinel import (
    Sentinel,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from keyguard.runtime.deadlines import PATIENCE, Patience, awithin
from keyguard.stores.redis.deployment import Deployment, Topology
from keyguard.stores.redis.pools import (
    MOST_CONNECTIONS,
    AsyncPool,
    AsyncSentinelPool,
    TimelyPool,
    TimelySentinelPool,
    timely,
)

Client: TypeAlias = redis.Redis | redis.RedisCluster
AsyncClient: TypeAlias = redis.asyncio.Redis | redis.asyncio.RedisCluster

_HAS_INFO = hasattr(redis, "DriverInfo")

_Arguments: TypeAlias = dict[str, Any]
"""Arguments of redis-py's connections and pools, by name."""

_SHARED: _Arguments = {
    "protocol": 2,
    "max_connections": MOST_CONNECTIONS,
    # Telling the server which driver this is costs two round trips for each connection. redis-py
    # has one option for that since 7.2.
    **dict.fromkeys(["driver_info"] if _HAS_INFO else ["lib_name", "lib_version"]),
}


LONGEST_PARTING = 1.0
"""Seconds that closing a client on asyncio takes at most."""

_ASKING = 0.5
"""Seconds that one step with a Sentinel takes at most, so that a silent one leaves time for the
next."""

_NO_SECOND_TRY: _Arguments = {"retry": Retry(NoBackoff(), 0), "retry_on_error": []}

# Arguments of a client's connections that the timely ones do without: they hold state of the
# client's own, or belong to a protocol that keyguard does not speak.
_LEFT_OUT = re.compile(
    "maint|orig_|oss_|cache|himport_|event_|health_|retry_on_|connection_(pool|class)|legacy_"
)


def make_client(target: Deployment | Client, terms: Patience = PATIENCE) -> Client:
    """Return a client for sync code whose every wait has a deadline.

    Args:
        target: Where the Redis is, or a client. The new one connects as that client does, with its
            class of connections, but by the deadline of the call. A client for a cluster has read
            the cluster's layout.
        terms: How long opening a connection may take, and how long it is kept.
    """
    if isinstance(target, redis.RedisCluster):
        manager: Any = target.nodes_manager
        nodes = [(node.host, node.port) for node in manager.startup_nodes.values()]
        own = _of_client(manager.connection_kwargs)
        for name in ("host", "port", "ssl", "redis_connect_func"):  # which are the cluster's
            own.pop(name, None)
        kind = manager.connection_kwargs.get("connection_class")
        kind = kind or _tcp(_has_tls(manager.connection_kwargs))
        return _cluster(nodes, kind, own | {"address_remap": manager.address_remap}, terms)
    if isinstance(target, redis.Redis):
        return redis.Redis.from_pool(_timely_pool(target.connection_pool, terms))
    options: _Arguments = {**_SHARED, **_NO_SECOND_TRY, **target.options}
    if target.topology is Topology.CLUSTER:
        return _cluster(target.nodes, _tcp(target.tls), options, terms)
    if target.topology is Topology.SENTINEL:
        sentinels = [
            redis.Redis.from_pool(TimelyPool(timely(_tcp(target.tls)), **sentinel_options))
            for sentinel_options in _options_of_sentinels(target)
        ]
        primary = SentinelManagedSSLConnection if target.tls else SentinelManagedConnection
        return redis.Redis.from_pool(_primary(target.service, sentinels, primary, options, terms))
    served: type[object] = redis.UnixDomainSocketConnection
    if target.nodes:
        served, options = _tcp(target.tls), {**_address(target.nodes[0]), **options}
    return redis.Redis.from_pool(TimelyPool(timely(served), terms=terms, **options))


def _cluster(
    nodes: Sequence[tuple[str, int]], kind: type[object], options: _Arguments, terms: Patience
) -> redis.RedisCluster:
    (host, port), *others = nodes
    # redis-py before 6.2 drops some of these on the way to a cluster's connections.
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    connection = timely(kind)
    if tls:
        bound = {"__init__": partialmethod(connection.__init__, **tls)}
        connection = type(connection.__name__, (connection,), bound)
    return redis.RedisCluster.from_url(
        f"redis://{f'[{host}]' if ':' in host else host}:{port}",
        startup_nodes=[ClusterNode(*node) for node in others],
        connection_pool_class=partial(TimelyPool, terms=terms),
        connection_class=connection,
        **{name: value for name, value in options.items() if name not in tls},
    )


def _primary(
    service: str,
    sentinels: Sequence[redis.Redis],
    kind: type[object],
    options: _Arguments,
    terms: Patience,
) -> TimelySentinelPool:
    pool = TimelySentinelPool(
        service, Sentinel([]), connection_class=timely(kind), terms=terms, **options
    )
    pool.sentinel_manager.sentinels = sentinels
    return pool


def _timely_pool(pool: Any, terms: Patience, **more: float) -> redis.ConnectionPool:
    """Return a pool whose connections are like those of a client's pool, but timely."""
    options: _Arguments = {**_of_client(pool.connection_kwargs), **more}
    options["max_connections"] = min(pool.max_connections, MOST_CONNECTIONS)
    sentinels = _clients_of_sentinels(pool)
    if not sentinels:
        return TimelyPool(timely(pool.connection_class), terms=terms, **options)
    timely_ones = [
        redis.Redis.from_pool(_timely_pool(sentinel.connection_pool, terms, longest=_ASKING))
        for sentinel in sentinels
    ]
    options["is_master"] = pool.is_master
    return _primary(pool.service_name, timely_ones, pool.connection_class, options, terms)


def _of_client(options: _Arguments) -> _Arguments:
    kept = {name: options[name] for name in options if not _LEFT_OUT.match(name)}
    return kept | _SHARED | _NO_SECOND_TRY | {"decode_responses": False}


def _tcp(tls: bool) -> type[object]:
    return redis.SSLConnection if tls else redis.Connection


def make_async_client(deployment: Deployment, terms: Patience = PATIENCE) -> AsyncClient:
    """Return a client for asyncio. It sets no timeouts: the guard ends a call that is late.

    Args:
        deployment: Where the Redis is.
        terms: As for :func:`make_client`. A cluster's connections are redis-py's own.
    """
    waits: _Arguments = {
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "retry": AsyncRetry(NoBackoff(), 0),
    }
    options: _Arguments = {**_SHARED, **deployment.options, **waits}
    if deployment.topology is Topology.CLUSTER:
        return redis.asyncio.RedisCluster(
            startup_nodes=[AsyncClusterNode(*node) for node in deployment.nodes],
            ssl=deployment.tls,
            **options,
        )
    tcp = redis.asyncio.SSLConnection if deployment.tls else redis.asyncio.Connection
    if deployment.topology is Topology.SENTINEL:
        kind = timely(tcp)
        sentinel: Any = AsyncSentinel([])
        sentinel.sentinels = [
            redis.asyncio.Redis.from_pool(
                redis.asyncio.ConnectionPool(kind, **sentinel_options, **waits)
            )
            for sentinel_options in _options_of_sentinels(deployment)
        ]
        client: redis.asyncio.Redis = sentinel.master_for(
            deployment.service,
            connection_pool_class=partial(AsyncSentinelPool, terms=terms),
            ssl=deployment.tls,
            **options,
        )
        return client
    served: type[object] = redis.asyncio.UnixDomainSocketConnection
    if deployment.nodes:
        served, options = tcp, {**_address(deployment.nodes[0]), **options}
    return redis.asyncio.Redis.from_pool(AsyncPool(served, terms=terms, **options))


def _options_of_sentinels(deployment: Deployment) -> list[_Arguments]:
    shared = {**_SHARED, **deployment.sentinel_options, "longest": _ASKING}
    return [{**shared, **_address(node)} for node in deployment.nodes]


def _address(node: tuple[str, int]) -> _Arguments:
    return {"host": node[0], "port": node[1]}


def is_cluster(target: Deployment | Client | AsyncClient) -> bool:
    """Return whether a Redis is a cluster, where each key is on one of several servers."""
    if isinstance(target, Deployment):
        return target.topology is Topology.CLUSTER
    return isinstance(target, redis.RedisCluster | redis.asyncio.RedisCluster)


def sentinels_of(client: Client | AsyncClient) -> list[Any]:
    """Return the clients of the Sentinels behind a client that a ``Sentinel`` made."""
    return _clients_of_sentinels(getattr(client, "connection_pool", None))


def _clients_of_sentinels(pool: object) -> list[Any]:
    manager = getattr(pool, "sentinel_manager", None)
    return [] if manager is None else list(manager.sentinels)


def place_of(target: Deployment | Client | AsyncClient) -> str:
    """Return the address of a Redis or of a client's server, without secrets, for messages."""
    if isinstance(target, Deployment):
        return target.place
    topology, service = Topology.STANDALONE, ""
    if isinstance(target, redis.RedisCluster | redis.asyncio.RedisCluster):
        topology = Topology.CLUSTER
        manager: Any = target.nodes_manager
        options: _Arguments = manager.connection_kwargs
        nodes = [(node.host, node.port) for node in manager.startup_nodes.values()]
    else:
        pool: Any = target.connection_pool
        options = {**pool.connection_kwargs, "connection_class": pool.connection_class}
        servers = [sentinel.connection_pool.connection_kwargs for sentinel in sentinels_of(target)]
        if servers:
            topology, service = Topology.SENTINEL, pool.service_name
        nodes = [
            (server.get("host", "localhost"), int(server.get("port", 6379)))
            for server in servers or [options]
        ]
    return Deployment(
        topology=topology,
        nodes=tuple(nodes),
        service=service,
        tls=_has_tls(options),
        options={name: options[name] for name in ("db", "path") if name in options},
    ).place


def _has_tls(options: _Arguments) -> bool:
    kind = options.get("connection_class", object)
    return bool(options.get("ssl")) or issubclass(
        kind, redis.SSLConnection | redis.asyncio.SSLConnection
    )


async def close_async_client(client: AsyncClient) -> None:
    """Close a client, its Sentinels and its nodes, within :data:`LONGEST_PARTING`."""
    # TLS waits for a goodbye, which a silent server never says.
    with suppress(TimeoutError):
        async with awithin(LONGEST_PARTING):
            await client.aclose()
            if isinstance(client, redis.asyncio.RedisCluster):
                # A client that lost a node takes itself for closed.
                await client.nodes_manager.aclose()
                await client.nodes_manager.aclose("startup_nodes")
            for sentinel in sentinels_of(client):
                await sentinel.aclose()
