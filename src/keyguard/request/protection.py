"""The protection of an endpoint: the scopes that it needs and its own limits."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from keyguard.core.access.authenticate import authorize
from keyguard.core.access.decisions import Allow, Deny
from keyguard.core.access.policy import Policy
from keyguard.core.identity.scopes import Requirement
from keyguard.core.limits.limit import RouteLimit
from keyguard.request.state import RequestState

__all__ = [
    "UNPROTECTED",
    "Protection",
    "all_declared",
    "check_declared",
    "declare",
    "declared_on",
    "is_declared",
    "protection_of",
]

_MARK = "__keyguard_protection__"
_HTTP_METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "trace")
_NEEDS_KEY = ("key", "organization")


class Protection(NamedTuple):
    """The scopes and limits of an endpoint.

    Args:
        requirements: The scopes that are needed.
        limits: The limits that its requests are charged to.
    """

    requirements: tuple[Requirement, ...] = ()
    limits: tuple[RouteLimit, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.requirements or self.limits)

    @property
    def plain_scopes(self) -> frozenset[str] | None:
        """The scopes, if all are needed. Most keys have them under exactly these names."""
        if any(requirement.any_of for requirement in self.requirements):
            return None
        return frozenset[str]().union(*(requirement.all_of for requirement in self.requirements))

    @property
    def asks_for_key(self) -> bool:
        """Whether the endpoint refuses a request without a key on a public path, too."""
        return bool(self.requirements) or any(
            limit.limit.per in _NEEDS_KEY for limit in self.limits
        )

    def check_known(self, policy: Policy) -> None:
        """Refuse scopes that the catalogue does not know, and limits that a plan can't change.

        Raises:
            InvalidValueError: A scope is needed that the catalogue does not know, or a plan gives a
                limit a rate that its strategy can't count.
        """
        scopes = [scope for requirement in self.requirements for scope in requirement.scopes]
        policy.check_endpoint(scopes, [limit.limit for limit in self.limits])

    def and_(self, inner: Protection) -> Protection:
        """Return this protection joined with that of an inner endpoint."""
        return Protection((*self.requirements, *inner.requirements), (*self.limits, *inner.limits))

    def refuses(self, allow: Allow) -> Deny | None:
        """Return the refusal of a principal that lacks a scope, or None."""
        for requirement in self.requirements:
            decision = authorize(allow, requirement)
            if isinstance(decision, Deny):
                scopes = {scope for needed in self.requirements for scope in needed.scopes}
                return replace(decision, scopes=tuple(sorted(scopes)))
        return None

    def check(self, state: RequestState) -> None:
        """Refuse a request that lacks a scope, or a key where one is needed.

        Raises:
            AccessDenied: The principal lacks a scope, or the path is public and a key is needed.
        """
        allow = state.allow
        if allow is not None:
            refusal = self.refuses(allow)
            if refusal is not None:
                raise state.refuse(refusal)
        elif self.asks_for_key:
            state.admitted()


UNPROTECTED = Protection()


def protection_of(endpoint: object, method: str = "") -> Protection:
    """Return the protection that is declared on an endpoint."""
    view: object = getattr(endpoint, "view_class", endpoint)  # Flask keeps the class on its view
    found = declared_on(endpoint)
    if view is not endpoint:
        found = found.and_(declared_on(view))
    if isinstance(view, type):
        function: object = getattr(view, method.lower(), None)
        if function is None and method == "HEAD":
            function = getattr(view, "get", None)
        found = found.and_(declared_on(function))
    return found


def declared_on(target: object) -> Protection:
    """Return the protection that :func:`declare` put on an object, or an empty one."""
    found: Protection = getattr(target, _MARK, UNPROTECTED)
    return found


def declare(target: object, protection: Protection) -> None:
    """Declare the protection of an endpoint that guards itself."""
    setattr(target, _MARK, protection)


def all_declared(target: object) -> Protection:
    """Return the protection that an endpoint and its methods declare, joined."""
    found = UNPROTECTED
    for method in ("", *_HTTP_METHODS):
        found = found.and_(protection_of(target, method))
    return found


def is_declared(target: object) -> bool:
    """Return whether an endpoint, or one of its methods, declares any protection."""
    return bool(all_declared(target))


def check_declared(target: object, policy: Policy) -> None:
    """Refuse a decorated endpoint that the settings contradict; see :meth:`Protection.check_known`.

    Raises:
        InvalidValueError: The catalogue does not know a scope, or a plan gives a limit a rate that
            its strategy can't count.
    """
    all_declared(target).check_known(policy)
