"""What reaches far asks a person to sign in again after ten minutes."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from keyguard.admin import Console
from keyguard.admin.api import ENDPOINTS
from keyguard.admin.console import PAGES
from keyguard.admin.console.sign_in import BY_KEY
from tests.admin.api.calls import Got
from tests.admin.api.office import PEOPLE, like
from tests.admin.pages.rooms import Browser, Rooms, fields_of, text_of

ACME = "/organizations/acme"
NEW_KEY = {"name": "ci", "lifetime": "30", "once": "a" * 22}
EDIT = {"name": "new", "version": "1"}
SETTINGS = {"name": "Acme Inc.", "time_zone": "UTC", "version": "1"}
FAR: dict[str, tuple[str, str, dict[str, Any]]] = {
    "issue admin": (f"{ACME}/keys", "administrator", NEW_KEY | {"scope": ["admin"]}),
    "edit to admin": ("/keys/{key}/edit", "administrator", EDIT | {"scope": ["admin"]}),
    "edit of admin": ("/keys/{admin}/edit", "administrator", EDIT | {"scope": ["admin"]}),
    "rotate admin": (
        "/keys/{admin}/rotate",
        "administrator",
        {"grace": "3600", "once": "a" * 22},
    ),
    "bounds": (f"{ACME}/settings", "operator", SETTINGS | {"max_keys": "7"}),
    "plan": (f"{ACME}/settings", "operator", SETTINGS | {"plan": "pro"}),
    "disable": (f"{ACME}/disable", "administrator", {}),
}
FORMS = {
    "issue admin": f"{ACME}/keys/new",
    "edit to admin": "/keys/{key}/edit",
    "edit of admin": "/keys/{admin}/edit",
    "rotate admin": "/keys/{admin}/rotate",
    "bounds": f"{ACME}/edit",
    "plan": f"{ACME}/edit",
    "disable": f"{ACME}/disable",
}
REACH_FAR = {
    *("POST /organizations/{organization}/settings", "PATCH /organizations/{organization}"),
    "POST /organizations/{organization}/disable",
    *("POST /organizations/{organization}/keys", "POST /keys/{key}/edit", "PATCH /keys/{key}"),
    "POST /keys/{key}/rotate",
    *(f"POST /requests/{{request}}/{verb}" for verb in ("approve", "claim", "reclaim")),
}
NEAR: dict[str, tuple[str, str, dict[str, Any]]] = {
    "issue": (f"{ACME}/keys", "administrator", NEW_KEY | {"scope": ["inference:read"]}),
    "edit": ("/keys/{key}/edit", "administrator", EDIT | {"scope": ["inference:read"]}),
    "settings": (f"{ACME}/settings", "operator", SETTINGS),
    "enable": (f"{ACME}/enable", "administrator", {}),
}


@pytest.fixture
def rooms() -> Rooms:
    rooms = Rooms(options={"plans": {"pro": {}}})
    assert rooms.issued
    rooms.signed_in_before = timedelta(minutes=11)
    rooms.reauthenticate = "/login"
    return rooms


@pytest.mark.parametrize("what", FAR)
def test_what_reaches_far_takes_a_fresh_sign_in(rooms: Rooms, what: str) -> None:
    path, person, fields = FAR[what]
    admin = rooms.issue("admin").key.id
    ids = {"key": rooms.issued.key.id, "admin": admin}
    path = path.format(**ids)
    before = rooms.guard.audit.list().items

    got = rooms.post(path, person, fields)

    assert got.status == 403
    assert "Sign in again" in text_of(got)
    _leads_back_to(FORMS[what].format(**ids), got, rooms, person)
    assert rooms.guard.audit.list().items == before
    rooms.signed_in_before = timedelta(minutes=1)
    assert rooms.post(path, person, fields).status in (200, 303)
    assert rooms.guard.audit.list().items != before


def test_an_approval_that_takes_a_fresh_sign_in_leads_back_to_the_request(rooms: Rooms) -> None:
    rooms.issue("admin")
    created = rooms.guard.requests.create(
        organization="acme", name="x", scopes=["admin"], actor="dev"
    )
    page = f"/requests/{created.request.id}"
    fields = fields_of(rooms.get(page, "administrator")) | {"scope": "admin", "lifetime": ""}

    got = rooms.post(f"{page}/approve", "administrator", fields)

    assert got.status == 403
    preview = rooms.post(f"{page}/approve", "administrator", fields | {"preview": "1"})
    assert preview.status == 403
    _leads_back_to(page, got, rooms, "administrator")


def _leads_back_to(page: str, got: Got, rooms: Rooms, person: str) -> None:
    """Check that the link to sign in leads back to a page with a form, which is there."""
    (link,) = re.findall(r'class="btn first" href="([^"]*)"', text_of(got))
    assert parse_qs(urlsplit(link).query) == {"next": [f"/keys{page}"]}
    assert 'method="post"' in text_of(rooms.get(page, person))


def test_the_table_says_of_each_endpoint_that_changes_something_whether_it_may_reach_far() -> None:
    far = {
        f"{endpoint.method} {endpoint.path}"
        for endpoint in (*PAGES, *BY_KEY, *ENDPOINTS)
        if endpoint.reaches_far is not None
    }
    near = {
        f"{endpoint.method} {endpoint.path}"
        for endpoint in (*PAGES, *BY_KEY, *ENDPOINTS)
        if endpoint.reaches_far is None and endpoint.method != "GET"
    }

    assert far == REACH_FAR
    # What ends keys waits for no sign-in, and what asks or denies grants nothing.
    assert {path.rpartition("/")[2] for path in near} == {
        *("sign-in", "sign-out", "{code}"),
        *("organizations", "enable", "requests", "check", "dismiss"),
        *("revoke", "bulk", "stored", "deny", "rescind", "withdraw"),
    }
    for endpoint in PAGES:
        if endpoint.reaches_far is not None:
            forms = {page.path for page in PAGES if page.method == "GET"}
            assert endpoint.page in forms


@pytest.mark.parametrize("what", NEAR)
def test_all_else_does_not(rooms: Rooms, what: str) -> None:
    path, person, fields = NEAR[what]

    got = rooms.post(path.format(key=rooms.issued.key.id), person, fields)

    assert got.status in (200, 303)


def test_a_key_with_admin_is_claimed_after_a_fresh_sign_in_alone() -> None:
    rooms = Rooms({"catalogue": None})
    asked = rooms.guard.requests.create(
        organization="acme", name="n", scopes=["admin"], actor=PEOPLE["developer"]
    )
    rooms.guard.requests.approve(asked.request.id)
    path = f"/requests/{asked.request.id}"
    for number, step in enumerate(("claim", "reclaim")):
        once = {"once": str(number) * 22}
        rooms.signed_in_before = timedelta(minutes=11)
        stale = rooms.post(f"{path}/{step}", "developer", once)
        assert (stale.status, "Sign in again" in text_of(stale)) == (403, True)
        rooms.signed_in_before = timedelta(minutes=1)
        assert rooms.post(f"{path}/{step}", "developer", once).status == 200


def test_a_session_that_a_key_began_claims_admin_after_a_fresh_sign_in_alone() -> None:
    rooms = Rooms({"catalogue": None})
    keys = [rooms.issue("admin", organization=slug) for slug in ("acme", "other")]
    browsers: list[Browser] = []
    for key in keys:
        browsers.append(Browser(Console(rooms.guard, key_sign_in=True)))
        browsers[-1].send("/sign-in", "/sign-in", {"key": key.token.reveal()})
    own, foreign = browsers
    actor = rooms.guard.authenticate([f"Bearer {keys[0].token.reveal()}"]).principal
    asked = rooms.guard.requests.create(
        organization="acme", name="n", scopes=["admin"], actor=actor
    )
    rooms.guard.requests.approve(asked.request.id)
    path = f"/api/v1/requests/{asked.request.id}"
    unknown = f"/api/v1/requests/{like(asked.request.id)}"
    rooms.clock.advance(timedelta(minutes=11))

    for step in ("claim", "reclaim"):
        stale = own.call("POST", f"{path}/{step}")
        assert (stale.status, "last ten minutes" in stale.json["detail"]) == (403, True)
        assert foreign.call("POST", f"{path}/{step}") == foreign.call("POST", f"{unknown}/{step}")
        assert foreign.call("POST", f"{path}/{step}").status == 404
        own.send("/sign-in", "/sign-in", {"key": keys[0].token.reveal()})
        assert own.call("POST", f"{path}/{step}").status == 201
        rooms.clock.advance(timedelta(minutes=11))
