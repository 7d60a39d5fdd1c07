"""What keyguard is to a Django project, over WSGI and ASGI: real handlers, called in process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from asgiref.sync import iscoroutinefunction
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import path as url
from django.utils.decorators import sync_and_async_middleware
from django.views import View

from keyguard import (
    AccessDenied,
    ConfigurationError,
    InvalidValueError,
    Limit,
    Rule,
    ScopeCatalogue,
    current_principal,
)
from keyguard.adapters.django import KeyguardMiddleware, ScopesRequiredMixin
from keyguard.adapters.django.views import protection_for
from keyguard.adapters.rest_framework import HasScopes
from keyguard.request.context import present_request
from keyguard.runtime.events import AccessRefused
from tests.adapters import django_views
from tests.adapters.django_site import KEYGUARD, asgi_handler, changed, wsgi_handler
from tests.adapters.stack_django import over_asgi
from tests.adapters.stacks import Answer, Request, call_asgi, call_wsgi
from tests.world import World

Ask = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _project() -> Iterator[None]:
    with changed(ROOT_URLCONF="tests.adapters.django_views"):
        django_views.STREAMED.clear()
        yield


class Project:
    """The project, served one way."""

    def __init__(self, mode: str, options: dict[str, Any] | None = None, **settings: Any) -> None:
        public = ["/open", "/open/rest", "/open/rest/scopes"]
        self.world = World({"public": public} | (options or {}))
        self.is_async = mode == "asgi"
        if self.is_async:
            handler = asgi_handler(self.world.async_guard, **settings)
            self._call = lambda request: call_asgi(over_asgi(handler), request)
        else:
            inner = wsgi_handler(self.world.guard, **settings)
            self._call = lambda request: call_wsgi(inner, request)

    def ask(self, path: str, token: str | None = None, **options: Any) -> Answer:
        sent = () if token is None else (b"Bearer " + token.encode(),)
        answer = self._call(Request(path=path, authorization=sent, **options))
        assert present_request() is None
        return answer


@pytest.fixture(params=["wsgi", "asgi"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def project(mode: str) -> Project:
    return Project(mode)


def test_a_view_finds_the_principal(project: Project) -> None:
    issued = project.world.issue()

    for path in ("/who", "/inner/who"):
        answer = project.ask(path, issued.token.reveal())
        assert (answer.status, answer.body.decode()) == (200, issued.key.id)


def test_nobody_is_the_principal_of_a_public_path(project: Project) -> None:
    assert project.ask("/open").body == b"nobody"
    assert project.ask("/open", project.world.token()).body == b"nobody"


GUARDED = [
    "/async/who",
    "/decorated",
    "/method",
    "/dispatch",
    "/async/decorated",
    "/mixed",
    "/async/mixed",
    "/rest",
    "/rest/decorated",
    "/rest/function",
    "/rest/set",
]


@pytest.mark.parametrize("path", GUARDED)
def test_a_view_of_any_kind_asks_for_its_scopes(project: Project, path: str) -> None:
    writer = project.world.issue("inference:write")
    reader = project.world.issue("inference:read")

    assert project.ask(path, writer.token.reveal()).status == 200
    project.world.events.clear()
    refused = project.ask(path, reader.token.reveal())

    assert refused.status == 403
    assert refused.header("content-type") == "application/problem+json"
    assert 'error="insufficient_scope"' in str(refused.header("www-authenticate"))
    assert refused.header("cache-control") == "no-store"
    (event,) = project.world.events
    assert isinstance(event, AccessRefused)
    assert event.key_id == reader.key.id


@pytest.mark.parametrize(
    "path",
    [
        "/limited",
        "/limited/method",
        "/limited/named",
        "/limited/async",
        "/rest/set",
        "/rest/function",
    ],
)
def test_a_view_of_any_kind_counts_once(mode: str, path: str) -> None:
    project = Project(mode, {"default_limits": [Limit("day", "100/day")]})
    token = project.world.token("inference:write")

    first, second, third = (project.ask(path, token) for _ in range(3))

    assert [first.status, second.status, third.status] == [200, 200, 429]
    assert '"day";r=98' in str(second.header("ratelimit"))
    assert ";r=0;" in str(second.header("ratelimit"))
    assert len([name for name, _ in second.headers if name == "ratelimit"]) == 1
    assert project.ask("/who", token).header("ratelimit").startswith('"day";r=97;')


def test_what_lacks_a_scope_is_not_counted(mode: str) -> None:
    project = Project(mode, {"default_limits": [Limit("day", "100/day")]})
    token = project.world.token("inference:read")

    for path in GUARDED:
        assert project.ask(path, token).status == 403

    assert str(project.ask("/who", token).header("ratelimit")).startswith('"day";r=99;')


@pytest.mark.parametrize("limits", [(), (Limit("day", "100/day"),)])
def test_a_scope_is_asked_for_before_anything_around_the_view_answers(
    mode: str, limits: tuple[Limit, ...]
) -> None:
    project = Project(mode, {"default_limits": limits})
    reader = project.world.issue("inference:read")

    assert project.ask("/answered", project.world.token("inference:write")).status == 200
    project.world.events.clear()
    refused = project.ask("/answered", reader.token.reveal())

    assert refused.status == 403
    assert 'error="insufficient_scope"' in str(refused.header("www-authenticate"))
    assert refused.header("ratelimit") is None
    (event,) = project.world.events
    assert isinstance(event, AccessRefused)
    if limits:  # the refusal was not counted
        assert str(project.ask("/who", reader.token.reveal()).header("ratelimit")).startswith(
            '"day";r=99;'
        )


def test_a_cached_view_answers_nobody_without_its_scope(project: Project) -> None:
    admin = project.world.token("admin")

    assert project.ask("/cached", admin).status == 200
    for limits in ((), (Limit("day", "100/day"),)):
        token = project.world.token("inference:read", limits=limits)
        assert project.ask("/cached", token).status == 403


def test_what_leads_nowhere_is_counted(mode: str) -> None:
    project = Project(mode, {"default_limits": [Limit("day", "1/day")]})
    token = project.world.token()

    assert [project.ask("/nowhere", token).status for _ in range(2)] == [404, 429]


def test_a_key_that_is_rotated_learns_once_when_it_ends(project: Project) -> None:
    issued = project.world.issue()
    project.world.guard.keys.rotate(issued.key.id, grace=timedelta(days=1))

    answer = project.ask("/who", issued.token.reveal())

    assert answer.header("keyguard-key-expires") is not None


@pytest.mark.parametrize("path", ["/stream", "/async/stream"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")  # either way round
def test_a_stream_sees_its_principal_until_it_ends(project: Project, path: str) -> None:
    issued = project.world.issue()

    answer = project.ask(path, issued.token.reveal())

    assert answer.body.decode() == issued.key.id + "."
    assert [issued.key.id] == django_views.STREAMED


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")  # Django's, of any file
def test_a_file_is_left_to_the_server(project: Project) -> None:
    answer = project.ask("/file", project.world.token())

    assert answer.status == 200
    assert answer.body.startswith(b'"""Django\'s views')


