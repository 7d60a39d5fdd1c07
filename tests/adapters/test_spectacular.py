"""The OpenAPI document that drf-spectacular makes of a guarded project, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SITE = """
import json, sys
from django.conf import settings
from keyguard import AsyncKeyguard, Keyguard, Rule

AUTHENTICATION = "keyguard.adapters.rest_framework.KeyguardAuthentication"
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["rest_framework", "drf_spectacular", "keyguard.adapters.django"],
    MIDDLEWARE=["keyguard.adapters.django.KeyguardMiddleware"],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": [AUTHENTICATION],
        "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
        "UNAUTHENTICATED_USER": None,
    },
    KEYGUARD={"guard": Keyguard(
        "memory://",
        public=["/status"],
        rules=[Rule("/v1/items/{id}", methods=["GET"], scopes=["items:read"])],
    )},
)
import django
django.setup()
from django.test import override_settings
from django.urls import path
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from drf_spectacular.validation import validate_schema
from rest_framework.response import Response
from rest_framework.views import APIView
from keyguard import require_scopes
from keyguard.adapters.rest_framework import HasScopes

class Item(APIView):
    @extend_schema(responses={200: str, 403: str})
    def get(self, request, id): ...

class Report(APIView):
    permission_classes = [HasScopes("a", any_of=["b", "c"])]
    @extend_schema(request=None, responses=str)
    def post(self, request): ...

class Status(APIView):
    @extend_schema(responses=str)
    def get(self, request): ...

class Decorated(Status): ...

urlpatterns = [
    path("v1/items/<str:id>", Item.as_view()),
    path("v1/report", Report.as_view()),
    path("v1/decorated", require_scopes("d")(Decorated.as_view())),
    path("status", Status.as_view()),
]
def described():
    document = SchemaGenerator().get_schema(request=None, public=True)
    validate_schema(document)
    return document

other = AsyncKeyguard("memory://", carriers=["basic", "header:X-API-Key"])
documents = [described()]
with override_settings(KEYGUARD={"guard": other}):
    documents.append(described())
print(json.dumps(documents))
"""


def test_the_document_describes_the_guard() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SITE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")  # no authenticator that it can't resolve
    documents: list[dict[str, Any]] = json.loads(done.stdout)
    document, other = documents
    paths = document["paths"]
    ((name, scheme),) = document["components"]["securitySchemes"].items()
    item, public = paths["/v1/items/{id}"]["get"], paths["/status"]["get"]

    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    # The scopes of permissions, decorators and rules
    assert paths["/v1/report"]["post"]["security"] == [{name: ["a", "b"]}, {name: ["a", "c"]}]
    assert paths["/v1/decorated"]["get"]["security"] == [{name: ["d"]}]
    assert item["security"] == [{name: ["items:read"]}]
    # Refusals beside the view's own answers
    assert set(item["responses"]) == {"200", "400", "401", "403", "429", "503"}
    assert "Retry-After" in item["responses"]["429"]["headers"]
    refusal = item["responses"]["403"]["content"]
    assert set(refusal) == {"application/json", "application/problem+json"}
    # A public operation has neither.
    assert set(public["responses"]) == {"200"}
    assert not public.get("security")
    # Each carrier is a scheme, and the bearer's none where it carries nothing.
    assert set(other["components"]["securitySchemes"]) == {"KeyguardBasic", "Keyguard-X-API-Key"}
    assert other["paths"]["/v1/decorated"]["get"]["security"] == [
        {"KeyguardBasic": ["d"]},
        {"Keyguard-X-API-Key": ["d"]},
    ]
