"""Counters in any other storage of the package ``limits``, such as memcached and MongoDB.

Its promise is weaker than that of keyguard's own stores, for it knows one limit at a time:

- The limits of a request are tested first and then counted one after the other. A request that
  loses a race to one limit stays counted in those before it, and by a fixed window in that one.
- What was charged can't be given back. More than there is room for can be charged by a fixed window
  only; the others are filled.
- ``Retry-After`` is when there is room for more, which may be less than the same request needs.
- A call that is given up may still count, once, when its storage wakes up.
- Windows are measured on each machine's own clock, and each limit costs two to three round trips.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeAlias, TypeVar

import limits.aio.strategies
import limits.strategies
from limits import RateLimitItemPerSecond
from limits.storage import SCHEMES, storage_from_string  # type: ignore[attr-defined]

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.limit import Limit, Strategy
from keyguard.core.limits.windows import Tally
from keyguard.exceptions import ConfigurationError, StoreUnavailableError
from keyguard.runtime.deadlines import remaining
from keyguard.runtime.drivers import arun, run
from keyguard.stores.limits.workers import Workers

__all__ = ["AsyncStorageRateLimiter", "StorageRateLimiter", "is_storage_uri"]

Result = TypeVar("Result")
Flow: TypeAlias = Generator[Callable[[], Any], Any, Result]

_OWN = ("memory", "redis", "rediss")
_WORKERS = 32
_PATIENCE = 1.0
_LONGEST_NAME = 180  # memcached takes 250 bytes, of which the package needs some itself
_LONGEST_IN_MEMCACHED = 30 * 24 * 60 * 60  # what is longer it takes for a date
_ASYNC = "async+"
_DRIVERS = {
    "memcached": ("pymemcache", "memcachio"),
    "mongodb": ("pymongo", "motor"),
    "valkey": ("valkey", "valkey"),
}
# A thread that hangs is not to hang for ever.
_SOCKETS = {"socket_connect_timeout": _PATIENCE, "socket_timeout": _PATIENCE}
_MONGODB = ("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS")
_TIMEOUTS: Mapping[str, Mapping[str, Any]] = {
    "memcached": {"connect_timeout": _PATIENCE, "timeout": _PATIENCE},
    "mongodb": dict.fromkeys(_MONGODB, int(_PATIENCE * 1000)),
    "mongodb+srv": dict.fromkeys(_MONGODB, int(_PATIENCE * 1000)),
    "valkey": _SOCKETS,
    "valkeys": _SOCKETS,
    "valkey+unix": {"socket_timeout": _PATIENCE},
    "valkey+cluster": _SOCKETS,
    "valkey+sentinel": {**_SOCKETS, "sentinel_kwargs": _SOCKETS},
}


class _Bucket(NamedTuple):
    strategy: Any
    item: RateLimitItemPerSecond
    name: str


def is_storage_uri(target: str) -> bool:
    """Tell whether the package ``limits`` knows a URI's storage, and keyguard has none of its own.

    Args:
        target: The URI; one for async code may begin with ``async+``.
    """
    scheme = _scheme_of(target.removeprefix(_ASYNC))
    return scheme in SCHEMES and scheme.partition("+")[0] not in _OWN


class _StorageRateLimiter:
    """What both flavours share.

    Args:
        uri: The storage's, as the package ``limits`` takes it.
        is_async: Whether the storage is one for asyncio.
    """

    def __init__(self, uri: str, *, is_async: bool) -> None:
        self._uri = uri.removeprefix(_ASYNC)
        self._scheme = _scheme_of(self._uri)
        self._is_async = is_async
        self._place = _place_of(self._uri)
        if not is_storage_uri(self._uri):
            raise ConfigurationError(
                f"no limiter is known by {self._scheme}://; name memory://, an SQL database, "
                "redis:// or a storage of the package limits, such as memcached://"
            )
        self._connect()

    def _connect(self) -> None:
        self._storage = self._opened()
        kinds = (limits.aio.strategies if self._is_async else limits.strategies).STRATEGIES
        self._strategies = _offered(self._storage, kinds)

    def _opened(self) -> Any:
        driver = _DRIVERS.get(self._scheme.partition("+")[0].removesuffix("s"), ("", ""))
        if driver[self._is_async] and find_spec(driver[self._is_async]) is None:
            raise self._driver_missing()
        prefix, options = (
            (_ASYNC, {}) if self._is_async else ("", dict(_TIMEOUTS.get(self._scheme, {})))
        )
        try:
            if not self._uri.partition("://")[2].strip("/"):
                raise ValueError("there is no server in it")
            return storage_from_string(f"{prefix}{self._uri}", **options)
        except Exception as failure:  # noqa: BLE001 - each storage has its own way
            if "prerequisite" in str(failure) or "minimum version" in str(failure):
                raise self._driver_missing() from None
            # Its text may repeat the URI, and with it a password.
            raise ConfigurationError(
                f"the limiter's URI {self._place} can't be used ({type(failure).__name__}); it "
                "looks like memcached://host:11211, see the storages of the package limits"
            ) from None

    def _driver_missing(self) -> ConfigurationError:
        extra = f"{'async-' if self._is_async else ''}{self._scheme.partition('+')[0]}"
        extra = extra.replace("valkeys", "valkey")
        return ConfigurationError(
            f"a limiter in {self._scheme} needs a driver: pip install 'limits[{extra}]'"
        )

    def check(self, limits: Iterable[Limit]) -> None:
        """Refuse limits that this storage can't count.

        Raises:
            ConfigurationError: There is one.
        """
        for limit in limits:
            for rate in limit.rates:
                self._strategy(limit.name, limit.strategy, rate.window)

    def _strategy(self, name: str, strategy: Strategy, window: int) -> Any:
        found = self._strategies.get(strategy)
        if found is None:
            known = ", ".join(sorted(self._strategies))
            raise ConfigurationError(
                f"{self._place} can't count limit {name!r} by {strategy.value}; it knows {known}"
            )
        # The counter of a sliding window is kept for two of them.
        windows = 2 if strategy is Strategy.SLIDING_WINDOW_COUNTER else 1
        if self._scheme == "memcached" and window * windows > _LONGEST_IN_MEMCACHED:
            raise ConfigurationError(
                f"{self._place} can't count limit {name!r}: it keeps nothing for more than 30 "
                f"days, and {strategy.value} needs {windows} windows of {window} seconds"
            )
        return found

    def _buckets(self, charges: Sequence[Charge]) -> list[_Bucket]:
        return [
            _Bucket(
                self._strategy(charge.name, charge.strategy, charge.window),
                RateLimitItemPerSecond(charge.amount, charge.window, namespace="keyguard"),
                _name(charge.key),
            )
            for charge in charges
        ]

    def _unavailable(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self._place} is down, slow or overloaded; see that it runs and can be reached"
        )


class StorageRateLimiter(_StorageRateLimiter):
    """A store of counters for sync code, in a storage of the package ``limits``.

    Its promise is weaker than that of keyguard's own stores: see this module. Such a storage knows
    no deadline of a call, so calls run on threads of their own.

    Args:
        uri: The storage's, such as ``memcached://localhost:11211``.

    Raises:
        ConfigurationError: It can't be used.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(uri, is_async=False)
        self._workers = Workers(
            "keyguard-limiter",
            most=_WORKERS,
            patience=_PATIENCE,
            at_end=partial(_disconnect, self._storage),
        )

    def migrate(self) -> None:
        """See :class:`~keyguard.stores.base.RateLimiter`; there is nothing to create."""

    def close(self) -> None:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        self._workers.close()

    def hit(self, charges: Sequence[Charge]) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`; the promise is weaker."""
        return self._run(_hit(charges, self._buckets(charges)))

    def adjust(
        self,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],  # noqa: ARG002 - nothing is given back
    ) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`; nothing is given back."""
        return self._run(_adjust(charges, self._buckets(charges), units))

    def _run(self, flow: Flow[Outcome]) -> Outcome:
        try:
            return self._workers.run(lambda: run(flow, _in_time))
        except Exception as failure:
            raise self._unavailable() from failure


class AsyncStorageRateLimiter(_StorageRateLimiter):
    """A store of counters for code on asyncio; else like :class:`StorageRateLimiter`.

    Args:
        uri: The storage's, such as ``memcached://localhost:11211``.

    Raises:
        ConfigurationError: It can't be used.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(uri, is_async=True)

    async def migrate(self) -> None:
        """See :class:`~keyguard.stores.base.RateLimiter`; there is nothing to create."""

    async def aclose(self) -> None:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        _disconnect_async(self._storage)

    async def hit(self, charges: Sequence[Charge]) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`; the promise is weaker."""
        return await self._run(_hit(charges, self._buckets(charges)))

    async def adjust(
        self,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],  # noqa: ARG002 - nothing is given back
    ) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`; nothing is given back."""
        return await self._run(_adjust(charges, self._buckets(charges), units))

    async def _run(self, flow: Flow[Outcome]) -> Outcome:
        storage = self._storage
        try:
            return await arun(flow, _awaited)
        except Exception as failure:
            self._replace(storage)
            raise self._unavailable() from failure
        except BaseException:
            self._replace(storage)
            raise

    def _replace(self, storage: Any) -> None:
        # memcachio (0.5) never gets back a place in its pool whose connecting was cancelled; when
        # all are gone no call succeeds again. The old pool closes once nobody waits on it.
        if self._scheme == "memcached" and storage is self._storage:
            self._connect()


def _hit(charges: Sequence[Charge], buckets: Sequence[_Bucket]) -> Flow[Outcome]:
    fits: list[bool] = []
    asked: dict[tuple[Any, ...], int] = {}
    for charge, (strategy, item, name) in zip(charges, buckets, strict=True):
        cost = asked.get((item, name), 0) + charge.cost
        fit = bool((yield partial(strategy.test, item, name, cost=cost)))
        if fit:
            asked[item, name] = cost
        fits.append(fit)
    if _is_admitted(charges, fits):
        yield from _count(charges, buckets, fits)
    return _outcome(charges, fits, (yield from _look(buckets)))


def _count(charges: Sequence[Charge], buckets: Sequence[_Bucket], fits: list[bool]) -> Flow[None]:
    for at, (strategy, item, name) in enumerate(buckets):
        if fits[at]:
            fits[at] = bool((yield partial(strategy.hit, item, name, cost=charges[at].cost)))
        if not fits[at] and charges[at].enforce:  # lost to another request
            return


def _adjust(
    charges: Sequence[Charge], buckets: Sequence[_Bucket], units: Sequence[int]
) -> Flow[Outcome]:
    for charge, (strategy, item, name), change in zip(charges, buckets, units, strict=True):
        if change > 0:
            if charge.strategy is not Strategy.FIXED_WINDOW:
                stat = yield partial(strategy.get_window_stats, item, name)
                change = min(change, stat.remaining)  # noqa: PLW2901 - beyond it nothing counts
            if change > 0:
                yield partial(strategy.hit, item, name, cost=change)
    stats = yield from _look(buckets)
    ones = [charge._replace(cost=1) for charge in charges]
    return _outcome(ones, [stat.remaining >= 1 for stat in stats], stats)._replace(admitted=True)


def _look(buckets: Sequence[_Bucket]) -> Flow[list[Any]]:
    stats: list[Any] = []
    for strategy, item, name in buckets:
        stats.append((yield partial(strategy.get_window_stats, item, name)))
    return stats


def _in_time(call: Callable[[], Any]) -> Any:
    if not remaining():  # whoever asked has gone
        raise TimeoutError("there was no time left")
    return call()


async def _awaited(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()


def _disconnect(storage: Any) -> None:
    # The package has no way to do so; pymemcache's client is one of each thread.
    client = getattr(getattr(storage, "local_storage", None), "storage", None)
    if client is not None:
        client.close()


def _disconnect_async(storage: Any) -> None:
    client = getattr(getattr(storage, "bridge", None), "_storage", None)
    pool = getattr(client, "connection_pool", None)
    if pool is not None:
        for connection in tuple(getattr(pool, "_active_connections", ())):
            connection.close()
        pool.close()


def _scheme_of(uri: str) -> str:
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator else ""


def _place_of(uri: str) -> str:
    # Cut behind the last "@" first, for a password may hold what else ends a host.
    rest = uri.partition("://")[2].rpartition("@")[2]
    for end in "/?#":
        rest = rest.partition(end)[0]
    return f"{_scheme_of(uri)}://{rest}"


def _offered(storage: Any, strategies: Mapping[str, Any]) -> dict[Strategy, Any]:
    offered: dict[Strategy, Any] = {}
    for strategy in Strategy:
        try:
            offered[strategy] = strategies[strategy.value](storage)
        except NotImplementedError:
            continue
    return offered


def _name(bucket: str) -> str:
    if len(bucket) <= _LONGEST_NAME:
        return bucket
    return f"{bucket[:80]}~{sha256(bucket.encode()).hexdigest()}"


def _is_admitted(charges: Sequence[Charge], fits: Sequence[bool]) -> bool:
    return all(fit or not charge.enforce for charge, fit in zip(charges, fits, strict=True))


def _outcome(charges: Sequence[Charge], fits: Sequence[bool], stats: Sequence[Any]) -> Outcome:
    now = time.time()
    tallies: list[Tally] = []
    for charge, fit, stat in zip(charges, fits, stats, strict=True):
        reset = max(0.0, stat.reset_time - now)
        wait = 0.0 if fit else float(charge.window) if charge.cost > charge.amount else reset
        tallies.append(Tally(fit, max(0, stat.remaining), reset, wait))
    return Outcome(_is_admitted(charges, fits), tallies)
