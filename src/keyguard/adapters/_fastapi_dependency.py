"""FastAPI's dependency for the present principal, and where a route uses it."""

# Annotations are not postponed here: FastAPI 0.115 resolves only those of functions.

from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from fastapi.security import HTTPBearer, SecurityScopes

from keyguard.adapters._openapi import SCHEME
from keyguard.core.identity.principal import Principal
from keyguard.core.identity.scopes import Requirement
from keyguard.request.context import current_request
from keyguard.request.protection import Protection

__all__ = ["KeyguardPrincipal", "asked_by", "keyguard_principal", "overrides_for"]


class KeyguardPrincipal(HTTPBearer):
    """The dependency that returns the present principal; ``keyguard_principal`` is an instance.

    ``Security(keyguard_principal, scopes=[...])`` asks for scopes as well, together with those that
    the dependencies around it ask for. The middleware has checked the key already, so the
    dependency looks nothing up and uses no thread.

    Args:
        auto_error: False to return None on a public path, where nobody was asked for a key. True to
            refuse such a request with 401.
        description: What the OpenAPI document says about the scheme.
    """

    def __init__(
        self,
        *,
        auto_error: bool = True,
        description: str = "An API key, sent as `Authorization: Bearer <key>`.",
    ) -> None:
        super().__init__(scheme_name=SCHEME, description=description, auto_error=auto_error)

    async def __call__(  # type: ignore[override]  # FastAPI reads this signature
        self, security_scopes: SecurityScopes
    ) -> Principal | None:
        """Return who made the present request.

        Raises:
            ConfigurationError: No keyguard middleware is underneath; nothing is let through.
            AccessDenied: The principal lacks a scope, or the path is public.
        """
        state = current_request()
        if state.allow is None and not self.auto_error:
            return None
        allow = state.admitted()
        if security_scopes.scopes:
            _protection(tuple(security_scopes.scopes)).check(state)
        return allow.principal


keyguard_principal = KeyguardPrincipal()
"""The dependency that returns the present principal."""


def overrides_for(route: object) -> Mapping[object, object]:
    """Return what an application calls instead of the dependencies that a route names."""
    provider = getattr(route, "dependency_overrides_provider", None)
    return getattr(provider, "dependency_overrides", None) or {}


def asked_by(
    dependant: Any,
    overrides: Mapping[object, object] = MappingProxyType({}),
    around: tuple[str, ...] = (),
) -> Iterator[tuple[bool, Requirement]]:
    """Yield the scopes that the dependencies of a route ask for.

    Each comes with whether the dependency refuses a request without a key.

    Args:
        dependant: What FastAPI has read of a function's dependencies, or None.
        overrides: The function that replaces each overridden dependency. The dependencies of an
            overridden dependency are not read.
        around: The scopes that the dependencies around it ask for.

    Raises:
        InvalidValueError: A scope breaks the grammar of RFC 6749.
    """
    if dependant is None:
        return
    for dependency in dependant.dependencies:
        if hasattr(dependency, "own_oauth_scopes"):
            scopes = (*around, *(dependency.own_oauth_scopes or ()))
        else:  # before FastAPI 0.123, which adds them up itself
            scopes = tuple(dependency.security_scopes or ())
        is_overridden = dependency.call in overrides
        call = overrides[dependency.call] if is_overridden else dependency.call
        if isinstance(call, KeyguardPrincipal):
            yield call.auto_error, Requirement.of(scopes)
        if not is_overridden:
            yield from asked_by(dependency, overrides, scopes)


@lru_cache(1024)
def _protection(scopes: tuple[str, ...]) -> Protection:
    return Protection(requirements=(Requirement.of(scopes),))