def test_a_file_response_is_passed_on_as_it_is() -> None:
    project = Project("wsgi")
    made: list[Any] = []

    class Wrapper:
        def __init__(self, file: Any, size: int) -> None:
            made.append(file)

        def __iter__(self) -> Any:
            return iter([b"sent by the server"])

    handler = wsgi_handler(project.world.guard)
    request = RequestFactory().get("/file", headers={"authorization": bearer(project)})
    body = handler({**request.environ, "wsgi.file_wrapper": Wrapper}, lambda *_: None)

    assert isinstance(body, Wrapper)
    assert made[0].name.endswith("django_views.py")
    made[0].close()


def bearer(project: Project, *scopes: str) -> str:
    return f"Bearer {project.world.token(*scopes)}"


def test_a_refusal_in_a_template_is_answered(project: Project) -> None:
    answer = project.ask("/template", project.world.token())

    assert answer.status == 403
    assert 'scope="admin"' in str(answer.header("www-authenticate"))
    assert project.ask("/template", project.world.token("admin")).body == b"xyzzy"


def test_a_refusal_in_a_transaction_rolls_it_back(project: Project) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept (one INTEGER)")
        try:
            assert project.ask("/atomic", project.world.token()).status == 403
            assert cursor.execute("SELECT count(*) FROM kept").fetchone() == (0,)
            assert project.ask("/atomic", project.world.token("admin")).status == 200
            assert cursor.execute("SELECT count(*) FROM kept").fetchone() == (1,)
        finally:
            cursor.execute("DROP TABLE kept")


