"""Where a Redis is, as a URL or an existing client says."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import redis
import redis.asyncio
import redis.connection

from keyguard.exceptions import ConfigurationError

__all__ = ["Address", "Kind", "address_of", "is_async_client", "is_client", "parse"]


class Kind(enum.Enum):
    """How keyguard finds the server that holds a key."""

    STANDALONE = "redis"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


_PORTS = {Kind.STANDALONE: 6379, Kind.SENTINEL: 26379, Kind.CLUSTER: 6379}
_OPTIONS = frozenset(
    {
        "client_name",
        "socket_keepalive",
        "ssl_ca_certs",
        "ssl_ca_data",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_ciphers",
        "ssl_keyfile",
        "ssl_min_version",
        "ssl_password",
    }
)
_SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})
# What is taken over from a client: where and as whom it connects. What else it was made with is
# left alone: nothing may wait longer than the present call may take, be sent twice, or be read but
# as bytes.
_TAKEN_OVER = _OPTIONS | {
    "connection_class",
    "credential_provider",
    "db",
    "password",
    "path",
    "socket_keepalive_options",
    "ssl",
    "ssl_exclude_verify_flags",
    "ssl_include_verify_flags",
    "ssl_ocsp_expected_cert",
    "ssl_validate_ocsp",
    "ssl_validate_ocsp_stapled",
    "username",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a Redis is, and how to connect to it.

    Args:
        kind: How the server that holds a key is found.
        nodes: Hosts and ports of the server, of Sentinels, or of nodes of a cluster.
        service: What Sentinel calls the primary.
        tls: Whether the servers are reached through TLS.
        options: What else redis-py's connections take; may hold passwords.
        sentinel_tls: Whether the Sentinels are.
        sentinel_options: What connections to Sentinels take.
        connection_class: What an existing client connects with, if not redis-py's own.
    """

    kind: Kind
    nodes: tuple[tuple[str, int], ...]
    service: str = ""
    tls: bool = False
    options: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    sentinel_tls: bool = False
    sentinel_options: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    connection_class: Any = None

    @property
    def place(self) -> str:
        """The address without what may be secret, for messages."""
        if "path" in self.options:
            return f"redis+unix://{self.options['path']}"
        scheme = self.kind.value.replace("redis", "rediss", 1) if self.tls else self.kind.value
        nodes = ",".join(f"{_bracketed(host)}:{port}" for host, port in self.nodes)
        path = [self.service] if self.service else []
        if self.kind is not Kind.CLUSTER:
            path.append(str(self.options.get("db", 0)))
        return "/".join([f"{scheme}://{nodes}", *map(quote, path)])


def parse(url: str) -> Address:
    """Return the address that a URL names.

    Args:
        url: ``redis://[[user]:password@]host[:port][/database]``, ``redis+cluster://host,host...``,
            or ``redis+sentinel://host,host.../service[/database]``; with ``rediss`` for TLS; or
            ``redis+unix:///run/redis.sock[?db=1]``.
            Options of redis-py's connections may follow, such as ``?ssl_ca_certs=ca.pem``; a
            Sentinel's own password is ``?sentinel_password=...``.

    Raises:
        ConfigurationError: It names none; the message repeats no part of it that may be secret.
    """
    try:
        parts = urlsplit(url)
        scheme = parts.scheme
        tls = scheme.startswith("rediss")
        if scheme == "redis+unix":
            return _socket(parts.path, parts.query)
        kind = Kind(scheme.replace("rediss", "redis", 1))
    except ValueError:
        examples = ", ".join(_EXAMPLES.values())
        raise ConfigurationError(
            f"the URL of the Redis can't be read; one looks like {examples}"
        ) from None
    credentials, _, hosts = parts.netloc.rpartition("@")
    nodes = tuple(_node(host, _PORTS[kind], kind) for host in hosts.split(",") if host)
    if not nodes:
        raise ConfigurationError(f"a {scheme}:// URL names a host, such as {_EXAMPLES[kind]}")
    if kind is Kind.STANDALONE and len(nodes) > 1:
        raise ConfigurationError(
            "a redis:// URL names one server; several are redis+cluster:// or redis+sentinel://"
        )
    path = [unquote(part) for part in parts.path.strip("/").split("/") if part]
    service = path.pop(0) if kind is Kind.SENTINEL and path else ""
    if kind is Kind.SENTINEL and not service:
        raise ConfigurationError(
            f"a {scheme}:// URL names the service after the Sentinels, such as {_EXAMPLES[kind]}"
        )
    options = _query(parts.query, kind)
    sentinel_options = {name: value for name, value in options.items() if name.startswith("ssl_")}
    for name in _SENTINEL_OPTIONS & {*options}:
        sentinel_options[name.removeprefix("sentinel_")] = options.pop(name)
    options |= _database(path, kind)
    user, _, password = credentials.partition(":")
    if user:
        options["username"] = unquote(user)
    if password:
        options["password"] = unquote(password)
    return Address(
        kind=kind,
        nodes=nodes,
        service=service,
        tls=tls,
        options=options,
        sentinel_tls=tls,
        sentinel_options=sentinel_options,
    )


