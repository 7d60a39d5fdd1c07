"""Keyguard's part in Django's responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from keyguard.adapters.django._exchange import AsyncExchange, Exchange
from keyguard.core.access.answers import LIMIT_FIELDS, RETIRES_FIELD, status_of
from keyguard.core.access.decisions import AccessDenied, Deny
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.request.context import ACCESS, Access

__all__ = ["Answers", "lone_refusal", "notice_uncaught"]


class Answers:
    """Answers requests for a guard.

    Args:
        guard: Who decides.
    """

    def __init__(self, guard: Keyguard | AsyncKeyguard) -> None:
        self._guard = guard

    def refusal(self, deny: Deny, exchange: Exchange | AsyncExchange) -> HttpResponse:
        """Return the answer to a refused request.

        Args:
            deny: The refusal.
            exchange: The request.
        """
        answer = self._guard.respond(deny)
        body = b"" if exchange.method == "HEAD" else answer.body
        return HttpResponse(body, status=answer.status, headers=dict(answer.headers))

    def told(self, deny: Deny, exchange: Exchange | AsyncExchange) -> HttpResponse:
        """Tell the hooks of a refusal, and return the answer, which nothing is added to."""
        exchange.denied, exchange.refused = None, deny
        self._guard.report(deny, address=exchange.address)
        return self.refusal(deny, exchange)

    def instead(
        self, response: HttpResponseBase, deny: Deny, exchange: Exchange | AsyncExchange
    ) -> HttpResponse:
        """Return a refusal in the place of an answer, and see that what that holds is closed."""
        refusal = self.told(deny, exchange)
        _closers(refusal).extend(_closers(response))
        return refusal

    def hides_refusal(self, response: HttpResponseBase, exchange: Exchange | AsyncExchange) -> bool:
        """Tell whether Django's answer is only its rendering of a refusal."""
        return exchange.denied is not None and exchange.hides_refusal(response.status_code)

    def is_refusal(self, response: HttpResponseBase, exchange: Exchange | AsyncExchange) -> bool:
        """Tell whether Django's answer is a refusal, still."""
        if exchange.refused is not None:
            return bool(response.status_code == status_of(exchange.refused))
        return self.hides_refusal(response, exchange)

    def finish(
        self, response: HttpResponseBase, exchange: Exchange | AsyncExchange
    ) -> HttpResponseBase:
        """Return Django's answer with keyguard's fields, unless it only hides a refusal."""
        if exchange.denied is not None and self.hides_refusal(response, exchange):
            return self.instead(response, exchange.denied, exchange)
        if not self.is_refusal(response, exchange):
            exchange.refused = None  # whatever answered in its place
            # Unless the application has a limiter of its own.
            if exchange.charged is not None and not any(map(response.has_header, LIMIT_FIELDS)):
                for name, value in self._guard.limit_fields(exchange.charged):
                    response[name] = value
            if exchange.retires is not None:
                response[RETIRES_FIELD] = exchange.retires
        if isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse):
            _keep_present(response, exchange)
        return response


def lone_refusal(failure: BaseException) -> Deny | None:
    """Return the refusal that an exception carries, where it carries nothing else.

    Args:
        failure: What came out of a view; a task group puts it into groups.
    """
    if isinstance(failure, AccessDenied):
        return failure.decision
    if isinstance(failure, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", failure)
        found = [lone_refusal(one) for one in group.exceptions]
        return found[0] if all(found) else None
    return None


def notice_uncaught(**_: Any) -> None:
    """Note, as Django tells of an exception that it answers with 500, whether it is a refusal.

    Later, only the 500 is to be seen.
    """
    access = ACCESS.get()
    if access is None or access.denied is None:
        return
    if access.hides_refusal(HTTPStatus.INTERNAL_SERVER_ERROR):
        access.optional = False  # nobody caught it
    else:
        access.denied = None  # it was caught, and something else failed


def _keep_present(response: StreamingHttpResponse, exchange: Access) -> None:
    """Let a stream that begins after the middleware has returned see whom it is for."""
    closers = _closers(response)
    kept = [partial(_closed, close, exchange) for close in closers]
    chunks: Any = response.streaming_content
    response.streaming_content = (
        _AsyncChunks(chunks, exchange) if response.is_async else _Chunks(chunks, exchange)
    )
    closers[:] = kept


def _closers(response: HttpResponseBase) -> list[Callable[[], Any]]:
    closers: list[Callable[[], Any]] = cast("Any", response)._resource_closers
    return closers


def _closed(close: Callable[[], Any], exchange: Access) -> None:
    present = ACCESS.set(exchange)
    try:
        close()
    finally:
        ACCESS.reset(present)


class _Chunks:
    def __init__(self, chunks: Iterator[bytes], exchange: Access) -> None:
        self._chunks, self._exchange = chunks, exchange

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        present = ACCESS.set(self._exchange)
        try:
            return next(self._chunks)
        finally:
            ACCESS.reset(present)


class _AsyncChunks:
    def __init__(self, chunks: AsyncIterator[bytes], exchange: Access) -> None:
        self._chunks, self._exchange = chunks, exchange

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        present = ACCESS.set(self._exchange)
        try:
            return await anext(self._chunks)
        finally:
            ACCESS.reset(present)
