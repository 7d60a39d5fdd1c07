"""The applications that :mod:`~benchmarks.end_to_end` serves with uvicorn.

``CASE`` in the environment names one, ``STORE`` is the URL of its key store, and the application
writes a token that it lets in to the file ``TOKEN_FILE`` as it starts.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request

from benchmarks import contestants
from keyguard import AsyncKeyguard, Limit, require_scopes
from keyguard.adapters.starlette import KeyguardMiddleware

__all__ = ["CASES", "create_app"]

SCOPE = "inference:read"
RATE = "10000000/minute"
TOKEN = "a-token-of-the-hand-written-middleware"


class HandWritten(contestants.HandWrittenAsgi):
    """The hand-written middleware, which lets the lifespan pass."""

    def __init__(self, app: Any) -> None:
        super().__init__(app, {sha256(TOKEN.encode()).hexdigest(): "acme"})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await super().__call__(scope, receive, send)


def bare() -> Starlette:
    return contestants.starlette_app(lifespan=_telling)


def hand_written() -> Starlette:
    return contestants.starlette_app(lifespan=_telling, middleware=[Middleware(HandWritten)])


def slowapi() -> Starlette:
    return contestants.slowapi_app(
        RATE,
        headers=True,
        key_func=_sender,
        lifespan=_telling,
        middleware=[Middleware(HandWritten)],
    )


def guarded() -> Starlette:
    return _guarded()


def limited() -> Starlette:
    # A request that the store does not count must not be answered with 200.
    patient = {"limiter_timeout": 10.0, "on_limiter_error": "closed"}
    return _guarded(default_limits=[Limit("minute", RATE)], **patient)


CASES: dict[str, Callable[[], Starlette]] = {
    "bare": bare,
    "hand-written": hand_written,
    "slowapi": slowapi,
    "guarded": guarded,
    "limited": limited,
}


def create_app() -> Starlette:
    return CASES[os.environ["CASE"]]()


def _guarded(**options: Any) -> Starlette:
    guard = AsyncKeyguard(os.environ["STORE"], **options)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with guard:
            await guard.migrate()
            await guard.organizations.create("acme")
            issued = await guard.keys.issue(organization="acme", name="benchmark", scopes=[SCOPE])
            _tell(issued.token.reveal())
            yield

    middleware = [Middleware(KeyguardMiddleware, guard=guard)]
    return contestants.starlette_app(
        require_scopes(SCOPE), lifespan=lifespan, middleware=middleware
    )


@asynccontextmanager
async def _telling(_app: Starlette) -> AsyncGenerator[None]:
    _tell(TOKEN)
    yield


def _tell(token: str) -> None:
    Path(os.environ["TOKEN_FILE"]).write_text(token, encoding="ascii")


def _sender(request: Request) -> str:
    return request.headers["authorization"]
