"""Django's system checks say what is wrong with how a project sets keyguard up."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.handlers.asgi import ASGIHandler
from django.utils.decorators import async_only_middleware, sync_only_middleware

from keyguard import Rule, ScopeCatalogue
from keyguard.adapters.django import KeyguardMiddleware
from tests.adapters.django_site import KEYGUARD, changed
from tests.adapters.stack_django import over_asgi
from tests.adapters.stacks import Request, call_asgi
from tests.world import World

WORLD = World()
NARROW = World({"catalogue": ScopeCatalogue({"admin": "All"})})
SECURITY = "django.middleware.security.SecurityMiddleware"
COMMON = "django.middleware.common.CommonMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"
CORS = "corsheaders.middleware.CorsMiddleware"
SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH = "django.middleware.cache.FetchFromCacheMiddleware"
HERE = "tests.adapters.test_django_checks"


class Guarding(KeyguardMiddleware):
    """A project's own."""


def found(**options: Any) -> list[tuple[str | None, str]]:
    defaults = {
        "KEYGUARD": {"guard": WORLD.guard},
        "ROOT_URLCONF": "tests.adapters.django_views",
        "MIDDLEWARE": [SECURITY, KEYGUARD, COMMON],
    }
    with changed(**(defaults | options)):
        return [(message.id, message.msg) for message in run_checks(tags=["keyguard"])]


@pytest.mark.parametrize("first", [KEYGUARD, f"{HERE}.Guarding"])
def test_a_project_that_is_set_up_well_has_nothing_wrong(first: str) -> None:
    assert found() == []
    assert found(MIDDLEWARE=[first, SESSION, COMMON, CSRF]) == []


@pytest.mark.parametrize("early", [COMMON, CSRF, SESSION])
def test_middleware_that_answers_or_asks_for_the_user_comes_later(early: str) -> None:
    ((name, message),) = found(MIDDLEWARE=[SECURITY, early, KEYGUARD])

    assert name == "keyguard.E004"
    assert message.startswith(f"{early} comes before KeyguardMiddleware")


def test_a_cors_layer_comes_first_so_that_browsers_can_read_refusals() -> None:
    assert found(MIDDLEWARE=[CORS, KEYGUARD]) == []
    ((name, message),) = found(MIDDLEWARE=[KEYGUARD, CORS])
    assert name == "keyguard.W003"
    assert message.startswith(f"{CORS} comes after KeyguardMiddleware")


def test_a_path_with_a_format_suffix_must_not_escape_a_rule() -> None:
    rules = [Rule("/report", scopes=["analytics:read"]), Rule("/CASE", scopes=["admin"])]
    urls = "tests.adapters.django_spellings"

    messages = found(ROOT_URLCONF=urls, KEYGUARD={"guard": WORLD.guard, "rules": rules})

    assert [name for name, _ in messages] == ["keyguard.E006"] * 2
    assert messages[0][1].startswith(
        "/report.json leads to a resource that the rule '/report' guards"
    )
    assert messages[1][1].startswith("/Case leads to a resource that the rule '/CASE' guards")
    spelled = World({"any_spelling": True})
    assert found(ROOT_URLCONF=urls, KEYGUARD={"guard": spelled.guard, "rules": rules}) == []


@pytest.mark.parametrize(
    ("path", "escape"),
    [
        ("/report/{rest:path}", "/report.json"),
        ("/case/{rest:path}", "/CASE"),
        ("/wiki/{rest:path}", "/WIKI/"),
        ("/deep/{rest:path}", None),  # what may be in any case is what the rule leaves open
        ("/tree/{rest:path}", "/TREE/2026/list"),
        ("/plain/{rest:path}", "/PLAIN/page/1"),
        ("/sure/{rest:path}", None),  # a percent sign in a path is no name of a parameter
        ("/{rest:path}", None),
    ],
)
def test_a_rule_for_any_rest_of_a_path_is_tried_with_what_the_urlconf_serves_there(
    path: str, escape: str | None
) -> None:
    rules = [Rule(path, scopes=["admin"])]
    urls = "tests.adapters.django_spellings"

    messages = found(ROOT_URLCONF=urls, KEYGUARD={"guard": WORLD.guard, "rules": rules})

    assert [message.partition(" leads")[0] for _, message in messages] == [escape][: bool(escape)]


