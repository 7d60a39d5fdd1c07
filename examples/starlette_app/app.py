"""AIaaS on Starlette."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from examples import aiaas
from keyguard import (
    AsyncKeyguard,
    InvalidValueError,
    current_principal,
    rate_limit,
    require_scopes,
)
from keyguard.adapters.starlette import KeyguardMiddleware
from keyguard.admin import Console
from keyguard.telemetry.prometheus import instrument


def create_app(url: str | None = None) -> Starlette:
    guard = AsyncKeyguard(url or aiaas.store_url(), settings=aiaas.settings())
    registry = CollectorRegistry()
    instrument(guard, registry=registry)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with guard:
            await guard.migrate()
            yield

    app = Starlette(
        routes=[
            Route("/healthz", health),
            Route(aiaas.METRICS, metrics),
            Route("/v1/models", models),
            Route("/v1/inference", inference, methods=["POST"]),
            Route("/v1/analytics/usage", usage),
            Route("/v1/usage/me", own_usage),
            Route("/v1/admin/keys", keys),
            Mount("/keys", Console(guard, key_sign_in=True)),  # it has a sign-in of its own
        ],
        middleware=[
            # It stands outside: it answers preflights, which carry no key, and marks refusals.
            Middleware(
                CORSMiddleware,
                allow_origins=[aiaas.ORIGIN],
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization"],
                expose_headers=aiaas.EXPOSED,
            ),
            Middleware(KeyguardMiddleware, guard=guard),
        ],
        exception_handlers={
            aiaas.UnprocessableError: unprocessable,
            InvalidValueError: unprocessable,  # a parameter that the guard refuses
        },
        lifespan=lifespan,
    )
    app.state.guard, app.state.registry = guard, registry
    return app


async def health(_request: Request) -> Response:
    return answer(aiaas.HEALTH)


async def metrics(request: Request) -> Response:
    exposition = generate_latest(request.app.state.registry)
    return Response(exposition, headers={"Content-Type": CONTENT_TYPE_LATEST})


@require_scopes("inference:read")
async def models(_request: Request) -> Response:
    return answer(aiaas.MODELS)


@require_scopes("inference:write")
@rate_limit("60/minute")
async def inference(request: Request) -> Response:
    return answer(aiaas.infer(await request.body()))


@require_scopes("analytics:read")
async def usage(request: Request) -> Response:
    asked = aiaas.report_asked_for(request.scope["query_string"])
    own = current_principal().organization
    report = await request.app.state.guard.usage.report(organization=own, **asked)
    return answer(aiaas.usage_of(own, report))


async def own_usage(request: Request) -> Response:
    principal = current_principal()
    own = await request.app.state.guard.usage.mine(principal)
    return answer(aiaas.own_usage(principal, own))


@require_scopes("admin")
async def keys(request: Request) -> Response:
    asked = aiaas.page_asked_for(request.scope["query_string"])
    own = current_principal().organization
    return answer(aiaas.list_of(await request.app.state.guard.keys.list(organization=own, **asked)))


async def unprocessable(_request: Request, error: Exception) -> Response:
    return Response(aiaas.problem(error), 422, media_type=aiaas.PROBLEM_JSON)


def answer(content: dict[str, Any]) -> Response:
    return Response(aiaas.dump(content), media_type=aiaas.JSON)
