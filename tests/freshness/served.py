"""One application behind a server: ``python -m tests.freshness.served wsgi|asgi URL PORT``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def serve_wsgi(url: str, port: int) -> None:
    from wsgiref.simple_server import make_server

    from keyguard import Keyguard
    from keyguard.adapters.wsgi import KeyguardMiddleware

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    app = KeyguardMiddleware(application, guard=Keyguard(url, record_addresses=True))
    with make_server("127.0.0.1", port, app) as server:
        server.serve_forever()


def serve_asgi(url: str, port: int) -> None:
    import uvicorn

    from keyguard import AsyncKeyguard
    from keyguard.adapters.asgi import KeyguardMiddleware

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": message["type"] + ".complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    app: Any = KeyguardMiddleware(application, guard=AsyncKeyguard(url, record_addresses=True))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    {"wsgi": serve_wsgi, "asgi": serve_asgi}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
