"""Where a Redis is: one server, a primary that Sentinels name, or a cluster."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from redis.connection import parse_url  # pyright: ignore[reportUnknownVariableType] - untyped

from keyguard.exceptions import ConfigurationError
from keyguard.stores.urls import ESCAPES

Option: TypeAlias = str | int | bool
Options: TypeAlias = Mapping[str, Option]
"""Arguments of redis-py's connections, by name."""


class Topology(enum.Enum):
    """How the server that holds a key is found."""

    STANDALONE = "redis"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


_PORTS = {Topology.STANDALONE: 6379, Topology.SENTINEL: 26379, Topology.CLUSTER: 6379}
_EXAMPLES = {
    Topology.STANDALONE: "redis://localhost:6379/0",
    Topology.SENTINEL: "redis+sentinel://host-1:26379,host-2:26379/mymaster/0",
    Topology.CLUSTER: "redis+cluster://host-1:6379,host-2:6379",
}
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
_NAME = re.compile(r"[a-z_]{1,40}")

_DEADLINES = "a call ends by the settings store_timeout, management_timeout and limiter_timeout"
_NO_REPETITION = "keyguard sends no change twice, and a look-up once more on a new connection"
_IN_ITS_PLACE = "the URL has a place of its own for it"
_CODING = "keyguard reads and writes the bytes of its records itself"
_REASONS = {
    "db": _IN_ITS_PLACE,
    "decode_responses": _CODING,
    "encoding": _CODING,
    "encoding_errors": _CODING,
    "health_check_interval": "keyguard looks at each connection before it uses it",
    "max_connections": "keyguard opens at most 50 connections to each server",
    "password": _IN_ITS_PLACE,
    "protocol": "keyguard speaks RESP2 with the server",
    "retry_on_error": _NO_REPETITION,
    "retry_on_timeout": _NO_REPETITION,
    "socket_connect_timeout": "keyguard opens connections beside the calls that want them",
    "socket_timeout": _DEADLINES,
    "timeout": _DEADLINES,
    "username": _IN_ITS_PLACE,
}
"""Why keyguard refuses options that redis-py knows."""

_ANY = re.compile(r".+", re.DOTALL)
_BOOLEAN = re.compile(r"0|1|t|true|f|false|y|yes|n|no", re.IGNORECASE)
_VALUES = {
    "client_name": re.compile(r"[!-~]+"),
    "socket_keepalive": _BOOLEAN,
    "ssl_cert_reqs": re.compile(r"none|optional|required"),
    "ssl_check_hostname": _BOOLEAN,
    "ssl_min_version": re.compile(r"769|77[012]"),
}
"""What redis-py can read; it would take other values for something else, or fail later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Where a Redis is, and how to connect to it.

    Args:
        topology: How the server that holds a key is found.
        nodes: Hosts and ports of the server, of the Sentinels, or of nodes of the cluster.
        service: The Sentinels' name for the primary.
        tls: Whether the servers and the Sentinels are reached through TLS.
        options: Further arguments of redis-py's connections; may hold passwords.
        sentinel_options: The same for connections to Sentinels.
    """

    topology: Topology
    nodes: tuple[tuple[str, int], ...]
    service: str = ""
    tls: bool = False
    options: Options = field(default_factory=dict[str, Option], repr=False)
    sentinel_options: Options = field(default_factory=dict[str, Option], repr=False)

    @property
    def place(self) -> str:
        """The URL without user, password and options, for messages."""
        if "path" in self.options:
            return f"redis+unix://{self.options['path']}"
        scheme = self.topology.value
        if self.tls:
            scheme = scheme.replace("redis", "rediss", 1)
        nodes = ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes
        )
        path = [self.service] if self.service else []
        if self.topology is not Topology.CLUSTER:
            path.append(str(self.options.get("db", 0)))
        return "/".join([f"{scheme}://{nodes}", *map(quote, path)])


