"""Keyguard among Django's middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.signals import got_request_exception
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from keyguard.adapters.django._answers import Answers, lone_refusal, notice_uncaught
from keyguard.adapters.django._exchange import AsyncExchange, AsyncKeeper, Exchange, Keeper
from keyguard.adapters.django.setup import read_setup
from keyguard.adapters.django.views import check_views, protection_for
from keyguard.core.access.decisions import AccessDenied
from keyguard.exceptions import ConfigurationError
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.request.context import ACCESS

__all__ = ["KeyguardMiddleware"]


class _Modes(type):
    """Tells Django which ways of serving a project has a guard for.

    Else Django would run the middleware in the way of the next one, and an AsyncKeyguard in a
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
    :func:`keyguard.current_principal`. It stands before whatever answers by itself or asks who
    somebody is; ``SecurityMiddleware`` may come first. ``KEYGUARD`` in Django's settings is a
    dictionary:

    - ``guard``: a :class:`~keyguard.Keyguard` for WSGI or an :class:`~keyguard.AsyncKeyguard` for
      ASGI, a function that returns one, or the dotted path to any of these;
    - ``async_guard``: the AsyncKeyguard beside a Keyguard, for a project that is served both ways;
    - ``public`` and ``rules``: by default those of the guard's settings.

    Args:
        get_response: What comes next.

    Raises:
        ConfigurationError: ``KEYGUARD`` is missing or not as said.
        InvalidValueError: A public path or a rule is none, or a view of the URLconf requires a
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
        if isinstance(guard, AsyncKeyguard):
            self._async_keeper = AsyncKeeper(cast("Any", get_response), guard, **setup.options)
            self.process_view: Callable[..., Any] = self._admit_to_view_async
            markcoroutinefunction(self)
        else:
            self._keeper = Keeper(cast("Any", get_response), guard, **setup.options)
            self.process_view = self._admit_to_view
        self._answers = Answers(guard)
        got_request_exception.connect(notice_uncaught)
        self._protection = lru_cache(maxsize=1024)(protection_for)
        if guard.policy.catalogue is not None:
            check_views(guard.policy.catalogue)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        return self._serve_async(request) if self._is_async else self._serve(request)

    def _serve(self, request: HttpRequest) -> HttpResponseBase:
        exchange = Exchange(self._keeper, request)
        refusal = self._keeper.admit(exchange)
        if refusal is not None:
            return self._answers.refusal(refusal, exchange)
        self._keeper.introduce(request, exchange)
        present = ACCESS.set(exchange)
        try:
            response: HttpResponseBase = self.get_response(request)
        except AccessDenied as denied:  # with DEBUG_PROPAGATE_EXCEPTIONS
            response = self._answers.told(denied.decision, exchange)
        finally:
            ACCESS.reset(present)
        if exchange.due and not self._answers.is_refusal(response, exchange):
            # Something answered before any view was found.
            refusal = exchange.charge()
            if refusal is not None:
                response = self._answers.instead(response, refusal, exchange)
        response = self._answers.finish(response, exchange)
        if exchange.refused is not None:
            exchange.forgive(exchange.refused)
        return response

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        exchange = AsyncExchange(self._async_keeper, request)
        refusal = await self._async_keeper.admit(exchange)
        if refusal is not None:
            return self._answers.refusal(refusal, exchange)
        self._async_keeper.introduce(request, exchange)
        present = ACCESS.set(exchange)
        try:
            response: HttpResponseBase = await self.get_response(request)
        except AccessDenied as denied:
            response = self._answers.told(denied.decision, exchange)
        finally:
            ACCESS.reset(present)
        if exchange.due and not self._answers.is_refusal(response, exchange):
            refusal = await exchange.acharge()
            if refusal is not None:
                response = self._answers.instead(response, refusal, exchange)
        response = self._answers.finish(response, exchange)
        if exchange.refused is not None:
            await exchange.aforgive(exchange.refused)
        return response

    def _admit_to_view(
        self, request: HttpRequest, view: Callable[..., Any], _args: Any, _kwargs: Any
    ) -> HttpResponseBase | None:
        """Charge the limits of the key and of the view together, if the view's scopes are there.

        The scopes are asked for here, before anything between Django and the view's decorators
        answers in its place, such as ``cache_page``.
        """
        exchange = cast("Exchange", ACCESS.get())
        protection, allow = self._protection(view, request.method), exchange.allow
        refusal = None if allow is None else protection.refuses(allow)
        if refusal is None and exchange.due:
            refusal = exchange.charge(() if allow is None else protection.limits)
        return None if refusal is None else self._answers.told(refusal, exchange)

    async def _admit_to_view_async(
        self, request: HttpRequest, view: Callable[..., Any], _args: Any, _kwargs: Any
    ) -> HttpResponseBase | None:
        exchange = cast("AsyncExchange", ACCESS.get())
        protection, allow = self._protection(view, request.method), exchange.allow
        refusal = None if allow is None else protection.refuses(allow)
        if refusal is None and exchange.due:
            refusal = await exchange.acharge(() if allow is None else protection.limits)
        return None if refusal is None else self._answers.told(refusal, exchange)

    def process_exception(
        self,
        request: HttpRequest,  # noqa: ARG002 - Django's protocol
        exception: Exception,
    ) -> HttpResponseBase | None:
        """Turn what a decorator raised, in a view or a template, into its answer."""
        refusal = lone_refusal(exception)
        if refusal is None:
            return None
        return self._answers.told(refusal, cast("Exchange", ACCESS.get()))