_EXAMPLES = {
    Kind.STANDALONE: "redis://localhost:6379/0",
    Kind.SENTINEL: "redis+sentinel://host-1:26379,host-2:26379/mymaster/0",
    Kind.CLUSTER: "redis+cluster://host-1:6379,host-2:6379",
}


def _socket(path: str, query: str) -> Address:
    options = dict(parse_qsl(query))
    database = options.pop("db", "0")
    if not path or options or not (database.isascii() and database.isdigit()):
        raise ConfigurationError(
            "a redis+unix:// URL names a socket, and maybe a database, such as "
            "redis+unix:///run/redis/redis.sock?db=0"
        )
    return Address(
        kind=Kind.STANDALONE, nodes=(), options={"path": unquote(path), "db": int(database)}
    )


def _node(text: str, default: int, kind: Kind) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port == 0:
        raise ConfigurationError(
            f"a host in the {kind.value}:// URL can't be read; the URL looks like {_EXAMPLES[kind]}"
        )
    return unquote(host), port or default


def _query(query: str, kind: Kind) -> dict[str, Any]:
    allowed = _OPTIONS | _SENTINEL_OPTIONS if kind is Kind.SENTINEL else _OPTIONS
    parsers: Any = vars(redis.connection)["URL_QUERY_ARGUMENT_PARSERS"]
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed:
            raise ConfigurationError(
                f"the {kind.value}:// URL has an option that keyguard does not know; it takes "
                f"{', '.join(sorted(allowed))}, and sets its own timeouts"
            )
        try:
            options[name] = parsers.get(name, str)(value)
        except (TypeError, ValueError):
            raise ConfigurationError(
                f"the option {name!r} of the {kind.value}:// URL can't be read"
            ) from None
    return options


def _database(path: list[str], kind: Kind) -> dict[str, int]:
    if not path or path == ["0"]:
        return {}
    if kind is Kind.CLUSTER:
        raise ConfigurationError("a cluster has no databases; a redis+cluster:// URL has no path")
    if len(path) > 1 or not (path[0].isascii() and path[0].isdigit()):
        raise ConfigurationError(
            f"the database in the {kind.value}:// URL is a number, such as {_EXAMPLES[kind]}"
        )
    return {"db": int(path[0])}


def is_client(target: object) -> bool:
    """Tell whether something is one of redis-py's clients for sync code."""
    return isinstance(target, redis.Redis | redis.RedisCluster)


def is_async_client(target: object) -> bool:
    """Tell whether something is one of redis-py's clients for asyncio."""
    return isinstance(target, redis.asyncio.Redis | redis.asyncio.RedisCluster)


def address_of(client: Any) -> Address:
    """Return where an existing client of redis-py connects to.

    keyguard opens connections of its own with the client's options: those of the client wait and
    try again for seconds, which no request should.

    Args:
        client: A ``Redis`` or a ``RedisCluster``, of either flavour.
    """
    manager: Any
    if isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster):
        manager = client.nodes_manager
        nodes = tuple((str(node.host), int(node.port)) for node in manager.startup_nodes.values())
        return _taken_over(Kind.CLUSTER, nodes, manager.connection_kwargs)
    pool = client.connection_pool
    options = {"connection_class": pool.connection_class, **pool.connection_kwargs}
    manager = getattr(pool, "sentinel_manager", None)
    if manager is None:
        node = (str(options.get("host", "localhost")), int(options.get("port", 6379)))
        return _taken_over(Kind.STANDALONE, (node,), options)
    nodes = tuple(_node_of(sentinel) for sentinel in manager.sentinels)
    sentinel_options = _kept(manager.sentinel_kwargs)
    return replace(
        _taken_over(Kind.SENTINEL, nodes, options),
        service=pool.service_name,
        sentinel_tls=bool(sentinel_options.pop("ssl", False)),
        sentinel_options=sentinel_options,
    )


_OWN_CLASSES = ("", "Connection", "SSLConnection", "UnixDomainSocketConnection")


def _taken_over(
    kind: Kind, nodes: tuple[tuple[str, int], ...], given: Mapping[str, Any]
) -> Address:
    options = _kept(given)
    connects = options.pop("connection_class", None)
    name = "" if connects is None else connects.__name__
    is_own = name in _OWN_CLASSES or name.startswith("SentinelManaged")
    return Address(
        kind=kind,
        nodes=nodes,
        tls=bool(options.pop("ssl", False)) or "SSL" in name,
        options=options,
        connection_class=None if is_own else connects,
    )


def _kept(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in options.items() if name in _TAKEN_OVER and value is not None
    }


def _node_of(client: Any) -> tuple[str, int]:
    options = client.connection_pool.connection_kwargs
    return str(options["host"]), int(options["port"])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
