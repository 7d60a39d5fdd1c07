"""The limits of the present request: how they stand, and what the request turns out to cost."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from keyguard.core.access.decisions import Deny
from keyguard.core.access.receipt import Receipt, reserve, settle, settled_before
from keyguard.core.limits.charges import LimitStatus, statuses
from keyguard.core.limits.limit import check_cost
from keyguard.core.limits.ports import Counters
from keyguard.request.state import RequestState
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
        """Give how each policy stands, as far as this request has seen."""
        receipt = self._state.receipt
        return iter(statuses(receipt.charges, receipt.tallies) if receipt else ())

    def reserve(self, cost: int, *names: str) -> Reservation:
        """Reserve the most that work may cost, and settle what it cost when the block ends.

        ::

            async with current_limits().reserve(200) as reservation:
                async for token in model.stream(prompt):
                    reservation.used += 1
                    yield token

        What was used is settled however the block ends, also by an error, and also because the
        client leaves. In sync code, use ``with``. What the request has paid counts: after
        ``@rate_limit(..., cost=200)`` this reserves nothing further. What it has settled counts as
        well: ``used`` begins with it.

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
        """Charge what the request turned out to cost; keyguard charges or refunds the difference.

        ::

            completion = await model.run(prompt)
            await current_limits().settle(completion.tokens)

        The cost is also what the request counts for in :doc:`usage <usage>`, whether or not it has
        limits. Work that is done is always charged. A limit may so fall below zero; the next
        requests wait until it has room again.

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
        receipt = self._weighed(cost)
        if receipt is not None:
            self._state.settle_blocking(lambda counters: settle(counters, receipt, cost, names))

    def refund_sync(self, *names: str) -> None:
        """Do as :meth:`refund` in sync code."""
        self.settle_sync(0, *names)

    def _weighed(self, cost: int) -> Receipt | None:
        """Note what the request cost, for usage, and return what it was charged."""
        check_cost(cost, least=0)
        state = self._state
        state.settled = cost
        state.weigh(cost)
        return state.receipt or state.forgiven


class Reservation:
    """What a request has reserved; made by :meth:`CurrentLimits.reserve`.

    Args:
        state: The request.
        cost: The most that it may cost in all, at least 1.
        names: The policies. Empty means those of the route; if it has none, all of the request.

    Attributes:
        used: What the request used so far in all. It begins with what was settled before the
            block; add to it. The request is charged for this when the block ends.
    """

    def __init__(self, state: RequestState, cost: int, names: tuple[str, ...]) -> None:
        self.used = 0
        self._state = state
        self._limits = CurrentLimits(state)
        self._cost = cost
        self._names = names

    async def __aenter__(self) -> Self:
        breaker = self._state.guard.breaker
        reserving = self._reserve(breaker)
        try:
            refusal = await (shielded(reserving) if breaker.suspends else reserving)
        except BaseException as end:
            # A cancelled task may wait. A coroutine that is closed may not.
            if not isinstance(end, Exception | GeneratorExit):
                await self._limits.settle(self.used, *self._names)
            raise
        return self._entered(refusal)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._limits.settle(self.used, *self._names)

    def __enter__(self) -> Self:
        return self._entered(run_sync(self._reserve(self._state.blocking_counters)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._limits.settle_sync(self.used, *self._names)

    async def _reserve(self, counters: Counters) -> Deny | None:
        check_cost(self._cost)
        state = self._state
        if state.receipt is None:
            self.used = state.settled
            return None  # no limit applies to the request
        self.used = settled_before(state.receipt, self._names)
        return await reserve(counters, state.allow, state.receipt, self._cost, self._names)

    def _entered(self, refusal: Deny | None) -> Self:
        if refusal is not None:
            raise self._state.refuse(refusal)
        return self
