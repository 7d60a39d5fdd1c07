"""Operations that need a key, in an OpenAPI document (OpenAPI 3.1, RFC 9457)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

from keyguard.core.access.carriers import Carriers
from keyguard.core.http.rules import Rule
from keyguard.core.identity.scopes import Requirement

__all__ = ["SCHEME", "Described", "Document", "describe_document", "sample_path", "schemes_of"]

Document: TypeAlias = dict[str, Any]
"""An object of an OpenAPI document, or the whole document."""

SCHEME = "KeyguardBearer"
"""The name of the security scheme. An application's own ``HTTPBearer`` keeps FastAPI's name."""

_PROBLEM = "KeyguardProblem"
_PROBLEM_SCHEMA = {
    "title": _PROBLEM,
    "description": "Why a request was refused (RFC 9457)",
    "type": "object",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "violated-policies": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["type", "title", "status", "detail"],
}
_PARAMETER = re.compile(r"\{[^{}:]*(?::(\w+))?\}")

_CHALLENGE = {"WWW-Authenticate": "The challenge of RFC 6750, section 3"}
_RETRY = {"Retry-After": "Seconds after which to try again"}
_LIMITS = {
    "RateLimit": "The limits that are exceeded, and what is left of them",
    "RateLimit-Policy": "The limits of the request",
}
_ANSWERS: dict[str, tuple[str, dict[str, str]]] = {
    "400": ("The Authorization header, or the path, is malformed", _CHALLENGE),
    "401": ("The API key is missing, or not valid", _CHALLENGE),
    "403": ("The API key lacks a scope, or came over plain HTTP", _CHALLENGE),
    "429": (
        "A rate limit is exceeded, or too many attempts from this address failed",
        _RETRY | _LIMITS,
    ),
    "503": ("At the moment, the API key can't be checked, or the request can't be counted", _RETRY),
}


def schemes_of(carriers: Carriers | None, bearer: Document) -> dict[str, Document]:
    """Return the security schemes of a service by their name.

    Args:
        carriers: Where a request may carry its key; None for ``Authorization: Bearer`` alone.
        bearer: The scheme for ``Authorization: Bearer``.
    """
    if carriers is None:
        return {SCHEME: bearer}
    found = {
        f"Keyguard{scheme}": bearer
        if scheme == "Bearer"
        else {"type": "http", "scheme": scheme.lower()}
        for scheme in carriers.schemes
    }
    for name in carriers.header_names:
        found[f"Keyguard-{name}"] = {"type": "apiKey", "in": "header", "name": name}
    return found


def sample_path(template: str) -> str:
    """Return a path that a framework's route matches, by which its rule is looked up."""
    return _PARAMETER.sub(lambda found: "x/x" if found[1] == "path" else "x", template)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """An operation of a document, and its protection.

    Args:
        operation: The operation object, which is changed. Its own descriptions of answers stay.
        rule: The result of the rule book for its path: a rule, a refusal or None.
        needs: The scopes that its endpoint asks for.
        asks_for_key: Whether the endpoint refuses a request without a key on a public path.
    """

    operation: Document
    rule: object
    needs: Sequence[Requirement]
    asks_for_key: bool = False

    @property
    def is_public(self) -> bool:
        """Whether the operation is served without a key."""
        public = isinstance(self.rule, Rule) and self.rule.public
        return public and not self.asks_for_key

    @property
    def requirements(self) -> list[Requirement]:
        """The scopes that the rule and the endpoint ask for."""
        ruled = self.rule.requirement if isinstance(self.rule, Rule) else None
        return [*self.needs, *([] if ruled is None else [ruled])]


def describe_document(
    document: Document,
    schemes: dict[str, Document],
    operations: Iterable[Described],
) -> None:
    """Describe in a document which operations need a key and scopes, and how they are refused."""
    guarded = False
    for described in operations:
        if described.is_public:
            _drop_security(described.operation)
        else:
            guarded = True
            _describe_security(described.operation, schemes, described.requirements)
            _describe_answers(described.operation)
    if guarded:
        components = document.setdefault("components", {})
        declared = components.setdefault("securitySchemes", {})
        declared.update(schemes)
        if SCHEME not in schemes:
            declared.pop(SCHEME, None)  # FastAPI declared it for the dependency
        components.setdefault("schemas", {})[_PROBLEM] = _PROBLEM_SCHEMA


def _describe_security(
    operation: Document, schemes: Iterable[str], needs: Sequence[Requirement]
) -> None:
    """Name the scopes. Each alternative (``any_of``) becomes one security requirement."""
    all_of = {scope for need in needs for scope in need.all_of}
    either = [sorted(need.any_of) for need in needs if need.any_of]
    ways = [sorted({*all_of, *choice}) for choice in product(*either)]
    mine = [{scheme: scopes} for scheme in schemes for scopes in ways]
    operation["security"] = [*mine, *_others(operation)]


def _drop_security(operation: Document) -> None:
    """Drop keyguard's scheme, which FastAPI names wherever the dependency stands."""
    if "security" in operation:
        operation["security"] = _others(operation)
        if not operation["security"]:
            del operation["security"]


def _others(operation: Document) -> list[dict[str, list[str]]]:
    """Return the security requirements that are the application's own."""
    return [way for way in operation.get("security", ()) if SCHEME not in way]


def _describe_answers(operation: Document) -> None:
    responses = operation.setdefault("responses", {})
    for status, (description, headers) in _ANSWERS.items():
        response = responses.setdefault(status, {"description": description})
        if "$ref" in response:
            continue
        fields = response.setdefault("headers", {})
        for name, told in headers.items():
            fields.setdefault(name, {"description": told, "schema": {"type": "string"}})
        content = response.setdefault("content", {})
        content.setdefault(
            "application/problem+json", {"schema": {"$ref": f"#/components/schemas/{_PROBLEM}"}}
        )
