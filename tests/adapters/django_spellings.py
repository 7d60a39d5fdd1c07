"""A URLconf that serves its views under several spellings of their paths."""

from tests.adapters import django_site  # isort: skip # sets Django up, which the next ones need

from typing import Any

from django.http import HttpResponse
from django.urls import include, path, re_path
from rest_framework.response import Response
from rest_framework.urlpatterns import format_suffix_patterns
from rest_framework.views import APIView

assert django_site.settings.configured


class Report(APIView):
    def get(self, request: Any, **_: str) -> Response:
        return Response({"report": "all"})


def case(request: Any, **_: str) -> HttpResponse:
    return HttpResponse("case")


urlpatterns = [
    *format_suffix_patterns([path("report", Report.as_view())]),
    re_path(r"(?i)^case$", case),
    re_path(r"(?i)^wiki/$", case),
    path("deep/", include(([re_path(r"(?i)^(?P<year>[0-9]{4})/list$", case)], "deep"))),
    re_path(r"(?i)^tree/", include(([re_path(r"^(?P<year>[0-9]{4})/list$", case)], "tree"))),
    path("sure/100%/<int:n>", case),
    re_path(r"(?i)^plain/page/(?P<rest>.+)$", case),
]
