"""The lanes in which hits go to a limiter that can count several hits in one call.

A limiter that counts hits of all owners in one call has a single lane for each process or event
loop: hits go at once, those of one turn of the loop together. Only while many calls are in
progress, new hits wait for the next one.

Otherwise each owner has a lane, with one call at a time. A store counts the hits on one bucket one
after another in any case. If a burst sent all of them at once, it would take many connections, and
its last hits would wait so long for the bucket that the store would seem to fail.

Hits are counted in the order of their arrival. The time in a lane does not count against the
limiter: only calls have deadlines, and only calls fail.
"""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.runtime.lazy import asyncio
from keyguard.runtime.process import after_fork

MOST_TOGETHER = 64
"""Hits that one call counts at most, so that none takes long."""

_MOST_CALLS = 8
"""The largest number of calls in progress in a lane of all owners."""

Hit = TypeVar("Hit")
_TaskHit: TypeAlias = tuple[Sequence[Charge], "asyncio.Future[Outcome | None]"]
_Count: TypeAlias = Callable[[Sequence[Sequence[Charge]]], Awaitable[Sequence[Outcome | None]]]


class _Lane(Generic[Hit]):
    """The hits of one lane that no call has taken yet, and its calls.

    Attributes:
        calls: How many calls are in progress or due.
        due: How many calls are due. Each takes some of the waiting hits.
    """

    __slots__ = ("calls", "due", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Hit] = []
        self.calls = self.due = 0


class Lanes(ABC):
    """The lanes before one limiter.

    Args:
        count: Counts hits in one call, in order, and returns the outcome of each.
        patience: Seconds after which a hit that is still not due leaves its lane and is counted in
            a call of its own, so that no lane holds a request for ever.
        is_shared: Whether one call may count hits of several owners.
    """

    def __init__(self, count: _Count, patience: float, *, is_shared: bool) -> None:
        self._count = count
        self._patience = patience
        self._is_shared = is_shared
        self._most = _MOST_CALLS if is_shared else 1
        self._start_afresh()
        after_fork(self._start_afresh)

    @abstractmethod
    def _start_afresh(self) -> None:
        """Begin without lanes."""

    @abstractmethod
    async def hit(self, charges: Sequence[Charge]) -> Outcome | None:
        """Count a hit, now or with others.

        Args:
            charges: The charges of the hit, all of one owner.

        Returns:
            The outcome; None if nothing can be counted now and the request must not pass.
        """


class _Waiting:
    """The hit of a thread that waits for its turn."""

    def __init__(self, charges: Sequence[Charge]) -> None:
        self.charges = charges
        self.turn = threading.Event()
        self.leads = False  # whether it makes the next call, for itself and those behind it
        self.is_counted = False
        self.outcome: Outcome | None = None


