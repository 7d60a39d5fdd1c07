"""Counters in any other storage of the package ``limits``, such as memcached and MongoDB.

Their promise is weaker than that of keyguard's own stores, because the package counts one limit at
a time:

- keyguard tests the limits of a request first and then counts them one after the other. A request
  that loses a race to one limit stays counted in the limits before it, and by a fixed window in
  that limit too.
- Charges can't be refunded. A charge beyond the room of a limit is counted in full by a fixed
  window only; the other strategies count as much as fits.
- ``Retry-After`` says when there is room again, perhaps too little for the same request.
- A call that keyguard gave up may still count, once, when its storage answers.
- Each machine measures windows by its own clock, and each limit costs two to three round trips.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeVar

import limits.aio.strategies
import limits.strategies
from limits import RateLimitItemPerSecond, WindowStats
from limits.storage import SCHEMES, storage_from_string  # type: ignore[attr-defined]

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.limit import Limit, Strategy
from keyguard.core.limits.windows import Tally
from keyguard.exceptions import ConfigurationError, StoreUnavailableError
from keyguard.runtime.deadlines import remaining
from keyguard.runtime.pool import Pool
from keyguard.stores.facade import SyncRateLimiter

Result = TypeVar("Result")

_OWN = ("memory", "redis", "rediss")
_THREADS = 32
_PATIENCE = 1.0
_LONGEST_NAME = 180  # memcached takes 250 bytes, and the package adds some
_LONGEST_IN_MEMCACHED = 30 * 24 * 60 * 60  # memcached reads a longer time as a date
_ASYNC = "async+"
_DRIVERS = {
    "memcached": ("pymemcache", "memcachio"),
    "mongodb": ("pymongo", "motor"),
    "valkey": ("valkey", "valkey"),
}
# So that no thread hangs for ever.
_SOCKETS = {"socket_connect_timeout": _PATIENCE, "socket_timeout": _PATIENCE}
_MONGODB: dict[str, int] = dict.fromkeys(
    ("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS"), int(_PATIENCE * 1000)
)
_TIMEOUTS: Mapping[str, Mapping[str, Any]] = {
    "memcached": {"connect_timeout": _PATIENCE, "timeout": _PATIENCE},
    "mongodb": _MONGODB,
    "mongodb+srv": _MONGODB,
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
    """Tell whether a URI names a storage of ``limits`` for which keyguard has no store of its own.

    Args:
        target: The URI; one for async code may begin with ``async+``.
    """
    scheme = _scheme_of(target.removeprefix(_ASYNC))
    return scheme in SCHEMES and scheme.partition("+")[0] not in _OWN


class AsyncStorageRateLimiter:
    """A store of counters for code on asyncio, in a storage of the package ``limits``.

    Its promise is weaker than that of keyguard's own stores; see this module.

    Args:
        uri: The URI of the storage, such as ``memcached://localhost:11211``.

    Raises:
        ConfigurationError: No storage has that scheme, its driver is not installed, or the URI
            can't be used.
    """

    is_async = True

    def __init__(self, uri: str) -> None:
        self._uri = uri.removeprefix(_ASYNC)
        self._scheme = _scheme_of(self._uri)
        self._place = _place_of(self._uri)
        if not is_storage_uri(self._uri):
            raise ConfigurationError(
                f"no limiter is known by {self._scheme}://; name memory://, an SQL database, "
                "redis:// or a storage of the package limits, such as memcached://"
            )
        self._connect()

    def _connect(self) -> None:
        self._storage = self._opened()
        kinds = (limits.aio.strategies if self.is_async else limits.strategies).STRATEGIES
        self._strategies = _offered(self._storage, kinds)

    def _opened(self) -> Any:
        driver = _DRIVERS.get(self._scheme.partition("+")[0].removesuffix("s"), ("", ""))
        if driver[self.is_async] and find_spec(driver[self.is_async]) is None:
            raise self._driver_missing()
        prefix = _ASYNC if self.is_async else ""
        options = {} if self.is_async else {**_TIMEOUTS.get(self._scheme, {})}
        try:
            if not self._uri.partition("://")[2].strip("/"):
                raise ValueError("there is no server in it")
            return storage_from_string(f"{prefix}{self._uri}", **options)
        except Exception as failure:  # noqa: BLE001 - each storage has its own way
            if "prerequisite" in str(failure) or "minimum version" in str(failure):
                raise self._driver_missing() from None
            # The text of the failure may repeat the URI, and with it a password.
            raise ConfigurationError(
                f"the limiter's URI {self._place} can't be used ({type(failure).__name__}); it "
                "looks like memcached://host:11211, see the storages of the package limits"
            ) from None

    def _driver_missing(self) -> ConfigurationError:
        extra = f"{'async-' if self.is_async else ''}{self._scheme.partition('+')[0]}"
        extra = extra.replace("valkeys", "valkey")
        return ConfigurationError(
            f"a limiter in {self._scheme} needs a driver: pip install 'limits[{extra}]'"
        )

    def check(self, limits: Iterable[Limit]) -> None:
        """Refuse limits that this storage can't count.

        Raises:
            ConfigurationError: The storage does not know the strategy of a limit, or can't keep
                its window.
        """
        for limit in limits:
            for rate in limit.rates:
                self._strategy(limit.name, limit.strategy, rate.window)

    async def migrate(self) -> None:
        """See :class:`~keyguard.stores.base.RateLimiter`; there is nothing to create."""

    async def aclose(self) -> None:
        client = getattr(getattr(self._storage, "bridge", None), "_storage", None)
        pool = getattr(client, "connection_pool", None)
        if pool is not None:  # the package has no way to close it
            for connection in tuple(getattr(pool, "_active_connections", ())):
                connection.close()
            pool.close()

    async def hit(self, charges: Sequence[Charge]) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`; the promise is weaker."""
        return await self._run(self._hit(charges, self._buckets(charges)))

    async def adjust(
        self,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],  # noqa: ARG002 - nothing is refunded
    ) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`; nothing is refunded."""
        return await self._run(self._adjust(charges, self._buckets(charges), units))

    async def ask(self, call: Callable[[], Any]) -> Any:
        """Call one method of a strategy: the only place where an operation waits."""
        return await call()

    def unavailable(self) -> StoreUnavailableError:
        """Return the error for a storage that does not answer."""
        return StoreUnavailableError(
            f"{self._place} is down, slow or overloaded; see that it runs and can be reached"
        )

    async def _run(self, operation: Awaitable[Result]) -> Result:
        storage = self._storage
        try:
            return await operation
        except Exception as failure:
            self._replace(storage)
            raise self.unavailable() from failure
        except BaseException:
            self._replace(storage)
            raise

    def _replace(self, storage: object) -> None:
        # memcachio (0.5) loses a place in its pool when connecting is cancelled; once all are lost,
        # no call succeeds. The old pool closes when nothing waits for it any longer.
        if self.is_async and self._scheme == "memcached" and storage is self._storage:
            self._connect()

    async def _hit(self, charges: Sequence[Charge], buckets: Sequence[_Bucket]) -> Outcome:
        fits: list[bool] = []
        asked: dict[tuple[RateLimitItemPerSecond, str], int] = {}
        for charge, (strategy, item, name) in zip(charges, buckets, strict=True):
            cost = asked.get((item, name), 0) + charge.cost
            fit = bool(await self.ask(partial(strategy.test, item, name, cost=cost)))
            if fit:
                asked[item, name] = cost
            fits.append(fit)
        if _is_admitted(charges, fits):
            await self._count(charges, buckets, fits)
        return _outcome(charges, fits, await self._look(buckets))

    async def _count(
        self, charges: Sequence[Charge], buckets: Sequence[_Bucket], fits: list[bool]
    ) -> None:
        for at, (strategy, item, name) in enumerate(buckets):
            if fits[at]:
                call = partial(strategy.hit, item, name, cost=charges[at].cost)
                fits[at] = bool(await self.ask(call))
            if not fits[at] and charges[at].enforce:  # another request took the room
                return

    async def _adjust(
        self, charges: Sequence[Charge], buckets: Sequence[_Bucket], units: Sequence[int]
    ) -> Outcome:
        for charge, (strategy, item, name), change in zip(charges, buckets, units, strict=True):
            more = change
            if more > 0 and charge.strategy is not Strategy.FIXED_WINDOW:
                stat = await self.ask(partial(strategy.get_window_stats, item, name))
                more = min(more, stat.remaining)  # beyond it these strategies count nothing
            if more > 0:
                await self.ask(partial(strategy.hit, item, name, cost=more))
        stats = await self._look(buckets)
        single = [charge._replace(cost=1) for charge in charges]
        fits = [stat.remaining >= 1 for stat in stats]
        return _outcome(single, fits, stats)._replace(admitted=True)

    async def _look(self, buckets: Sequence[_Bucket]) -> list[WindowStats]:
        return [
            await self.ask(partial(strategy.get_window_stats, item, name))
            for strategy, item, name in buckets
        ]

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


class _BlockingStorageRateLimiter(AsyncStorageRateLimiter):
    """The same over a storage for sync code, whose calls never suspend."""

    is_async = False

    async def ask(self, call: Callable[[], Any]) -> Any:
        if not remaining():  # the caller has left
            raise TimeoutError("there was no time left")
        return call()

    def disconnect(self) -> None:
        """Close the connection of this thread; the package has no way to do so."""
        client = getattr(getattr(self._storage, "local_storage", None), "storage", None)
        if client is not None:  # pymemcache's, one for each thread
            client.close()


class StorageRateLimiter(SyncRateLimiter):
    """A store of counters for sync code, in a storage of the package ``limits``.

    Its promise is weaker than that of keyguard's own stores; see this module. These storages know
    no deadline for a call, so each operation runs on a thread of its own.

    Args:
        uri: The URI of the storage, such as ``memcached://localhost:11211``.

    Raises:
        ConfigurationError: No storage has that scheme, its driver is not installed, or the URI
            can't be used.
    """

    def __init__(self, uri: str) -> None:
        storage = _BlockingStorageRateLimiter(uri)
        super().__init__(storage)
        self.check = storage.check
        self._unavailable = storage.unavailable
        self._pool = Pool(
            "keyguard-limiter", most=_THREADS, patience=_PATIENCE, at_end=storage.disconnect
        )

    def close(self) -> None:
        self._pool.close()

    def hit(self, charges: Sequence[Charge]) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`; the promise is weaker."""
        return self._on_thread(partial(super().hit, charges))

    def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`; nothing is refunded."""
        return self._on_thread(partial(super().adjust, charges, units, ends_at))

    def _on_thread(self, call: Callable[[], Outcome]) -> Outcome:
        try:
            return self._pool.call(call)
        except TimeoutError as late:
            raise self._unavailable() from late


def _scheme_of(uri: str) -> str:
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator else ""


def _place_of(uri: str) -> str:
    # Cut after the last "@" first: a password may contain what else would end a host.
    rest = uri.partition("://")[2].rpartition("@")[2]
    for end in "/?#":
        rest = rest.partition(end)[0]
    return f"{_scheme_of(uri)}://{rest}"


def _offered(storage: object, strategies: Mapping[str, Any]) -> dict[Strategy, Any]:
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


def _outcome(
    charges: Sequence[Charge], fits: Sequence[bool], stats: Sequence[WindowStats]
) -> Outcome:
    now = time.time()
    tallies: list[Tally] = []
    for charge, fit, stat in zip(charges, fits, stats, strict=True):
        reset = max(0.0, stat.reset_time - now)
        wait = 0.0 if fit else float(charge.window) if charge.cost > charge.amount else reset
        tallies.append(Tally(fit, max(0, stat.remaining), reset, wait))
    return Outcome(_is_admitted(charges, fits), tallies)
