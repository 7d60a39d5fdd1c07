"""Keyguard's part in Django's responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from http import HTTPStatus
from typing import Any

from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from keyguard.adapters._swallowed import hides_refusal
from keyguard.adapters.django._exchange import DjangoExchange
from keyguard.core.access.answers import LIMIT_FIELDS, RETIRES_FIELD, status_of
from keyguard.core.access.decisions import Deny
from keyguard.request.context import enter_request, leave_request, present_request
from keyguard.request.state import RequestState

__all__ = ["answer_to", "finished", "is_refusal", "notice_uncaught", "replaced", "reported"]


def answer_to(deny: Deny, exchange: DjangoExchange) -> HttpResponse:
    """Return the answer to a refused request."""
    answer = exchange.guard.respond(deny)
    body = b"" if exchange.method == "HEAD" else answer.body
    return HttpResponse(body, status=answer.status, headers=dict(answer.headers))


def reported(deny: Deny, exchange: DjangoExchange) -> HttpResponse:
    """Report a refusal to the hooks, and return its answer, which stays as it is."""
    exchange.refusal, exchange.answered = None, deny
    exchange.report(deny)
    return answer_to(deny, exchange)


def replaced(response: HttpResponseBase, deny: Deny, exchange: DjangoExchange) -> HttpResponse:
    """Return a refusal that replaces an answer, and closes what the answer holds."""
    refusal = reported(deny, exchange)
    _closers(refusal).extend(_closers(response))
    return refusal


def is_refusal(response: HttpResponseBase, exchange: DjangoExchange) -> bool:
    """Return whether Django's answer still is a refusal."""
    if exchange.answered is not None:
        return bool(response.status_code == status_of(exchange.answered))
    return hides_refusal(exchange, response.status_code)


def finished(response: HttpResponseBase, exchange: DjangoExchange) -> HttpResponseBase:
    """Return Django's answer with keyguard's fields, unless it only hides a refusal."""
    if exchange.refusal is not None and hides_refusal(exchange, response.status_code):
        return replaced(response, exchange.refusal, exchange)
    refusal = exchange.refusal if exchange.answered is None else exchange.answered
    if refusal is not None:
        own = exchange.guard.respond(refusal)
        for name, value in own.lost_from(response.status_code, response.headers):
            response[name] = value
    if not is_refusal(response, exchange):
        exchange.answered = None  # something else answered instead
        exchange.tell_answer(response.status_code)
        # Unless the application has a limiter of its own.
        if exchange.receipt is not None and not any(map(response.has_header, LIMIT_FIELDS)):
            for name, value in exchange.guard.limit_fields(exchange.receipt):
                response[name] = value
        if exchange.retires is not None:
            response[RETIRES_FIELD] = exchange.retires
    if isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse):
        _keep_present(response, exchange)
    return response


def notice_uncaught(**_: object) -> None:
    """Note whether an exception that Django is about to answer with 500 is a refusal.

    Later, only the 500 is visible.
    """
    state = present_request()
    if state is None or state.refusal is None:
        return
    if hides_refusal(state, HTTPStatus.INTERNAL_SERVER_ERROR):
        state.optional = False  # nobody caught it
    else:
        state.refusal = None  # it was caught, and something else failed


def _keep_present(response: StreamingHttpResponse, exchange: RequestState) -> None:
    """Keep the request in place for a stream that begins after the middleware has returned."""
    closers = _closers(response)
    kept = [partial(_closed, close, exchange) for close in closers]
    chunks: Any = response.streaming_content
    response.streaming_content = (
        _AsyncChunks(chunks, exchange) if response.is_async else _Chunks(chunks, exchange)
    )
    closers[:] = kept


def _closers(response: HttpResponseBase) -> list[Callable[[], object]]:
    private: Any = response  # Django has no public name for them
    closers: list[Callable[[], object]] = private._resource_closers
    return closers


def _closed(close: Callable[[], object], exchange: RequestState) -> None:
    present = enter_request(exchange)
    try:
        close()
    finally:
        leave_request(present)


class _Chunks:
    def __init__(self, chunks: Iterator[bytes], exchange: RequestState) -> None:
        self._chunks, self._exchange = chunks, exchange

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        present = enter_request(self._exchange)
        try:
            return next(self._chunks)
        finally:
            leave_request(present)


class _AsyncChunks:
    def __init__(self, chunks: AsyncIterator[bytes], exchange: RequestState) -> None:
        self._chunks, self._exchange = chunks, exchange

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        present = enter_request(self._exchange)
        try:
            return await anext(self._chunks)
        finally:
            leave_request(present)
