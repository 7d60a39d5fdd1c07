"""Keyguard in Django REST Framework, over :mod:`keyguard.adapters.django`'s middleware.

Limits need no throttle classes: the middleware and :func:`keyguard.rate_limit` count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from keyguard.adapters.django._exchange import AsyncExchange, Exchange
from keyguard.core.access.decisions import Deny, Reason
from keyguard.core.identity.principal import Principal
from keyguard.core.identity.scopes import Requirement
from keyguard.exceptions import InvalidValueError, MissingExtraError
from keyguard.request.context import Access, present_access
from keyguard.request.decorators import Protection, declare

try:
    from rest_framework.authentication import BaseAuthentication
    from rest_framework.exceptions import PermissionDenied
    from rest_framework.permissions import BasePermission, OperationHolderMixin
except ImportError as missing:
    raise MissingExtraError("keyguard.adapters.rest_framework", "drf") from missing

if TYPE_CHECKING:  # importing views needs Django's settings
    from rest_framework.request import Request
    from rest_framework.views import APIView

__all__ = ["HasScopes", "KeyguardAuthentication", "KeyguardUser"]


class KeyguardUser:
    """``request.user`` of a request that was let in.

    Args:
        principal: Who it is.
    """

    is_authenticated = True
    is_anonymous = False
    is_active = True
    is_staff = False
    is_superuser = False

    def __init__(self, principal: Principal) -> None:
        self.principal = principal

    @property
    def pk(self) -> str:
        """The key's id."""
        return self.principal.key_id

    def get_username(self) -> str:
        """Return the key's id."""
        return self.principal.key_id

    def __str__(self) -> str:
        return self.principal.key_id


class KeyguardAuthentication(BaseAuthentication):
    """Tell Django REST Framework whom the middleware let in.

    ``request.user`` is a :class:`KeyguardUser`, ``request.auth`` the principal. On a public path
    it leaves the request to the next authentication class.
    """

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:  # noqa: ARG002
        """Return the user and the principal, or None on a public path.

        Raises:
            ConfigurationError: No keyguard middleware is underneath.
        """
        allow = present_access().allow
        return None if allow is None else (KeyguardUser(allow.principal), allow.principal)

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002
        """Return the challenge of an answer to nobody."""
        exchange = cast("Exchange | AsyncExchange", present_access())
        answer = exchange.guard.respond(Deny(Reason.CREDENTIALS_MISSING))
        return dict(answer.headers)["WWW-Authenticate"]


class HasScopes(OperationHolderMixin, BasePermission):
    """Permit a principal with these scopes.

    ::

        class Reports(APIView):
            permission_classes = [HasScopes("reports:read")]

    The refusal is that of :func:`keyguard.require_scopes`. It combines with other permissions by
    ``&``, ``|`` and ``~``; what refuses then is the combination, in Django REST Framework's words.

    Args:
        scopes: Scopes that are all needed.
        any_of: Scopes of which one is needed.

    Raises:
        InvalidValueError: No scope is given, or one is none.
    """

    def __init__(self, *scopes: str, any_of: Iterable[str] | None = None) -> None:
        requirement = Requirement.of(scopes, any_of)
        if not requirement.scopes:
            raise InvalidValueError("HasScopes takes at least one scope, such as 'inference:read'")
        self._protection = Protection(requirements=(requirement,))
        declare(self, self._protection)

    def __call__(self) -> HasScopes:
        """Return this permission: Django REST Framework makes one from a class for each request."""
        return self

    def has_permission(self, request: Request, view: APIView) -> bool:  # noqa: ARG002
        """Tell whether the present principal has the scopes.

        Raises:
            ConfigurationError: No keyguard middleware is underneath.
        """
        return self._refuses(present_access()) is None

    @property
    def message(self) -> str:
        """Refuse the present request.

        Django REST Framework asks a permission for it that has refused by itself, and never one
        that is part of a combination.

        Raises:
            PermissionDenied: Always, but for a principal with the scopes. The browsable API and the
                answer to OPTIONS catch it, where they only try what a principal may do.
        """
        access = present_access()
        refusal = self._refuses(access)
        if refusal is None:
            return ""
        raise _ScopeMissing(refusal, access)

    def _refuses(self, access: Access) -> Deny | None:
        allow = access.allow
        return (
            Deny(Reason.CREDENTIALS_MISSING) if allow is None else self._protection.refuses(allow)
        )


class _ScopeMissing(PermissionDenied):
    """A refusal that may yet be caught; it becomes the request's once it is to be answered.

    Args:
        decision: The refusal.
        access: The request.
    """

    def __init__(self, decision: Deny, access: Access) -> None:
        super().__init__()
        self._decision = decision
        self._access = access

    @property
    def auth_header(self) -> str:
        """Leave the view, so that the middleware answers.

        Who asks for the challenge is Django REST Framework's exception handler, which turns the
        refusal into an answer; a handler of the application that does not call it answers itself.

        Raises:
            AccessDenied: Always.
        """
        raise self._access.deny(self._decision)
