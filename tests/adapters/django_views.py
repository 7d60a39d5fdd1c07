"""Django's views of every kind, each with something of keyguard's."""
# ruff: noqa: RUF012 - as users of both frameworks write it

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

from tests.adapters import django_site  # isort: skip # sets Django up, which the next ones need

from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_control, cache_page
from rest_framework.decorators import api_view, authentication_classes, permission_classes
from rest_framework.permissions import AllowAny, BasePermission, IsAuthenticated
from rest_framework.renderers import BrowsableAPIRenderer, JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from keyguard import AccessDenied, current_principal, rate_limit, require_scopes
from keyguard.adapters.django import ScopesRequiredMixin
from keyguard.adapters.rest_framework import HasScopes, KeyguardAuthentication

assert django_site.settings.configured

STREAMED: list[str] = []
"""Who a stream was for when it ended."""


def who(request: Any) -> HttpResponse:
    principal = request.principal
    if principal is not None:
        assert principal == current_principal()
    return HttpResponse("nobody" if principal is None else principal.key_id)


@require_scopes("inference:write")
async def who_async(request: Any) -> HttpResponse:
    await asyncio.sleep(0)
    return who(request)


@require_scopes("inference:write")
class Decorated(View):
    def get(self, request: Any) -> HttpResponse:
        return who(request)


class DecoratedMethod(View):
    @method_decorator(require_scopes("inference:write"))
    def get(self, request: Any) -> HttpResponse:
        return who(request)


@method_decorator(require_scopes("inference:write"), name="dispatch")
class DecoratedDispatch(View):
    def get(self, request: Any) -> HttpResponse:
        return who(request)


@require_scopes("inference:write")
class AsyncDecorated(View):
    async def get(self, request: Any) -> HttpResponse:
        return who(request)


class Mixed(ScopesRequiredMixin, View):
    required_scopes = ["inference:write"]

    def get(self, request: Any) -> HttpResponse:
        return who(request)


class AsyncMixed(ScopesRequiredMixin, View):
    required_any_of = ["inference:write", "admin"]

    async def get(self, request: Any) -> HttpResponse:
        return who(request)


@rate_limit("2/minute")
class Limited(View):
    def get(self, request: Any) -> HttpResponse:
        return who(request)


class LimitedMethod(View):
    @method_decorator(rate_limit("2/minute"))
    def get(self, request: Any) -> HttpResponse:
        return who(request)


@method_decorator(rate_limit("2/minute", name="named"), name="dispatch")
class LimitedByName(View):
    def get(self, request: Any) -> HttpResponse:
        return who(request)


@rate_limit("2/minute")
async def limited_async(request: Any) -> HttpResponse:
    return who(request)


def stream(request: Any) -> StreamingHttpResponse:
    def chunks() -> Iterator[str]:
        try:
            yield current_principal().key_id
            yield "."
        finally:
            STREAMED.append(current_principal().key_id)

    return StreamingHttpResponse(chunks())


async def stream_async(request: Any) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[str]:
        yield current_principal().key_id
        await asyncio.sleep(0)
        yield "."
        STREAMED.append(current_principal().key_id)

    return StreamingHttpResponse(chunks())


def file(request: Any) -> FileResponse:
    return FileResponse(Path(__file__).open("rb"))


class _Secret:
    @property
    @require_scopes("admin")
    def word(self) -> str:
        return "xyzzy"


def template(request: Any) -> TemplateResponse:
    found = engines["django"].from_string("{{ secret.word }}")
    return TemplateResponse(request, found, {"secret": _Secret()})  # type: ignore[arg-type]


def atomic(request: Any) -> HttpResponse:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO kept VALUES (1)")
        need_admin()
    return HttpResponse("kept")


async def group(request: Any) -> HttpResponse:
    async def refused() -> None:
        need_admin()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(refused())
    return HttpResponse()


def caught(request: Any) -> HttpResponse:
    try:
        need_admin()
    except AccessDenied:
        return HttpResponse("without", status=203)
    return HttpResponse("with")


def forbidden(request: Any) -> HttpResponse:
    raise PermissionDenied


