"""Who the present request is and what it is charged: between the middleware and the decorators."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from keyguard.core.access.answers import status_of
from keyguard.core.access.charging import Charged, charges_of, conclude, give_back, settle
from keyguard.core.access.decisions import AccessDenied, Allow, Deny, Reason
from keyguard.core.http.rules import Rule
from keyguard.core.identity.principal import Principal, Request
from keyguard.core.limits.charges import Charge, LimitStatus, Outcome, statuses
from keyguard.core.limits.limit import RouteLimit
from keyguard.exceptions import ConfigurationError
from keyguard.runtime.sync import run_sync
from keyguard.stores.failover import CircuitBreaker

__all__ = [
    "ACCESS",
    "Access",
    "CurrentLimits",
    "current_limits",
    "current_principal",
    "present_access",
    "require_organization",
]

T = TypeVar("T")

_INTERNAL_SERVER_ERROR = 500
_CHARGED_FOR = (Reason.CREDENTIALS_MISSING, Reason.OBJECT_NOT_FOUND)


class Access:
    """What the middleware let in, for the length of one request.

    The adapters extend it. Its attributes are the class's until they are set: most requests set
    two of them.

    Attributes:
        allow: The decision, or None on a public path.
        denied: What was refused inside, for the middleware to answer.
        optional: Whether that came of asking who it is, which an application may well catch.
        rule: The rule for its path, where there is one.
        ruled: The limits that the rule for its path sets.
        due: Whether the limits of its key and those of the rule are still to be charged.
        charged: What it was charged so far.
        paid: The limits of its route among that.
        retires: When its key, which has a successor, ends, as an HTTP date.
    """

    allow: Allow | None = None
    denied: Deny | None = None
    optional: bool = False
    rule: Rule | None = None
    ruled: tuple[RouteLimit, ...] = ()
    due: bool = False
    charged: Charged | None = None
    paid: tuple[RouteLimit, ...] = ()
    retires: str | None = None
    waits = False

    @property
    def breaker(self) -> CircuitBreaker:
        """The way to where counters live."""
        raise NotImplementedError

    @property
    def address(self) -> str | None:
        """The client's address, where it is known."""
        raise NotImplementedError

    def request(self) -> Request:
        """Return what the functions of limits get to see of the request."""
        raise NotImplementedError

    def report_exceeded(self, charged: Charged) -> None:
        """Tell of limits in shadow mode that had no room."""
        raise NotImplementedError

    def on_the_loop(self, answer: Awaitable[T]) -> T:
        """Wait, off the event loop, for what has to be awaited on it."""
        raise NotImplementedError

    def hides_refusal(self, status: int) -> bool:
        """Tell whether an application's answer is only a framework's rendering of our refusal.

        Frameworks answer an exception that they do not know with 500. The application's own
        answers, its other errors among them, are left alone.

        Args:
            status: The status of the answer that the application begins.
        """
        if self.denied is None or status != _INTERNAL_SERVER_ERROR:
            return False
        if sys.exception() is None:
            return not self.optional  # some frameworks answer after they have handled it
        return _is_handled()

    def deny(self, deny: Deny) -> AccessDenied:
        """Note a refusal and return the exception that carries it to the middleware.

        What was charged or is due stays so: whoever catches the refusal goes on, and owes it still.
        The adapter forgives it where the refusal is the answer.
        """
        self.denied, self.optional = deny, False
        self.retires = None  # which is told to who is let in, whoever writes the answer
        return AccessDenied(deny)

    def admitted(self, *, optional: bool = False) -> Allow:
        """Return the decision that let the request in.

        Args:
            optional: Whether the application may well do without, and catch the refusal.

        Raises:
            AccessDenied: There is none: the path is public.
        """
        if self.allow is None:
            refusal = self.deny(Deny(Reason.CREDENTIALS_MISSING))
            self.optional = optional
            raise refusal
        return self.allow

    def owes(self, route: Sequence[RouteLimit]) -> bool:
        """Tell whether anything is still to be charged before a route may be entered."""
        return self.due or bool(self._unpaid(route))

    def charge(self, route: Sequence[RouteLimit] = ()) -> Deny | None:
        """Charge what is due, all of it together; return the refusal where there is no room.

        Args:
            route: The limits of the route.

        Raises:
            InvalidValueError: A limit's function returned what is no cost or no name.
            ConfigurationError: It would have to be awaited, and this is the event loop.
        """
        due = self.due
        charges, own, unpaid = self._begin(route)
        if not charges:
            return None
        outcome = self._run(self.breaker.hit(charges))
        deny = self._end(charges, own, unpaid, outcome)
        if deny is not None:
            self.due = due
        return deny

    async def acharge(self, route: Sequence[RouteLimit] = ()) -> Deny | None:
        """Like :meth:`charge`, awaited."""
        due = self.due
        charges, own, unpaid = self._begin(route)
        if not charges:
            return None
        outcome = await self.breaker.hit(charges)
        deny = self._end(charges, own, unpaid, outcome)
        if deny is not None:
            self.due = due
        return deny

    def forgive(self, deny: Deny) -> None:
        """Give back all that was charged, as a refusal is the answer.

        Not where the request is for what is nobody's, or nobody asks for it: trying that is what a
        limit is there to bound.

        Args:
            deny: The refusal.
        """
        self.due = False
        if self.charged is not None and deny.reason not in _CHARGED_FOR:
            self._run(self._giving_back())

    async def aforgive(self, deny: Deny) -> None:
        """Like :meth:`forgive`, awaited."""
        self.due = False
        if self.charged is not None and deny.reason not in _CHARGED_FOR:
            await self._giving_back()

    def repeats_refusal(self, status: int) -> bool:
        """Tell whether an application answers a refusal, while it handles it, in its own words.

        Args:
            status: The status of the answer that it begins.
        """
        return self.denied is not None and status == status_of(self.denied) and _is_handled()

    def settle(self, cost: int, names: Sequence[str]) -> None:
        """Charge what the request turned out to cost."""
        if self.charged is not None:
            self._run(settle(self.breaker, self.charged, cost, names))

    async def asettle(self, cost: int, names: Sequence[str]) -> None:
        """Like :meth:`settle`, awaited."""
        if self.charged is not None:
            await settle(self.breaker, self.charged, cost, names)

    def _unpaid(self, route: Sequence[RouteLimit]) -> Sequence[RouteLimit]:
        if self.ruled:
            # One that the rule and the route share is charged once.
            named = {(one.limit, one.route) for one in self.ruled}
            route = (*self.ruled, *(one for one in route if (one.limit, one.route) not in named))
        return [limit for limit in route if limit not in self.paid]

    def _begin(
        self, route: Sequence[RouteLimit]
    ) -> tuple[tuple[Charge, ...], int, Sequence[RouteLimit]]:
        unpaid = self._unpaid(route) if self.paid or self.ruled else route
        due, self.due = self.due, False  # before anything is awaited, so that it is asked once
        try:
            charges, own = charges_of(self.allow, unpaid, self.request, own=due)
        except BaseException:
            self.due = due  # a limit's function failed; what the key owes is owed still
            raise
        return charges, own, unpaid

    def _end(
        self,
        charges: tuple[Charge, ...],
        own: int,
        unpaid: Sequence[RouteLimit],
        outcome: Outcome | None,
    ) -> Deny | None:
        charged = conclude(self.allow, charges, own, outcome)
        if isinstance(charged, Deny):
            return charged
        if unpaid:
            self.paid = (*self.paid, *unpaid)
        self.charged = charged if self.charged is None else self.charged.joined(charged)
        for tally in charged.tallies:
            if not tally.fits:
                self.report_exceeded(charged)
                break
        return None

    async def _giving_back(self) -> None:
        charged, self.charged, self.paid = self.charged, None, ()
        if charged is not None:
            await give_back(self.breaker, charged)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self.waits:
            return self.on_the_loop(coroutine)
        return run_sync(coroutine)


