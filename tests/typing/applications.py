"""An application in each framework, as type checkers see it. Checked, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, assert_type

from django.http import HttpRequest, HttpResponse
from django.views import View
from fastapi import FastAPI, Security
from flask import Flask
from flask.views import MethodView
from rest_framework.permissions import IsAdminUser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request as StarletteRequest

from keyguard import (
    AsyncKeyguard,
    Keyguard,
    Limit,
    Principal,
    current_principal,
    rate_limit,
    require_organization,
    require_scopes,
)
from keyguard.adapters import asgi, wsgi
from keyguard.adapters.django import ScopesRequiredMixin
from keyguard.adapters.fastapi import KeyguardPrincipal, describe, keyguard_principal
from keyguard.adapters.flask import FlaskKeyguard
from keyguard.adapters.flask import current_principal as flask_principal
from keyguard.adapters.rest_framework import HasScopes, KeyguardAuthentication
from keyguard.adapters.starlette import KeyguardMiddleware, KeyguardUser
from keyguard.testing import ApiKey, MemoryGuards, acting_as, make_principal

# What is decorated keeps its type: its parameters, its result, and what it is.


@require_scopes("a")
@rate_limit("9/minute")
def function(number: int, *, text: str = "") -> list[str]:
    return [text] * number


@rate_limit(Limit("daily", "9/day"))
@require_scopes(any_of=["a", "b"])
async def coroutine(number: int, *, text: str = "") -> list[str]:
    return [text] * number


@require_scopes("a")
def generator(number: int) -> Iterator[int]:
    yield number


@require_scopes("a")
async def async_generator(number: int) -> AsyncIterator[int]:
    yield number


class Reports:
    @require_scopes("a")
    def method(self, number: int) -> int:
        return number

    @classmethod
    @require_scopes("a")
    def class_method(cls, number: int) -> int:
        return number

    @staticmethod
    @rate_limit("9/minute", per="organization", cost=lambda request: len(request.path))
    def static_method(number: int) -> int:
        return number


assert_type(function(1, text="a"), list[str])
assert_type(generator(1), Iterator[int])
assert_type(async_generator(1), AsyncIterator[int])
assert_type(Reports().method(1), int)
assert_type(Reports.class_method(1), int)
assert_type(Reports.static_method(1), int)
function("1")  # type: ignore[arg-type]
function(1, txt="a")  # type: ignore[call-arg]
Reports().method("1")  # type: ignore[arg-type]


async def use() -> None:
    assert_type(await coroutine(1, text="a"), list[str])
    await coroutine("1")  # type: ignore[arg-type]
    async for number in async_generator(1):
        assert_type(number, int)


# Starlette


@require_scopes("a")
class Endpoint(HTTPEndpoint):
    async def get(self, request: StarletteRequest) -> None:
        assert isinstance(request.user, KeyguardUser)
        assert_type(request.user.principal, Principal)


starlette_endpoint: type[Endpoint] = Endpoint

# FastAPI

Writer = Annotated[Principal, Security(keyguard_principal, scopes=["a"])]
Somebody = Annotated[Principal | None, Security(KeyguardPrincipal(auto_error=False))]


@require_scopes("a")
async def operation(writer: Writer, somebody: Somebody) -> str:
    assert_type(writer, Principal)
    assert_type(somebody, Principal | None)
    return writer.organization


def serve(app: FastAPI, guard: AsyncKeyguard) -> None:
    app.add_middleware(KeyguardMiddleware, guard=guard, public=["/healthz"])
    app.post("/v1/inference")(operation)
    describe(app)
    asgi.KeyguardMiddleware(app, guard)
    KeyguardMiddleware(app, Keyguard("memory://"))  # type: ignore[arg-type]  # it is for sync code


# Flask


class FlaskReports(MethodView):
    decorators = [require_scopes("a")]  # noqa: RUF012 - Flask's own type is a list

    @require_scopes("b")
    def delete(self, report: int) -> str:
        assert_type(flask_principal, Principal)
        require_organization(flask_principal.organization)
        return str(report)


def create_app(guard: Keyguard) -> Flask:
    app = Flask(__name__)
    FlaskKeyguard(guard=guard).init_app(app)
    app.add_url_rule("/reports/<int:report>", view_func=FlaskReports.as_view("reports"))
    wsgi.KeyguardMiddleware(app.wsgi_app, guard)
    return app


# Django and Django REST Framework


@require_scopes("a")
def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(current_principal().key_id)


class DjangoReports(ScopesRequiredMixin, View):
    required_scopes = ("a",)

    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.path)


@rate_limit("60/minute")
class RestReports(APIView):
    authentication_classes = (KeyguardAuthentication,)
    permission_classes = (HasScopes("a") | IsAdminUser, HasScopes("a"))

    def get(self, request: Request) -> Response:
        return Response({"path": request.path, "key": current_principal().key_id})


# Tests


def test_writer(memory_guards: MemoryGuards) -> None:
    assert_type(memory_guards.guard, Keyguard)
    assert_type(memory_guards.async_guard, AsyncKeyguard)
    assert_type(memory_guards.issue(scopes=["a"]), ApiKey)
    assert_type(memory_guards.issue().headers, dict[str, str])
    assert_type(memory_guards.with_settings(realm="AIaaS"), MemoryGuards)
    memory_guards.with_settings(raelm="AIaaS")  # type: ignore[call-arg]
    with acting_as(make_principal(["a"]), guard=memory_guards.guard) as principal:
        assert_type(principal, Principal)