def test_a_refusal_in_a_task_group_is_answered(project: Project) -> None:
    assert project.ask("/group", project.world.token()).status == 403


def test_a_refusal_that_the_view_catches_is_its_own_matter(project: Project) -> None:
    answer = project.ask("/caught", project.world.token())

    assert (answer.status, answer.body) == (203, b"without")


def test_a_view_that_catches_a_refusal_and_goes_on_is_charged(mode: str) -> None:
    project = Project(mode, {"default_limits": ["3/hour"]})
    project.world.clock.uptime = 86400.0
    token = project.world.token()

    answers = [project.ask("/caught", token) for _ in range(5)]

    assert [answer.status for answer in answers] == [203, 203, 203, 429, 429]


def test_a_refusal_that_is_answered_spends_nothing(mode: str) -> None:
    project = Project(mode, {"default_limits": ["3/hour"]})
    issued = project.world.issue()

    answers = [project.ask("/group", issued.token.reveal()) for _ in range(4)]

    assert [answer.status for answer in answers] == [403] * 4
    assert [status.remaining for status in project.world.guard.keys.limits(issued.key.id)] == [3]


def degrading(get_response: Any) -> Any:
    """Return a middleware that does some work in the place of what is refused."""

    def instead(answer: Any) -> Any:
        return HttpResponse("less") if answer.status_code == 403 else answer

    if iscoroutinefunction(get_response):

        async def middleware(request: Any) -> Any:
            return instead(await get_response(request))

    else:

        def middleware(request: Any) -> Any:
            return instead(get_response(request))

    return middleware


Degrading = sync_and_async_middleware(degrading)


def test_work_in_the_place_of_a_refusal_is_charged(mode: str) -> None:
    middleware = [KEYGUARD, f"{__name__}.Degrading"]
    project = Project(mode, {"default_limits": ["3/hour"]}, MIDDLEWARE=middleware)
    project.world.clock.uptime = 86400.0
    token = project.world.token()

    answers = [project.ask("/template", token) for _ in range(5)]

    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]


def test_the_application_s_own_403_stays_its_own(project: Project) -> None:
    answer = project.ask("/forbidden", project.world.token())

    assert (answer.status, answer.body) == (403, b"the application's own")
    assert answer.header("www-authenticate") is None


def asking(ask: Callable[[], object]) -> Any:
    """Return a middleware that asks for something itself, where Django sees no view's exception."""

    def factory(get_response: Any) -> Any:
        if iscoroutinefunction(get_response):

            async def middleware(request: Any) -> Any:
                ask()
                return await get_response(request)

        else:

            def middleware(request: Any) -> Any:
                ask()
                return get_response(request)

        return middleware

    return sync_and_async_middleware(factory)


def wonder() -> None:
    """Do without what is refused: who it is, and a scope."""
    for ask in (current_principal, django_views.need_admin):
        with suppress(AccessDenied):
            ask()


Asking, AskingWho, Wondering = map(asking, (django_views.need_admin, current_principal, wonder))


def rendering(get_response: Any) -> Any:
    """Return a middleware, sync only, that turns every exception of a view into a 500."""

    class Middleware:
        def __call__(self, request: Any) -> Any:
            return get_response(request)

        def process_exception(self, request: Any, exception: Exception) -> HttpResponse:
            return HttpResponse("something went wrong", status=500)

    return Middleware()


SEEN: list[str] = []


