"""Who makes a call: a key, or a person whom the host application or a session knows."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from inspect import iscoroutinefunction
from typing import TypeAlias, TypeVar

from keyguard.admin.exchange import Call, Problem
from keyguard.admin.origins import check_origin
from keyguard.admin.sessions import Caller, ConsoleSession, Sessions
from keyguard.core.access.credentials import parse_authorization
from keyguard.core.access.decisions import AccessDenied, Allow, Deny, Reason
from keyguard.core.identity.person import Person
from keyguard.core.identity.principal import Principal
from keyguard.core.keys.records import Organization
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import (
    ConfigurationError,
    InvalidValueError,
    NotFoundError,
    RefusedError,
)
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.request.context import present_request

Result = TypeVar("Result")

_logger = logging.getLogger("keyguard")

Identify: TypeAlias = Callable[[Call], Person | Awaitable[Person | None] | None]
"""Returns the person who makes a call, as the host application knows it, or None."""

Members: TypeAlias = Callable[[Organization], Iterable[Person] | Awaitable[Iterable[Person]]]
"""Returns the people who have a role in an organization, as the host application knows them."""


class Callers:
    """Finds out who makes a call.

    Args:
        guard: The guard that decides on keys.
        identify: Returns the person who makes a call, or None.
        reauthenticate: The host's page on which people prove again who they are, or None.

    Raises:
        ConfigurationError: ``identify`` is a coroutine function, and the guard is for sync code.
    """

    def __init__(
        self,
        guard: Keyguard | AsyncKeyguard,
        identify: Identify | None,
        reauthenticate: str | None = None,
    ) -> None:
        if not isinstance(guard, Keyguard | AsyncKeyguard):
            raise ConfigurationError(
                f"management takes a Keyguard or an AsyncKeyguard, not {type(guard).__name__}"
            )
        check_flavour(guard, "identify", identify)
        self._guard = guard
        self._identify = identify
        self._sessions = Sessions(guard)
        self.reauthenticate = reauthenticate

    async def find(self, call: Call) -> tuple[Caller, ConsoleSession | None]:
        """Return who makes a call, and by which session of the console, if by one.

        Raises:
            AccessDenied: The caller is not known, or the key is not valid.
            Problem: A key and a session came together, the call may be forged, or ``identify``
                failed, which is logged.
        """
        session = await self._sessions.find(call)
        token = parse_authorization(call.credentials, bar=self._guard.policy.takes_bar)
        if isinstance(token, Secret) or token is Reason.CREDENTIALS_MALFORMED:
            if session is not None:
                raise Problem(400, "Send a key or the cookie of a session, not both.")
            return await self._principal(call), None
        # The host has priority: its roles are those of now, and a link's are older.
        person = None if self._identify is None else await _person(self._identify, call)
        if person is not None:
            check_origin(call)
            return person, None
        if session is None:
            raise AccessDenied(Deny(token))
        check_origin(call)
        return session.caller, session

    async def _principal(self, call: Call) -> Principal:
        """Return the principal of a call with a key, which the middleware may have let in."""
        request = present_request()
        if request is not None and request.guard is self._guard and request.allow is not None:
            return request.allow.principal
        decision = await self._guard.decide(
            call.credentials, secure=call.client.secure, address=call.client.address
        )
        if not isinstance(decision, Allow):
            raise AccessDenied(decision)
        return decision.principal


def check_flavour(guard: Keyguard | AsyncKeyguard, name: str, function: object) -> None:
    """Refuse a coroutine function of the host where the guard serves sync code.

    Raises:
        ConfigurationError: The function is a coroutine function, and the guard is for sync code.
    """
    if isinstance(guard, Keyguard) and iscoroutinefunction(function):
        raise ConfigurationError(
            f"{name} is a coroutine function, and a Keyguard serves sync code; make it a "
            "plain function, or pass an AsyncKeyguard"
        )


async def members_of(members: Members, organization: Organization) -> list[Person]:
    """Return the people that ``members`` names, each checked whatever made it.

    Raises:
        Problem: The function returned something else, or raised an error of the host's own code.
    """
    with _logged("members", "Who belongs to the organization"):
        found: object = await _settled(members(organization))
        if not isinstance(found, Iterable) or isinstance(found, str):
            raise ConfigurationError("members returns the people of an organization, as a list")
        return [_checked("members", person) for person in found]


async def _person(identify: Identify, call: Call) -> Person | None:
    """Return the person that ``identify`` names, checked whatever made it.

    Raises:
        Problem: The function returned something else, or raised an error of the host's own code.
    """
    with _logged("identify", "Who you are"):
        found = await _settled(identify(call))
        return None if found is None else _checked("identify", found)


def _checked(name: str, found: object) -> Person:
    # A mock says that it is an instance of anything.
    if not isinstance(found, Person) or not issubclass(type(found), Person):
        raise ConfigurationError(f"{name} names a Person, not an object of {type(found).__name__}")
    return Person(
        id=found.id,
        name=found.name,
        roles=found.roles,
        operator=found.operator,
        authenticated_at=found.authenticated_at,
    )


@contextmanager
def _logged(name: str, what: str) -> Generator[None]:
    """Log what is wrong with a function of the host; the caller does not learn it."""
    try:
        yield
    except (ConfigurationError, InvalidValueError, NotFoundError, RefusedError):
        _logger.exception("the function %s raised an error; the call gets 500", name)
        raise Problem(500, f"{what} could not be determined. The log says why.") from None


async def _settled(value: Result | Awaitable[Result]) -> Result:
    """Return what a function of the host returns: awaited where it is awaitable."""
    if isinstance(value, Awaitable):
        return await value  # pyright: ignore[reportUnknownVariableType]  # of whatever it awaits
    return value  # pyright: ignore[reportReturnType]  # which is no awaitable
