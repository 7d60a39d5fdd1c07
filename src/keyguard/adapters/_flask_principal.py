"""The proxy of the principal in Flask."""

from __future__ import annotations

from typing import Any

from werkzeug.local import LocalProxy

from keyguard.core.access.decisions import AccessDenied, Deny, Reason
from keyguard.core.identity.principal import Principal
from keyguard.exceptions import ConfigurationError
from keyguard.request.context import current_request
from keyguard.request.state import RequestState

__all__ = ["PrincipalProxy", "find_principal"]


class OutsideRequestError(ConfigurationError, RuntimeError):
    """No guarded request is in progress. For Werkzeug's proxies a RuntimeError means: unbound."""


class AnonymousError(AccessDenied, RuntimeError):
    """The path is public, so the proxy is unbound. Code that needs the principal is refused."""


class PrincipalProxy(LocalProxy[Principal]):
    """A proxy that is unbound on a public path, as Flask's own are outside a request.

    On such a path, ``isinstance``, ``bool``, ``dir`` and ``repr`` work without an exception. Only
    the access to an attribute is refused.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(_present_request().admitted(optional=True).principal, name)


def find_principal() -> Principal:
    """Return the principal of the present request, without noting a refusal.

    Raises:
        AnonymousError: The path is public.
        OutsideRequestError: No guarded request is in progress.
    """
    allow = _present_request().allow
    if allow is None:
        raise AnonymousError(Deny(Reason.CREDENTIALS_MISSING))
    return allow.principal


def _present_request() -> RequestState:
    try:
        return current_request()
    except ConfigurationError as failure:
        raise OutsideRequestError(str(failure)) from failure
