"""Fails in three frameworks under Sentry, and prints what would be sent.

A program of its own, since Sentry patches what it finds in a process for good.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import django
import sentry_sdk
from django.conf import settings
from django.http import HttpRequest
from django.test import Client
from django.urls import path
from flask import Flask, request
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.integrations.starlette import StarletteIntegration
from sentry_sdk.transport import Transport
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.testclient import TestClient

from keyguard.adapters.flask import FlaskKeyguard
from keyguard.adapters.starlette import KeyguardMiddleware
from keyguard.testing import ApiKey, MemoryGuards
from tests.examples.pages import run

urlpatterns: list[Any] = []


class Kept(Transport):
    """Keeps what would be sent."""

    sent: list[str]

    def capture_envelope(self, envelope: Envelope) -> None:
        self.sent.append(envelope.serialize().decode())


def set_up() -> None:
    """Set Sentry up as the page does, with all that it can be told to read."""
    init = sentry_sdk.init

    def reading_all(**options: Any) -> None:
        init(
            **options,
            transport=Kept,
            auto_enabling_integrations=False,  # of all that is installed
            integrations=[StarletteIntegration(), FlaskIntegration(), DjangoIntegration()],
            traces_sample_rate=1.0,
            send_default_pii=True,
            max_request_body_size="always",
            enable_logs=True,
        )

    sentry_sdk.init = reading_all
    run("docs/how-to/error-trackers.md", 0, {"__name__": "docs"})


def fail(authorization: str) -> None:
    sentry_sdk.add_breadcrumb(message=f"sent {authorization}", data={"fields": [authorization]})
    logging.getLogger("app").error("got %s", authorization)
    with sentry_sdk.start_span(op="http.client", name=f"ask with {authorization}") as span:
        span.set_data("authorization", authorization)
    raise ValueError(f"can't do with {authorization}")


def in_starlette(guards: MemoryGuards, key: ApiKey) -> None:
    async def endpoint(request: Request) -> None:
        fail(request.headers["Authorization"])

    inner = Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    app = KeyguardMiddleware(inner, guards.async_guard)
    client = TestClient(app, raise_server_exceptions=False)
    client.post(f"/?key={key.token.reveal()}", headers=key.headers)


def in_flask(guards: MemoryGuards, key: ApiKey) -> None:
    app = Flask(__name__)
    FlaskKeyguard(app, guards.guard)

    @app.post("/")
    def view() -> None:
        fail(request.headers["Authorization"])

    app.test_client().post("/", headers=key.headers, json={"key": key.token.reveal()})


def in_django(guards: MemoryGuards, key: ApiKey) -> None:
    def view(request: HttpRequest) -> None:
        fail(request.headers["Authorization"])

    urlpatterns.append(path("", view))
    settings.configure(
        ALLOWED_HOSTS=["*"],
        KEYGUARD={"guard": guards.guard},
        MIDDLEWARE=["keyguard.adapters.django.KeyguardMiddleware"],
        ROOT_URLCONF=__name__,
    )
    django.setup()
    Client(raise_request_exception=False).get("/", headers=key.headers)


def main() -> None:
    set_up()
    found = []
    with MemoryGuards() as guards:
        for serve in (in_starlette, in_flask, in_django):
            Kept.sent, key = [], guards.issue()
            serve(guards, key)
            sentry_sdk.flush()
            found.append([serve.__name__, key.token.reveal(), "\n".join(Kept.sent)])
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
