"""Finds settings by which a Redis could lose acknowledged changes, and unreachable servers.

The user of a key store may lack the permission for what is asked here, and some providers leave
commands out.

The advice follows the Redis documentation on persistence, key eviction and replication.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from redis import RedisCluster
from redis.exceptions import ResponseError

from keyguard.runtime.frames import frameless
from keyguard.stores.diagnosis import Finding, fine, problem
from keyguard.stores.redis.clients import place_of, sentinels_of
from keyguard.stores.redis.errors import explained
from keyguard.stores.redis.pools import RedisPool
from keyguard.stores.redis.scripts import only, pack, text_of, texts_of
from keyguard.stores.redis.sync_port import SyncScriptPort, exchange

_ON_DISK = {
    "always": "by then",
    "everysec": "within about a second",
    "no": "when the system writes it",
}
_WRITABLE = (
    "takes changes as a replica, too, so a former primary can't be told from the new one; set "
    "'replica-read-only yes'"
)

# A replica reports once a second. By default Redis considers it gone after this time of silence.
_LONGEST_SILENCE = 10


def diagnose(port: SyncScriptPort, replicas: int) -> list[Finding]:
    """Look at every server that holds data, and at the Sentinels.

    Args:
        port: Knows the servers.
        replicas: How many replicas must have a change before it is acknowledged.
    """
    findings: list[Finding] = []
    try:
        with frameless():
            servers = _servers(port)
    except Exception as failure:  # noqa: BLE001 - any error means that nothing can be reached
        return [problem(str(explained(failure, port.place)))]
    for name, pool in servers:
        try:
            with frameless():
                info = _info(pool)
                findings += [_not_told(name)] if info is None else _of_server(name, info)
                if info is not None and info.get("redis_mode") != "sentinel":
                    appendfsync = _setting(pool, "appendfsync")
                    findings += _of_acknowledgement(name, info, appendfsync, replicas)
                    findings += _of_replicas(name, info)
                    if _setting(pool, "replica-read-only") == "no":
                        findings.append(problem(f"{name} {_WRITABLE}"))
        except Exception as failure:  # noqa: BLE001 - the server can't be reached
            findings.append(problem(str(explained(failure, name))))
    return findings


def _servers(port: SyncScriptPort) -> list[tuple[str, RedisPool]]:
    """Return the servers that hold data and the Sentinels: their names and pools."""
    port.doubt_layout()
    client = port.open()
    if isinstance(client, RedisCluster):
        nodes = [client.get_redis_connection(node) for node in client.get_primaries()]
        return [(place_of(node), node.connection_pool) for node in nodes]
    sentinels = [
        (f"the Sentinel {place_of(sentinel).rpartition('/')[0]}", sentinel.connection_pool)
        for sentinel in sentinels_of(client)
    ]
    return [(port.place, client.connection_pool), *sentinels]


def _of_server(place: str, info: Mapping[str, str]) -> Iterator[Finding]:
    version = info.get("valkey_version") or info.get("redis_version", "of unknown version")
    yield fine(f"{place} answers, Redis {version}")
    if info.get("redis_mode") == "sentinel":
        return
    if info.get("role") != "master":
        yield problem(f"{place} is a replica and can't be written to; name the primary")
    if info.get("aof_enabled") == "0":
        yield problem(
            f"{place} keeps no append-only file: a crash loses every change since the last "
            "snapshot; set 'appendonly yes'"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory", "0") != "0" and policy != "noeviction":
        yield problem(
            f"{place} has a maxmemory and the policy {policy}: when it is full, it drops keys; "
            "set 'maxmemory-policy noeviction'"
        )
    if info.get("evicted_keys", "0") != "0":
        yield problem(
            f"{place} has dropped {info['evicted_keys']} entries already, for lack of memory"
        )
    if "min_slaves_good_slaves" in info:
        return
    if info.get("connected_slaves", "0") == "0":
        yield fine(
            f"{place} has no replica, so nothing fails over; if you add replicas, add two and set "
            "'min-replicas-to-write 1'"
        )
    else:
        yield problem(
            f"{place} acknowledges changes that no replica has: a failover loses them; set "
            "'min-replicas-to-write 1', with one replica more than that"
        )


def _of_acknowledgement(
    place: str, info: Mapping[str, str], appendfsync: str | None, replicas: int
) -> Iterator[Finding]:
    """Report how safe an acknowledged change is, and what makes it less safe."""
    connected = int(info.get("connected_slaves", "0"))
    saved = appendfsync if info.get("aof_enabled") != "0" else None
    on_disk = _ON_DISK.get(saved or "", "as its settings say, which keyguard may not read")
    if info.get("aof_enabled") == "0":
        on_disk = "only with the next snapshot"
    yield fine(
        f"a change that {place} has acknowledged is on the disk {on_disk}, and on {replicas} "
        f"replicas (durable_replicas); {connected} are connected"
    )
    if saved == "no":
        yield problem(
            f"{place} lets the system decide when changes reach the disk: a power failure loses "
            "up to half a minute; set 'appendfsync everysec' or 'always'"
        )
    if connected and not replicas:
        yield problem(
            f"{place} has replicas, and no change waits for them: a failover loses what they do "
            "not have yet; set durable_replicas, such as KEYGUARD_DURABLE_REPLICAS=1"
        )
    if replicas > connected and info.get("role") == "master":
        yield problem(
            f"{place} has {connected} replicas, so each change waits in vain for {replicas}; "
            "connect them, or set durable_replicas lower"
        )


def _of_replicas(place: str, info: Mapping[str, str]) -> Iterator[Finding]:
    """Report how far each replica of a primary is behind."""
    written = int(info.get("master_repl_offset", "0"))
    for number in range(int(info.get("connected_slaves", "0"))):
        if f"slave{number}" not in info:  # some providers hide them
            return
        replica = dict(part.split("=", 1) for part in info[f"slave{number}"].split(","))
        said = f"the replica {replica['ip']}:{replica['port']} of {place}"
        if replica["state"] != "online":
            yield problem(f"{said} does not follow it yet ({replica['state']})")
            continue
        said += (
            f" is {max(0, written - int(replica['offset']))} bytes behind, as it said "
            f"{replica['lag']} s ago"
        )
        is_silent = int(replica["lag"]) > _LONGEST_SILENCE
        yield problem(f"{said}: check that the two reach each other") if is_silent else fine(said)


def _not_told(place: str) -> Finding:
    return fine(
        f"{place} answers, and refuses this user INFO, so that keyguard can't tell its version, its"
        " replicas, and whether a crash would lose keys; allow '+info' to see that"
    )


def _setting(pool: RedisPool, name: str) -> str | None:
    try:
        return texts_of(only(exchange(pool, (pack("CONFIG", "GET", name),))))[1]
    except (IndexError, ResponseError):  # the user may lack the permission
        return None


def _info(pool: RedisPool) -> dict[str, str] | None:
    try:
        lines = text_of(only(exchange(pool, (pack("INFO"),)))).splitlines()
    except ResponseError:
        return None
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
