"""Keyguard among Django's middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.signals import got_request_exception
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from keyguard.adapters._entrance import Entrance
from keyguard.adapters._swallowed import sole_refusal
from keyguard.adapters.django import _answers
from keyguard.adapters.django._exchange import DjangoExchange, introduce, open_exchange
from keyguard.adapters.django.setup import read_setup
from keyguard.adapters.django.views import check_views, protection_for
from keyguard.core.access.decisions import AccessDenied, Deny
from keyguard.exceptions import ConfigurationError
from keyguard.freshness.process_end import part_on_sigterm
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.request.context import current_request, enter_request, leave_request
from keyguard.request.ledger import charge, enter_route, forgive
from keyguard.runtime.sync import run_sync

__all__ = ["KeyguardMiddleware"]


class _Modes(type):
    """Tells Django which interfaces a project has a guard for.

    Otherwise Django would choose the mode of the next middleware, and run an AsyncKeyguard in a
    thread.
    """

    @property
    def sync_capable(cls) -> bool:
        return read_setup().guard is not None

    @property
    def async_capable(cls) -> bool:
        return read_setup().async_guard is not None


class KeyguardMiddleware(metaclass=_Modes):
    """Let only requests with a live key through to Django's views.

    Views find the principal in ``request.principal`` (None on a public path) and through
    :func:`keyguard.current_principal`. Put the middleware before all others that answer requests
    themselves or read the user; ``SecurityMiddleware`` may come first. ``KEYGUARD`` in Django's
    settings is a dictionary:

    - ``guard``: a :class:`~keyguard.Keyguard` for WSGI or an :class:`~keyguard.AsyncKeyguard` for
      ASGI, a function that returns one, or the dotted path to any of these;
    - ``async_guard``: the AsyncKeyguard beside a Keyguard, for a project that is served both ways;
    - ``public`` and ``rules``: by default those of the guard's settings.

    Args:
        get_response: The next middleware, or Django's handler.

    Raises:
        ConfigurationError: ``KEYGUARD`` is missing or malformed.
        InvalidValueError: A public path or a rule is malformed, or a view of the URLconf requires a
            scope that the guard's catalogue does not know.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        setup = read_setup()
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)  # pyright: ignore[reportDeprecated]  # inspect's sees no marks before 3.12
        guard: Keyguard | AsyncKeyguard | None = (
            setup.async_guard if self._is_async else setup.guard
        )
        if guard is None:
            kind = "an AsyncKeyguard" if self._is_async else "a Keyguard"
            raise ConfigurationError(f"Django asks here for {kind}, and KEYGUARD names none")
        self.process_view: Callable[..., object] = self._enter_view_sync
        if self._is_async:
            self.process_view = self._enter_view
            markcoroutinefunction(self)
        else:
            part_on_sigterm()
        self._guard = guard
        self._admission = Entrance(
            get_response, guard, setup.options.get("public"), setup.options.get("rules")
        )
        public = self._admission.rule_book.paths
        self._recognizes = self._admission.warm_path(public).recognizes
        self._strips = guard.settings.strip_credentials
        self._principal_fields = guard.settings.principal_fields or None
        got_request_exception.connect(_answers.notice_uncaught)
        self._protection = lru_cache(maxsize=1024)(protection_for)
        if guard.policy.checks_endpoints:
            check_views(guard.policy)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        served = self._serve(request)
        return served if self._is_async else run_sync(served)

    async def _serve(self, request: HttpRequest) -> HttpResponseBase:
        """Serve one request. Over WSGI nothing in it suspends."""
        exchange = open_exchange(self._guard, request)
        refusal = await self._admit(exchange)
        if refusal is not None:
            return _answers.answer_to(refusal, exchange)
        withheld = self._admission.withheld(exchange) if self._strips else ()
        introduce(request, exchange, self._principal_fields, withheld)
        present = enter_request(exchange)
        try:
            response = self.get_response(request)
            if self._is_async:
                response = await response
        except AccessDenied as denied:  # with DEBUG_PROPAGATE_EXCEPTIONS
            response = _answers.reported(denied.decision, exchange)
        finally:
            leave_request(present)
        if exchange.due and not _answers.is_refusal(response, exchange):
            # Something answered before any view was found.
            refusal = await charge(exchange)
            if refusal is not None:
                response = _answers.replaced(response, refusal, exchange)
        finished = _answers.finished(response, exchange)
        if exchange.answered is not None:
            await forgive(exchange, exchange.answered)
        return finished

    async def _admit(self, exchange: DjangoExchange) -> Deny | None:
        """Let a request in, or return its refusal. Its charges wait for the view."""
        if self._recognizes(exchange, exchange.path_info, exchange.lone_field()):
            return None
        return await self._admission.admit(exchange)

    async def _enter_view(
        self, request: HttpRequest, view: Callable[..., object], _args: object, _kwargs: object
    ) -> HttpResponseBase | None:
        """Charge the limits of the key and of the view together, if the principal has the scopes.

        The scopes are asked for here because something between Django and the view's decorators,
        such as ``cache_page``, may answer in the view's place.
        """
        exchange = _present_exchange()
        protection = self._protection(view, request.method)
        refusal = await enter_route(exchange, protection)
        return None if refusal is None else _answers.reported(refusal, exchange)

    def _enter_view_sync(
        self, request: HttpRequest, view: Callable[..., object], args: object, kwargs: object
    ) -> HttpResponseBase | None:
        return run_sync(self._enter_view(request, view, args, kwargs))

    def process_exception(
        self,
        request: HttpRequest,  # noqa: ARG002 - Django's protocol
        exception: Exception,
    ) -> HttpResponseBase | None:
        """Turn a refusal that a view or a template raised into its answer."""
        refusal = sole_refusal(exception)
        return None if refusal is None else _answers.reported(refusal, _present_exchange())


def _present_exchange() -> DjangoExchange:
    return cast("DjangoExchange", current_request())  # this middleware put it in place
