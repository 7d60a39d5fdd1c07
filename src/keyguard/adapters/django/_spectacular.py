"""The guard in the OpenAPI document that drf-spectacular makes of a Django project.

Import this module, nothing more: drf-spectacular finds the extension, and calls the hook.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.settings import spectacular_settings

from keyguard.adapters._openapi import (
    SCHEME,
    Described,
    Document,
    describe_document,
    sample_path,
    schemes_of,
)
from keyguard.adapters.django.setup import read_setup
from keyguard.adapters.django.views import protection_for
from keyguard.adapters.rest_framework import HasScopes
from keyguard.request.protection import declared_on

__all__ = ["KeyguardScheme", "describe_guard"]

_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, sent as `Authorization: Bearer <key>`.",
}


class KeyguardScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # its own
    """Tells drf-spectacular which security scheme ``KeyguardAuthentication`` stands for.

    :func:`describe_guard` puts the schemes of other carriers in its place.
    """

    target_class = "keyguard.adapters.rest_framework.KeyguardAuthentication"
    match_subclasses = True
    name = SCHEME

    def get_security_definition(self, auto_schema: object) -> Document:  # noqa: ARG002
        """Return the security scheme."""
        return dict(_SCHEME)


def describe_guard(
    result: Document,
    generator: Any,
    **_: object,  # the request and whether it is public
) -> Document:
    """Describe in the document which operations need a key and scopes, and how they are refused.

    Args:
        result: The document.
        generator: The generator that made it.
    """
    setup = read_setup()
    guard = setup.guard or setup.async_guard
    schemes = schemes_of(None if guard is None else guard.carriers, dict(_SCHEME))
    describe_document(result, schemes, _described(result["paths"], generator))
    return result


def _described(paths: Mapping[str, Document], generator: Any) -> Iterator[Described]:
    book = read_setup().rule_books()[0]
    for path, _, method, callback in generator.endpoints:
        view = generator.create_view(callback, method)
        written = generator.coerce_path(path, method, view)
        # SCHEMA_PATH_PREFIX_TRIM may have cut the beginning off.
        shown = max((shown for shown in paths if written.endswith(shown)), key=len, default=None)
        operation = None if shown is None else paths[shown].get(method.lower())
        if operation is None:
            continue  # the project hides it
        # AllowAny adds a requirement without a key, because Django REST Framework needs none there.
        operation["security"] = [way for way in operation.get("security", ()) if way]
        declared = protection_for(callback, method)
        permitted = [
            requirement
            for permission in view.get_permissions()
            if isinstance(permission, HasScopes)
            for requirement in declared_on(permission).requirements
        ]
        yield Described(
            operation=operation,
            rule=book.find(sample_path(path), method),
            needs=[*declared.requirements, *permitted],
            asks_for_key=declared.asks_for_key or bool(permitted),
        )


spectacular_settings.POSTPROCESSING_HOOKS.append(describe_guard)
