"""One WSGI request from the environ to the answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol, TypeAlias

from keyguard.adapters._swallowed import hides_refusal, repeats_refusal
from keyguard.adapters._wsgi_environ import Environ, EnvironReader
from keyguard.core.access.answers import LIMIT_FIELDS, RETIRES_FIELD
from keyguard.core.access.decisions import AccessDenied, Allow, Deny
from keyguard.guard import Keyguard
from keyguard.request.context import enter_request, leave_request
from keyguard.request.ledger import charge_sync, forgive
from keyguard.runtime.sync import run_sync

__all__ = ["Body", "StartResponse", "WSGIExchange"]

ExcInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
)
Write: TypeAlias = Callable[[bytes], object]


class StartResponse(Protocol):
    """The server's ``start_response`` (PEP 3333)."""

    def __call__(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = ..., /
    ) -> Write:
        """Begin an answer, or replace one if ``exc_info`` is given."""
        ...


class WSGIExchange(EnvironReader):
    """One request: its environ, its state, and how a refusal from inside is answered.

    It keeps the environ out of the middleware's own frame. A framework may turn a refusal into a
    500 before the middleware sees the exception; that answer is replaced.

    Attributes:
        started: Whether an answer has begun.
        replacement: The body that replaces the application's, once the request is refused.
    """

    started = False

    def __init__(
        self,
        guard: Keyguard,
        environ: Environ,
        start_response: StartResponse,
        refuse: Callable[[Deny, WSGIExchange], Iterable[bytes]],
    ) -> None:
        self.environ = environ
        # Every request asks for these. Python finds them sooner on the object than on its class.
        self.allow: Allow | None = None
        self.refusal: Deny | None = None
        self.replacement: Iterable[bytes] | None = None
        self.due = self.adds_fields = False
        self.guard = guard
        self.start_response = start_response
        self._refuse = refuse

    def begin(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Write:
        """Begin the application's answer, unless it only hides a refusal."""
        if self.refusal is not None:
            code = int(status[:3])
            if not self.started and hides_refusal(self, code):
                self.replacement = self.answer(self.refusal)
                self.refusal, self.started = None, True
                return _discard
            own = self.guard.respond(self.refusal)
            headers = [*headers, *own.lost_from(code, (name for name, _ in headers))]
            if repeats_refusal(self, code):
                run_sync(forgive(self, self.refusal))
            self.refusal = None  # the application gives an answer of its own
        if self.due:
            # Nothing inside has charged the request: something answers before any route is found.
            refusal = charge_sync(self)
            if refusal is not None:
                self.replacement, self.started = self.answer(refusal), True
                return _discard
        if self.replacement is not None:
            if exc_info is None:
                return _discard
            self.replacement = None  # the application replaces its answer, if the server lets it
        self.started = True
        if self.adds_fields:
            if self.guard.tells_answers:
                self.tell_answer(int(status[:3]))
            headers = self._with_fields(headers)
        start_response = self.start_response  # a call of an attribute takes longer
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    def _with_fields(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        receipt, headers = self.receipt, [*headers]
        if receipt is not None:
            for name, _ in headers:
                if name.lower() in LIMIT_FIELDS:
                    break  # the application has a limiter of its own
            else:
                headers += self.guard.limit_fields(receipt)
        if self.retires is not None:
            headers.append((RETIRES_FIELD, self.retires))
        return headers

    def answer(self, deny: Deny) -> Iterable[bytes]:
        """Return the answer to a refusal from inside the application; it is given once."""
        if self.replacement is not None:
            return self.replacement
        self.report(deny)
        answer = self._refuse(deny, self)
        # Not earlier: if an answer has begun, the server refuses another one by an exception.
        run_sync(forgive(self, deny))
        return answer

    def failure(self) -> tuple[ExcInfo, ...]:
        """Return the argument that lets ``start_response`` replace an answer (PEP 3333)."""
        return (sys.exc_info(),) if self.started else ()


class Body:
    """The application's body. It is iterated with its request in place, and closed once."""

    __slots__ = ("_body", "_chunks", "_exchange", "_replaced")

    def __init__(self, body: Iterable[bytes], exchange: WSGIExchange) -> None:
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
        present = enter_request(exchange)
        try:
            if self._chunks is None:
                self._chunks = iter(self._body or ())
            chunk = next(self._chunks)
        except AccessDenied as refusal:
            exchange.replacement = exchange.answer(refusal.decision)
        except StopIteration:
            if exchange.replacement is None:
                raise
        else:
            if exchange.replacement is None:
                return chunk
        finally:
            leave_request(present)
        self._replaced = True
        self._chunks = iter(exchange.replacement)
        return next(self._chunks)

    def close(self) -> None:
        """Close the application's body, the first time."""
        body, self._body = self._body, None
        present = enter_request(self._exchange)
        try:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        finally:
            leave_request(present)


def _discard(data: bytes) -> None:
    """Ignore what the application writes of an answer that was replaced."""
