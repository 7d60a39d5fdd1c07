"""Keyguard in front of any WSGI application (PEP 3333)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from keyguard.adapters._endpoints import check_endpoints
from keyguard.context import ACCESS, Access
from keyguard.exceptions import ConfigurationError
from keyguard.guard import Keyguard
from keyguard.ratelimit.gates import Gate
from keyguard.sansio.charges import NO_LIMITS
from keyguard.sansio.charging import Charged
from keyguard.sansio.decisions import AccessDenied, Allow, Deny
from keyguard.sansio.requests import CREDENTIAL_FIELDS, Request
from keyguard.sansio.responses import LIMIT_FIELDS, RETIRES_FIELD
from keyguard.sansio.rules import PublicPaths
from keyguard.upkeep import flush_on_sigterm

__all__ = ["Environ", "Exchange", "KeyguardMiddleware", "StartResponse", "WSGIApp"]

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]
WSGIApp: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]


_WHOLE = (list, tuple)  # bodies behind which nothing of the application runs any more


class KeyguardMiddleware:
    """Let only requests with a live key through to a WSGI application.

    The application finds the principal in ``environ["keyguard.principal"]`` (None on a public path)
    and through :func:`keyguard.current_principal`, also while its body is iterated.

    Args:
        app: The application.
        guard: Who decides.
        public: Exact paths that need no key; by default those of the guard's settings.

    Raises:
        ConfigurationError: The guard is no :class:`~keyguard.Keyguard`.
        InvalidValueError: A public path is none, or the application requires a scope that the
            guard's catalogue does not know.
    """

    defers = False
    """Whether somebody further inside, who knows the route, charges what is due."""

    def __init__(
        self, app: WSGIApp, guard: Keyguard, *, public: Iterable[str] | None = None
    ) -> None:
        if not isinstance(guard, Keyguard):
            raise ConfigurationError(
                f"a WSGI application takes a Keyguard, not {type(guard).__name__}"
            )
        check_endpoints(app, guard.policy.catalogue)
        flush_on_sigterm()
        self.app = app
        self.guard = guard
        self._recall = guard._recall
        self._require_https = guard.policy.require_https
        paths = PublicPaths(guard.settings.public if public is None else public).paths
        self._public = PublicPaths(path.encode().decode("latin-1") for path in paths)
        self._public_paths = self._public.paths

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        public = environ.get("PATH_INFO") in self._public_paths and self._is_public(environ)
        exchange = Exchange(self, environ, start_response)
        del environ  # it holds the token: a traceback that passes here must not show it
        principal = None
        if not public:
            allow = self._known(exchange.environ)
            if allow is None:
                decision = self.guard.authenticate(
                    exchange.fields(), secure=exchange.is_secure, address=exchange.address
                )
                if not isinstance(decision, Allow):
                    return self.refuse(decision, exchange)
                allow = decision
            exchange.allow = allow
            exchange.retires = allow.retires
            principal = allow.principal
            if allow.limits is not NO_LIMITS:
                exchange.due = True
                refusal = None if self.defers else exchange.charge()
                if refusal is not None:
                    self.guard.report(refusal, address=exchange.address)
                    return self.refuse(refusal, exchange)
        exchange.environ["keyguard.principal"] = principal
        present = ACCESS.set(exchange)
        try:
            body = self.app(exchange.environ, exchange.begin)
        except AccessDenied as refusal:
            return exchange.refuse(refusal.decision)
        finally:
            ACCESS.reset(present)
        if exchange.instead is not None:
            _Body(body, exchange).close()
            return exchange.instead
        if isinstance(body, _WHOLE) or _is_file(body, exchange.environ):
            return body
        return _Body(body, exchange)

    def refuse(self, deny: Deny, exchange: Exchange) -> Iterable[bytes]:
        """Answer a refused request, whose body is not read.

        Args:
            deny: The refusal.
            exchange: The request, and the server's ``start_response``.
        """
        response = self.guard.respond(deny)
        exchange.start_response(response.status_line, list(response.headers), *exchange.failure())
        return [] if exchange.environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    def _is_public(self, environ: Environ) -> bool:
        target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
        raw_path = target.partition("?")[0].encode("latin-1", "replace")
        return self._public.admits(environ["PATH_INFO"], raw_path)

    def _known(self, environ: Environ) -> Allow | None:
        field = environ.get("HTTP_AUTHORIZATION")
        if field is None or (self._require_https and environ["wsgi.url_scheme"] != "https"):
            return None
        return self._recall(field.encode("latin-1", "replace"))


class Exchange(Access):
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
        self.start_response = start_response
        self._middleware = middleware

    def fields(self) -> list[str]:
        """Return the ``Authorization`` field values; a server joins several with commas."""
        field = self.environ.get("HTTP_AUTHORIZATION")
        return [] if field is None else [field]

    @property
    def is_secure(self) -> bool:
        """Whether the request came over HTTPS."""
        return bool(self.environ["wsgi.url_scheme"] == "https")

    @property
    def address(self) -> str | None:
        """The client's address, where the server says."""
        return self.environ.get("REMOTE_ADDR") or None

    @property
    def gate(self) -> Gate:
        """The way to where counters live."""
        return self._middleware.guard.gate

    def request(self) -> Request:
        """Return what the functions of limits get to see of the request."""
        environ = self.environ
        headers = {
            name[5:].replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if environ.get(name):
                headers[name.replace("_", "-").lower()] = environ[name]
        for name in CREDENTIAL_FIELDS:
            headers.pop(name, None)
        path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace")
        return Request(
            method=environ["REQUEST_METHOD"],
            path=path,
            query=environ.get("QUERY_STRING", ""),
            headers=headers,
            address=self.address,
        )

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
            self.denied = None  # the application answers as it sees fit
        elif self.due:
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
        return self._middleware.refuse(deny, self)

    def failure(self) -> tuple[Any, ...]:
        """Return what makes ``start_response`` replace an answer that was begun (PEP 3333)."""
        return (sys.exc_info(),) if self.started else ()


class _Body:
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


def _is_file(body: object, environ: Environ) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)
