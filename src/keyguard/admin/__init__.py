"""Management over HTTP: the API and the console, as one ASGI or WSGI application.

What belongs here: the table of endpoints, who may call which, and how calls are read and answered.
Endpoints run the operations of the guard, and decide nothing that those decide.

::

    app.mount("/keys", Console(guard, identify=who))  # the API is at /keys/api/v1
    app.mount("/admin", ManagementAPI(guard))  # the API alone

It needs the extra ``console``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import overload

from keyguard.exceptions import ConfigurationError, MissingExtraError
from keyguard.guard import AsyncKeyguard, Keyguard

try:
    from keyguard.admin.api import ENDPOINTS
    from keyguard.admin.application import Application
    from keyguard.admin.asgi import ASGIApplication
    from keyguard.admin.callers import Callers, Identify, Members
    from keyguard.admin.console import ConsoleApplication
    from keyguard.admin.wsgi import WSGIApplication
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] not in ("werkzeug", "jinja2", "itsdangerous"):
        raise
    raise MissingExtraError("management over HTTP", "console") from missing

__all__ = ["Console", "ManagementAPI"]


@overload
def ManagementAPI(
    guard: AsyncKeyguard,
    identify: Identify | None = None,
    *,
    reauthenticate: str | None = None,
    allowed_hosts: Iterable[str] | None = None,
) -> ASGIApplication: ...
@overload
def ManagementAPI(
    guard: Keyguard,
    identify: Identify | None = None,
    *,
    reauthenticate: str | None = None,
    allowed_hosts: Iterable[str] | None = None,
) -> WSGIApplication: ...
def ManagementAPI(  # noqa: N802 - to its users it is a class of two flavours
    guard: Keyguard | AsyncKeyguard,
    identify: Identify | None = None,
    *,
    reauthenticate: str | None = None,
    allowed_hosts: Iterable[str] | None = None,
) -> ASGIApplication | WSGIApplication:
    """Return the management API as an application that is mounted anywhere.

    Args:
        guard: The guard whose keys are managed.
        identify: Returns the person who makes a call, or None; see :doc:`people
            </how-to/console-embedding>`. Without it the API accepts only keys.
        reauthenticate: As in :func:`Console`.
        allowed_hosts: As in :func:`Console`.

    Returns:
        An ASGI application for an :class:`~keyguard.AsyncKeyguard`, a WSGI application for a
        :class:`~keyguard.Keyguard`.

    Raises:
        ConfigurationError: ``identify`` is a coroutine function, and the guard is for sync code; or
            ``allowed_hosts`` has no names of hosts.
    """
    callers = Callers(guard, identify, reauthenticate)
    return _fronted(Application(guard, ENDPOINTS, callers, allowed_hosts=allowed_hosts))


@overload
def Console(
    guard: AsyncKeyguard,
    identify: Identify | None = None,
    *,
    key_sign_in: bool = False,
    reauthenticate: str | None = None,
    members: Members | None = None,
    allowed_hosts: Iterable[str] | None = None,
) -> ASGIApplication: ...
@overload
def Console(
    guard: Keyguard,
    identify: Identify | None = None,
    *,
    key_sign_in: bool = False,
    reauthenticate: str | None = None,
    members: Members | None = None,
    allowed_hosts: Iterable[str] | None = None,
) -> WSGIApplication: ...
def Console(  # noqa: N802 - as above
    guard: Keyguard | AsyncKeyguard,
    identify: Identify | None = None,
    *,
    key_sign_in: bool = False,
    reauthenticate: str | None = None,
    members: Members | None = None,
    allowed_hosts: Iterable[str] | None = None,
) -> ASGIApplication | WSGIApplication:
    """Return the console as an application that is mounted anywhere, with the API below it.

    Args:
        guard: The guard whose keys are managed.
        identify: Returns the person who makes a call, or None; see
            :doc:`people </how-to/console-embedding>`.
        key_sign_in: Whether people may sign in with a key that has ``admin``.
        reauthenticate: The address at which people of the host application sign in again before a
            critical action. It gets the path to come back to as ``next``.
        members: Returns the people of an organization with their roles, for the console's page of
            members; it may be a coroutine function. Without it the page lists the people whom keys
            and requests name.
        allowed_hosts: The names of the host that the console and its API answer to, without ports,
            such as ``keys.example.com``; None for every name.

    Returns:
        An ASGI application for an :class:`~keyguard.AsyncKeyguard`, a WSGI application for a
        :class:`~keyguard.Keyguard`.

    Raises:
        ConfigurationError: There is no way to sign in; ``identify`` or ``members`` is a coroutine
            function, and the guard is for sync code; or ``allowed_hosts`` has no names of hosts.
    """
    if identify is None and not key_sign_in:
        raise ConfigurationError(
            "nobody could sign in to the console: pass identify=, or key_sign_in=True"
        )
    return _fronted(
        ConsoleApplication(
            guard,
            Callers(guard, identify, reauthenticate),
            key_sign_in=key_sign_in,
            members=members,
            allowed_hosts=allowed_hosts,
        )
    )


def _fronted(application: Application) -> ASGIApplication | WSGIApplication:
    if isinstance(application.guard, AsyncKeyguard):
        return ASGIApplication(application)
    return WSGIApplication(application)