def noting(get_response: Any) -> Any:
    """Return a middleware, sync only, that notes what a view sees of the request."""

    def middleware(request: Any) -> Any:
        SEEN.extend(map(repr, (request.META, dict(request.headers), vars(request).get("scope"))))
        return get_response(request)

    return middleware


def test_a_view_does_not_see_the_key_where_it_is_stripped(mode: str) -> None:
    options = {"strip_credentials": True, "carriers": ["bearer", "header:x-api-key"]}
    project = Project(mode, options, MIDDLEWARE=[KEYGUARD, f"{__name__}.noting"])
    token = project.world.token()
    SEEN.clear()

    assert project.ask("/who", token).status == 200
    assert project.ask("/who", headers=((b"x-api-key", token.encode()),)).status == 200
    assert len(SEEN) == 6
    assert not any(token in text for text in SEEN)


def answering_refusals(get_response: Any) -> Any:
    """Return a middleware, sync only, that answers refusals in its own words."""
    middleware = rendering(get_response)
    middleware.process_exception = lambda *_: HttpResponse("mine", status=403)
    return middleware


def answer_in_rest(failure: Exception, _: object) -> HttpResponse:
    return HttpResponse("mine", status=403)


def test_an_application_s_own_answer_to_a_refusal_keeps_keyguard_s_fields(mode: str) -> None:
    handler = {"UNAUTHENTICATED_USER": None, "EXCEPTION_HANDLER": answer_in_rest}
    middleware = [f"{__name__}.answering_refusals"]
    project = Project(mode, MIDDLEWARE=[KEYGUARD, *middleware])
    token = project.world.token("inference:read")
    with changed(REST_FRAMEWORK=handler):
        answers = [project.ask(path, token) for path in ("/template", "/rest")]
    for found in answers:
        assert (found.status, found.body) == (403, b"mine")
        challenge = str(found.header("www-authenticate"))
        assert challenge.startswith('Bearer realm="AIaaS", error="insufficient_scope", scope="')
        assert found.header("cache-control") == "no-store"


@pytest.mark.parametrize("path", ["/open", "/nowhere", "/who", "/limited"])
def test_a_request_that_goes_on_after_a_refusal_owes_what_is_due(mode: str, path: str) -> None:
    front = [Limit("front", "1/day", per="address")]
    rules = [Rule(public, public=True, limits=front) for public in ("/open", "/nowhere")]
    project = Project(
        mode,
        {"rules": rules, "public": [], "default_limits": [Limit("day", "1/day")]},
        MIDDLEWARE=[KEYGUARD, f"{__name__}.Wondering"],
    )
    token = None if path in ("/open", "/nowhere") else project.world.token()

    first, second = project.ask(path, token).status, project.ask(path, token).status

    assert first != 429
    assert second == 429


@pytest.mark.parametrize(("middleware", "path"), [("Asking", "/who"), ("rendering", "/decorated")])
def test_a_refusal_that_is_shown_as_a_500_is_answered(
    mode: str, middleware: str, path: str
) -> None:
    project = Project(mode, MIDDLEWARE=[KEYGUARD, f"{__name__}.{middleware}"])

    answer = project.ask(path, project.world.token("inference:read"))

    assert answer.status == 403
    assert answer.header("content-type") == "application/problem+json"


def test_a_middleware_that_asks_for_the_principal_on_a_public_path_gets_401(mode: str) -> None:
    project = Project(mode, MIDDLEWARE=[KEYGUARD, f"{__name__}.AskingWho"])

    answer = project.ask("/open")

    assert answer.status == 401
    assert answer.header("www-authenticate") == 'Bearer realm="AIaaS"'
    assert answer.header("content-type") == "application/problem+json"


def test_a_failure_after_a_refusal_that_was_caught_stays_one(mode: str) -> None:
    with changed(ROOT_URLCONF=_Broken):
        project = Project(mode, MIDDLEWARE=[KEYGUARD, f"{__name__}.Wondering"])
        answer = project.ask("/open")

    assert answer.status == 500
    assert answer.header("www-authenticate") is None


class _Broken:
    """A URLconf whose public view fails."""

    urlpatterns: ClassVar[list[Any]] = [url("open", django_views.broken)]


