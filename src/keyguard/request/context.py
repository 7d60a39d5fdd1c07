"""The request that is being served: what an application can ask of it."""

from __future__ import annotations

from contextvars import ContextVar

from keyguard.core.access.decisions import Deny, Reason
from keyguard.core.identity.principal import Principal
from keyguard.exceptions import ConfigurationError
from keyguard.request.limits import CurrentLimits
from keyguard.request.state import RequestState

__all__ = [
    "current_limits",
    "current_principal",
    "current_request",
    "enter_request",
    "leave_request",
    "present_request",
    "require_organization",
]

_PRESENT: ContextVar[RequestState | None] = ContextVar("keyguard_request", default=None)

# Every request calls these. Python needs longer for a method that is reached through an imported
# name.
enter_request, leave_request, present_request = _PRESENT.set, _PRESENT.reset, _PRESENT.get


def current_request() -> RequestState:
    """Return the state of the present request.

    Raises:
        ConfigurationError: No keyguard middleware is underneath; nothing is let through.
    """
    state = present_request()
    if state is None:
        raise ConfigurationError(
            "this call runs outside keyguard's middleware: wrap the application in "
            "KeyguardMiddleware or FlaskKeyguard"
        )
    return state


def current_principal() -> Principal:
    """Return who made the present request.

    Raises:
        AccessDenied: The path is public, and nobody was asked for a key; the client gets 401.
        ConfigurationError: No keyguard middleware is underneath.
    """
    return current_request().admitted(optional=True).principal


def current_limits() -> CurrentLimits:
    """Return the limits of the present request, to see how they stand or to settle its cost.

    Raises:
        ConfigurationError: No keyguard middleware is underneath.
    """
    return CurrentLimits(current_request())


def require_organization(organization: str | None) -> None:
    """Refuse the present request unless an object belongs to its organization.

    The client gets the same 404 for an object of another organization as for one that does not
    exist (OWASP API1: broken object level authorization)::

        report = reports.get(report_id)
        require_organization(report and report.organization)

    Args:
        organization: Id of the organization that owns the object; None if there is no object.

    Raises:
        AccessDenied: The object does not belong to the caller's organization, or does not exist;
            the client gets 404.
        ConfigurationError: No keyguard middleware is underneath.
    """
    state = current_request()
    principal = state.admitted().principal
    if organization != principal.organization:
        raise state.refuse(Deny(Reason.OBJECT_NOT_FOUND, principal.key_id, principal.organization))
