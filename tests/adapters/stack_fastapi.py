"""The service behind FastAPI, which asks for scopes with dependencies, and for limits as others."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Request, Security
from fastapi.responses import PlainTextResponse

from keyguard import Principal
from keyguard.adapters.fastapi import KeyguardMiddleware, describe, keyguard_principal
from tests.world import World

Writer = Annotated[Principal, Security(keyguard_principal, scopes=["inference:write"])]


def fastapi_app(reads: list[str], world: World) -> FastAPI:
    from tests.adapters.stacks import DECORATED, PATHS, serve

    app = FastAPI()
    router = APIRouter(default_response_class=PlainTextResponse)

    async def endpoint(request: Request) -> str:
        reads.append(request.url.path)
        return serve(request.url.path) or "nothing"

    def plain(function: Callable[[], str]) -> Any:
        @wraps(function)
        async def decorated() -> str:
            reads.append("decorated")
            return function()

        return decorated

    @app.middleware("http")
    async def note(request: Request, call_next: Any) -> Any:
        reads.append(request.url.path)  # a dependency refuses before the endpoint
        return await call_next(request)

    for path in ("/write", "/open/write"):

        @router.get(path)
        async def write(principal: Writer) -> str:
            return "written by " + principal.key_id

    for path in PATHS:
        if not path.endswith("/write"):
            router.get(path)(endpoint)
    for path, function in DECORATED.items():
        router.get(path)(plain(function))
    for route in router.routes:
        route.methods.add("HEAD")  # type: ignore[attr-defined]  # which Starlette adds by itself
    app.include_router(router)
    app.add_middleware(KeyguardMiddleware, guard=world.async_guard)
    describe(app)
    return app
