"""redis-py's clients: those that keyguard makes, and what it asks of those that are passed in."""

from __future__ import annotations

from typing import Any, TypeAlias

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

_Arguments: TypeAlias = dict[str, Any]
"""Arguments of redis-py's connections and pools, by name."""

_SHARED: _Arguments = {
    "protocol": 2,
    "driver_info": None,  # telling the server costs two round trips for each connection
    "max_connections": MOST_CONNECTIONS,
}


def make_client(deployment: Deployment) -> Client:
    """Return a client for sync code. One for a cluster has read the cluster's layout."""
    options: _Arguments = {**_SHARED, **deployment.options}
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
    kind = TimelyTlsConnection if deployment.tls else TimelyConnection
    if deployment.topology is Topology.SENTINEL:
        sentinel: Any = Sentinel([])
        sentinel.sentinels = [
            redis.Redis.from_pool(TimelyPool(kind, **sentinel_options))
            for sentinel_options in _options_of_sentinels(deployment)
        ]
        primary = TimelyTlsPrimaryConnection if deployment.tls else TimelyPrimaryConnection
        client: redis.Redis = sentinel.master_for(
            deployment.service,
            connection_pool_class=TimelySentinelPool,
            connection_class=primary,
            **options,
        )
        return client
    if not deployment.nodes:
        unix: Any = TimelyUnixConnection
        return redis.Redis.from_pool(TimelyPool(unix, **options))
    return redis.Redis.from_pool(TimelyPool(kind, **_address(deployment.nodes[0]), **options))


def make_async_client(deployment: Deployment) -> AsyncClient:
    """Return a client for asyncio. It sets no timeouts: the guard ends a call that is late."""
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
    if deployment.topology is Topology.SENTINEL:
        kind = AsyncTimelyTlsConnection if deployment.tls else AsyncTimelyConnection
        sentinel: Any = AsyncSentinel([])
        sentinel.sentinels = [
            redis.asyncio.Redis.from_pool(
                redis.asyncio.ConnectionPool(kind, **sentinel_options, **waits)
            )
            for sentinel_options in _options_of_sentinels(deployment)
        ]
        client: redis.asyncio.Redis = sentinel.master_for(
            deployment.service, ssl=deployment.tls, **options
        )
        return client
    if not deployment.nodes:
        unix = redis.asyncio.UnixDomainSocketConnection
        return redis.asyncio.Redis.from_pool(redis.asyncio.ConnectionPool(unix, **options))
    tcp = redis.asyncio.SSLConnection if deployment.tls else redis.asyncio.Connection
    pool = redis.asyncio.ConnectionPool(tcp, **_address(deployment.nodes[0]), **options)
    return redis.asyncio.Redis.from_pool(pool)


def _options_of_sentinels(deployment: Deployment) -> list[_Arguments]:
    # A Sentinel that is silent leaves time for the others, and for the primary.
    share = 1 / (len(deployment.nodes) + 1)
    shared = {**_SHARED, **deployment.sentinel_options, "share": share}
    return [{**shared, **_address(node)} for node in deployment.nodes]


def _address(node: tuple[str, int]) -> _Arguments:
    return {"host": node[0], "port": node[1]}


def sentinels_of(client: Client | AsyncClient) -> list[Any]:
    """Return the clients of the Sentinels behind a client that a ``Sentinel`` made."""
    pool = getattr(client, "connection_pool", None)
    manager = getattr(pool, "sentinel_manager", None)
    return [] if manager is None else list(manager.sentinels)


def place_of(target: Deployment | Client | AsyncClient) -> str:
    """Return where a Redis is, or where a client connects to, without secrets, for messages."""
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
    kind = options.get("connection_class", object)
    return Deployment(
        topology=topology,
        nodes=tuple(nodes),
        service=service,
        tls=options.get("ssl")
        or issubclass(kind, redis.SSLConnection | redis.asyncio.SSLConnection),
        options={name: options[name] for name in ("db", "path") if name in options},
    ).place
