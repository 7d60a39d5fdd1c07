"""The limits of the present request: their state, and the true cost of the request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self

from keyguard.core.access.decisions import Deny
from keyguard.core.access.receipt import Hold, Receipt, hold, release, reserve, settle, settle_hold
from keyguard.core.limits.charges import LimitStatus, statuses
from keyguard.core.limits.limit import check_cost
from keyguard.core.limits.ports import Counters
from keyguard.exceptions import ConfigurationError, InvalidValueError, KeyguardError
from keyguard.request.state import RequestState
from keyguard.runtime.interruptions import do_elsewhere, is_interruption
from keyguard.runtime.shielding import shielded
from keyguard.runtime.sync import run_sync

__all__ = ["CurrentLimits", "Reservation"]


class CurrentLimits:
    """The limits of the present request.

    Args:
        state: The request.
    """

    def __init__(self, state: RequestState) -> None:
        self._state = state

    def __iter__(self) -> Iterator[LimitStatus]:
        """Yield the state of each policy, as far as this request knows it."""
        receipt = self._state.receipt
        return iter(statuses(receipt.charges, receipt.tallies) if receipt else ())

    def reserve(self, cost: int, *names: str) -> Reservation:
        """Reserve the most that work may cost, and settle what it cost when the block ends.

        ::

            async with current_limits().reserve(200) as reservation:
                async for token in model.stream(prompt):
                    reservation.used += 1
                    yield token

        However the block ends, ``used`` is settled: also after an error, and if the client leaves.
        In sync code, use ``with``. Earlier charges count: after ``@rate_limit(..., cost=200)`` this
        reserves nothing further. An earlier settlement counts as well: ``used`` begins with it.

        Nested blocks, and blocks in tasks and threads, add up: each reserves its own cost, and
        settles its own use.

        Args:
            cost: The most that the request may cost in all, at least 1.
            names: The policies, as for :meth:`settle`.

        Raises:
            AccessDenied: Raised where the block begins: a limit has no room, or nothing can be
                counted now. The client gets 429 or 503, unless the answer has begun.
            InvalidValueError: Raised where the block begins or ends, as by :meth:`settle`.
        """
        return Reservation(self._state, cost, names)

    async def settle(self, cost: int, *names: str) -> None:
        """Settle the true cost of the request: keyguard charges or refunds the difference.

        ::

            completion = await model.run(prompt)
            await current_limits().settle(completion.tokens)

        The cost is also what the request counts for in :doc:`usage <usage>`, whether or not it has
        limits. Work that is done is always charged, so a limit may fall below zero; later requests
        are refused until it has room again. Leave out what an open block of :meth:`reserve` uses:
        the block adds it.

        If the task is cancelled meanwhile, because the client left for example, the cost is settled
        all the same. The cancellation goes on afterwards.

        Args:
            cost: What the request costs in all, at least 0.
            names: The policies to settle. Without names these are the limits of the route's
                ``@rate_limit``; if the route has none, all limits of the request.

        Raises:
            InvalidValueError: The cost is not a whole number of at least 0, or the request has no
                policy of that name.
            StoreUnavailableError: Nothing can be counted now, and ``on_limiter_error`` is
                ``"closed"``.
        """
        if is_interruption():
            _settle_elsewhere(lambda: self.settle_sync(cost, *names))
            return
        receipt = self._weighed(cost)
        if receipt is not None:
            breaker = self._state.guard.breaker
            settling = settle(breaker, receipt, cost, names)
            await (shielded(settling) if breaker.suspends else settling)

    async def refund(self, *names: str) -> None:
        """Refund what the request was charged; see :meth:`settle`."""
        await self.settle(0, *names)

    def settle_sync(self, cost: int, *names: str) -> None:
        """Do as :meth:`settle` in sync code.

        On the thread of an event loop, where Python may close a sync generator whose client has
        left, this does not wait for counters across a network: a task settles the cost.
        """
        if is_interruption():
            _settle_elsewhere(lambda: self.settle_sync(cost, *names))
            return
        receipt = self._weighed(cost)
        if receipt is not None:
            self._state.settle_blocking(lambda counters: settle(counters, receipt, cost, names))

    def refund_sync(self, *names: str) -> None:
        """Do as :meth:`refund` in sync code."""
        self.settle_sync(0, *names)

    def _weighed(self, cost: int) -> Receipt | None:
        """Note the cost of the request, for usage, and return its receipt."""
        check_cost(cost, least=0)
        state = self._state
        state.settle_units(cost)
        return state.receipt or state.forgiven


def _settle_elsewhere(settle: Callable[[], None]) -> None:
    """Settle on another thread, as the present one may hold a lock that this needs."""

    def work() -> None:
        with suppress(KeyguardError):  # nobody could handle the error
            settle()

    do_elsewhere(work)


class Reservation:
    """A reservation of a request; :meth:`CurrentLimits.reserve` makes it.

    Args:
        state: The request.
        cost: The most that it may cost in all, at least 1.
        names: The policies. Empty means those of the route; if it has none, all of the request.

    Attributes:
        used: The units that the request has used so far in all; add to it. It begins with what was
            settled before the block. When the block ends, the request is charged for this, and for
            what others settled meanwhile.
    """

    def __init__(self, state: RequestState, cost: int, names: tuple[str, ...]) -> None:
        self.used = 0
        self._state = state
        self._cost = cost
        self._names = names
        self._before: int | None = None  # what was settled before the block, while it is open
        self._hold: Hold | None = None

    async def __aenter__(self) -> Self:
        breaker = self._state.guard.breaker
        reserving = self._reserve(breaker)
        try:
            refusal = await (shielded(reserving) if breaker.suspends else reserving)
        except BaseException as end:
            # A cancelled task may wait. A coroutine that is closed may not.
            if not isinstance(end, Exception | GeneratorExit):
                await self._settle_shielded()
            raise
        return self._entered(refusal)

    async def __aexit__(self, *_: object) -> None:
        await self._settle_shielded()

    def __enter__(self) -> Self:
        return self._entered(run_sync(self._reserve(self._state.blocking_counters)))

    def __exit__(self, *_: object) -> None:
        if is_interruption():
            _settle_elsewhere(self._settle_blocking)
        else:
            self._settle_blocking()

    def _settle_blocking(self) -> None:
        held = self._ended()
        if held is not None:
            used = self.used
            self._state.settle_blocking(lambda counters: settle_hold(counters, held, used))

    async def _settle_shielded(self) -> None:
        if is_interruption():
            _settle_elsewhere(self._settle_blocking)
            return
        held = self._ended()
        if held is not None:
            breaker = self._state.guard.breaker
            settling = settle_hold(breaker, held, self.used)
            await (shielded(settling) if breaker.suspends else settling)

    async def _reserve(self, counters: Counters) -> Deny | None:
        if self._before is not None:
            raise ConfigurationError(
                "this reservation is open already: call reserve() again for each block"
            )
        check_cost(self._cost)
        state = self._state
        if state.receipt is None:  # no limit applies to the request
            self.used = self._before = state.settled
            return None
        self._hold = hold(state.receipt, self._cost, self._names)
        self.used, self._before = self._hold.begun(), state.settled
        return await reserve(counters, state.allow, self._hold)

    def _entered(self, refusal: Deny | None) -> Self:
        if refusal is not None:
            self._before = self._hold = None
            raise self._state.refuse(refusal)
        return self

    def _ended(self) -> Hold | None:
        """Note the use of the block, for usage, and return what must be settled."""
        state, before, held = self._state, self._before, self._hold
        if before is None:
            return None  # the block did not begin
        self._before = self._hold = None
        try:
            check_cost(self.used, least=0)
        except InvalidValueError:
            if held is not None:
                release(held)
            raise
        state.settle_units(self.used, since=before)
        receipt = state.receipt or state.forgiven
        if held is None and receipt is not None:  # a limit came to apply meanwhile
            held = hold(receipt, max(1, self.used), self._names)
            held.before = [0] * len(held.before)
        return held
