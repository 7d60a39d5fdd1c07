"""What each framework's adapter adds to a bare application, compared with the pure adapter.

Each framework has one function, from the two guards to a :class:`Trial`, listed in TRIALS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Security
from fastapi.responses import PlainTextResponse
from starlette.middleware import Middleware

from benchmarks import contestants, django_app
from benchmarks.calls import PATH
from keyguard import AsyncKeyguard, Keyguard, require_scopes
from keyguard.adapters import asgi, fastapi, starlette, wsgi
from keyguard.adapters.flask import FlaskKeyguard

SCOPE = "inference:read"


@dataclass(frozen=True)
class Trial:
    """One application three times. Its one endpoint asks for a scope where it is guarded.

    Args:
        name: What the row is called.
        interface: ``"asgi"`` or ``"wsgi"``.
        bare: Without keyguard.
        pure: With the pure adapter around it.
        adapter: With the framework's own.
    """

    name: str
    interface: str
    bare: Any
    pure: Any
    adapter: Any


def starlette_trial(_guard: Keyguard, async_guard: AsyncKeyguard) -> Trial:
    scoped = require_scopes(SCOPE)
    middleware = [Middleware(starlette.KeyguardMiddleware, guard=async_guard)]
    return Trial(
        "Starlette",
        "asgi",
        bare=contestants.starlette_app(),
        pure=asgi.KeyguardMiddleware(contestants.starlette_app(scoped), async_guard),
        adapter=contestants.starlette_app(scoped, middleware=middleware),
    )


def fastapi_trial(_guard: Keyguard, async_guard: AsyncKeyguard) -> Trial:
    scoped = require_scopes(SCOPE)
    middleware = [Middleware(fastapi.KeyguardMiddleware, guard=async_guard)]
    return Trial(
        "FastAPI, decorator",
        "asgi",
        bare=_fastapi_app(),
        pure=asgi.KeyguardMiddleware(_fastapi_app(scoped), async_guard),
        adapter=_fastapi_app(scoped, middleware=middleware),
    )


def fastapi_dependency_trial(_guard: Keyguard, async_guard: AsyncKeyguard) -> Trial:
    """Give the bare application a dependency that does nothing, as that is FastAPI's own cost."""
    scoped = require_scopes(SCOPE)
    asked = Security(fastapi.keyguard_principal, scopes=[SCOPE])
    middleware = [Middleware(fastapi.KeyguardMiddleware, guard=async_guard)]
    return Trial(
        "FastAPI, dependency",
        "asgi",
        bare=_fastapi_app(dependency=Depends(_nothing)),
        pure=asgi.KeyguardMiddleware(
            _fastapi_app(scoped, dependency=Depends(_nothing)), async_guard
        ),
        adapter=_fastapi_app(dependency=asked, middleware=middleware),
    )


def flask_trial(guard: Keyguard, _async_guard: AsyncKeyguard) -> Trial:
    scoped = require_scopes(SCOPE)
    adapter = contestants.flask_app(scoped)
    FlaskKeyguard(adapter, guard)
    return Trial(
        "Flask",
        "wsgi",
        bare=contestants.flask_app(),
        pure=wsgi.KeyguardMiddleware(contestants.flask_app(scoped), guard),
        adapter=adapter,
    )


TRIALS: list[Callable[[Keyguard, AsyncKeyguard], Trial]] = [
    starlette_trial,
    fastapi_trial,
    fastapi_dependency_trial,
    flask_trial,
    lambda guard, async_guard: Trial(*django_app.django_wsgi(guard, async_guard)),
    lambda guard, async_guard: Trial(*django_app.django_asgi(guard, async_guard)),
]


async def _nothing() -> None:
    pass


def _fastapi_app(protect: Any = None, *, dependency: Any = None, **options: Any) -> FastAPI:
    async def models() -> PlainTextResponse:
        return PlainTextResponse("ok")

    async def asking(_principal: Annotated[Any, dependency]) -> PlainTextResponse:
        return PlainTextResponse("ok")

    endpoint = models if dependency is None else asking
    app = FastAPI(**options)
    app.get(PATH)(protect(endpoint) if protect else endpoint)
    return app
