"""Rules, preflights, proxies, transport and upstream fields, the same through every adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import django
import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from keyguard import Limit, Reason, RevocationReason, Rule, rate_limit
from keyguard.adapters import asgi, wsgi
from keyguard.runtime.events import AccessRefused, KeyExposed
from tests.adapters.stacks import (
    Answer,
    Request,
    bearer,
    call_asgi,
    call_wsgi,
    stack,
    stacks,
)
from tests.world import World

RULES = [
    Rule("/write", scopes=["analytics:read"]),
    Rule("/either", methods=["GET"], public=True),
    Rule("/object/{organization}", methods=["POST"], any_of=["admin", "analytics:read"]),
    Rule("/settled/{cost}", limits=[Limit("settled", "2/minute")], cost=2),
    Rule("/any/{rest:path}", public=True),
]
ASKED = ((b"origin", b"https://app.example"), (b"access-control-request-method", b"POST"))


def world(**options: Any) -> World:
    made = World(options={"rules": RULES} | options)
    made.clock.uptime = 86400.0  # where a window of any length begins
    return made


def reasons(world: World) -> list[Reason]:
    return [event.reason for event in world.events if isinstance(event, AccessRefused)]


# Rules


def test_a_rule_s_scope_comes_before_the_decorator_s(name: str) -> None:
    here = world()
    app = stack(here, name)
    refused = app.call(bearer(here.token("inference:write"), "/write"))
    assert refused.status == 403
    assert 'scope="analytics:read"' in str(refused.header("www-authenticate"))
    assert app.reads == []
    refused = app.call(bearer(here.token("analytics:read"), "/write"))
    assert 'scope="inference:write"' in str(refused.header("www-authenticate"))
    assert app.call(bearer(here.token("analytics:read", "inference:write"), "/write")).status == 200


def test_a_rule_is_for_the_methods_that_it_names(name: str) -> None:
    here = world()
    app = stack(here, name)
    path = f"/object/{here.acme.id}"
    assert app.call(bearer(here.token(), path)).status == 200
    assert app.call(bearer(here.token(), path, method="POST")).status == 403


def test_what_no_rule_names_needs_a_key(name: str) -> None:
    app = stack(world(), name)
    assert app.call(Request("/any")).status == 401
    assert app.call(Request("/nowhere")).status == 401


def test_a_public_rule_lets_anybody_in_and_the_decorator_asks_all_the_same(name: str) -> None:
    here = world()
    app = stack(here, name)
    assert app.call(Request("/either")).status == 401  # the application's own decorator
    assert app.call(Request("/any/thing")).status in (200, 404)
    assert reasons(here) == [Reason.CREDENTIALS_MISSING]


def test_head_is_guarded_as_get(name: str) -> None:
    here = world(rules=[Rule("/any", methods=["GET"], scopes=["admin"])])
    app = stack(here, name)
    assert app.call(bearer(here.token(), method="HEAD")).status == 403
    assert app.call(Request(method="HEAD")).status == 401


@pytest.mark.parametrize(
    ("path", "raw_path"),
    [
        ("/any/../write", None),
        ("//write", None),
        ("/write//", None),
        ("/any/./x", None),
        ("/write", b"/any%2f..%2fwrite"),
        ("/any/x", b"/any%5Cx"),
        ("/any/a\\b", None),
        ("/any/%2e%2e/write", None),
    ],
)
def test_an_ambiguous_path_is_400_where_rules_ask_for_more_than_a_key(
    name: str, path: str, raw_path: bytes | None
) -> None:
    here = world()
    app = stack(here, name)
    for request in (bearer(here.token("*"), path), Request(path)):
        answer = app.call(replace(request, raw_path=raw_path))
        assert answer.status == 400
        assert answer.header("www-authenticate") is None
        assert answer.header("cache-control") == "no-store"
        assert b"can be read in several ways" in answer.body
    assert app.reads == []
    assert set(reasons(here)) == {Reason.PATH_AMBIGUOUS}


def test_an_ambiguous_path_whose_readings_have_one_rule_goes_on_with_a_key(name: str) -> None:
    here = world(rules=[*RULES, Rule("/either/{rest:path}", scopes=["admin"])])
    app = stack(here, name)
    admin, other = here.token("admin"), here.token("inference:write")
    for path, raw_path in (("/either/a//b", None), ("/either/a/b", b"/either/a%2Fb")):
        asked = bearer(admin, path, raw_path=raw_path)
        assert app.call(asked).status in (200, 308, 404)  # as the application sees fit
        assert app.call(replace(asked, authorization=())).status == 401
        assert app.call(bearer(other, path, raw_path=raw_path)).status == 403


def test_a_method_override_is_ignored(name: str) -> None:
    here = world(rules=[Rule("/any", methods=["DELETE"], public=True)])
    app = stack(here, name)
    for field in (b"x-http-method-override", b"x-http-method", b"x-method-override"):
        request = Request("/any", method="POST", headers=((field, b"DELETE"),))
        assert app.call(request).status == 401


@pytest.mark.parametrize(
    "rules",
    [
        [Rule("/any", methods=["GET"], public=True)],
        [Rule("/any", public=True), Rule("/any", methods=["DELETE"], scopes=["admin"])],
        [Rule("/any", methods=["DELETE"]), Rule("/any", also="session")],
    ],
    ids=["for a method", "public beside another", "also beside another"],
)
def test_a_path_that_is_open_to_one_method_is_not_open_to_another_by_a_field(
    name: str, rules: list[Rule]
) -> None:
    here = world(rules=rules)
    app = stack(here, name)
    request = Request("/any", headers=((b"x-http-method-override", b"DELETE"),))
    assert app.call(request).status == 401
    assert app.reads == []


def test_a_rule_s_limit_is_charged_at_its_cost_with_all_others(name: str) -> None:
    here = world(default_limits=["10/minute"])
    app, token = stack(here, name), here.token()
    first = app.call(bearer(token, "/settled/2"))
    assert first.status == 200
    assert str(first.header("ratelimit")).startswith('"key-minute";r=9')
    assert '"settled";r=0' in str(first.header("ratelimit"))
    refused = app.call(bearer(token, "/settled/2"))
    assert refused.status == 429
    assert b'"violated-policies": ["settled"]' in refused.body
    after = app.call(bearer(token))
    assert str(after.header("ratelimit")).startswith('"key-minute";r=8')  # the refused one was free


def test_what_the_rule_refuses_spends_nothing(name: str) -> None:
    here = world(
        rules=[Rule("/any", scopes=["admin"], limits=[Limit("any", "9/minute")])],
        default_limits=["10/minute"],
    )
    app, token = stack(here, name), here.token()
    for _ in range(3):
        refused = app.call(bearer(token))
        assert refused.status == 403
        assert refused.header("ratelimit") is None
    assert str(app.call(bearer(token, "/open")).status) == "200"
    allowed = app.call(bearer(here.token("admin")))
    assert '"any";r=8' in str(allowed.header("ratelimit"))


def test_a_public_rule_may_be_limited_for_each_address(name: str) -> None:
    limit = Limit("visitors", "2/minute", per="address")
    here = world(rules=[Rule("/object/{id}", public=True, limits=[limit])])
    app = stack(here, name)
    statuses = [app.call(Request("/object/none")).status for _ in range(3)]
    assert statuses == [401, 401, 429]  # the application asks who it is


@pytest.mark.parametrize("name", ["asgi", "wsgi"])
def test_a_limit_that_the_rule_and_the_route_share_is_charged_once(name: str) -> None:
    shared = Limit("shared", "4/minute")
    here = world(rules=[Rule("/any", limits=[shared])])
    request = bearer(here.token())
    view = rate_limit(shared)(lambda: None)
    for left in (3, 2):
        answer = answered(here, name, request, view)
        assert str(answer.header("ratelimit")).startswith(f'"shared";r={left};t=')
        assert str(answer.header("ratelimit")).count("shared") == 1


# What the server writes


ASYNC = [stack.name for stack in stacks(World()) if stack.is_async]


@pytest.mark.parametrize("root_path", ["/api", "/api/", "/", "/a//b", "/a b/"])
@pytest.mark.parametrize("name", ASYNC)
def test_the_server_s_root_path_is_not_judged_as_the_client_s(name: str, root_path: str) -> None:
    here = world()
    app, token = stack(here, name), here.token()
    plain = name == "asgi"  # the service itself routes the whole path
    if name == "django over asgi" and root_path.endswith("/") and django.VERSION >= (6, 1):
        # It takes the slash for the path's, and has no route of its own for what begins with two.
        assert app.call(bearer(token, root_path=root_path)).status == 400
        return
    for _ in range(2):  # cold and warm
        answer = app.call(bearer(token, root_path=root_path))
        assert answer.status == 200 or (plain and answer.body == b"nothing")
    assert app.call(bearer(token, "/write", root_path=root_path)).status == 403
    for path in ("//write", "/x/../write", "/write//"):
        assert app.call(bearer(token, path, root_path=root_path)).status == 400
    escaped = bearer(token, "/write/", raw_path=b"/write%2f", root_path=root_path)
    assert app.call(escaped).status == 400


def test_a_slash_that_the_server_took_off_with_its_script_name_is_put_back() -> None:
    here = world(public=["/open"])
    app = Client(wsgi.KeyguardMiddleware(Response("served"), here.guard))
    headers = {"Authorization": f"Bearer {here.token()}"}
    split = {"SCRIPT_NAME": "/api/", "RAW_URI": "/api/write"}  # as gunicorn does

    def status(path: str, **options: Any) -> int:
        return app.open(environ_overrides={**split, "PATH_INFO": path}, **options).status_code

    assert status("open") == 200
    assert status("other") == 401
    assert status("other", headers=headers) == 200
    assert status("write", headers=headers) == 403


# Preflights


@pytest.mark.parametrize(
    "request_",
    [
        Request("/any", method="OPTIONS"),
        Request("/any", method="OPTIONS", headers=ASKED),
        Request("/write", method="OPTIONS", headers=ASKED),
        Request("/settled/1", method="OPTIONS", headers=ASKED),
        Request("/nowhere", method="OPTIONS", headers=ASKED),
        Request("/any", method="OPTIONS", headers=ASKED[:1]),
        Request("/any", method="OPTIONS", headers=ASKED[1:]),
        Request("/any", method="OPTIONS", headers=ASKED, authorization=(b"Basic YQ==",)),
        Request("/any", method="OPTIONS", headers=(*ASKED, (b"cookie", b"a=b"))),
        Request("/any", method="OPTIONS", headers=(*ASKED, (b"content-length", b"3"))),
        Request("/any", method="OPTIONS", headers=(*ASKED, (b"x-http-method-override", b"PUT"))),
        Request("/any", method="POST", headers=ASKED),
    ],
)
def test_no_field_lets_an_options_request_in_without_a_key(name: str, request_: Request) -> None:
    here = world()
    app = stack(here, name)
    assert app.call(request_).status == 401
    assert app.reads == []


def test_a_preflight_with_a_key_is_charged_and_asked_for_scopes_like_any_request(name: str) -> None:
    here = world()
    app, token = stack(here, name), here.token()
    assert app.call(bearer(token, "/write", method="OPTIONS", headers=ASKED)).status == 403
    asked = bearer(token, "/settled/2", method="OPTIONS", headers=ASKED)
    assert app.call(asked).status in (200, 405)  # some routers answer OPTIONS, others refuse it
    assert app.call(asked).status == 429


# Proxies


PROXIED = ((b"x-forwarded-for", b"203.0.113.9, 198.51.100.1"), (b"x-forwarded-proto", b"https"))


def test_a_trusted_proxy_names_the_client_and_its_transport(name: str) -> None:
    here = world(trusted_proxies=["192.0.2.0/24"], require_https=True)
    app = stack(here, name)
    token = here.token(allowed_networks=["198.51.100.0/24"])
    for _ in range(2):  # cold and warm
        assert app.call(bearer(token, headers=PROXIED)).status == 200
    assert app.call(bearer(token)).status == 403  # as the proxy itself, over plain HTTP
    refused = [event for event in here.events if isinstance(event, AccessRefused)]
    assert {event.address for event in refused} == {"192.0.2.7"}


def test_anybody_else_is_not_believed(name: str) -> None:
    here = world(trusted_proxies=["10.0.0.0/8"])
    app = stack(here, name)
    token = here.token(allowed_networks=["198.51.100.0/24"])
    assert app.call(bearer(token, headers=PROXIED)).status == 401
    assert [event.address for event in here.events if isinstance(event, AccessRefused)] == [
        "192.0.2.7"
    ]


def test_a_decorator_s_refusal_names_the_client_as_well(name: str) -> None:
    here = world(trusted_proxies=["192.0.2.0/24"], rules=[])
    stack(here, name).call(bearer(here.token(), "/write", headers=PROXIED))
    (refused,) = [event for event in here.events if isinstance(event, AccessRefused)]
    assert refused.address == "198.51.100.1"


def test_failures_count_against_the_client_and_not_its_proxy(name: str) -> None:
    here = world(trusted_proxies=["192.0.2.7"], failure_limit="2/minute")
    app = stack(here, name)

    def guess(client: bytes) -> int:
        return app.call(bearer("garbage", headers=((b"x-forwarded-for", client),))).status

    assert [guess(b"198.51.100.1") for _ in range(3)] == [401, 401, 429]
    assert guess(b"198.51.100.2") == 401
    assert app.call(bearer(here.token())).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        ((b"x-forwarded-for", b"198.51.100.1"), (b"forwarded", b"for=198.51.100.2")),
        ((b"x-forwarded-proto", b"gopher"),),
        ((b"forwarded", b'for="198.51.100.1'),),
    ],
)
def test_proxies_that_contradict_each_other_are_400(name: str, headers: Any) -> None:
    here = world(trusted_proxies=["192.0.2.0/24"])
    app = stack(here, name)
    for path in ("/any", "/open"):
        answer = app.call(bearer(here.token(), path, headers=headers))
        assert answer.status == 400
        assert b"malformed, or contradict each other" in answer.body
    assert app.reads == []
    assert set(reasons(here)) == {Reason.CLIENT_AMBIGUOUS}


# HTTPS


def test_an_exposed_key_is_revoked_where_that_is_settled(name: str) -> None:
    here = world(require_https=True, revoke_exposed=True)
    app = stack(here, name)
    issued = here.issue()
    token = issued.token.reveal()
    assert app.call(bearer(token, scheme="https")).status == 200
    assert app.call(bearer(token)).status == 403
    (exposed,) = [event for event in here.events if isinstance(event, KeyExposed)]
    assert exposed.key_id == issued.key.id
    assert exposed.revoked
    key = here.guard.keys.get(issued.key.id)
    assert key.revoked_reason is RevocationReason.KEY_COMPROMISE
    assert key.revoked_note == "it came over plain HTTP"
    assert app.call(bearer(token, scheme="https")).status == 401


def test_a_key_that_is_no_live_one_exposes_nothing(name: str) -> None:
    here = world(require_https=True, revoke_exposed=True)
    app = stack(here, name)
    issued = here.issue()
    wrong = issued.token.reveal()[:-1] + ("0" if issued.token.reveal()[-1] != "0" else "1")
    assert app.call(bearer(wrong)).status == 403
    assert app.call(Request("/any")).status == 403
    assert not [event for event in here.events if isinstance(event, KeyExposed)]
    assert app.call(bearer(issued.token.reveal(), scheme="https")).status == 200


def test_a_key_that_is_bound_to_a_network_is_exposed_from_another(name: str) -> None:
    here = world(require_https=True, revoke_exposed=True)
    issued = here.issue(allowed_networks=["10.0.0.0/8"])
    assert stack(here, name).call(bearer(issued.token.reveal())).status == 403
    assert here.guard.keys.get(issued.key.id).revoked_at is not None


def test_the_last_administrator_s_key_is_revoked_all_the_same(name: str) -> None:
    here = world(require_https=True, revoke_exposed=True)
    issued = here.issue("admin")
    stack(here, name).call(bearer(issued.token.reveal()))
    assert here.guard.keys.get(issued.key.id).revoked_at is not None


def test_where_it_can_not_be_revoked_the_event_says_so(name: str) -> None:
    here = world(require_https=True, revoke_exposed=True)
    app = stack(here, name)
    issued = here.issue()
    app.call(bearer(issued.token.reveal(), scheme="https"))

    def failing(ending: Any) -> None:
        raise OSError("the disk is full")

    here.store.end = failing  # type: ignore[method-assign]
    assert app.call(bearer(issued.token.reveal())).status == 403
    (exposed,) = [event for event in here.events if isinstance(event, KeyExposed)]
    assert not exposed.revoked


# Fields for an upstream


UPSTREAM = {"X-Key-Id": "key_id", "X-Scopes": "scopes"}
FORGED = (
    *((b"x-key-id", b"forged"), (b"X-SCOPES", b"admin"), (b"x-key_id", b"forged")),
    (b"connection", b"x-key-id"),
)


def asked(world: World, name: str, request: Request) -> dict[str, list[str]]:
    """Return the fields that an application behind a pure adapter sees."""
    seen: dict[str, list[str]] = {}

    def note(key: str, value: str) -> None:
        seen.setdefault(key.lower().replace("_", "-"), []).append(value)

    assert answered(world, name, request, lambda: None, note).status == 200
    return seen


def answered(
    world: World,
    name: str,
    request: Request,
    view: Callable[[], object],
    note: Callable[[str, str], None] = lambda key, value: None,
) -> Answer:
    """Return what an application behind a pure adapter answers."""

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        for key, value in scope["headers"]:
            note(key.decode(), value.decode())
        view()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        for key, value in environ.items():
            if key.startswith("HTTP_"):
                note(key[5:], value)
        view()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    if name == "asgi":
        return call_asgi(asgi.KeyguardMiddleware(asgi_app, world.async_guard), request)
    return call_wsgi(wsgi.KeyguardMiddleware(wsgi_app, world.guard), request)


@pytest.mark.parametrize("name", ["asgi", "wsgi"])
def test_an_upstream_receives_the_principal_and_nothing_that_a_client_wrote(name: str) -> None:
    here = world(principal_headers=UPSTREAM)
    issued = here.issue("inference:read", "inference:write")
    request = bearer(issued.token.reveal(), headers=FORGED)
    for _ in range(2):  # cold and warm
        seen = asked(here, name, request)
        assert seen["x-key-id"] == [issued.key.id]
        assert seen["x-scopes"] == ["inference:read inference:write"]
        assert seen["host"] == ["localhost"]
        assert seen["connection"] == [""]


@pytest.mark.parametrize("name", ["asgi", "wsgi"])
def test_on_a_public_path_an_upstream_is_told_of_nobody(name: str) -> None:
    here = world(principal_headers=UPSTREAM)
    seen = asked(here, name, Request("/open", headers=FORGED))
    assert "x-key-id" not in seen
    assert "x-scopes" not in seen


@pytest.mark.parametrize("name", ["asgi", "wsgi"])
def test_where_nothing_is_written_nothing_is_dropped(name: str) -> None:
    here = world()
    assert asked(here, name, bearer(here.token(), headers=FORGED[:1]))["x-key-id"] == ["forged"]
