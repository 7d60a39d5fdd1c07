"""redis-py's clients: those that keyguard makes, and what it asks of those that are passed in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeGuard

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry
from redis.sentinel import Sentinel

from keyguard.stores.redis.deployment import Deployment, Topology
from keyguard.stores.redis.pools import (
    MOST_CONNECTIONS,
    AsyncTimelyConnection,
    AsyncTimelyTlsConnection,
    TimelyConnection,
    TimelyPool,
    TimelyPrimaryConnection,
    TimelySentinelPool,
    TimelyTlsConnection,
    TimelyTlsPrimaryConnection,
    TimelyUnixConnection,
)

Client: TypeAlias = redis.Redis | redis.RedisCluster
AsyncClient: TypeAlias = redis.asyncio.Redis | redis.asyncio.RedisCluster


def is_client(target: object) -> TypeGuard[Client]:
    """Tell whether something is one of redis-py's clients for sync code."""
    return isinstance(target, redis.Redis | redis.RedisCluster)


def is_async_client(target: object) -> TypeGuard[AsyncClient]:
    """Tell whether something is one of redis-py's clients for asyncio."""
    return isinstance(target, redis.asyncio.Redis | redis.asyncio.RedisCluster)


def make_client(deployment: Deployment) -> Client:
    """Return a client for sync code. One for a cluster has read the cluster's layout."""
    options = _shared_options(deployment.options)
    if deployment.topology is Topology.CLUSTER:
        (host, port), *others = deployment.nodes
        return redis.RedisCluster.from_url(
            f"redis://{f'[{host}]' if ':' in host else host}:{port}",
            startup_nodes=[ClusterNode(*node) for node in others],
            connection_pool_class=TimelyPool,
            connection_class=TimelyTlsConnection if deployment.tls else TimelyConnection,
            retry=Retry(NoBackoff(), 0),
            **options,
        )
    if deployment.topology is Topology.SENTINEL:
        sentinel: Any = Sentinel([])
        connection = TimelyTlsConnection if deployment.tls else TimelyConnection
        sentinel.sentinels = [
            redis.Redis.from_pool(
                TimelyPool(connection, host=host, port=port, **_sentinel_options(deployment))
            )
            for host, port in deployment.nodes
        ]
        primary: redis.Redis = sentinel.master_for(
            deployment.service,
            connection_pool_class=TimelySentinelPool,
            connection_class=TimelyTlsPrimaryConnection
            if deployment.tls
            else TimelyPrimaryConnection,
            **options,
        )
        return primary
    if not deployment.nodes:
        unix: Any = TimelyUnixConnection
        return redis.Redis.from_pool(TimelyPool(unix, **options))
    (host, port), *_ = deployment.nodes
    connection = TimelyTlsConnection if deployment.tls else TimelyConnection
    return redis.Redis.from_pool(TimelyPool(connection, host=host, port=port, **options))


def make_async_client(deployment: Deployment) -> AsyncClient:
    """Return a client for asyncio. It sets no timeouts: the guard ends a call that is late."""
    retry = AsyncRetry(NoBackoff(), 0)
    waits: dict[str, Any] = {"socket_timeout": None, "socket_connect_timeout": None, "retry": retry}
    options = {**_shared_options(deployment.options), **waits}
    if deployment.topology is Topology.CLUSTER:
        return redis.asyncio.RedisCluster(
            startup_nodes=[AsyncClusterNode(*node) for node in deployment.nodes],
            ssl=deployment.tls,
            **options,
        )
    if deployment.topology is Topology.SENTINEL:
        sentinel: Any = AsyncSentinel([])
        connection = AsyncTimelyTlsConnection if deployment.tls else AsyncTimelyConnection
        sentinel.sentinels = [
            redis.asyncio.Redis.from_pool(
                redis.asyncio.ConnectionPool(
                    connection, host=host, port=port, **_sentinel_options(deployment), **waits
                )
            )
            for host, port in deployment.nodes
        ]
        primary: redis.asyncio.Redis = sentinel.master_for(
            deployment.service, ssl=deployment.tls, **options
        )
        return primary
    if not deployment.nodes:
        unix = redis.asyncio.UnixDomainSocketConnection
        return redis.asyncio.Redis.from_pool(redis.asyncio.ConnectionPool(unix, **options))
    (host, port), *_ = deployment.nodes
    tcp = redis.asyncio.SSLConnection if deployment.tls else redis.asyncio.Connection
    return redis.asyncio.Redis.from_pool(
        redis.asyncio.ConnectionPool(tcp, host=host, port=port, **options)
    )


def _shared_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "protocol": 2,
        "driver_info": None,  # telling the server costs two round trips for each connection
        "max_connections": MOST_CONNECTIONS,
        **options,
    }


def _sentinel_options(deployment: Deployment) -> dict[str, Any]:
    # A Sentinel that is silent leaves time for the others, and for the primary.
    share = 1 / (len(deployment.nodes) + 1)
    return {**_shared_options(deployment.sentinel_options), "share": share}


def sentinels_of(client: Client | AsyncClient) -> list[Any]:
    """Return the clients of the Sentinels behind a client that a ``Sentinel`` made."""
    pool: Any = getattr(client, "connection_pool", None)
    manager: Any = getattr(pool, "sentinel_manager", None)
    return [] if manager is None else list(manager.sentinels)


def place_of(client: Client | AsyncClient) -> str:
    """Return where a client connects to, without secrets, for messages."""
    if isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster):
        manager: Any = client.nodes_manager
        nodes = [(node.host, node.port) for node in manager.startup_nodes.values()]
        return _place(Topology.CLUSTER, nodes, {}, tls=_is_tls(manager.connection_kwargs))
    pool: Any = client.connection_pool
    options: dict[str, Any] = pool.connection_kwargs
    tls = _is_tls({"connection_class": pool.connection_class})
    sentinels = [sentinel.connection_pool.connection_kwargs for sentinel in sentinels_of(client)]
    if sentinels:
        nodes = [(sentinel["host"], sentinel["port"]) for sentinel in sentinels]
        return _place(Topology.SENTINEL, nodes, options, pool.service_name, tls=tls)
    host, port = options.get("host", "localhost"), options.get("port", 6379)
    return _place(Topology.STANDALONE, [(host, port)], options, tls=tls)


def _is_tls(options: Mapping[str, Any]) -> bool:
    kind = options.get("connection_class", object)
    return bool(options.get("ssl")) or issubclass(
        kind, redis.SSLConnection | redis.asyncio.SSLConnection
    )


def _place(
    topology: Topology,
    nodes: list[Any],
    options: Mapping[str, Any],
    service: str = "",
    *,
    tls: bool,
) -> str:
    return Deployment(
        topology=topology,
        nodes=tuple((str(host), int(port)) for host, port in nodes),
        service=service,
        tls=tls,
        options={name: options[name] for name in ("db", "path") if name in options},
    ).place
