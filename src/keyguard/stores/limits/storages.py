"""Counters in any other storage of the package ``limits``, such as memcached and MongoDB.

Their promise is weaker than that of keyguard's own stores, because the package counts one limit at
a time:

- keyguard tests the limits of a request first and then counts them one after the other. A request
  that loses a race to one limit stays counted in the limits before it, and by a fixed window in
  that limit too.
- Charges can't be refunded. A charge beyond the room of a limit is counted in full by a fixed
  window only; the other strategies count as much as fits.
- ``Retry-After`` says when there is room again, but perhaps not enough for the same request. - A
call that keyguard no longer waits for may still count, once, when its storage answers. - Each
machine measures windows by its own clock, and each limit costs two to three round trips.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol, TypeVar

import limits.aio.strategies
import limits.strategies
from limits import RateLimitItem, RateLimitItemPerSecond, WindowStats
from limits.storage import SCHEMES, storage_from_string  # type: ignore[attr-defined]

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.limit import Limit, Strategy
from keyguard.core.limits.windows import Tally
from keyguard.exceptions import ConfigurationError, StoreUnavailableError
from keyguard.runtime.deadlines import remaining
from keyguard.runtime.pool import Pool
from keyguard.stores.facade import SyncRateLimiter
from keyguard.stores.urls import ESCAPES, host_of, is_cut

Answer = TypeVar("Answer")

_OWN = ("memory", "redis", "rediss")
_THREADS = 32
_PATIENCE = 1.0  # so that no thread hangs for ever
_LONGEST_NAME = 180  # memcached takes 250 bytes, and the package adds some
_LONGEST_IN_MEMCACHED = 30 * 24 * 60 * 60  # memcached reads a longer time as a date
_DRIVERS = {
    "memcached": ("pymemcache", "memcachio"),
    "mongodb": ("pymongo", "motor"),
    "valkey": ("valkey", "valkey"),
}
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


class _Strategy(Protocol):
    """A strategy of ``limits``, in both flavours; only the one for async code is awaited."""

    def test(self, item: RateLimitItem, *names: str, cost: int = ...) -> bool | Awaitable[bool]: ...

    def hit(self, item: RateLimitItem, *names: str, cost: int = ...) -> bool | Awaitable[bool]: ...

    def get_window_stats(
        self, item: RateLimitItem, *names: str
    ) -> WindowStats | Awaitable[WindowStats]: ...


class _Bucket(NamedTuple):
    strategy: _Strategy
    item: RateLimitItemPerSecond
    name: str


def is_storage_uri(target: str) -> bool:
    """Return whether a URI names a storage of ``limits`` for which keyguard has no store.

    Args:
        target: The URI; one for async code may begin with ``async+``.
    """
    scheme = _scheme_of(target.removeprefix("async+"))
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

    _is_async = True

    def __init__(self, uri: str) -> None:
        self._uri = uri.removeprefix("async+")
        self._scheme = _scheme_of(self._uri)
        self.system_name = self._scheme.partition("+")[0]
        self._place = f"{self._scheme}://{host_of(self._uri)}"
        if not is_storage_uri(self._uri):
            known_by = self._scheme if re.fullmatch("[a-z0-9+.-]+", self._scheme) else "..."
            raise ConfigurationError(
                f"keyguard knows no limiter for {known_by}://; name memory://, an SQL database, "
                "redis:// or a storage of the package limits, such as memcached://"
            )
        self._connect()

    def _connect(self) -> None:
        storage = self._open()
        kinds = (limits.aio.strategies if self._is_async else limits.strategies).STRATEGIES
        self._strategies: dict[Strategy, _Strategy] = {}
        for strategy in Strategy:
            with suppress(NotImplementedError):
                self._strategies[strategy] = kinds[strategy.value](storage)
        self._storage = storage

    def _open(self) -> Any:
        kind = self._scheme.partition("+")[0].replace("valkeys", "valkey")
        driver = _DRIVERS.get(kind, ("", ""))[self._is_async]
        missing = ConfigurationError(
            f"a limiter in {self._scheme} needs a driver: "
            f"pip install 'limits[{'async-' if self._is_async else ''}{kind}]'"
        )
        if driver and find_spec(driver) is None:
            raise missing
        options = {} if self._is_async else {**_TIMEOUTS.get(self._scheme, {})}
        try:
            if is_cut(self._uri) or not self._uri.partition("://")[2].strip("/"):
                raise ValueError("there is no server in it")
            return storage_from_string(f"{'async+' * self._is_async}{self._uri}", **options)
        except Exception as failure:  # noqa: BLE001 - each storage has its own errors
            lacks_driver = "prerequisite" in str(failure) or "minimum version" in str(failure)
            kind_of_failure = type(failure).__name__
        # Raised here, so that the failure is not its context: that may repeat the URI with a
        # password.
        if lacks_driver:
            raise missing
        raise ConfigurationError(
            f"the limiter's URI {self._place} can't be used ({kind_of_failure}); it looks like "
            f"memcached://host:11211, where {ESCAPES}; see the storages of the package limits"
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

    async def migrate(self) -> None: ...

    async def aclose(self) -> None:
        client = getattr(getattr(self._storage, "bridge", None), "_storage", None)
        pool = getattr(client, "connection_pool", None)
        if pool is not None:  # the package has no way to close it
            for connection in tuple(getattr(pool, "_active_connections", ())):
                connection.close()
            pool.close()

    async def hit(self, charges: Sequence[Charge]) -> Outcome:
        return await self._run(self._hit(charges, self._buckets(charges)))

    async def adjust(
        self,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],  # noqa: ARG002 - nothing is refunded
    ) -> Outcome:
        return await self._run(self._adjust(charges, self._buckets(charges), units))

    def unavailable(self) -> StoreUnavailableError:
        """Return the error for a storage that does not answer."""
        return StoreUnavailableError(
            f"{self._place} is down, slow or overloaded; check that it runs and can be reached"
        )

    async def _run(self, operation: Coroutine[object, None, Outcome]) -> Outcome:
        storage = self._storage
        try:
            return await operation
        except BaseException as failure:
            # memcachio (0.5) loses a place in its pool when connecting is cancelled; once all are
            # lost, no call succeeds. The old pool closes when nothing waits for it any longer.
            if self._is_async and self._scheme == "memcached" and storage is self._storage:
                self._connect()
            if isinstance(failure, Exception):
                raise self.unavailable() from failure
            raise

    async def _ask(
        self, call: Callable[..., Answer | Awaitable[Answer]], bucket: _Bucket, **cost: int
    ) -> Answer:
        if not self._is_async and not remaining():  # the caller has left
            raise TimeoutError("there was no time left")
        asked: Any = call(bucket.item, bucket.name, **cost)
        answer: Answer = await asked if self._is_async else asked
        return answer

    async def _hit(self, charges: Sequence[Charge], buckets: Sequence[_Bucket]) -> Outcome:
        fits: list[bool] = []
        asked = Counter[tuple[RateLimitItemPerSecond, str]]()
        for charge, bucket in zip(charges, buckets, strict=True):
            cost = asked[bucket.item, bucket.name] + charge.cost
            fits.append(await self._ask(bucket.strategy.test, bucket, cost=cost))
            if fits[-1]:
                asked[bucket.item, bucket.name] = cost
        if _is_admitted(charges, fits):
            for at, (charge, bucket) in enumerate(zip(charges, buckets, strict=True)):
                if fits[at]:
                    fits[at] = await self._ask(bucket.strategy.hit, bucket, cost=charge.cost)
                if not fits[at] and charge.enforce:  # another request took the room
                    break
        return _outcome(charges, fits, await self._look(buckets))

    async def _adjust(
        self, charges: Sequence[Charge], buckets: Sequence[_Bucket], units: Sequence[int]
    ) -> Outcome:
        for charge, bucket, more in zip(charges, buckets, units, strict=True):
            if more > 0 and charge.strategy is not Strategy.FIXED_WINDOW:
                (stat,) = await self._look([bucket])
                more = min(more, stat.remaining)  # noqa: PLW2901 - beyond it these count nothing
            if more > 0:
                await self._ask(bucket.strategy.hit, bucket, cost=more)
        stats = await self._look(buckets)
        single = [charge._replace(cost=1) for charge in charges]
        fits = [stat.remaining >= 1 for stat in stats]
        return _outcome(single, fits, stats)._replace(admitted=True)

    async def _look(self, buckets: Sequence[_Bucket]) -> list[WindowStats]:
        return [await self._ask(bucket.strategy.get_window_stats, bucket) for bucket in buckets]

    def _strategy(self, name: str, strategy: Strategy, window: int) -> _Strategy:
        if strategy not in self._strategies:
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
        return self._strategies[strategy]

    def _buckets(self, charges: Sequence[Charge]) -> list[_Bucket]:
        return [
            _Bucket(
                self._strategy(charge.name, charge.strategy, charge.window),
                RateLimitItemPerSecond(charge.amount, charge.window, namespace="keyguard"),
                _short(charge.key),
            )
            for charge in charges
        ]


class _BlockingStorageRateLimiter(AsyncStorageRateLimiter):
    """A store of counters over a storage for sync code, whose calls never suspend."""

    _is_async = False

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
        self.system_name = storage.system_name
        self.check = storage.check
        self._unavailable = storage.unavailable
        self._pool = Pool("keyguard-limiter", most=_THREADS, at_end=storage.disconnect)

    def close(self) -> None:
        self._pool.close()

    def hit(self, charges: Sequence[Charge]) -> Outcome:
        return self._on_thread(partial(super().hit, charges))

    def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        return self._on_thread(partial(super().adjust, charges, units, ends_at))

    def _on_thread(self, call: Callable[[], Outcome]) -> Outcome:
        try:
            return self._pool.call(call)
        except TimeoutError as late:
            raise self._unavailable() from late


def _scheme_of(uri: str) -> str:
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator else ""


def _short(bucket: str) -> str:
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
