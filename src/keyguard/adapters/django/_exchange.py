"""One request of Django's, as the pure adapters let it in."""

from __future__ import annotations

from typing import Any, cast

from django.http import HttpRequest

from keyguard.adapters import _asgi_exchange, asgi, wsgi
from keyguard.adapters._admission import Admission
from keyguard.adapters._wsgi_connection import rewrite
from keyguard.core.access.decisions import Deny
from keyguard.exceptions import ConfigurationError
from keyguard.guard import AsyncKeyguard, Keyguard

__all__ = ["AsyncExchange", "AsyncKeeper", "Exchange", "Keeper"]


class Exchange(wsgi.Exchange):
    """One request over WSGI.

    Attributes:
        path_info: The path that Django's resolver sees.
        refused: The refusal that the present answer is.
    """

    refused: Deny | None = None

    def __init__(self, keeper: Keeper, request: HttpRequest) -> None:
        environ = getattr(request, "environ", None)
        if environ is None:
            raise ConfigurationError(
                "Django serves this request over ASGI, which takes an AsyncKeyguard: name one in "
                "KEYGUARD['async_guard']; where one is named, move the middleware that is not "
                "async-capable in front of KeyguardMiddleware"
            )
        super().__init__(keeper, environ, _unused)
        self.path_info = request.path_info

    @property
    def guard(self) -> Keyguard:
        """Who let it in."""
        return self._middleware.guard

    @property
    def path(self) -> str:
        """The path that Django's resolver sees."""
        return self.path_info


class AsyncExchange(_asgi_exchange.Exchange):
    """One request over ASGI; its attributes are those of :class:`Exchange`."""

    refused: Deny | None = None

    def __init__(self, keeper: AsyncKeeper, request: HttpRequest) -> None:
        scope = getattr(request, "scope", None)
        if scope is None:
            raise ConfigurationError(
                "Django serves this request over WSGI, which takes a Keyguard: name it in "
                "KEYGUARD['guard'], and the AsyncKeyguard in KEYGUARD['async_guard']"
            )
        super().__init__(keeper.guard, scope, _unused)
        self.path_info = request.path_info

    @property
    def guard(self) -> AsyncKeyguard:
        """Who let it in."""
        return self._guard

    @property
    def path(self) -> str:
        """The path that Django's resolver sees."""
        return self.path_info


class _Keeper(Admission):
    def _recognizes(self, exchange: Any) -> bool:
        """Let in a key that was seen before, where that is all there is to ask: the warm path."""
        if self._asks_more or exchange.path_info in self.rule_book.paths:
            return False
        allow = self.recall(exchange)
        return allow is not None and self.enter(exchange, allow) is None

    def introduce(self, request: HttpRequest, exchange: Exchange | AsyncExchange) -> None:
        """Tell Django who a request is: in ``request.principal``, and in fields for an upstream."""
        allow = exchange.allow
        principal = None if allow is None else allow.principal
        cast("Any", request).principal = principal
        if self._upstream is not None:
            rewrite(request.META, self._upstream, principal)
            vars(request).pop("headers", None)  # a view of META that was made before


class Keeper(_Keeper, wsgi.KeyguardMiddleware):
    """Lets requests over WSGI in; what they are charged waits until the view is known."""

    defers = True


class AsyncKeeper(_Keeper, asgi.KeyguardMiddleware):
    """Lets requests over ASGI in; what they are charged waits until the view is known."""

    async def _charge(self, exchange: _asgi_exchange.Exchange) -> Deny | None:  # noqa: ARG002
        return None

    def introduce(self, request: HttpRequest, exchange: Exchange | AsyncExchange) -> None:
        """Tell Django who a request is, also those who look into the scope."""
        super().introduce(request, exchange)
        if self._upstream is not None:
            principal = exchange.allow.principal if exchange.allow else None
            cast("Any", request).scope = self.told_scope(cast("AsyncExchange", exchange), principal)


def _unused(*_: Any) -> Any:
    """Stand for the server, to whom only Django answers."""
    raise AssertionError