@pytest.mark.parametrize("token", ["live", None])
def test_a_client_can_t_name_its_principal(mode: str, token: str | None) -> None:
    project = Project(
        mode,
        {"principal_headers": {"X-Key-Id": "key_id"}, "public": ["/meta"] if token is None else []},
    )
    issued = project.world.issue()

    answer = project.ask(
        "/meta", token and issued.token.reveal(), headers=((b"x-key-id", b"root"),)
    )

    assert set(answer.body.decode().split(",")) == {issued.key.id if token else "None"}


def test_a_project_below_a_prefix_is_guarded_by_the_paths_of_its_urlconf(mode: str) -> None:
    with changed(FORCE_SCRIPT_NAME="/prefix"):
        project = Project(mode)
        if project.is_async:  # over WSGI, PATH_INFO never has the prefix
            assert project.ask("/prefix/open").body == b"nobody"
            assert project.ask("/prefix/open", project.world.token()).body == b"nobody"
            assert project.ask("/prefix/who").status == 401
        else:
            assert project.ask("/open").body == b"nobody"
            assert project.ask("/prefix/open").status == 401


def test_a_request_that_django_serves_the_other_way_is_refused() -> None:
    world = World()

    with (
        changed(KEYGUARD={"guard": world.async_guard}),
        pytest.raises(ConfigurationError, match="names none"),
    ):
        KeyguardMiddleware(lambda request: HttpResponse())
    for handler, call in (
        (wsgi_handler(world.async_guard), call_wsgi),
        (over_asgi(asgi_handler(world.guard)), call_asgi),
    ):
        assert call(handler, Request("/open")).status == 500


def test_a_project_may_be_served_both_ways() -> None:
    world = World()
    token = world.token()
    both = {"guard": world.guard, "async_guard": world.async_guard}
    request = Request("/who", authorization=(b"Bearer " + token.encode(),))

    with changed(KEYGUARD=both):
        assert KeyguardMiddleware.sync_capable
        assert KeyguardMiddleware.async_capable
        assert call_wsgi(WSGIHandler(), request).status == 200
        assert call_asgi(over_asgi(ASGIHandler()), request).status == 200


def make() -> Any:
    """Return a guard: what KEYGUARD may name."""
    return World().guard


NOT_A_GUARD = 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "have no KEYGUARD: write KEYGUARD = "),
        ("project.guard", "KEYGUARD is a dictionary"),
        ({}, "names no guard"),
        ({"guard": make, "realm": "x"}, "KEYGUARD has no 'realm', only guard, async_guard"),
        ({"guard": "no.such.guard"}, r"KEYGUARD\['guard'\] = 'no.such.guard' can't be imported"),
        ({"guard": f"{__name__}.NOT_A_GUARD"}, "dotted path to any of these, not int"),
        ({"guard": make, "async_guard": make}, "is an AsyncKeyguard, not a Keyguard"),
        ({"guard": World().async_guard, "async_guard": make}, "names two AsyncKeyguards"),
    ],
)
def test_a_malformed_setup_is_refused_at_start(value: Any, message: str) -> None:
    with changed(KEYGUARD=value), pytest.raises(ConfigurationError, match=message):
        WSGIHandler()


@pytest.mark.parametrize("named", [make, f"{__name__}.make", make()])
def test_a_guard_is_named_by_path_function_or_itself(named: Any) -> None:
    with changed(KEYGUARD={"guard": named}):
        assert call_wsgi(WSGIHandler(), Request("/who")).status == 401


def test_public_paths_and_rules_of_the_setup_take_the_place_of_the_guard_s() -> None:
    world = World()
    with changed(
        KEYGUARD={
            "guard": world.guard,
            "public": ["/who"],
            "rules": [Rule("/inner/{name}", scopes=["admin"])],
        }
    ):
        handler = WSGIHandler()
    request = Request("/inner/who", authorization=(b"Bearer " + world.token().encode(),))

    assert call_wsgi(handler, Request("/who")).status == 200
    assert call_wsgi(handler, Request("/open")).status == 401
    assert [call_wsgi(handler, request).status for _ in range(2)] == [403, 403]


