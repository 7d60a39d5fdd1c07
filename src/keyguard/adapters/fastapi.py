"""Keyguard in FastAPI: Starlette's middleware, and the present principal as a dependency.

::

    app = FastAPI()
    app.add_middleware(KeyguardMiddleware, guard=guard)
    describe(app)


    @app.post("/v1/inference")
    async def inference(
        principal: Annotated[Principal, Security(keyguard_principal, scopes=["inference:write"])],
    ): ...

The middleware asks for the key, whether a route has the dependency or not; the dependency asks for
scopes and says who it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, cast

from keyguard.adapters import asgi, starlette
from keyguard.adapters._endpoints import each_node, each_route
from keyguard.adapters._openapi import SCHEME, Described, describe_document, sample_path
from keyguard.context import present_access
from keyguard.decorators import Protection, protection_of
from keyguard.exceptions import ConfigurationError, MissingExtraError
from keyguard.guard import AsyncKeyguard
from keyguard.sansio.requests import Principal
from keyguard.sansio.rules import Rule, RuleBook
from keyguard.sansio.scopes import Requirement

try:
    from fastapi import FastAPI
    from fastapi.security import HTTPBearer, SecurityScopes
except ImportError as missing:
    raise MissingExtraError("keyguard.adapters.fastapi", "fastapi") from missing

__all__ = ["KeyguardMiddleware", "KeyguardPrincipal", "describe", "keyguard_principal"]


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


class KeyguardMiddleware(starlette.KeyguardMiddleware):
    """Let only requests with a live key through to a FastAPI application.

    Like :class:`keyguard.adapters.starlette.KeyguardMiddleware`; it also refuses to start where a
    dependency asks for a scope that the guard's catalogue does not know.
    """

    def __init__(
        self,
        app: asgi.ASGIApp,
        guard: AsyncKeyguard,
        *,
        public: Iterable[str] | None = None,
        rules: Iterable[Rule] | None = None,
    ) -> None:
        super().__init__(app, guard, public=public, rules=rules)
        catalogue = guard.policy.catalogue
        for node in each_node(app):
            for _, requirement in _asked_by(getattr(node, "dependant", None)):
                if catalogue is not None:
                    catalogue.check_required(requirement.scopes)


def describe(
    app: FastAPI, guarded_by: asgi.KeyguardMiddleware | None = None, *, mounted_at: str = ""
) -> None:
    """Let the OpenAPI document of an application tell what its guard asks for and answers.

    Every operation that needs a key gets the security scheme, with the scopes that dependencies,
    decorators and rules ask for, and the answers 400, 401, 403, 429 and 503; a public one gets
    none. What the application says itself stays.

    Args:
        app: The application.
        guarded_by: The middleware around it, where that was not added with ``add_middleware``.
        mounted_at: The path under which an application with another one around it is mounted.

    Raises:
        ConfigurationError: When the document is asked for: there is no keyguard middleware.
    """
    generate = app.openapi
    described: dict[str, Any] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal described
        document = generate()
        if document is not described:  # FastAPI keeps it until its routes change
            book = (guarded_by or _middleware_of(app)).rule_book
            scheme = keyguard_principal.model.model_dump(by_alias=True, exclude_none=True)
            describe_document(document, scheme, _described(document, app, book, mounted_at))
            described = document
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _described(
    document: dict[str, Any], app: FastAPI, book: RuleBook, mounted_at: str
) -> Iterator[Described]:
    for route in each_route(app.routes):
        operations = document.get("paths", {}).get(getattr(route, "path_format", None), {})
        for method in getattr(route, "methods", None) or ():
            if method.lower() not in operations:
                continue  # it is not to be shown
            asked = list(_asked_by(route.dependant))
            declared = protection_of(route.endpoint, method).requirements
            yield Described(
                operation=operations[method.lower()],
                rule=book.find(mounted_at + sample_path(route.path), method),
                needs=[*(requirement for _, requirement in asked), *declared],
                asks_for_key=bool(declared) or any(needs_key for needs_key, _ in asked),
            )


def _middleware_of(app: FastAPI) -> asgi.KeyguardMiddleware:
    for one in app.user_middleware:
        kind: Any = one.cls
        if isinstance(kind, type) and issubclass(kind, asgi.KeyguardMiddleware):
            return cast("Any", kind)(app.router, *one.args, **one.kwargs)  # type: ignore[no-any-return]
    raise ConfigurationError(
        "describe found no keyguard middleware: add it with app.add_middleware(KeyguardMiddleware, "
        "guard=guard), or name the one that is around the application: describe(app, middleware)"
    )


def _asked_by(dependant: Any, around: tuple[str, ...] = ()) -> Iterator[tuple[bool, Requirement]]:
    """Give what the dependencies of a route ask for, and whether they do without a key."""
    if dependant is None:
        return
    for one in dependant.dependencies:
        scopes = (*around, *(getattr(one, "own_oauth_scopes", None) or ()))
        if isinstance(one.call, KeyguardPrincipal):
            yield one.call.auto_error, Requirement.of(scopes)
        yield from _asked_by(one, scopes)


@lru_cache(1024)
def _protection(scopes: tuple[str, ...]) -> Protection:
    return Protection(requirements=(Requirement.of(scopes),))
