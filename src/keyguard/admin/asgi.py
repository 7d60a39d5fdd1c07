"""The ASGI front end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from werkzeug.datastructures import Headers

from keyguard.adapters._asgi_scope import Receive, Scope, ScopeReader, Send
from keyguard.admin.application import Application
from keyguard.admin.exchange import LARGEST_BODY, Problem, call_of, too_large
from keyguard.admin.headers import protected
from keyguard.core.access.decisions import AccessDenied
from keyguard.exceptions import ConfigurationError, shown


class ASGIApplication:
    """An application of this room for ASGI.

    Args:
        application: What answers.
    """

    lets_in_itself = True
    """Tells the middleware that what is mounted here decides by itself who may come in."""

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; a mounted application gets no lifespan of its own."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            raise ConfigurationError(f"this serves no ASGI scope of type {shown(scope['type'])}")
        state = ScopeReader()
        state.scope = scope
        try:
            call = call_of(
                state,
                self.application.guard,
                host=scope,
                mount=scope.get("root_path", ""),
                query=scope.get("query_string", b""),
                headers=Headers(
                    [
                        (name.decode("latin-1"), value.decode("latin-1"))
                        for name, value in scope["headers"]
                    ]
                ),
                read=_reader(receive),
            )
            del scope  # it holds the token: a traceback that passes here must not show it
        except AccessDenied as denied:
            answer = protected(self.application.guard.respond(denied.decision))
        else:
            answer = await self.application.answer(call)
        body = b"" if state.method == "HEAD" else answer.body
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [*answer.encoded_headers],
            }
        )
        await send({"type": "http.response.body", "body": body})


def _reader(receive: Receive) -> Callable[[], Awaitable[bytes]]:
    async def read() -> bytes:
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise Problem(
                    400, "The client closed the connection before it had sent the whole body."
                )
            body += message.get("body", b"")
            if len(body) > LARGEST_BODY:
                raise too_large()
            more = message.get("more_body", False)
        return body

    return read


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
