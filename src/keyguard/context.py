"""Who the present request is: the context variable between middleware and decorators."""

from __future__ import annotations

import sys
from contextvars import ContextVar

from keyguard.exceptions import ConfigurationError
from keyguard.sansio.decisions import AccessDenied, Allow, Deny, Reason
from keyguard.sansio.models import Principal

__all__ = [
    "ACCESS",
    "Access",
    "current_principal",
    "present_access",
    "require_organization",
]

_INTERNAL_SERVER_ERROR = 500


class Access:
    """What the middleware let in, for the length of one request.

    The adapters extend it. Its attributes are the class's until they are set: most requests set
    two of them.

    Attributes:
        allow: The decision, or None on a public path.
        denied: What was refused inside, for the middleware to answer.
        optional: Whether that came of asking who it is, which an application may well catch.
    """

    allow: Allow | None = None
    denied: Deny | None = None
    optional: bool = False

    def hides_refusal(self, status: int) -> bool:
        """Tell whether an application's answer is only a framework's rendering of our refusal.

        Frameworks answer an exception that they do not know with 500. The application's own
        answers, its other errors among them, are left alone.

        Args:
            status: The status of the answer that the application begins.
        """
        if self.denied is None or status != _INTERNAL_SERVER_ERROR:
            return False
        handled = sys.exception()
        if handled is None:
            return not self.optional  # some frameworks answer after they have handled it
        seen = set[int]()
        pending: list[BaseException | None] = [handled]
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

    def deny(self, deny: Deny) -> AccessDenied:
        """Note a refusal and return the exception that carries it to the middleware."""
        self.denied, self.optional = deny, False
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


ACCESS: ContextVar[Access | None] = ContextVar("keyguard_access", default=None)


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