def meta(request: Any) -> HttpResponse:
    values = [request.META.get("HTTP_X_KEY_ID"), request.headers.get("X-Key-Id")]
    if hasattr(request, "scope"):
        sent = dict(request.scope["headers"])
        values.append(sent.get(b"x-key-id", b"None").decode())
    return HttpResponse(",".join(map(str, values)))


def broken(request: Any) -> HttpResponse:
    raise RuntimeError("broken")


@require_scopes("admin")
def need_admin() -> None: ...


def answering(view: Any) -> Any:
    """Put in front of a view what answers in its place, and seems to be it, as a cache does."""

    @wraps(view)
    def wrapper(request: Any) -> HttpResponse:
        return HttpResponse("kept from before")

    return wrapper


def handler403(request: Any, exception: Exception) -> HttpResponse:
    return HttpResponse("the application's own", status=403)


class Rest(APIView):
    authentication_classes = [KeyguardAuthentication]
    permission_classes = [HasScopes("inference:write")]

    def get(self, request: Any) -> Response:
        return Response([request.user.pk, request.auth.key_id, request.principal.key_id])


class RestDecorated(APIView):
    authentication_classes = [KeyguardAuthentication]

    @require_scopes("inference:write")
    def get(self, request: Any) -> Response:
        return Response(str(request.user))


class RestByMethod(APIView):
    """Whom it lets write, the browsable API shows the form to."""

    authentication_classes = [KeyguardAuthentication]
    renderer_classes = [JSONRenderer, BrowsableAPIRenderer]

    def get_permissions(self) -> Any:
        writes = self.request.method in {"POST", "PUT"}
        return [HasScopes("inference:write" if writes else "inference:read")]

    def get(self, request: Any) -> Response:
        return Response("read")

    def post(self, request: Any) -> Response:
        return Response("written")


class _Never(BasePermission):
    def has_permission(self, request: Any, view: Any) -> bool:
        return False


class RestCombined(APIView):
    authentication_classes = [KeyguardAuthentication]
    permission_classes = [
        (HasScopes("admin") | HasScopes(any_of=["inference:write"]))  # type: ignore[list-item]
        & (HasScopes("admin") | AllowAny)
        & ~HasScopes("admin")
    ]

    def get(self, request: Any) -> Response:
        return Response("combined")


class RestOpen(APIView):
    authentication_classes = [KeyguardAuthentication]
    permission_classes = [IsAuthenticated]

    def get(self, request: Any) -> Response:
        return Response("authenticated")


class RestSet(ViewSet):
    authentication_classes = [KeyguardAuthentication]
    permission_classes = [HasScopes("inference:write")]

    @rate_limit("2/minute")
    def list(self, request: Any) -> Response:
        return Response("listed")


@api_view(["GET"])
@authentication_classes([KeyguardAuthentication])
@permission_classes([HasScopes("inference:write")])
@rate_limit("2/minute")
def rest_function(request: Any) -> Response:
    return Response(str(request.user))


urlpatterns = [
    path("open", who),
    path("who", who),
    path("inner/", include([path("who", who)])),
    path("async/who", who_async),
    path("decorated", Decorated.as_view()),
    path("method", DecoratedMethod.as_view()),
    path("dispatch", DecoratedDispatch.as_view()),
    path("async/decorated", AsyncDecorated.as_view()),
    path("mixed", Mixed.as_view()),
    path("async/mixed", AsyncMixed.as_view()),
    path("limited", Limited.as_view()),
    path("limited/method", LimitedMethod.as_view()),
    path("limited/named", LimitedByName.as_view()),
    path("limited/async", limited_async),
    path("stream", stream),
    path("async/stream", stream_async),
    path("file", file),
    path("template", template),
    path("atomic", atomic),
    path("group", group),
    path("caught", caught),
    path("answered", answering(require_scopes("inference:write")(who))),
    path("cached", cache_page(60)(cache_control(public=True)(require_scopes("admin")(who)))),
    path("forbidden", forbidden),
    path("meta", meta),
    path("broken", broken),
    path("rest", Rest.as_view()),
    path("rest/decorated", RestDecorated.as_view()),
    path("rest/combined", RestCombined.as_view()),
    path("rest/method", RestByMethod.as_view()),
    path("open/rest", RestOpen.as_view()),
    path("open/rest/scopes", Rest.as_view()),
    path("rest/set", RestSet.as_view({"get": "list"})),
    path("rest/function", rest_function),
]