def test_a_view_that_requires_an_unknown_scope_is_refused_at_start(mode: str) -> None:
    with pytest.raises(InvalidValueError, match="inference:write"):
        Project(mode, {"catalogue": ScopeCatalogue({"admin": "All"})})


@pytest.mark.parametrize(
    "attributes",
    [{}, {"required_scopes": "admin"}, {"required_scopes": ["no scope"]}],
)
def test_a_mixin_without_scopes_is_refused_with_the_urlconf(attributes: dict[str, Any]) -> None:
    view: Any = type("Mine", (ScopesRequiredMixin, View), attributes)

    with pytest.raises(InvalidValueError):
        view.as_view()


def test_scopes_given_to_as_view_are_asked_for() -> None:
    view = django_views.Mixed.as_view(required_scopes=["admin"])
    assert protection_for(view, "GET").requirements[0].scopes == ("admin",)


def test_rest_framework_names_the_principal(project: Project) -> None:
    issued = project.world.issue("inference:write")

    answer = project.ask("/rest", issued.token.reveal())

    assert answer.body.decode().count(issued.key.id) == 3


def test_rest_framework_asks_nobody_for_a_key_with_the_challenge(project: Project) -> None:
    answer = project.ask("/open/rest")

    assert answer.status == 401
    assert answer.header("www-authenticate") == 'Bearer realm="AIaaS"'
    refused = project.ask("/open/rest/scopes")
    assert refused.status == 401
    assert refused.header("content-type") == "application/problem+json"


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_what_the_browsable_api_tries_refuses_nothing(mode: str, kind: str) -> None:
    project = Project(mode, {"default_limits": [Limit("day", "2/day")]})
    token = project.world.token("inference:read")
    asked: dict[str, Any] = {"headers": ((b"accept", kind.encode()),)}

    answers = [project.ask("/rest/method", token, **asked) for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[0].header("content-type").startswith(kind)
    assert b"read" in answers[0].body
    assert [type(event).__name__ for event in project.world.events] == ["AccessRefused"]


def test_a_permission_that_is_missing_is_refused_in_keyguard_s_words(mode: str) -> None:
    project = Project(mode, {"default_limits": [Limit("day", "2/day")]})
    token = project.world.token("inference:read")
    plain = project.ask("/decorated", token)

    for kind in (b"application/json", b"text/html"):
        refused = project.ask("/rest/method", token, method="POST", headers=((b"accept", kind),))
        assert refused == plain
    assert str(project.ask("/who", token).header("ratelimit")).startswith('"day";r=1;')


def test_permissions_combine(project: Project) -> None:
    statuses = [
        project.ask("/rest/combined", project.world.token(*scopes)).status
        for scopes in (["inference:write"], ["inference:read"], ["admin"])
    ]

    assert statuses == [200, 403, 403]


def test_an_error_page_shows_no_token(mode: str) -> None:
    with changed(DEBUG=True):
        project = Project(mode)
        token = project.world.token()
        answer = project.ask("/broken", token)

    assert answer.status == 500
    assert b"RuntimeError" in answer.body
    assert b"HTTP_AUTHORIZATION" in answer.body
    assert token.encode() not in answer.body


def test_a_refusal_that_django_lets_pass_is_answered(mode: str) -> None:
    with changed(DEBUG_PROPAGATE_EXCEPTIONS=True):
        project = Project(mode, MIDDLEWARE=[KEYGUARD, f"{__name__}.Asking"])
        answer = project.ask("/who", project.world.token())

    assert answer.status == 403
    assert answer.header("content-type") == "application/problem+json"


def test_a_permission_takes_a_scope() -> None:
    with pytest.raises(InvalidValueError, match="at least one scope"):
        HasScopes()


def test_rest_framework_without_the_middleware_lets_nobody_in() -> None:
    with pytest.raises(ConfigurationError, match="outside keyguard's middleware"):
        django_views.Rest.as_view()(RequestFactory().get("/rest"))
