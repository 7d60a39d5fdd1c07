"""Opens the store or the read replica that a service names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from keyguard.core.texts import settled_text
from keyguard.exceptions import ConfigurationError, MissingExtraError
from keyguard.runtime.deadlines import PATIENCE, Patience
from keyguard.stores.base import (
    AsyncRateLimiter,
    AsyncReplica,
    AsyncStore,
    RateLimiter,
    Replica,
    Store,
)
from keyguard.stores.urls import EXTRAS, read_url

_KINDS = "memory://, sqlite:///keys.db, postgresql://, mysql://, mariadb:// or redis://"
_REDIS_GROUPS = tuple(f"{s}+{of}://" for s in ("redis", "rediss") for of in ("sentinel", "cluster"))
_REDIS_URLS = ("redis://", "rediss://", "redis+", "rediss+")
_WITHOUT_PASSWORD = ("memory:", "sqlite")
STORES = (*_WITHOUT_PASSWORD, "postgresql", "mysql", "mariadb", *_REDIS_URLS)
_REDIS, _SQL = "keyguard.stores.redis", "keyguard.stores.sql"


class Flavour(NamedTuple):
    """The classes that a flavour of guard accepts, by name if their library may not be installed.

    Args:
        guard: The guard.
        engine: The class of SQLAlchemy's engines, and its module.
        clients: The module of redis-py's clients.
        store: The protocol of stores.
        limiter: The protocol of limiters.
        prefix: The beginning of the names of functions that open a store, in the modules of stores.
        storage: The class of limiters in a storage of the package ``limits``.
    """

    guard: str
    engine: tuple[str, str]
    clients: str
    store: type
    limiter: type
    prefix: str
    storage: str

    @property
    def other(self) -> Flavour:
        """The other flavour."""
        return ASYNC if self is SYNC else SYNC

    def misplaced(self, wanted: str, given: str) -> ConfigurationError:
        """Return the error for an object that only the other flavour of a guard accepts."""
        return ConfigurationError(f"pass {self.guard} {wanted}; {given} is for {self.other.guard}")


SYNC = Flavour(
    guard="Keyguard",
    engine=("sqlalchemy", "Engine"),
    clients="redis",
    store=Store,
    limiter=RateLimiter,
    prefix="open_",
    storage="StorageRateLimiter",
)
ASYNC = Flavour(
    guard="AsyncKeyguard",
    engine=("sqlalchemy.ext.asyncio", "AsyncEngine"),
    clients="redis.asyncio",
    store=AsyncStore,
    limiter=AsyncRateLimiter,
    prefix="open_async_",
    storage="AsyncStorageRateLimiter",
)


def open_store(
    target: str | Store | object,
    *,
    durable_replicas: int = 0,
    patience: Patience = PATIENCE,
) -> Store:
    """Return the store that a service names, for sync code.

    Args:
        target: A URL, a SQLAlchemy ``Engine``, a client of redis-py, or a store.
        durable_replicas: How many replicas of a Redis must have a change before it is
            acknowledged.
        patience: How long connecting to the server of a URL may take, and how long its connections
            last.

    Returns:
        The ``target`` itself if it is a store, which its owner closes. Otherwise a new store, which
        the caller closes; closing it leaves an engine or a client open.

    Raises:
        ConfigurationError: The target is not one of these, or one for async code; or
            ``durable_replicas`` is set, and the target is no Redis.
        MissingExtraError: The driver is not installed.
    """
    store: Store = open_target(target, SYNC, patience, durable_replicas)
    return store


def open_async_store(
    target: str | AsyncStore | object,
    *,
    durable_replicas: int = 0,
    patience: Patience = PATIENCE,
) -> AsyncStore:
    """Return the store that a service names, for async code. See :func:`open_store`.

    Args:
        target: A URL, a SQLAlchemy ``AsyncEngine``, a client of ``redis.asyncio``, or a store for
            async code.
        durable_replicas: As for :func:`open_store`.
        patience: As for :func:`open_store`.
    """
    store: AsyncStore = open_target(target, ASYNC, patience, durable_replicas)
    return store


def open_replica(target: object, store: Store, *, patience: Patience = PATIENCE) -> Replica:
    """Return the read replica that a service names, for sync code.

    Args:
        target: A URL, a SQLAlchemy ``Engine``, or a client of redis-py.
        store: The key store, whose changes the replica follows.
        patience: How long connecting to the server of a URL may take, and how long its connections
            last.

    Returns:
        The replica, which the caller closes; closing it leaves an engine or a client open.

    Raises:
        ConfigurationError: The target is not one of these, or one for async code; or the key store
            or the target is of a kind that has no replicas.
        MissingExtraError: The driver is not installed.
    """
    replica: Replica = _open_replica(target, store, patience, SYNC)
    return replica


def open_async_replica(
    target: object, store: AsyncStore, *, patience: Patience = PATIENCE
) -> AsyncReplica:
    """Return the read replica that a service names, for async code; see :func:`open_replica`."""
    replica: AsyncReplica = _open_replica(target, store, patience, ASYNC)
    return replica


def open_target(
    target: object, flavour: Flavour, patience: Patience, durable_replicas: int = 0
) -> Any:
    """Return the store that a target names, or the target itself if it is a store."""
    target = settled(target)
    room = _room_of(target, flavour)
    if durable_replicas and room != _REDIS:
        raise ConfigurationError(
            "durable_replicas is for a key store in Redis; leave it out, and see 'keyguard doctor' "
            "for what this store acknowledges"
        )
    if not room:
        return target
    more: dict[str, object] = {}
    if room in (_SQL, _REDIS):
        more["patience"] = patience
    if durable_replicas:
        more["durable_replicas"] = durable_replicas
    return _opened(room, f"{flavour.prefix}store", target, more)


def _open_replica(
    target: object, store: Store | AsyncStore, patience: Patience, flavour: Flavour
) -> Any:
    target = settled(target)
    room = _room_of(target, flavour)
    if room not in (_SQL, _REDIS) or store.feed() is None:
        raise ConfigurationError(
            "'read' (KEYGUARD_READ_URL) names a read replica of a key store in PostgreSQL, MySQL, "
            "MariaDB or Redis, by a URL, an engine or a client; other key stores have none"
        )
    if not type(store).__module__.startswith(room):
        raise ConfigurationError(
            "'read' (KEYGUARD_READ_URL) names a replica of the key store itself, and so a database "
            "of the same kind"
        )
    if isinstance(target, str) and target.startswith(_REDIS_GROUPS):
        raise ConfigurationError(
            "'read' (KEYGUARD_READ_URL) names one replica, by redis:// or rediss://: Sentinel "
            "leads to the primary, and replicas of a cluster answer only within it"
        )
    return _opened(room, f"{flavour.prefix}replica", target, {"patience": patience})


def _opened(room: str, opener: str, target: object, more: Mapping[str, object]) -> object:
    """Return the store that a module opens for a target. No error shows a part of its password."""
    try:
        module = import_module(room)
    except MissingExtraError as missing:
        database = str(target).partition(":")[0].partition("+")[0]
        if isinstance(target, str) and database in EXTRAS:
            raise MissingExtraError(*EXTRAS[database]) from missing.__cause__
        raise
    opened = partial(getattr(module, opener), target, **more)
    if not isinstance(target, str) or target.startswith(_WITHOUT_PASSWORD):
        return opened()
    return read_url(target, opened, is_sql=room == _SQL)


def _room_of(target: object, flavour: Flavour) -> str:
    """Return the module that opens a target, or ``""`` for a store.

    Raises:
        ConfigurationError: The target is for the other flavour, or can't be opened.
    """
    if isinstance(target, str) and target.startswith("memory:"):
        if target != "memory://":
            raise ConfigurationError("a key store in memory has no name: use memory://")
        return "keyguard.stores.memory.keys"
    if isinstance(target, str):
        return _REDIS if target.startswith(_REDIS_URLS) else _SQL
    if _is_instance(target, *flavour.engine):
        return _SQL
    if is_client(target, flavour):
        return _REDIS
    other = flavour.other
    if _is_instance(target, *other.engine):
        raise flavour.misplaced(f"an {flavour.engine[1]}", f"an {other.engine[1]}")
    if is_client(target, other):
        raise flavour.misplaced(f"a client of {flavour.clients}", f"one of {other.clients}")
    if offers(target, flavour.store):
        return ""
    if offers(target, other.store):
        raise flavour.misplaced(named(flavour.store), type(target).__name__)
    raise ConfigurationError(
        f"a store is a URL such as {_KINDS}, a SQLAlchemy {flavour.engine[1]}, a client of "
        f"redis-py, or an object with the methods of keyguard.stores.base.{flavour.store.__name__};"
        f" {type(target).__name__} is not one of these"
    )


def settled(target: object) -> object:
    """Return a URL without the white space around it, and anything else as it is."""
    return settled_text("the URL of a store", target) if isinstance(target, str) else target


def offers(target: object, protocol: type) -> bool:
    """Return whether an object has the methods of a protocol."""
    # Since Python 3.12 isinstance overlooks methods that __getattr__ passes through to another
    # object.
    names = (name for name in dir(protocol) if not name.startswith("_"))
    return all(callable(getattr(target, name, None)) for name in names)


def is_client(target: object, *flavours: Flavour) -> bool:
    """Return whether an object is a client of redis-py, of one of these flavours."""
    return any(
        _is_instance(target, flavour.clients, name)
        for flavour in flavours
        for name in ("Redis", "RedisCluster")
    )


def _is_instance(target: object, module: str, name: str) -> bool:
    # Code that made the object has imported its library. No other code has to.
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(target, getattr(loaded, name))


def named(protocol: type) -> str:
    """Return the name of a protocol with its article."""
    name = protocol.__name__
    return f"an {name}" if name.startswith("A") else f"a {name}"
