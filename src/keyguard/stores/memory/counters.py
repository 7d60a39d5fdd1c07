"""Counters in the memory of one process.

The limiter never waits, so it serves async code as well. A hit costs the same for any number of
live clients: a thread sweeps buckets that have ended, in slices, and beyond ``size`` the bucket
that was hit longest ago is evicted. Buckets that anyone can create (failed attempts, public paths)
are kept apart, so that a flood of addresses evicts no key's bucket.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import TypeAlias

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.limit import Strategy
from keyguard.core.limits.windows import COUNTING, State, Tally
from keyguard.runtime.process import Clock, after_fork, start_thread
from keyguard.stores.base import RateLimiter

_SWEEP_EVERY = 10.0
_SLICE = 200
_ANONYMOUS_SHARE = 4
_OWNER = len("keyguard:{")  # where the owner begins in the key of a bucket

_new = tuple[object, ...].__new__  # _new(Outcome, (...)) takes half the time of Outcome(...)

_Pool: TypeAlias = "OrderedDict[str, State]"
_PoolName: TypeAlias = tuple[bool, Strategy, int]


class MemoryRateLimiter(RateLimiter):
    """Counts in dictionaries. The counts end with the process.

    Args:
        clock: Where time comes from. Only its monotonic scale is used.
        size: How many buckets of keys and organizations are kept at most, for each strategy and
            length of window. Of other buckets a quarter as many are kept.
    """

    def __init__(self, *, clock: Clock = time, size: int = 200_000) -> None:
        self._now = clock.monotonic
        self._size = size
        # In a pool the least recently hit bucket is first. It is the first to end, within a window.
        self._pools: defaultdict[_PoolName, _Pool] = defaultdict(OrderedDict)
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._sweeper: threading.Thread | None = None
        self._closed = threading.Event()

    def migrate(self) -> None: ...

    def close(self) -> None:
        self._closed.set()

    def hit(self, charges: Sequence[Charge]) -> Outcome:
        if len(charges) != 1:
            return self._hit_all(charges)
        key, _, amount, window, strategy, enforce, cost = charges[0]
        take, now = COUNTING[strategy].take, self._now
        name = key.startswith("org_", _OWNER), strategy, window
        with (
            self._lock
        ):  # by acquire() and try, a signal's exception in between would keep the lock
            pool = self._pools[name]
            before = pool.get(key, ())
            tally, state = take(before, amount, window, now(), cost)
            if not tally[0]:
                return Outcome(not enforce, (tally,))
            pool[key] = state
            pool.move_to_end(key)
            if not before:
                self._bound(pool, key)
        if self._sweeper is None:
            self._start_sweeper()
        return _new(Outcome, (True, (tally,), 0))

    def _hit_all(self, charges: Sequence[Charge]) -> Outcome:
        tallies: list[Tally] = []
        counted: dict[str, tuple[_Pool, State]] = {}
        admitted = True
        with self._lock:
            now = self._now()
            for charge in charges:
                key, _, amount, window, strategy, enforce, cost = charge
                pool = self._pool(charge)
                before = counted[key][1] if key in counted else pool.get(key, ())
                tally, state = COUNTING[strategy].take(before, amount, window, now, cost)
                tallies.append(tally)
                if tally[0]:
                    counted[key] = pool, state
                elif enforce:
                    admitted = False
            if admitted:
                for key, (pool, state) in counted.items():
                    self._keep(pool, key, state)
            else:  # how the buckets stand, of which none was counted
                for at, (key, _, amount, window, strategy, _, cost) in enumerate(charges):
                    if tallies[at].fits:
                        state = self._pool(charges[at]).get(key, ())
                        tallies[at] = COUNTING[strategy].look(state, amount, window, now, cost)
        if self._sweeper is None:
            self._start_sweeper()
        return Outcome(admitted, tallies)

    def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        tallies: list[Tally] = []
        with self._lock:
            now = self._now()
            for charge, change, end in zip(charges, units, ends_at, strict=True):
                counting = COUNTING[charge.strategy]
                pool = self._pool(charge)
                state = pool.get(charge.key, ())
                if change:
                    state = counting.adjust(state, charge.window, now, change, end)
                    self._keep(pool, charge.key, state)
                tallies.append(counting.look(state, charge.amount, charge.window, now, 1))
        return Outcome(True, tallies)

    def sweep(self) -> None:
        """Drop the buckets that have ended, in slices, so that no hit waits for long."""
        for (_, strategy, window), pool in tuple(self._pools.items()):
            ends = COUNTING[strategy].ends
            ended = _SLICE
            while ended == _SLICE:
                with self._lock:
                    now = self._now()
                    ended = 0
                    for key in pool:
                        if ended == _SLICE or ends(pool[key], window) > now:
                            break
                        ended += 1
                    for _ in range(ended):
                        pool.popitem(last=False)

    def __len__(self) -> int:
        return sum(len(pool) for pool in self._pools.values())

    def _pool(self, charge: Charge) -> _Pool:
        return self._pools[charge.key.startswith("org_", _OWNER), charge.strategy, charge.window]

    def _keep(self, pool: _Pool, key: str, state: State) -> None:
        pool[key] = state
        pool.move_to_end(key)
        self._bound(pool, key)

    def _bound(self, pool: _Pool, key: str) -> None:
        """Evict from a pool that has grown too large; the lock is held."""
        known = key.startswith("org_", _OWNER)
        if len(pool) > (self._size if known else self._size // _ANONYMOUS_SHARE):
            pool.popitem(last=False)

    def _start_sweeper(self) -> None:
        sweeper = threading.Thread(
            target=_sweep_regularly,
            args=(weakref.ref(self), self._closed),
            name="keyguard-counters",
            daemon=True,
        )
        with self._lock:
            if self._sweeper is not None:
                return
            self._sweeper = sweeper
        try:
            start_thread(sweeper)
        except RuntimeError:  # the system refused a thread; the next hit tries again
            self._sweeper = None


def _sweep_regularly(reference: weakref.ref[MemoryRateLimiter], closed: threading.Event) -> None:
    while not closed.wait(_SWEEP_EVERY):
        limiter = reference()
        if limiter is None:
            return
        limiter.sweep()
        del limiter