class ThreadLanes(Lanes):
    """The lanes of threads. Each call is made by one of the threads whose hits it counts."""

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lane[_Waiting]] = {}  # those with calls, by owner

    async def hit(self, charges: Sequence[Charge]) -> Outcome | None:
        name = "" if self._is_shared else _owner(charges)
        while True:
            with self._lock:
                lane = self._lanes.setdefault(name, _Lane())
                if not lane.due and lane.calls < self._most:
                    lane.calls += 1
                    break
                hit = _Waiting(charges)
                lane.waiting.append(hit)
            if not self._turn(name, lane, hit):
                return (await self._count((charges,)))[0]
            if hit.leads:
                return await self._lead(name, lane)
            if hit.is_counted:
                return hit.outcome
            # The leading thread was ended from outside: it is not known what its call counted.
        try:
            return (await self._count((charges,)))[0]
        finally:
            self._end(name, lane)

    def _turn(self, name: str, lane: _Lane[_Waiting], hit: _Waiting) -> bool:
        """Wait until a hit was counted or must lead; return False if it left its lane."""
        try:
            while not hit.turn.wait(self._patience):
                with self._lock:
                    if hit in lane.waiting and not hit.leads:
                        lane.waiting.remove(hit)
                        return False
        except BaseException:
            with self._lock:
                if hit in lane.waiting:
                    lane.waiting.remove(hit)
                lane.due -= hit.leads
            if hit.leads:
                self._end(name, lane)
            raise
        return True

    async def _lead(self, name: str, lane: _Lane[_Waiting]) -> Outcome | None:
        """Count the waiting hits in one call; return the outcome of the first."""
        with self._lock:
            lane.due -= 1
            together, lane.waiting = lane.waiting[:MOST_TOGETHER], lane.waiting[MOST_TOGETHER:]
            self._go_on(lane)
        try:
            outcomes = await self._count([hit.charges for hit in together])
            for hit, outcome in zip(together, outcomes, strict=True):
                hit.outcome, hit.is_counted = outcome, True
        finally:
            self._end(name, lane)
            for hit in together:
                hit.turn.set()
        return together[0].outcome

    def _end(self, name: str, lane: _Lane[_Waiting]) -> None:
        """End a call."""
        with self._lock:
            lane.calls -= 1
            self._go_on(lane)
            if not lane.calls:
                self._lanes.pop(name, None)  # in a child process it is not there

    def _go_on(self, lane: _Lane[_Waiting]) -> None:
        """Let the first waiting hit make a call, unless one is due; the lock is held."""
        if lane.waiting and not lane.due and lane.calls < self._most:
            lane.calls += 1
            lane.due += 1
            lane.waiting[0].leads = True
            lane.waiting[0].turn.set()


class TaskLanes(Lanes):
    """The lanes of tasks on event loops of asyncio. Tasks of their own make the calls.

    A call that is due begins as the present turn of the loop ends, and takes the hits of that turn.
    The end of a request does not end the call.
    """

    def _start_afresh(self) -> None:
        self._lanes: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[str, _Lane[_TaskHit]]
        ] = weakref.WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself holds tasks weakly

    async def hit(self, charges: Sequence[Charge]) -> Outcome | None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # requests can't wait for one another here
            return (await self._count((charges,)))[0]
        lanes = self._lanes.get(loop)
        if lanes is None:
            lanes = self._lanes[loop] = {}
        name = "" if self._is_shared else _owner(charges)
        lane = lanes.get(name)
        if lane is None:
            lane = lanes[name] = _Lane()
        counted: asyncio.Future[Outcome | None] = loop.create_future()
        hit = (charges, counted)
        lane.waiting.append(hit)
        if lane.due * MOST_TOGETHER < len(lane.waiting):
            if lane.calls < self._most:
                lane.due += 1
                lane.calls += 1
                task = loop.create_task(self._call(lanes, name, lane))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                try:
                    await asyncio.wait((counted,), timeout=self._patience)
                except BaseException:
                    counted.cancel()
                    raise
                if hit in lane.waiting:
                    lane.waiting.remove(hit)
                    return (await self._count((charges,)))[0]
        return await counted

    async def _call(
        self, lanes: dict[str, _Lane[_TaskHit]], name: str, lane: _Lane[_TaskHit]
    ) -> None:
        """Count the waiting hits, and then those that came meanwhile and found too many calls."""
        lane.due -= 1
        together: list[_TaskHit] = []
        try:
            while True:
                together = [hit for hit in lane.waiting[:MOST_TOGETHER] if not hit[1].done()]
                del lane.waiting[:MOST_TOGETHER]
                if together:  # otherwise all requests have ended meanwhile
                    outcomes = await self._count([charges for charges, _ in together])
                    for (_, counted), outcome in zip(together, outcomes, strict=True):
                        if not counted.done():
                            counted.set_result(outcome)
                if lane.due or not lane.waiting:
                    break
        except BaseException:
            # Ended from outside: it is not known what was counted, so the request must not pass.
            for _, counted in (*together, *lane.waiting):
                if not counted.done():
                    counted.set_result(None)
            lane.waiting.clear()
            raise
        finally:
            lane.calls -= 1
            if not (lane.calls or self._is_shared):
                del lanes[name]


def _owner(charges: Sequence[Charge]) -> str:
    key = charges[0].key
    return key[: key.index("}")]
