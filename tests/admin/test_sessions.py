"""Sessions of the console, links that begin one, forged calls, and sign-ins that are too old."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from keyguard import Person, Secret, StoreUnavailableError
from keyguard.admin.api.me import show_caller
from keyguard.admin.application import Application
from keyguard.admin.asgi import ASGIApplication
from keyguard.admin.callers import Callers
from keyguard.admin.console.form_tokens import check_form, form_token
from keyguard.admin.context import Context, Endpoint
from keyguard.admin.exchange import Answer, json_answer
from keyguard.admin.headers import SAFETY_FIELDS
from keyguard.admin.origins import check_origin
from keyguard.admin.sessions import COOKIE, Sessions
from keyguard.admin.wsgi import WSGIApplication
from keyguard.runtime.sync import run_sync
from tests.admin.api.calls import Got, Sent, call_asgi, call_wsgi
from tests.admin.api.office import PEOPLE, identify
from tests.world import World

ACTION = "/change"
OURS = {"sec-fetch-site": "same-origin"}


async def sign_in(context: Context) -> Answer:
    check_origin(context.call)
    field = await Sessions(context.guard).sign_in(context.call, Secret(context.parameters["token"]))
    return json_answer(200, {}, [field])


async def follow(context: Context) -> Answer:
    check_origin(context.call)
    field = await Sessions(context.guard).follow(context.call, context.parameters["code"])
    return json_answer(200, {}, [field])


async def sign_out(context: Context) -> Answer:
    return json_answer(200, {}, [await Sessions(context.guard).sign_out(context.call)])


async def show_form(context: Context) -> Answer:
    return json_answer(200, {"token": form_token(context, ACTION)})


async def change(context: Context) -> Answer:
    check_form(context, context.parameters["action"].replace("-", "/"), context.parameters["token"])
    return json_answer(200, {})


async def do_far(context: Context) -> Answer:
    return json_answer(200, {})


async def always(context: Context) -> bool:
    return True


def endpoint(method: str, path: str, handler: Any, **more: Any) -> Endpoint:
    return Endpoint(method=method, path=path, handler=handler, summary="", **more)


TABLE = (
    endpoint("GET", "/me", show_caller),
    endpoint("POST", "/sign-in/{token}", sign_in, anonymous=True),
    endpoint("POST", "/link/{code}", follow, anonymous=True),
    endpoint("POST", "/sign-out", sign_out),
    endpoint("GET", "/form", show_form),
    endpoint("POST", "/change/{action}/{token}", change),
    endpoint("POST", "/far", do_far, reaches_far=always),
)


class Desk(World):
    """A console of the least size, in front of either guard."""

    front = "wsgi"
    reauthenticate: str | None = None

    def call(self, method: str, path: str, cookie: str = "", **more: Any) -> Got:
        headers = more.pop("headers", OURS) | ({"cookie": cookie} if cookie else {})
        sent = Sent(method, path, headers=headers, **more)
        if self.front == "asgi":
            return call_asgi(ASGIApplication(self.application()), sent)
        return call_wsgi(WSGIApplication(self.application()), sent)

    def application(self) -> Application:
        guard = self.async_guard if self.front == "asgi" else self.guard
        return Application(guard, TABLE, Callers(guard, identify, self.reauthenticate))

    def sign_in(self, *scopes: str, **options: Any) -> tuple[str, str]:
        """Return the id of a new key and the cookie of its session."""
        issued = self.issue(*(scopes or ("admin",)), **options)
        return issued.key.id, cookie_of(self.call("POST", f"/sign-in/{issued.token.reveal()}"))

    def link(self, who: Person | str) -> str:
        return run_sync(Sessions(self.guard).make_link(who))


def cookie_of(got: Got) -> str:
    assert got.status == 200, got
    return got["set-cookie"].partition(";")[0]


@pytest.fixture(params=["asgi", "wsgi"])
def desk(request: pytest.FixtureRequest) -> Desk:
    world = Desk()
    world.front = request.param
    return world


def test_a_session_by_a_person_s_link_lasts_an_hour() -> None:
    desk = Desk()
    cookie = cookie_of(desk.call("POST", f"/link/{desk.link(Person(id='ada', operator=True))}"))

    desk.clock.advance(timedelta(minutes=59))
    assert desk.call("GET", "/me", cookie).status == 200
    desk.clock.advance(timedelta(minutes=1))
    assert desk.call("GET", "/me", cookie).status == 401


def test_a_key_with_admin_begins_a_session(desk: Desk) -> None:
    token = desk.token("admin")

    answer = desk.call("POST", f"/sign-in/{token}")

    assert re.fullmatch(
        r"__Host-keyguard=[\w-]{43}; Path=/; Max-Age=43200; HttpOnly; Secure; SameSite=Lax",
        answer["set-cookie"],
    )
    assert desk.call("GET", "/me", cookie_of(answer)).json["kind"] == "key"


def test_the_store_holds_neither_the_cookie_nor_the_token(desk: Desk) -> None:
    token = desk.token("admin")
    cookie = cookie_of(desk.call("POST", f"/sign-in/{token}"))

    kept = repr(vars(desk.store)) + str(
        [record.value for record in desk.store.__dict__.get("_temporary", {}).values()]
    )

    assert cookie.partition("=")[2] not in kept
    assert token not in kept


@pytest.mark.parametrize(
    ("token", "status"),
    [("aiaas_live_wrong", 401), ("a b", 400)],
)
def test_what_is_no_key_begins_no_session(desk: Desk, token: str, status: int) -> None:
    answer = desk.call("POST", f"/sign-in/{token}")

    assert answer.status == status
    assert "set-cookie" not in dict(answer.headers)


def test_a_key_without_admin_begins_no_session(desk: Desk) -> None:
    assert desk.call("POST", f"/sign-in/{desk.token('inference:read')}").status == 403


@pytest.mark.parametrize(
    "end",
    [
        lambda desk, key_id: desk.guard.keys.revoke(key_id, force=True),
        lambda desk, key_id: desk.guard.keys.update(key_id, scopes=[], force=True),
        lambda desk, key_id: desk.guard.keys.update(
            key_id, allowed_networks=["203.0.113.0/24"], force=True
        ),
        lambda desk, key_id: desk.guard.organizations.disable("acme"),
        lambda desk, key_id: desk.guard.organizations.update("acme", scopes=[], force=True),
        lambda desk, key_id: desk.clock.advance(timedelta(hours=12)),
        lambda desk, key_id: desk.clock.advance(timedelta(hours=2)),  # the key expires
    ],
    ids=["revoked", "no scope", "another network", "disabled", "ceiling", "too old", "expired"],
)
def test_a_session_ends_with_its_key_on_the_next_call(desk: Desk, end: Any) -> None:
    key_id, cookie = desk.sign_in(expires_in=timedelta(hours=2))
    assert desk.call("GET", "/me", cookie).status == 200

    end(desk, key_id)

    assert desk.call("GET", "/me", cookie).status == 401


def test_signing_out_ends_the_session_and_removes_the_cookie(desk: Desk) -> None:
    _, cookie = desk.sign_in()

    answer = desk.call("POST", "/sign-out", cookie)

    assert "Max-Age=0" in answer["set-cookie"]
    assert desk.call("GET", "/me", cookie).status == 401


def test_signing_in_again_ends_the_session_before(desk: Desk) -> None:
    _, first = desk.sign_in()

    second = cookie_of(desk.call("POST", f"/sign-in/{desk.token('admin')}", first))

    assert desk.call("GET", "/me", first).status == 401
    assert desk.call("GET", "/me", second).status == 200


@pytest.mark.parametrize("cookie", [f"{COOKIE}=", f"{COOKIE}=a", f"{COOKIE}={'a' * 43}", COOKIE])
def test_a_cookie_that_names_no_session_is_as_none(desk: Desk, cookie: str) -> None:
    assert desk.call("GET", "/me", cookie).status == 401


def test_a_key_and_a_session_together_are_refused(desk: Desk) -> None:
    _, cookie = desk.sign_in()

    assert desk.call("GET", "/me", cookie, token=desk.token("admin")).status == 400


def test_nobody_signs_in_where_the_browser_would_drop_the_cookie(desk: Desk) -> None:
    path = f"/sign-in/{desk.token('admin')}"

    assert desk.call("POST", path, scheme="http").status == 400
    for host in ("localhost:8000", "127.0.0.1", "[::1]:80"):
        cookie_of(desk.call("POST", path, scheme="http", headers=OURS | {"host": host}))


@pytest.mark.parametrize("role", ["operator", "developer"])
def test_a_link_signs_a_person_in_once(desk: Desk, role: str) -> None:
    code = desk.link(PEOPLE[role])

    cookie = cookie_of(desk.call("POST", f"/link/{code}"))

    assert desk.call("GET", "/me", cookie).json["id"] == PEOPLE[role].id
    assert desk.call("GET", "/me", cookie).json["operator"] == (role == "operator")
    assert desk.call("POST", f"/link/{code}").status == 404


def test_a_link_signs_a_key_in(desk: Desk) -> None:
    key = desk.issue("admin").key

    cookie = cookie_of(desk.call("POST", f"/link/{desk.link(key.id)}"))

    assert desk.call("GET", "/me", cookie).json["id"] == key.id
    desk.guard.keys.revoke(key.id, force=True)
    assert desk.call("GET", "/me", cookie).status == 401


def test_the_host_comes_before_a_session(desk: Desk) -> None:
    cookie = cookie_of(desk.call("POST", f"/link/{desk.link(PEOPLE['operator'])}"))

    answer = desk.call("GET", "/me", cookie, person="developer", headers={})

    assert (answer.json["id"], answer.json["operator"]) == (PEOPLE["developer"].id, False)


def test_a_link_ends_after_five_minutes(desk: Desk) -> None:
    code = desk.link(PEOPLE["operator"])
    desk.clock.advance(timedelta(minutes=5))

    assert desk.call("POST", f"/link/{code}").status == 404


def test_many_who_follow_a_link_at_once_begin_one_session() -> None:
    desk = Desk()
    code = desk.link(PEOPLE["operator"])
    application = WSGIApplication(desk.application())  # as a service makes it: before its threads
    sent = Sent("POST", f"/link/{code}", headers=OURS)
    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(lambda _: call_wsgi(application, sent).status, range(20)))

    assert sorted(got) == [200, *[404] * 19]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "https://evil.example"}, 200),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "https://keys.example"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"origin": "https://keys.example"}, 200),
        ({"origin": "http://keys.example"}, 403),
        ({"origin": "https://keys.example.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://", "host": ""}, 403),
        ({}, 403),
    ],
    ids=str,
)
def test_a_change_by_session_comes_from_a_page_of_the_same_origin(
    desk: Desk, headers: dict[str, str], status: int
) -> None:
    _, cookie = desk.sign_in()

    assert desk.call("POST", "/sign-out", cookie, headers=headers).status == status
    if status == 403:
        assert desk.call("GET", "/me", cookie).status == 200


def test_what_changes_nothing_may_come_from_anywhere(desk: Desk) -> None:
    _, cookie = desk.sign_in()

    assert desk.call("GET", "/me", cookie, headers={"sec-fetch-site": "cross-site"}).status == 200


def test_a_call_with_a_key_is_not_asked_where_it_comes_from(desk: Desk) -> None:
    assert desk.call("POST", "/far", headers={}, token=desk.token("admin")).status == 200


class Browser:
    """A person whom the host knows, with the cookies of one browser."""

    def __init__(self, desk: Desk, role: str) -> None:
        self.desk, self.role, self.cookie = desk, role, ""

    def form(self) -> str:
        answer = self.desk.call("GET", "/form", self.cookie, person=self.role)
        if "set-cookie" in dict(answer.headers):
            self.cookie = cookie_of(answer)
        token: str = answer.json["token"]
        return token

    def send(self, token: str, action: str = "-change") -> int:
        path = f"/change/{action}/{token}"
        return self.desk.call("POST", path, self.cookie, person=self.role).status


def test_a_form_fits_one_person_one_browser_and_one_action(desk: Desk) -> None:
    ada, other, dev = (
        Browser(desk, "administrator"),
        Browser(desk, "administrator"),
        Browser(desk, "developer"),
    )
    token = ada.form()
    other.form()
    dev.form()

    assert ada.send(token) == 200
    assert ada.form() == token
    assert ada.send(token, "-other") == 403
    assert ada.send(("A" if token[0] != "A" else "B") + token[1:]) == 403
    assert other.send(token) == 403
    dev.cookie = ada.cookie
    assert dev.send(token) == 403
    ada.cookie = ""
    assert ada.send(token) == 403


def test_a_form_of_a_session_ends_with_it(desk: Desk) -> None:
    key_id, cookie = desk.sign_in()
    answer = desk.call("GET", "/form", cookie)
    path = f"/change/-change/{answer.json['token']}"
    again = cookie_of(desk.call("POST", f"/link/{desk.link(key_id)}"))

    assert "set-cookie" not in dict(answer.headers)
    assert desk.call("POST", path, cookie).status == 200
    assert desk.call("POST", path, again).status == 403


@pytest.mark.parametrize(
    ("ago", "status"),
    [(None, 403), (timedelta(0), 200), (timedelta(minutes=10), 200), (timedelta(minutes=11), 403)],
    ids=str,
)
def test_what_reaches_far_takes_a_person_who_has_just_signed_in(
    desk: Desk, ago: timedelta | None, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = None if ago is None else desk.clock.now - ago
    ada = Person(id="ada", roles={"acme": "administrator"}, authenticated_at=at)
    monkeypatch.setitem(PEOPLE, "ada", ada)
    desk.reauthenticate = "/login?fresh=1"

    answer = desk.call("POST", "/far", person="ada", mount="/keys")

    assert answer.status == status
    if status == 403:
        assert answer.json["reauthenticate"] == "/login?fresh=1"


def test_what_reaches_far_takes_a_session_that_has_just_begun(desk: Desk) -> None:
    _, cookie = desk.sign_in()
    assert desk.call("POST", "/far", cookie).status == 200
    desk.clock.advance(timedelta(minutes=11))

    answer = desk.call("POST", "/far", cookie, mount="/keys")

    assert answer.status == 403
    assert "last ten minutes" in answer.json["detail"]


@pytest.mark.parametrize("path", ["/me", "/form", "/nothing", "/%2e%2e/me", "//me"])
def test_every_answer_has_the_fields_of_safety(desk: Desk, path: str) -> None:
    answer = desk.call("GET", path, person="operator")

    for name, value in SAFETY_FIELDS:
        assert answer[name.lower()] == value


def test_a_store_that_fails_is_no_end_of_a_session(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cookie = desk.sign_in()

    def fail(*_: object) -> Any:
        raise StoreUnavailableError("down")

    monkeypatch.setattr(desk.store, "find_temporary", fail)

    assert desk.call("GET", "/me", cookie).status == 503
