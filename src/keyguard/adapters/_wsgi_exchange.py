"""One WSGI request: who it is, and how it is answered."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from keyguard.adapters._wsgi_connection import Connection, Environ
from keyguard.core.access.answers import LIMIT_FIELDS, RETIRES_FIELD
from keyguard.core.access.charging import Charged
from keyguard.core.access.decisions import AccessDenied, Allow, Deny
from keyguard.request.context import ACCESS, Access
from keyguard.stores.failover import CircuitBreaker

if TYPE_CHECKING:
    from keyguard.adapters.wsgi import KeyguardMiddleware

__all__ = ["Body", "Exchange", "StartResponse"]

StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]


class Exchange(Connection, Access):
    """One request: who it is, and how it is answered where a decorator refuses it.

    It keeps the environ out of the middleware's own frame. A framework may turn the refusal into a
    500 before the middleware sees the exception; that answer is replaced.

    Attributes:
        environ: The request.
        start_response: The server's.
        started: Whether the application has begun to answer.
        instead: The body that replaces the application's, once it is refused.
    """

    started = False
    instead: Iterable[bytes] | None = None

    def __init__(
        self, middleware: KeyguardMiddleware, environ: Environ, start_response: StartResponse
    ) -> None:
        self.environ = environ
        # What every request asks for is found sooner on the object than on its class.
        self.allow: Allow | None = None
        self.denied: Deny | None = None
        self.charged: Charged | None = None
        self.retires: str | None = None
        self.instead: Iterable[bytes] | None = None
        self.due = self.started = False
        self.start_response = start_response
        self._middleware = middleware

    @property
    def breaker(self) -> CircuitBreaker:
        """The way to where counters live."""
        return self._middleware.guard.breaker

    def report_exceeded(self, charged: Charged) -> None:
        """Tell of limits in shadow mode that had no room."""
        self._middleware.guard.report_exceeded(charged, self.address)

    def begin(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Start the application's answer, unless it only hides a refusal."""
        if self.denied is not None:
            if not self.started and self.hides_refusal(int(status[:3])):
                self.instead = self.refuse(self.denied)
                self.denied, self.started = None, True
                return _discard
            if self.repeats_refusal(int(status[:3])):
                self.forgive(self.denied)
            self.denied = None  # the application answers as it sees fit
        if self.due:
            # Nobody inside has charged it: something answers before any route is found.
            refusal = self.charge()
            if refusal is not None:
                self.instead, self.started = self.refuse(refusal), True
                return _discard
        if self.instead is not None:
            if exc_info is None:
                return _discard
            self.instead = None  # it takes its answer back, and the server lets it if it can
        self.started = True
        if self.charged is not None:
            headers = self._with_limit_fields(headers, self.charged)
        if self.retires is not None:
            headers = [*headers, (RETIRES_FIELD, self.retires)]
        if exc_info is None:
            return self.start_response(status, headers)
        return self.start_response(status, headers, exc_info)

    def _with_limit_fields(
        self, headers: list[tuple[str, str]], charged: Charged
    ) -> list[tuple[str, str]]:
        for name, _ in headers:
            if name.lower() in LIMIT_FIELDS:
                return headers  # the application has a limiter of its own
        return [*headers, *self._middleware.guard.limit_fields(charged)]

    def refuse(self, deny: Deny) -> Iterable[bytes]:
        """Answer a refusal that a decorator raised, once."""
        if self.instead is not None:
            return self.instead
        guard = self._middleware.guard
        guard.report(deny, address=self.address)
        answer = self._middleware.refuse(deny, self)
        self.forgive(deny)  # unless an answer was under way, so that the server refused another
        return answer

    def failure(self) -> tuple[Any, ...]:
        """Return what makes ``start_response`` replace an answer that was begun (PEP 3333)."""
        return (sys.exc_info(),) if self.started else ()


class Body:
    """The application's body, iterated with its principal in place, closed once."""

    __slots__ = ("_body", "_chunks", "_exchange", "_replaced")

    def __init__(self, body: Iterable[bytes], exchange: Exchange) -> None:
        self._body: Iterable[bytes] | None = body
        self._chunks: Iterator[bytes] | None = None
        self._exchange = exchange
        self._replaced = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._replaced and self._chunks is not None:
            return next(self._chunks)
        exchange = self._exchange
        present = ACCESS.set(exchange)
        try:
            if self._chunks is None:
                self._chunks = iter(self._body or ())
            chunk = next(self._chunks)
        except AccessDenied as refusal:
            exchange.instead = exchange.refuse(refusal.decision)
        except StopIteration:
            if exchange.instead is None:
                raise
        else:
            if exchange.instead is None:
                return chunk
        finally:
            ACCESS.reset(present)
        self._replaced = True
        self._chunks = iter(exchange.instead)
        return next(self._chunks)

    def close(self) -> None:
        """Close the application's body, the first time."""
        body, self._body = self._body, None
        present = ACCESS.set(self._exchange)
        try:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        finally:
            ACCESS.reset(present)


def _discard(data: bytes) -> None:
    """Take what the application writes of an answer that was replaced."""
