"""Who makes a call, where a framework or a proxy knows its people."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from flask import Flask
from flask_login import LoginManager, UserMixin, login_user  # type: ignore[import-untyped]
from werkzeug.test import Client

from keyguard import (
    ConfigurationError,
    InvalidValueError,
    Keyguard,
    NotFoundError,
    Person,
    RefusedError,
)
from keyguard.admin import Console, ManagementAPI
from keyguard.admin.identify.django import django_user
from keyguard.admin.identify.flask_login import flask_login_user
from keyguard.admin.identify.remote_user import remote_user
from keyguard.admin.identify.starlette import request_user
from tests.adapters import django_site
from tests.admin.api.calls import Got, Sent, call_asgi, call_wsgi
from tests.world import World

ROLES: dict[str, str] = {}


@pytest.fixture(autouse=True)
def roles(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Let ada be an auditor of acme."""
    monkeypatch.setitem(ROLES, "acme", "auditor")
    return ROLES


def named(name: str) -> Person | None:
    return Person(id=name, roles=dict(ROLES)) if name == "ada" else None


def of_user(user: Any) -> Person | None:
    return named(user.name)


def who(answer: Got) -> object:
    return answer.json["id"] if answer.status == 200 else answer.status


@pytest.mark.parametrize(
    ("user", "known"), [("ada", "ada"), ("eve", 401), (None, 401)], ids=["known", "other", "none"]
)
def test_the_user_of_starlette_s_scope(user: str | None, known: object) -> None:
    api: Any = ManagementAPI(World().async_guard, request_user(of_user))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found = {} if user is None else {"user": SimpleNamespace(name=user)}
        await api(scope | found, receive, send)

    assert who(call_asgi(app, Sent("GET", "/me"))) == known


@pytest.mark.parametrize(
    ("headers", "proxies", "known"),
    [
        ({"remote-user": "ada"}, ["192.0.2.7"], "ada"),
        ({"remote-user": "ada"}, ["192.0.2.8"], 401),
        ({"remote-user": "ada"}, [], 401),
        ({"remote-user": "eve,ada"}, ["192.0.2.7"], 401),
        ({"remote-user": ""}, ["192.0.2.7"], 401),
        ({}, ["192.0.2.7"], 401),
    ],
    ids=str,
)
@pytest.mark.parametrize("front", ["asgi", "wsgi"])
def test_the_user_of_a_trusted_proxy(
    front: str, headers: dict[str, str], proxies: list[str], known: object
) -> None:
    world = World({"trusted_proxies": proxies})
    sent = Sent("GET", "/me", headers=headers)
    if front == "asgi":
        got = call_asgi(ManagementAPI(world.async_guard, remote_user(named)), sent)
    else:
        got = call_wsgi(ManagementAPI(world.guard, remote_user(named)), sent)

    assert who(got) == known


class User(UserMixin):  # type: ignore[misc]
    """A user of Flask-Login."""

    def __init__(self, name: str) -> None:
        self.id = self.name = name


def flask_app(guard: Keyguard) -> tuple[Flask, Any]:
    app = Flask(__name__)
    app.secret_key = "tests"
    LoginManager(app).user_loader(User)

    @app.get("/in/<name>")
    def sign_in(name: str) -> str:
        login_user(User(name))
        return ""

    return app, ManagementAPI(guard, flask_login_user(app, of_user))


@pytest.mark.parametrize(("user", "known"), [("ada", "ada"), ("eve", 401), (None, 401)])
def test_the_user_of_flask_login(user: str | None, known: object) -> None:
    app, api = flask_app(World().guard)
    cookie = ""
    if user is not None:
        cookie = Client(app).get(f"/in/{user}").headers["Set-Cookie"].partition(";")[0]

    assert who(call_wsgi(api, Sent("GET", "/me", headers={"cookie": cookie}))) == known


def test_a_role_that_ends_has_ended_on_the_next_call(roles: dict[str, str]) -> None:
    world = World({"trusted_proxies": ["192.0.2.7"]})
    api = ManagementAPI(world.guard, remote_user(named))
    sent = Sent("GET", "/organizations/acme", headers={"remote-user": "ada"})
    assert call_wsgi(api, sent).status == 200

    roles.clear()

    assert call_wsgi(api, sent).status != 200


@pytest.mark.parametrize(
    ("user", "active", "known"), [("ada", True, "ada"), ("ada", False, 401), ("eve", True, 401)]
)
def test_the_user_of_django_s_session(
    user: str, active: bool, known: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SimpleNamespace(name=user, is_authenticated=True, is_active=active)
    asked: list[Any] = []

    def get_user(request: Any) -> Any:
        asked.append(request.session.session_key)
        return found

    monkeypatch.setattr("keyguard.admin.identify.django.get_user", get_user)
    with django_site.changed(SESSION_ENGINE="django.contrib.sessions.backends.cache"):
        api = ManagementAPI(World().guard, django_user(of_user))
        cookie = {"cookie": f"sessionid={'a' * 32}"}
        got = call_wsgi(api, Sent("GET", "/me", headers=cookie))

    assert asked == ["a" * 32]
    assert who(got) == known


class Fake(Person):
    """A person that checks nothing."""

    def __post_init__(self) -> None: ...


def failing(failure: Exception) -> Any:
    def identify(_: object) -> Person:
        raise failure

    return identify


def answering(answer: object) -> Any:
    return lambda _: answer


@pytest.mark.parametrize(
    "identify",
    [
        answering(Person),
        answering(MagicMock()),
        answering(MagicMock(spec=Person)),
        answering(SimpleNamespace(id="sesame", operator="no", roles={}, authenticated_at=None)),
        answering("sesame"),
        answering(False),
        answering(Fake(id="sesame", operator="no")),  # type: ignore[arg-type]
        answering(Fake(id="sesame", authenticated_at=datetime(2026, 1, 1))),  # noqa: DTZ001
        failing(InvalidValueError("sesame")),
        failing(ConfigurationError("sesame")),
        failing(NotFoundError("sesame")),
        failing(RefusedError("sesame")),
    ],
)
@pytest.mark.parametrize("front", ["asgi", "wsgi"])
@pytest.mark.parametrize("path", ["/organizations", "/api/v1/me"])
def test_what_is_wrong_with_identify_is_told_to_the_log_alone(
    front: str, path: str, identify: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    if front == "asgi":
        got = call_asgi(Console(world.async_guard, identify), Sent("GET", path))
    else:
        got = call_wsgi(Console(world.guard, identify), Sent("GET", path))

    assert got.status == 500
    assert b"sesame" not in got.body
    assert "identify" in caplog.text
