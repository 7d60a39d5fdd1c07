"""The dependency that gives the present principal in FastAPI, and where it is in a route."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from fastapi.security import HTTPBearer, SecurityScopes

from keyguard.adapters._openapi import SCHEME
from keyguard.context import present_access
from keyguard.decorators import Protection
from keyguard.sansio.requests import Principal
from keyguard.sansio.scopes import Requirement

__all__ = ["KeyguardPrincipal", "asked_by", "keyguard_principal"]


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
                await access.agive_back()
                raise access.deny(refusal)
        return allow.principal


keyguard_principal = KeyguardPrincipal()
"""The dependency that gives the present principal."""


def asked_by(dependant: Any, around: tuple[str, ...] = ()) -> Iterator[tuple[bool, Requirement]]:
    """Give what the dependencies of a route ask for, each with whether it refuses who has no key.

    Args:
        dependant: What FastAPI has read of a function's dependencies, or None.
        around: The scopes that are asked for around it.

    Raises:
        InvalidValueError: A scope is none.
    """
    if dependant is None:
        return
    for one in dependant.dependencies:
        scopes = (*around, *(getattr(one, "own_oauth_scopes", None) or ()))
        if isinstance(one.call, KeyguardPrincipal):
            yield one.call.auto_error, Requirement.of(scopes)
        yield from asked_by(one, scopes)


@lru_cache(1024)
def _protection(scopes: tuple[str, ...]) -> Protection:
    return Protection(requirements=(Requirement.of(scopes),))