class CurrentLimits:
    """The limits of the present request.

    Args:
        access: The request.
    """

    def __init__(self, access: Access) -> None:
        self._access = access

    def __iter__(self) -> Iterator[LimitStatus]:
        """Give how each policy stands, as far as this request has seen."""
        charged = self._access.charged
        return iter(statuses(charged.charges, charged.tallies) if charged else ())

    async def settle(self, cost: int, *names: str) -> None:
        """Charge what the request turned out to cost: the difference is charged, or given back.

        ::

            completion = await model.run(prompt)
            await current_limits().settle(completion.tokens)

        A charge for work that is done is never refused: it may leave less than nothing, which the
        next requests wait out.

        Args:
            cost: What it is to be charged in all, at least 0.
            names: The policies that this is for; none for those of the route's ``@rate_limit``, or
                where it has none, for all limits of the request.

        Raises:
            InvalidValueError: The cost is none, or the request has no policy of that name.
            StoreUnavailableError: It can't be counted now, and ``on_limiter_error`` is
                ``"closed"``.
        """
        await self._access.asettle(cost, names)

    async def refund(self, *names: str) -> None:
        """Give back what the request was charged; see :meth:`settle`."""
        await self._access.asettle(0, names)

    def settle_sync(self, cost: int, *names: str) -> None:
        """Do as :meth:`settle` in sync code."""
        self._access.settle(cost, names)

    def refund_sync(self, *names: str) -> None:
        """Do as :meth:`refund` in sync code."""
        self._access.settle(0, names)


ACCESS: ContextVar[Access | None] = ContextVar("keyguard_access", default=None)


def _is_handled() -> bool:
    """Tell whether a refusal is being handled, or what came of one."""
    seen = set[int]()
    pending: list[BaseException | None] = [sys.exception()]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        if isinstance(one, AccessDenied):
            return True
        seen.add(id(one))
        pending += [one.__cause__, one.__context__]
        pending += getattr(one, "exceptions", ())
    return False


def present_access() -> Access:
    """Return the present request's access.

    Raises:
        ConfigurationError: No keyguard middleware is underneath; nothing is let through.
    """
    access = ACCESS.get()
    if access is None:
        raise ConfigurationError(
            "no keyguard middleware is underneath this call: wrap the application in "
            "KeyguardMiddleware or FlaskKeyguard"
        )
    return access


def current_principal() -> Principal:
    """Return who the present request is.

    Raises:
        AccessDenied: The path is public, so nobody was asked for a key; the client gets 401.
        ConfigurationError: No keyguard middleware is underneath.
    """
    return present_access().admitted(optional=True).principal


def current_limits() -> CurrentLimits:
    """Return the limits of the present request, to see how they stand or to settle its cost.

    Raises:
        ConfigurationError: No keyguard middleware is underneath.
    """
    return CurrentLimits(present_access())


def require_organization(organization: str | None) -> None:
    """Refuse the present request unless an object belongs to its organization.

    The client gets the same 404 for an object of somebody else as for one that does not exist
    (OWASP API1: broken object level authorization)::

        report = reports.get(report_id)
        require_organization(report and report.organization)

    Args:
        organization: Id of the organization that owns the object; None where there is no object.

    Raises:
        AccessDenied: It is not the caller's; the client gets 404.
        ConfigurationError: No keyguard middleware is underneath.
    """
    access = present_access()
    principal = access.admitted().principal
    if organization != principal.organization:
        raise access.deny(Deny(Reason.OBJECT_NOT_FOUND, principal.key_id, principal.organization))