def parse(url: str) -> Deployment:
    """Return the deployment that a URL names.

    Args:
        url: ``redis://[[user]:password@]host[:port][/database]``, ``redis+cluster://host,host...``,
            or ``redis+sentinel://host,host.../service[/database]``; with ``rediss`` for TLS; or
            ``redis+unix:///run/redis.sock[?db=1]``. Options of redis-py's connections may follow,
            such as ``?ssl_ca_certs=ca.pem``; a Sentinel's own password is
            ``?sentinel_password=...``.

    Raises:
        ConfigurationError: The URL can't be read. The message repeats no part of it that may be
            secret.
    """
    try:
        parts = urlsplit(url)
        scheme = parts.scheme
        if scheme == "redis+unix":
            return _unix_socket(parts.path, parts.query)
        topology = Topology(scheme.replace("rediss", "redis", 1))
    except ValueError:
        examples = ", ".join(_EXAMPLES.values())
        raise ConfigurationError(
            f"the URL of the Redis can't be read; one looks like {examples}, where {ESCAPES}"
        ) from None
    credentials, _, hosts = parts.netloc.rpartition("@")
    nodes = tuple(_node(host, topology) for host in hosts.split(",") if host)
    if not nodes:
        raise ConfigurationError(f"a {scheme}:// URL names a host, such as {_EXAMPLES[topology]}")
    if topology is Topology.STANDALONE and len(nodes) > 1:
        raise ConfigurationError(
            "a redis:// URL names one server; several are redis+cluster:// or redis+sentinel://"
        )
    path = [unquote(part) for part in parts.path.strip("/").split("/") if part]
    service = path.pop(0) if topology is Topology.SENTINEL and path else ""
    if topology is Topology.SENTINEL and not service:
        raise ConfigurationError(
            f"a {scheme}:// URL names the service after the Sentinels, such as "
            f"{_EXAMPLES[topology]}"
        )
    options = _options(parts.query, topology, tls=scheme.startswith("rediss"))
    sentinel_options = {name: value for name, value in options.items() if name.startswith("ssl_")}
    for name in _SENTINEL_OPTIONS & {*options}:
        sentinel_options[name.removeprefix("sentinel_")] = options.pop(name)
    options |= _database(path, topology)
    user, _, password = credentials.partition(":")
    if user:
        options["username"] = unquote(user)
    if password:
        options["password"] = unquote(password)
    return Deployment(
        topology=topology,
        nodes=nodes,
        service=service,
        tls=scheme.startswith("rediss"),
        options=options,
        sentinel_options=sentinel_options,
    )


def _unix_socket(path: str, query: str) -> Deployment:
    options = dict(parse_qsl(query, keep_blank_values=True))
    database = options.pop("db", "0")
    if options:
        raise _refusal(next(iter(options)), "redis+unix", ["db"])
    if not path or not (database.isascii() and database.isdigit()):
        raise ConfigurationError(
            "a redis+unix:// URL names a socket, and maybe a database, such as "
            "redis+unix:///run/redis/redis.sock?db=0"
        )
    return Deployment(
        topology=Topology.STANDALONE,
        nodes=(),
        options={"path": unquote(path), "db": int(database)},
    )


def _node(text: str, topology: Topology) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port == 0:
        raise ConfigurationError(
            f"a host in the {topology.value}:// URL can't be read; the URL looks like "
            f"{_EXAMPLES[topology]}, where {ESCAPES}"
        )
    return unquote(host), port or _PORTS[topology]


def _options(query: str, topology: Topology, *, tls: bool) -> dict[str, Option]:
    allowed = _OPTIONS | _SENTINEL_OPTIONS if topology is Topology.SENTINEL else _OPTIONS
    options: dict[str, Option] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed:
            raise _refusal(name, topology.value, allowed)
        if name.startswith("ssl_") and not tls:
            raise ConfigurationError(
                f"the option {name!r} is for TLS, and the {topology.value}:// URL asks for none; "
                f"begin it with {topology.value.replace('redis', 'rediss', 1)}://"
            )
        if not _VALUES.get(name, _ANY).fullmatch(value):
            raise ConfigurationError(
                f"the option {name!r} of the {topology.value}:// URL can't be read"
            )
        options |= parse_url(f"redis://?{name}={quote(value)}")
    if tls:  # by itself, redis-py checks it from 6.0 on, and 6.0 even where it checks nothing else
        options.setdefault("ssl_check_hostname", options.get("ssl_cert_reqs") != "none")
    return options


def _refusal(name: str, scheme: str, allowed: Collection[str]) -> ConfigurationError:
    if name in _REASONS:
        return ConfigurationError(
            f"leave the option {name!r} out of the {scheme}:// URL: {_REASONS[name]}"
        )
    named = repr(name) if _NAME.fullmatch(name) else "whose name is not shown here"
    return ConfigurationError(
        f"the {scheme}:// URL has an option {named}, which keyguard does not know; it takes "
        f"{', '.join(sorted(allowed))}"
    )


def _database(path: list[str], topology: Topology) -> dict[str, int]:
    if not path or path == ["0"]:
        return {}
    if topology is Topology.CLUSTER:
        raise ConfigurationError("a cluster has no databases; a redis+cluster:// URL has no path")
    if len(path) > 1 or not (path[0].isascii() and path[0].isdigit()):
        raise ConfigurationError(
            f"the database in the {topology.value}:// URL is a number, such as "
            f"{_EXAMPLES[topology]}"
        )
    return {"db": int(path[0])}
