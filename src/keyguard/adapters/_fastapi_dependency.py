"""The dependency that gives the present principal in FastAPI, and where it is in a route."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from fastapi.security import HTTPBearer, SecurityScopes

from keyguard.adapters._openapi import SCHEME
from keyguard.core.identity.principal import Principal
from keyguard.core.identity.scopes import Requirement
from keyguard.request.context import present_access
from keyguard.request.decorators import Protection

__all__ = ["KeyguardPrincipal", "asked_by", "keyguard_principal", "overrides_for"]


class KeyguardPrincipal(HTTPBearer):
    """The dependency that gives the present principal: ``keyguard_principal`` is one.

    ``Security(keyguard_principal, scopes=[...])`` asks for scopes as well, together with those that
    the dependencies around it ask for. The middleware has checked the key before: nothing is looked
    up, and no thread is used.

    Args:
        auto_error: False to give None on a public path, where nobody was asked for a key; else a
            request there is refused with 401.
        description: What the OpenAPI document says of the scheme.
    """

    def __init__(
        self,
        *,
        auto_error: bool = True,
        description: str = "An API key, sent as `Authorization: Bearer <key>`.",
    ) -> None:
        super().__init__(scheme_name=SCHEME, description=description, auto_error=auto_error)

    async def __call__(  # type: ignore[override]  # FastAPI reads the signature that is there
        self, security_scopes: SecurityScopes
    ) -> Principal | None:
        """Return who the present request is.

        Args:
            security_scopes: What FastAPI gathered from the dependencies around.

        Raises:
            ConfigurationError: No keyguard middleware is underneath; nothing is let through.
            AccessDenied: A scope is missing, or the path is public.
        """
        access = present_access()
        if access.allow is None and not self.auto_error:
            return None
        allow = access.admitted()
        if security_scopes.scopes:
            refusal = _protection(tuple(security_scopes.scopes)).checked(access)
            if refusal is not None:
                raise access.deny(refusal)
        return allow.principal


keyguard_principal = KeyguardPrincipal()
"""The dependency that gives the present principal."""


def overrides_for(route: Any) -> Mapping[Any, Any]:
    """Return what an application calls in place of the dependencies that a route names.

    Args:
        route: The route of FastAPI, or what it passes for one.
    """
    provider = getattr(route, "dependency_overrides_provider", None)
    return getattr(provider, "dependency_overrides", None) or {}


def asked_by(
    dependant: Any,
    overrides: Mapping[Any, Any] = MappingProxyType({}),
    around: tuple[str, ...] = (),
) -> Iterator[tuple[bool, Requirement]]:
    """Give what the dependencies of a route ask for, each with whether it refuses who has no key.

    Args:
        dependant: What FastAPI has read of a function's dependencies, or None.
        overrides: What is called in place of which dependency. Of what such a one depends on in
            turn nothing is believed.
        around: The scopes that are asked for around it.

    Raises:
        InvalidValueError: A scope is none.
    """
    if dependant is None:
        return
    for one in dependant.dependencies:
        scopes = (*around, *(getattr(one, "own_oauth_scopes", None) or ()))
        is_overridden = one.call in overrides
        call = overrides[one.call] if is_overridden else one.call
        if isinstance(call, KeyguardPrincipal):
            yield call.auto_error, Requirement.of(scopes)
        if not is_overridden:
            yield from asked_by(one, overrides, scopes)


@lru_cache(1024)
def _protection(scopes: tuple[str, ...]) -> Protection:
    return Protection(requirements=(Requirement.of(scopes),))
