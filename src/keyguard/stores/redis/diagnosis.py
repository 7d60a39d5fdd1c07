"""What would make a Redis lose what it acknowledged, and what of it can't be reached.

The advice follows the Redis documentation on persistence, key eviction and replication.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from redis.exceptions import ResponseError

from keyguard.stores.diagnosis import Finding
from keyguard.stores.redis.commands import Command
from keyguard.stores.redis.connections import Connections
from keyguard.stores.redis.errors import explained
from keyguard.stores.redis.records import text_of

__all__ = ["diagnose"]


def diagnose(connections: Connections, place: str) -> list[Finding]:
    """Look at every server that holds data, and at the Sentinels.

    Args:
        connections: The way to them.
        place: The address, without secrets.
    """
    findings: list[Finding] = []
    try:
        servers = connections.each()
    except Exception as failure:  # noqa: BLE001 - whatever it is, it can't be reached
        return [Finding(is_fine=False, text=str(explained(failure, place)))]
    for name, server in (*servers, *connections.sentinels()):
        try:
            findings += _of_server(name, _info(server))
            findings += _of_synchronization(name, server)
        except Exception as failure:  # noqa: BLE001 - likewise
            findings.append(Finding(is_fine=False, text=str(explained(failure, name))))
        finally:
            if server is not connections:
                server.close()
    return findings


def _of_server(place: str, info: Mapping[str, str]) -> Iterator[Finding]:
    version = info.get("valkey_version") or info.get("redis_version", "of unknown version")
    yield Finding(is_fine=True, text=f"{place} answers, Redis {version}")
    if info.get("redis_mode") == "sentinel":
        return
    if info.get("role") != "master":
        yield _bad(f"{place} is a replica and can't be written to; name the primary")
    if info.get("aof_enabled") == "0":
        yield _bad(
            f"{place} keeps no append-only file: a crash loses every change since the last "
            "snapshot; set 'appendonly yes'"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory", "0") != "0" and policy != "noeviction":
        yield _bad(
            f"{place} has a maxmemory and the policy {policy}: when it is full, it drops keys; "
            "set 'maxmemory-policy noeviction'"
        )
    if info.get("evicted_keys", "0") != "0":
        yield _bad(f"{place} has dropped {info['evicted_keys']} entries for want of memory already")
    if "min_slaves_good_slaves" not in info:
        yield _bad(
            f"{place} acknowledges changes that no replica has: a failover loses them; with "
            "replicas, set 'min-replicas-to-write 1'"
        )


def _of_synchronization(place: str, server: Connections) -> Iterator[Finding]:
    try:
        reply: list[Any] = server.call(Command("CONFIG", "GET", "appendfsync"), "")
    except ResponseError:  # not every user may ask, and Sentinels have no such thing
        return
    if len(reply) > 1 and text_of(reply[1]) == "no":
        yield _bad(
            f"{place} leaves it to the system when changes reach the disk: a power failure loses "
            "up to half a minute; set 'appendfsync everysec' or 'always'"
        )


def _info(server: Connections) -> dict[str, str]:
    reply: Any = server.call(Command("INFO"), "")
    lines = text_of(reply).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _bad(text: str) -> Finding:
    return Finding(is_fine=False, text=text)