def test_a_cache_in_front_of_the_guard_is_wrong_and_one_behind_it_is_doubtful() -> None:
    assert [name for name, _ in found(MIDDLEWARE=[UPDATE, KEYGUARD, FETCH])] == [
        "keyguard.E004",
        "keyguard.W001",
        "keyguard.W001",
    ]


def test_a_project_without_the_middleware_is_not_guarded() -> None:
    ((name, message),) = found(MIDDLEWARE=[SECURITY, "no.such.middleware"])

    assert (name, message) == (
        "keyguard.E002",
        "KeyguardMiddleware is not in MIDDLEWARE: nothing is guarded.",
    )


def test_the_middleware_is_there_once() -> None:
    ((name, _),) = found(MIDDLEWARE=[KEYGUARD, f"{HERE}.Guarding"])

    assert name == "keyguard.E003"


@pytest.mark.parametrize("value", [None, {"guard": "no.such.guard"}])
def test_a_malformed_setup_is_an_error(value: Any) -> None:
    ((name, message),) = found(KEYGUARD=value)

    assert name == "keyguard.E001"
    assert "KEYGUARD" in message


@pytest.mark.parametrize(
    ("guard", "application", "missing"),
    [
        (WORLD.guard, "ASGI_APPLICATION", "names no AsyncKeyguard"),
        (WORLD.async_guard, "WSGI_APPLICATION", "names no Keyguard"),
    ],
)
def test_a_guard_of_the_wrong_flavour_is_a_warning(
    guard: Any, application: str, missing: str
) -> None:
    ((name, message),) = found(KEYGUARD={"guard": guard}, **{application: "project.application"})

    assert name == "keyguard.W002"
    assert missing in message
    both = {"guard": WORLD.guard, "async_guard": WORLD.async_guard}
    assert found(KEYGUARD=both, **{application: "project.application"}) == []


@sync_only_middleware
def sync_only(get_response: Any) -> Any: ...


@async_only_middleware
def async_only(get_response: Any) -> Any: ...


@pytest.mark.parametrize(
    ("middleware", "named"),
    [
        ([KEYGUARD, f"{HERE}.sync_only", COMMON], True),
        ([KEYGUARD, COMMON, f"{HERE}.sync_only"], True),
        ([f"{HERE}.sync_only", KEYGUARD, COMMON], False),
        ([KEYGUARD, f"{HERE}.async_only", f"{HERE}.sync_only"], False),
    ],
)
def test_middleware_that_makes_django_take_the_wrong_guard_is_named(
    middleware: list[str], named: bool
) -> None:
    both = {"guard": WORLD.guard, "async_guard": WORLD.async_guard}
    options = {"MIDDLEWARE": middleware, "ASGI_APPLICATION": "project.application"}

    messages = found(KEYGUARD=both, **options)

    assert [name for name, _ in messages] == (["keyguard.W002"] if named else [])
    assert all(message.startswith(f"{HERE}.sync_only after") for _, message in messages)
    assert found(KEYGUARD={"guard": WORLD.async_guard}, **options) == []


def test_django_does_take_the_wrong_guard_for_that_middleware() -> None:
    both = {"guard": WORLD.guard, "async_guard": WORLD.async_guard}
    token = WORLD.token()
    statuses = []
    for named in (both, {"guard": WORLD.async_guard}):
        with changed(
            KEYGUARD=named,
            ROOT_URLCONF="tests.adapters.django_views",
            MIDDLEWARE=[KEYGUARD, "tests.adapters.test_django.rendering"],
        ):
            handler = over_asgi(ASGIHandler())
            request = Request("/who", authorization=(b"Bearer " + token.encode(),))
            statuses.append(call_asgi(handler, request).status)

    assert statuses == [500, 200]


@pytest.mark.parametrize("guard", [NARROW.guard, NARROW.async_guard])
def test_every_view_with_an_unknown_scope_is_named(guard: Any) -> None:
    messages = found(KEYGUARD={"guard": guard})

    assert {name for name, _ in messages} == {"keyguard.E005"}
    for view in ("Decorated", "DecoratedMethod", "Mixed", "Rest", "RestCombined", "who_async"):
        assert any(f"django_views.{view}" in message for _, message in messages), view
