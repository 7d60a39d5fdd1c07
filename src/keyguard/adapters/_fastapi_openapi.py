"""The guard in the OpenAPI document of a FastAPI application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from keyguard.adapters import asgi
from keyguard.adapters._endpoints import each_route
from keyguard.adapters._fastapi_dependency import asked_by, keyguard_principal, overrides_for
from keyguard.adapters._openapi import (
    Described,
    Document,
    describe_document,
    sample_path,
    schemes_of,
)
from keyguard.core.http.rule_book import RuleBook
from keyguard.exceptions import ConfigurationError
from keyguard.request.protection import protection_of

__all__ = ["describe"]


def describe(
    app: FastAPI, guarded_by: asgi.KeyguardMiddleware | None = None, *, mounted_at: str = ""
) -> None:
    """Describe the guard in the OpenAPI document of an application.

    Every operation that needs a key gets the security scheme, with the scopes that dependencies,
    decorators and rules ask for, and the answers 400, 401, 403, 429 and 503. A public operation
    gets neither. The application's own declarations stay.

    Args:
        app: The application.
        guarded_by: The middleware around the application, if ``add_middleware`` did not add it.
        mounted_at: The path under which another application mounts this one.

    Raises:
        ConfigurationError: Raised when the document is built: the application has no keyguard
            middleware.
    """
    generate = app.openapi
    described: Document | None = None

    def openapi() -> Document:
        nonlocal described
        document = generate()
        if document is not described:  # FastAPI keeps it until its routes change
            middleware = guarded_by or _middleware_of(app)
            book = middleware.admission.rule_book
            model = keyguard_principal.model
            scheme = model.model_dump(mode="json", by_alias=True, exclude_none=True)
            schemes = schemes_of(middleware.guard.carriers, scheme)
            describe_document(document, schemes, _described(document, app, book, mounted_at))
            described = document
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _described(
    document: Document, app: FastAPI, book: RuleBook, mounted_at: str
) -> Iterator[Described]:
    for route in each_route(app.routes):
        operations = document.get("paths", {}).get(getattr(route, "path_format", None), {})
        for method in getattr(route, "methods", None) or ():
            if method.lower() not in operations:
                continue  # the application hides it
            asked = list(asked_by(route.dependant, overrides_for(route)))
            declared = protection_of(route.endpoint, method)
            yield Described(
                operation=operations[method.lower()],
                rule=book.find(mounted_at + sample_path(route.path), method),
                needs=[*(requirement for _, requirement in asked), *declared.requirements],
                asks_for_key=declared.asks_for_key or any(needs_key for needs_key, _ in asked),
            )


def _middleware_of(app: FastAPI) -> asgi.KeyguardMiddleware:
    for added in app.user_middleware:
        kind: Any = added.cls
        if isinstance(kind, type) and issubclass(kind, asgi.KeyguardMiddleware):
            build: Any = kind
            middleware: asgi.KeyguardMiddleware = build(app.router, *added.args, **added.kwargs)
            return middleware
    raise ConfigurationError(
        "describe found no keyguard middleware: add it with app.add_middleware(KeyguardMiddleware, "
        "guard=guard), or name the one that is around the application: describe(app, middleware)"
    )
