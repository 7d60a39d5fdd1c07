"""The WSGI front end (PEP 3333)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from werkzeug.datastructures import EnvironHeaders, Headers

from keyguard.adapters._wsgi_environ import Environ, EnvironReader
from keyguard.adapters._wsgi_exchange import StartResponse
from keyguard.admin.application import Application
from keyguard.admin.exchange import LARGEST_BODY, Problem, call_of, too_large
from keyguard.admin.headers import protected
from keyguard.core.access.decisions import AccessDenied
from keyguard.runtime.sync import run_sync


class WSGIApplication:
    """An application of this room for WSGI.

    Args:
        application: What answers.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        state = EnvironReader()
        state.environ = environ
        try:
            call = call_of(
                state,
                self.application.guard,
                host=environ,
                mount=environ.get("SCRIPT_NAME", "").encode("latin-1").decode(errors="replace"),
                query=environ.get("QUERY_STRING", "").encode("latin-1"),
                headers=Headers(EnvironHeaders(environ)),
                read=_reader(environ),
            )
            del environ  # it holds the token: a traceback that passes here must not show it
        except AccessDenied as denied:
            answer = protected(self.application.guard.respond(denied.decision))
        else:
            answer = run_sync(self.application.answer(call))
        start_response(answer.status_line, [*answer.headers])
        return [b"" if state.method == "HEAD" else answer.body]


def _reader(environ: Environ) -> Callable[[], Awaitable[bytes]]:
    async def read() -> bytes:
        length = environ.get("CONTENT_LENGTH") or "0"
        if environ.get("wsgi.input_terminated"):
            length = str(LARGEST_BODY + 1)  # the server ends the body; it may have no length
        elif not length.isdecimal():
            raise Problem(400, "Content-Length takes a number.")
        left = min(int(length), LARGEST_BODY + 1)
        body = b""
        while left:
            part: bytes = environ["wsgi.input"].read(left)
            if not part:
                break
            body, left = body + part, left - len(part)
        if len(body) > LARGEST_BODY:
            raise too_large()
        return body

    return read
