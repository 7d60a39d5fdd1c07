"""Keyguard in Django REST Framework, over :mod:`keyguard.adapters.django`'s middleware.

Limits need no throttle classes: the middleware and :func:`keyguard.rate_limit` enforce them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from keyguard.core.access.decisions import Deny, Reason
from keyguard.core.identity.principal import Principal
from keyguard.core.identity.scopes import Requirement
from keyguard.exceptions import InvalidValueError, MissingExtraError
from keyguard.request.context import current_request
from keyguard.request.protection import Protection, declare
from keyguard.request.state import RequestState

try:
    from rest_framework.authentication import BaseAuthentication
    from rest_framework.exceptions import PermissionDenied
    from rest_framework.permissions import BasePermission, SingleOperandHolder
except ImportError as missing:
    raise MissingExtraError("keyguard.adapters.rest_framework", "drf") from missing

if TYPE_CHECKING:  # importing views needs Django's settings
    from rest_framework.request import Request
    from rest_framework.views import APIView

__all__ = ["HasScopes", "KeyguardAuthentication", "PrincipalUser"]


class PrincipalUser:
    """``request.user`` of a request that was let in.

    Args:
        principal: Who made the request.
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
    """Pass the principal of a request that the middleware let in to Django REST Framework.

    ``request.user`` is a :class:`PrincipalUser`, ``request.auth`` the principal. On a public path
    it leaves the request to the next authentication class.
    """

    def authenticate(
        self,
        request: Request,  # noqa: ARG002 - Django REST Framework's protocol
    ) -> tuple[PrincipalUser, Principal] | None:
        """Return the user and the principal, or None on a public path.

        Raises:
            ConfigurationError: No keyguard middleware is underneath.
        """
        allow = current_request().allow
        return None if allow is None else (PrincipalUser(allow.principal), allow.principal)

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002
        """Return the challenge for a request without a key."""
        answer = current_request().guard.respond(Deny(Reason.CREDENTIALS_MISSING))
        return dict(answer.headers)["WWW-Authenticate"]


class HasScopes(SingleOperandHolder, BasePermission):
    """Permit a principal with these scopes.

    ::

        class Reports(APIView):
            permission_classes = [HasScopes("reports:read")]

    The refusal is that of :func:`keyguard.require_scopes`. ``&``, ``|`` and ``~`` combine the
    permission with others; Django REST Framework then writes the refusal of the combination.

    Args:
        scopes: Scopes that are all needed.
        any_of: Scopes of which one is needed.

    Raises:
        InvalidValueError: No scope is given, or a scope breaks the grammar of RFC 6749.
    """

    def __init__(self, *scopes: str, any_of: Iterable[str] | None = None) -> None:
        requirement = Requirement.of(scopes, any_of)
        if not requirement.scopes:
            raise InvalidValueError("HasScopes takes at least one scope, such as 'inference:read'")
        self._protection = Protection(requirements=(requirement,))
        declare(self, self._protection)

    def __call__(self, *_: object, **__: object) -> HasScopes:
        """Return this permission. Django REST Framework calls a class here, for each request."""
        return self

    def has_permission(self, request: Request, view: APIView) -> bool:  # noqa: ARG002
        """Return whether the present principal has the scopes.

        Raises:
            ConfigurationError: No keyguard middleware is underneath.
        """
        return self._refusal_of(current_request()) is None

    @property
    def message(self) -> str:
        """Refuse the present request.

        Django REST Framework reads the message of a permission that has refused on its own, and
        never of one that is part of a combination.

        Raises:
            PermissionDenied: The principal lacks a scope. The browsable API and the answer to
                OPTIONS catch it where they only try what a principal may do.
        """
        state = current_request()
        refusal = self._refusal_of(state)
        if refusal is None:
            return ""
        raise _ScopeMissing(refusal, state)

    def _refusal_of(self, state: RequestState) -> Deny | None:
        allow = state.allow
        return (
            Deny(Reason.CREDENTIALS_MISSING) if allow is None else self._protection.refuses(allow)
        )


class _ScopeMissing(PermissionDenied):
    """A refusal that may still be caught. It is noted on the request once it must be answered.

    Args:
        refusal: The refusal.
        state: The request.
    """

    def __init__(self, refusal: Deny, state: RequestState) -> None:
        super().__init__()
        # If the application's handler answers it, the answer gets keyguard's fields.
        state.refusal, state.optional = refusal, True
        self._refusal = refusal
        self._state = state

    @property
    def auth_header(self) -> str:
        """Leave the view, so that the middleware answers.

        Django REST Framework's exception handler reads the challenge when it turns the refusal
        into an answer. An application's handler that does not call it answers itself.

        Raises:
            AccessDenied: Always.
        """
        raise self._state.refuse(self._refusal)
