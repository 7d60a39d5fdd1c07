"""Keyguard in Starlette: the pure ASGI middleware, and ``request.user`` and ``request.auth``.

``app.add_middleware(KeyguardMiddleware, guard=guard)`` or ``Middleware(KeyguardMiddleware,
guard=guard)``. Starlette's own ``@requires`` works, wildcards and implied scopes included.
"""

from __future__ import annotations

from keyguard.adapters import asgi
from keyguard.core.identity.principal import Principal
from keyguard.exceptions import MissingExtraError

try:
    from starlette.authentication import AuthCredentials, BaseUser, UnauthenticatedUser
except ImportError as missing:
    raise MissingExtraError("keyguard.adapters.starlette", "starlette") from missing

__all__ = ["KeyguardMiddleware", "KeyguardUser"]


class KeyguardUser(BaseUser):
    """``request.user`` of a request that was let in.

    Args:
        principal: Who made the request.
    """

    def __init__(self, principal: Principal) -> None:
        self.principal = principal

    @property
    def is_authenticated(self) -> bool:
        """True: the request carried a live key."""
        return True

    @property
    def display_name(self) -> str:
        """The key's id."""
        return self.principal.key_id

    @property
    def identity(self) -> str:
        """The key's id."""
        return self.principal.key_id


class _Credentials(AuthCredentials):
    """``request.auth``: ``in`` on its scopes honours wildcards and implied scopes."""

    def __init__(self, principal: Principal) -> None:
        self.scopes = principal.grant  # type: ignore[assignment]  # Starlette asks it with "in"


class KeyguardMiddleware(asgi.KeyguardMiddleware):
    """Let only requests with a live key through to a Starlette application.

    Like :class:`keyguard.adapters.asgi.KeyguardMiddleware`; it also fills ``request.user`` and
    ``request.auth``, as Starlette's AuthenticationMiddleware would.
    """

    def introduce(self, principal: Principal | None, scope: asgi.Scope) -> None:
        """Pass the principal to the application, as ``request.user`` and ``request.auth``."""
        if principal is None:
            scope["user"], scope["auth"] = UnauthenticatedUser(), AuthCredentials()
        else:
            scope["user"], scope["auth"] = KeyguardUser(principal), _Credentials(principal)
