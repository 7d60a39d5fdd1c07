"""The pages over a guard: who sees what, and what the forms do."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from html import unescape

import pytest

from keyguard import Allow, Limit, Rule
from keyguard.admin import Console
from keyguard.admin.sessions import Sessions
from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.sync import run_sync
from tests.admin.api.calls import Sent
from tests.admin.api.office import PEOPLE as KNOWN
from tests.admin.api.office import identify
from tests.admin.pages.rooms import Browser, Rooms, fields_of, text_of

ROLES = ("operator", "administrator", "approver", "auditor", "developer", "stranger", "nobody")
_ACME = "/organizations/acme"
# For each page, the status for each role in the order above.
PAGES = {
    "/": (303, 303, 303, 303, 303, 303, 303),
    "/organizations": (200, 200, 200, 200, 200, 200, 200),
    "/organizations/new": (200, 403, 403, 403, 403, 403, 403),
    _ACME: (200, 200, 200, 200, 303, 404, 404),
    f"{_ACME}/keys": (200, 200, 200, 200, 403, 404, 403),
    f"{_ACME}/keys/new": (200, 200, 403, 403, 403, 404, 403),
    f"{_ACME}/usage": (200, 200, 200, 200, 403, 404, 403),
    f"{_ACME}/usage.csv": (200, 200, 200, 200, 403, 404, 403),
    f"{_ACME}/audit": (200, 200, 403, 200, 403, 404, 403),
    f"{_ACME}/limits": (200, 200, 200, 200, 403, 404, 403),
    f"{_ACME}/settings": (200, 200, 200, 200, 403, 404, 403),
    f"{_ACME}/members": (200, 200, 200, 200, 403, 404, 403),
    f"{_ACME}/edit": (200, 200, 403, 403, 403, 404, 403),
    f"{_ACME}/disable": (200, 200, 403, 403, 403, 404, 403),
    "/keys/{key}": (200, 200, 200, 200, 404, 404, 403),
    "/keys/{key}/edit": (200, 200, 403, 403, 403, 404, 403),
    "/keys/{key}/rotate": (200, 200, 403, 403, 404, 404, 403),
    "/keys/{key}/revoke": (200, 200, 403, 403, 404, 404, 403),
}


@pytest.fixture(scope="module")
def rooms() -> Rooms:
    rooms = Rooms()
    assert rooms.issued  # made here, so that no test depends on another that asks for it
    return rooms


@pytest.mark.parametrize("front", ["asgi", "wsgi"])
@pytest.mark.parametrize("path", PAGES)
def test_each_role_sees_its_pages_and_no_others(rooms: Rooms, path: str, front: str) -> None:
    path_of = path.format(key=rooms.issued.key.id)
    for role, status in zip(ROLES, PAGES[path], strict=True):
        got = rooms.get(path_of, role, front)
        assert (role, got.status) == (role, status)


def test_nobody_unknown_sees_a_page(rooms: Rooms) -> None:
    for path in PAGES:
        got = rooms.get(path.format(key=rooms.issued.key.id))
        assert got.status == 401
        assert "Acme" not in text_of(got)


def test_who_is_signed_out_reads_that_the_application_signs_people_in(rooms: Rooms) -> None:
    text = text_of(rooms.get("/organizations/acme"))
    assert "The application that this console is a part of signs people in" in text
    assert 'class="btn' not in text


def test_who_is_signed_out_is_led_to_the_sign_in_and_back(rooms: Rooms) -> None:
    browser = Browser(Console(rooms.guard, identify, reauthenticate="/login"))
    text = text_of(browser.get("/organizations/acme"))
    assert 'href="/login?next=%2Fkeys%2Forganizations%2Facme"' in text
    assert "The application" not in text


def test_a_foreign_key_is_answered_as_one_that_does_not_exist(rooms: Rooms) -> None:
    foreign = rooms.issued.key.id
    for page in ("", "/rotate", "/revoke", "/edit"):
        first = rooms.get(f"/keys/{foreign}{page}", "stranger")
        assert rooms.get(f"/keys/{'0' * 16}{page}", "stranger") == first
    for page in ("", "/keys", "/usage", "/audit", "/settings"):
        first = rooms.get(f"/organizations/acme{page}", "stranger")
        assert rooms.get(f"/organizations/nowhere{page}", "stranger") == first


def test_an_auditor_sees_no_button(rooms: Rooms) -> None:
    for path, statuses in PAGES.items():
        if statuses[3] == 200 and not path.endswith(".csv"):
            text = text_of(rooms.get(path.format(key=rooms.issued.key.id), "auditor"))
            assert 'method="post"' not in text
            assert not re.findall(r'class="btn (?:first|bad)[^>]*>(?!Show|Filter)', text)


def test_a_key_that_was_deleted_is_not_found_and_the_trail_shows_its_name(rooms: Rooms) -> None:
    issued = rooms.guard.keys.issue(organization="acme", name="forgotten")
    gone = issued.key
    rooms.guard.keys.revoke(gone.id)
    rooms.clock.advance(timedelta(days=401))
    rooms.guard.keys.delete_ended(ended_for=timedelta(days=400))

    assert rooms.get(f"/keys/{gone.id}", "operator").status == 404
    text = text_of(rooms.get("/organizations/acme/audit", "operator"))
    assert "Key deleted" in text
    assert "<del>forgotten</del>" in text


def test_every_answer_carries_the_header_fields_that_make_it_safe(rooms: Rooms) -> None:
    for path in PAGES:
        for person in ("operator", "stranger", None):
            got = rooms.get(path.format(key=rooms.issued.key.id), person)
            assert got["content-security-policy"].startswith(
                "default-src 'none'; script-src 'self'"
            )
            assert got["referrer-policy"] == "no-referrer"
            assert got["x-content-type-options"] == "nosniff"
            assert got["cross-origin-opener-policy"] == "same-origin"
            assert got["cross-origin-resource-policy"] == "same-origin"
            assert got["cache-control"] == "no-store"


def test_static_files_are_cached_by_their_content_and_need_nobody(rooms: Rooms) -> None:
    text = text_of(rooms.get("/organizations", "operator"))
    names = re.findall(r'"/keys(/static/console-[0-9a-f]{12}\.\w+)"', text)
    assert len(names) == 2
    for name in names:
        got = rooms.get(name)
        assert got.status == 200
        assert got["cache-control"] == "public, max-age=31536000, immutable"
    assert rooms.get("/static/console-000000000000.css").status == 404


def test_issuing_a_key_shows_its_token_once() -> None:
    rooms = Rooms()
    page = rooms.get("/organizations/acme/keys/new", "administrator")
    fields = fields_of(page) | {"name": "New", "scope": ["inference:read"], "lifetime": "30"}
    got = rooms.post("/organizations/acme/keys", "administrator", fields)
    (token,) = re.findall(r'id="token"[^>]*>([^<]+)<', text_of(got))
    assert rooms.guard.authenticate([f"Bearer {token}"]).__class__.__name__ == "Allow"
    again = rooms.post("/organizations/acme/keys", "administrator", fields)
    assert again.status == 410
    assert token not in text_of(again)
    assert [key.name for key in rooms.guard.keys.list(organization="acme")].count("New") == 1


def test_a_preview_tells_what_a_key_may_and_may_not(rooms: Rooms) -> None:
    fields = {"name": "x", "scope": ["inference:read"], "preview": "1"}
    got = rooms.post("/organizations/acme/keys", "administrator", fields)
    assert got.status == 200
    may, may_not = text_of(got).split("<h3>may not</h3>")
    assert "inference:read" in may.split("<h3>may</h3>")[1]
    assert "inference:write" in may_not


def test_a_mistake_keeps_what_was_typed(rooms: Rooms) -> None:
    fields = {"name": "Typed", "scope": ["inference:read"], "networks": "300.0.0.0/8"}
    got = rooms.post("/organizations/acme/keys", "administrator", fields)
    assert got.status == 422
    assert 'role="alert"' in text_of(got)
    assert 'value="Typed"' in text_of(got)
    assert 'value="300.0.0.0/8"' in text_of(got)


def test_a_key_is_edited_rotated_and_revoked() -> None:
    rooms = Rooms()
    key = rooms.issued.key
    path = f"/keys/{key.id}"
    fields = fields_of(rooms.get(f"{path}/edit", "administrator"))
    edited = rooms.post(
        f"{path}/edit", "administrator", fields | {"name": "Edited", "scope": sorted(key.scopes)}
    )
    assert edited.status == 303
    assert rooms.guard.keys.get(key.id).name == "Edited"
    fields = fields_of(rooms.get(f"{path}/rotate", "administrator")) | {"grace": "3600"}
    rotated = rooms.post(f"{path}/rotate", "administrator", fields)
    assert 'id="token"' in text_of(rotated)
    again = rooms.post(f"{path}/rotate", "administrator", fields)
    assert again.status == 410
    successor = rooms.guard.keys.get(key.id).successor
    stored = rooms.post(f"/keys/{successor}/stored", "administrator")
    assert stored["clear-site-data"] == '"cache"'
    revoked = rooms.post(f"{path}/revoke", "administrator", {"reason": "superseded", "note": "x"})
    assert revoked["location"] == f"/keys{path}?done=revoked"
    assert rooms.guard.keys.get(key.id).revoked_note == "x"


def test_the_end_of_a_revoked_key_is_its_revocation() -> None:
    rooms = Rooms()
    key = rooms.guard.keys.issue(organization="acme", name="x", expires_in=timedelta(days=90)).key
    rooms.clock.advance(timedelta(days=3))
    revoked_at = rooms.guard.keys.revoke(key.id).revoked_at
    listed = text_of(rooms.get("/organizations/acme/keys", "administrator"))
    shown = text_of(rooms.get(f"/keys/{key.id}", "administrator"))
    for end in (
        re.search(r'<td data-l="Ends">\s*<time datetime="(\S+)"', listed),
        re.search(r'<dt>Ends</dt><dd>\s*<time datetime="(\S+)"', shown),
    ):
        assert end is not None
        assert revoked_at == datetime.fromisoformat(end[1])


def test_several_keys_are_revoked_after_a_question() -> None:
    rooms = Rooms()
    keys = [rooms.guard.keys.issue(organization="acme", name=f"Key {n}").key.id for n in range(3)]
    path = "/organizations/acme/keys/revoke"
    asked = rooms.post(path, "administrator", {"key": keys[:2]})
    assert "Revoke 2 keys?" in text_of(asked)
    assert all(rooms.guard.keys.get(key).revoked_at is None for key in keys)
    done = rooms.post(path, "administrator", {"key": keys[:2], "reason": "unspecified"})
    assert done.status == 303
    assert [rooms.guard.keys.get(key).revoked_at is None for key in keys] == [False, False, True]


def test_an_organization_is_edited_disabled_and_enabled() -> None:
    rooms = Rooms(options={"plans": {"pro": {}}})
    page = rooms.get("/organizations/acme/edit", "operator")
    fields = dict(re.findall(r'<input[^>]*name="(\w+)"[^>]*value="([^"]*)"', text_of(page)))
    del fields["csrf"]  # which is of the browser that saw the page
    done = rooms.post(
        "/organizations/acme/settings",
        "operator",
        fields | {"name": "New name", "max_days": "30", "max_keys": "9", "plan": "pro"},
    )
    assert done.status == 303
    changed = rooms.guard.organizations.get("acme")
    assert (changed.name, changed.max_keys, changed.plan) == ("New name", 9, "pro")
    assert "<dd>pro</dd>" in text_of(rooms.get("/organizations/acme/settings", "operator"))
    assert changed.max_key_lifetime is not None
    assert changed.max_key_lifetime.days == 30
    for verb, disabled in (("disable", True), ("enable", False)):
        assert rooms.post(f"/organizations/acme/{verb}", "operator").status == 303
        assert (rooms.guard.organizations.get("acme").disabled_at is not None) is disabled
        for page in ("/organizations", "/organizations/acme/settings"):
            shown = text_of(rooms.get(page, "operator"))
            chip = 'bad">Disabled' if disabled else 'good">Enabled'
            assert f'<span class="chip {chip}</span>' in shown


def test_the_list_of_keys_is_filtered_by_the_query(rooms: Rooms) -> None:
    name = rooms.issued.key.name
    for query, found in (
        (f"q={name[:3]}", True),
        (f"q={rooms.issued.key.id[:5]}", True),
        ("q=nothing", False),
        ("status=revoked", False),
        ("owner=nobody", False),
    ):
        text = text_of(rooms.get(f"/organizations/acme/keys?{query}", "auditor"))
        assert (rooms.issued.key.id in text) is found


def test_hostile_names_are_text_on_every_page() -> None:
    rooms = Rooms()
    hostile = "<img src=x onerror=alert(1)>{{7*7}}'\"&" + "W" * 100
    key = rooms.guard.keys.issue(
        organization="acme", name=hostile, owner=hostile, metadata={hostile: hostile}
    ).key
    rooms.guard.organizations.update("acme", name=hostile)
    rooms.guard.keys.revoke(key.id, note=hostile, actor=hostile)
    for path, statuses in PAGES.items():
        if statuses[0] == 200:
            text = text_of(rooms.get(path.format(key=key.id), "operator"))
            assert "<img" not in text
            assert "49" not in re.findall(r"alert\(1\)&gt;(\S\S)", text)


def test_a_body_that_is_no_form_is_refused(rooms: Rooms) -> None:
    caller, app = rooms.fronts["wsgi"]
    path = f"/keys/{rooms.issued.key.id}/revoke"
    got = caller(app, Sent("POST", path, body={"a": 1}, person="administrator", mount="/keys"))
    assert got.status == 415


def test_usage_is_shown_and_downloaded() -> None:
    rooms = Rooms()
    for _ in range(3):
        rooms.guard.authenticate([f"Bearer {rooms.issued.token.reveal()}"])
    rooms.guard.flush()
    text = text_of(rooms.get("/organizations/acme/usage?group=outcome", "auditor"))
    assert "3 requests" in text
    assert "<rect" in text
    lines = text_of(rooms.get("/organizations/acme/usage.csv?group=outcome", "auditor"))
    assert lines.splitlines()[0] == "start,end,outcome,requests,units"
    assert ",allowed,3," in lines.splitlines()[1]
    for query in ("step=never", "zone=Nowhere", "start=x", "start=2026-11-22&end=2026-11-01"):
        got = rooms.get(f"/organizations/acme/usage?{query}", "auditor")
        assert got.status == 422
        assert 'role="alert"' in text_of(got)


def test_a_key_is_asked_for_approved_with_less_and_claimed_once() -> None:
    rooms = Rooms()
    rooms.issue("admin")
    path = "/organizations/acme/requests"
    fields = {
        "name": "Crawler",
        "scope": ["inference:read", "inference:write"],
        "lifetime": "90",
        "reason": "To index\nthe docs",
    }
    asked = rooms.post(path, "developer", fields)
    assert asked.status == 303
    path = asked["location"].removeprefix("/keys").partition("?")[0]
    assert "Crawler" in text_of(rooms.get("/organizations/acme/requests", "approver"))
    assert "Crawler" in text_of(rooms.get("/organizations/acme/mine", "developer"))
    page = rooms.get(path, "approver")
    assert "To index the docs" in text_of(page)
    fields = fields_of(page) | {"scope": "inference:read", "lifetime": "30", "note": "read only"}
    assert rooms.post(f"{path}/approve", "approver", fields | {"version": "9"}).status == 422
    assert rooms.post(f"{path}/approve", "approver", fields)["location"].endswith("done=approved")
    page = text_of(rooms.get(path, "developer"))
    assert "read only" in page
    assert '<span class="hidden">not granted: </span>inference:write' in page
    assert "30 days" in page
    for person in ("approver", "administrator", "auditor"):
        assert rooms.post(f"{path}/claim", person).status in (403, 404, 422)
    fields = fields_of(rooms.get(f"{path}/claim", "developer"))
    claimed = rooms.post(f"{path}/claim", "developer", fields)
    assert 'id="token"' in text_of(claimed)
    reloaded = rooms.post(f"{path}/claim", "developer", fields)
    assert reloaded.status == 410
    assert "press Make a new key on the request" in text_of(reloaded)
    again = rooms.post(f"{path}/claim", "developer")
    assert 'id="token"' not in text_of(again)
    (key,) = rooms.guard.keys.list(organization="acme", owner="dev")
    assert (key.name, sorted(key.scopes)) == ("Crawler", ["inference:read"])
    fields = fields_of(rooms.get(f"{path}/reclaim", "developer"))
    assert 'id="token"' in text_of(rooms.post(f"{path}/reclaim", "developer", fields))


@pytest.mark.parametrize(("longest", "chosen"), [(None, "90"), (timedelta(days=40), "30")])
def test_no_end_is_not_chosen_for_an_approver(longest: timedelta | None, chosen: str) -> None:
    rooms = Rooms()
    rooms.guard.organizations.update("acme", max_key_lifetime=longest)
    page = text_of(rooms.get(f"/requests/{_asked(rooms, 'inference:read')}", "approver"))
    assert re.findall(r'<option value="(\w*)" selected>', page) == [chosen]


@pytest.mark.parametrize(
    ("path", "person"),
    [
        ("/organizations/acme/keys/new", "administrator"),
        ("/organizations/acme/requests/new", "developer"),
    ],
)
@pytest.mark.parametrize(("longest", "chosen"), [(None, "90"), (timedelta(days=40), "30")])
def test_a_new_form_chooses_a_lifetime_that_the_organization_allows(
    path: str, person: str, longest: timedelta | None, chosen: str
) -> None:
    rooms = Rooms()
    rooms.guard.organizations.update("acme", max_key_lifetime=longest)
    page = text_of(rooms.get(path, person))
    assert re.findall(r'<option value="(\w*)" selected>', page) == [chosen]


def test_everybody_reads_who_has_approved_a_request_that_takes_several() -> None:
    rooms = Rooms(options={"approvals": {"inference:write": 3}})
    rooms.issue("admin")
    scopes = ["inference:read", "inference:write"]
    path = f"/requests/{_asked(rooms, *scopes)}"

    def approve(person: str) -> None:
        fields = fields_of(rooms.get(path, person)) | {"scope": scopes, "lifetime": ""}
        assert rooms.post(f"{path}/approve", person, fields).status == 303

    approve("approver")
    for person in ("approver", "administrator", "auditor", "developer"):
        text = text_of(rooms.get(path, person))
        assert "Approved by <strong>abe</strong>; 2 more approvals are needed." in text
        assert "Decided by" not in text
        assert ">never<" not in text
        assert "Granted so far" in text
        assert ("/approve" in text) is (person == "administrator")
    approve("administrator")
    text = text_of(rooms.get(path, "operator"))
    assert (
        "Approved by <strong>abe</strong>, <strong>ada</strong>; one more approval is needed."
        in text
    )
    approve("operator")
    text = text_of(rooms.get(path, "developer"))
    assert "Decided by <strong>abe</strong>, <strong>ada</strong>, <strong>olga</strong>" in text
    assert "needed" not in text
    assert "so far" not in text


def test_requests_for_keys_are_called_key_requests(rooms: Rooms) -> None:
    path = "/organizations/acme/requests"
    text = text_of(rooms.get(path, "approver"))
    assert f'<a href="/keys{path}" aria-current="page">Key requests</a>' in text
    assert "<h1>Key requests</h1>" in text
    assert "<h2>Key requests to decide</h2>" in text_of(rooms.get(_ACME, "approver"))


def test_the_form_of_a_request_says_who_reads_it(rooms: Rooms) -> None:
    text = text_of(rooms.get(f"{_ACME}/requests/new", "developer"))
    assert "An approver decides on it." in text
    assert "An approver reads this." in text


def test_a_request_of_a_key_names_the_key() -> None:
    rooms = Rooms()
    key = rooms.guard.keys.issue(organization="acme", name="Deploys", scopes=["inference:read"])
    asker = rooms.guard.authenticate([f"Bearer {key.token.reveal()}"])
    assert isinstance(asker, Allow)
    created = rooms.guard.requests.create(
        organization="acme", name="x", scopes=["inference:read"], actor=asker.principal
    )
    link = f'key <a href="/keys/keys/{key.key.id}">Deploys</a> <code>{key.key.id}</code>'
    for page in (f"/requests/{created.request.id}", f"{_ACME}/requests", _ACME):
        text = text_of(rooms.get(page, "approver"))
        assert link in text
        assert key.key.family not in text


def test_what_is_worth_a_look_names_the_key() -> None:
    rooms = Rooms()
    key = rooms.guard.keys.issue(organization="acme", name="Nightly")
    rooms.guard.keys.revoke(key.key.id)
    rooms.guard.authenticate([f"Bearer {key.token.reveal()}"])
    rooms.guard.flush()
    text = text_of(rooms.get(_ACME, "auditor"))
    (hints,) = re.findall(r"Worth a look</h2>.*?</section>", text, re.S)
    assert f'<a href="/keys/keys/{key.key.id}">Nightly</a>' in hints
    assert "<strong>Ended key presented</strong>" in hints


def test_the_page_of_an_organization_says_with_which_key_somebody_signed_in() -> None:
    rooms = Rooms()
    browser = Browser(Console(rooms.guard, key_sign_in=True))
    key = rooms.issue("admin")
    browser.send("/sign-in", "/sign-in", {"key": key.token.reveal()})
    text = text_of(browser.get(f"{_ACME}/settings"))
    assert f"You are signed in with key {key.key.id}. Its scopes say" in text


def test_an_address_says_that_a_request_was_sent_to_its_requester_alone() -> None:
    rooms = Rooms()
    rooms.issue("admin")
    path = f"/requests/{_asked(rooms, 'inference:read')}"
    sent = "The request was sent."
    assert sent in text_of(rooms.get(f"{path}?done=asked", "developer"))
    assert sent not in text_of(rooms.get(f"{path}?done=asked", "approver"))
    approval = fields_of(rooms.get(path, "approver")) | {"scope": "inference:read", "lifetime": ""}
    approved = rooms.post(f"{path}/approve", "approver", approval)
    address = approved["location"].removeprefix("/keys")
    assert sent not in text_of(rooms.get(f"{path}?done=asked", "developer"))
    assert "The request was approved." in text_of(rooms.get(address, "approver"))
    assert "The request was approved." not in text_of(rooms.get(address, "administrator"))


def _asked(rooms: Rooms, *scopes: str) -> str:
    """Return the id of a request of the developer."""
    created = rooms.guard.requests.create(
        organization="acme", name="Crawler", scopes=scopes, actor=KNOWN["developer"]
    )
    return created.request.id


def test_a_request_is_denied_withdrawn_and_rescinded() -> None:
    rooms = Rooms()
    rooms.issue("admin")

    def ask() -> str:
        fields = {"name": "Crawler", "scope": "inference:read", "lifetime": "", "reason": "x"}
        asked = rooms.post("/organizations/acme/requests", "developer", fields)
        return asked["location"].removeprefix("/keys").partition("?")[0]

    path = ask()
    assert rooms.post(f"{path}/deny", "developer").status in (403, 404)
    assert rooms.post(f"{path}/deny", "approver", {"note": "no"})["location"].endswith("=denied")
    path = ask()
    assert rooms.post(f"{path}/withdraw", "approver").status in (403, 422)
    assert rooms.post(f"{path}/withdraw", "developer")["location"].endswith("=withdrawn")
    path = ask()
    fields = fields_of(rooms.get(path, "administrator")) | {
        "scope": "inference:read",
        "lifetime": "",
    }
    assert rooms.post(f"{path}/approve", "administrator", fields).status == 303
    rescinded = rooms.post(f"{path}/rescind", "administrator")
    assert rescinded["location"].endswith("=rescinded")
    statuses = {request.state.value for request in rooms.guard.requests.list(organization="acme")}
    assert statuses == {"denied", "withdrawn", "rescinded"}


def test_a_foreign_request_is_answered_as_one_that_does_not_exist() -> None:
    rooms = Rooms()
    created = rooms.guard.requests.create(
        organization="acme", name="x", scopes=["inference:read"], actor="dev"
    )
    for page in ("", "/deny", "/claim", "/withdraw", "/rescind"):
        foreign = rooms.get(f"/requests/{created.request.id}{page}", "stranger")
        assert rooms.get(f"/requests/req_{'0' * 16}{page}", "stranger") == foreign


def test_a_form_without_the_token_of_its_page_changes_nothing(rooms: Rooms) -> None:
    path = f"/keys/{rooms.issued.key.id}/revoke"
    for fields in ({"csrf": ""}, {"csrf": "x" * 43}):
        got = rooms.post(path, "administrator", fields)
        assert got.status == 403
        assert "Load the page again." in text_of(got)
    assert rooms.guard.keys.get(rooms.issued.key.id).revoked_at is None


def test_somebody_signs_in_with_a_key_and_out_again() -> None:
    rooms = Rooms()
    app = Console(rooms.guard, key_sign_in=True)
    browser = Browser(app)
    first = browser.get("/organizations/acme/keys")
    assert first.status == 303
    assert first["location"] == "/keys/sign-in?next=%2Fkeys%2Forganizations%2Facme%2Fkeys"
    wrong = browser.send("/sign-in", "/sign-in", {"key": rooms.token("inference:read")})
    assert wrong.status == 422
    key = rooms.issue("admin")
    page = "/sign-in?next=/keys/organizations/acme/keys"
    got = browser.send(page, page, {"key": key.token.reveal()})
    assert (got.status, got["location"]) == (303, "/keys/organizations/acme/keys")
    assert key.key.id in text_of(browser.get("/organizations/acme"))
    out = browser.send("/organizations/acme", "/sign-out", {})
    assert out["location"] == "/keys/sign-out"
    assert browser.get("/sign-out").status == 200
    assert browser.get("/organizations/acme").status == 303


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/keys//evil", "/keys/../x", "/x"]
)
def test_signing_in_leads_to_no_other_site(target: str) -> None:
    rooms = Rooms()
    browser = Browser(Console(rooms.guard, key_sign_in=True))
    page = f"/sign-in?next={target}"
    got = browser.send(page, page, {"key": rooms.token("admin")})
    assert got["location"] == "/keys/"


def test_a_link_signs_in_once() -> None:
    rooms = Rooms()
    browser = Browser(Console(rooms.guard, identify))
    code = run_sync(Sessions(rooms.guard).make_link(KNOWN["auditor"]))
    assert browser.get(f"/sign-in/{code}").status == 200
    assert browser.get(f"/sign-in/{code}").status == 200
    got = browser.send(f"/sign-in/{code}", f"/sign-in/{code}", {})
    assert got["location"] == "/keys/"
    assert browser.get("/organizations/acme").status == 200
    again = browser.send(f"/sign-in/{code}", f"/sign-in/{code}", {})
    assert again.status == 404
    assert "This link was used" in text_of(again)
    assert "<h1>This link no longer works</h1>" in text_of(again)


def test_a_request_with_a_key_is_tried_without_its_token() -> None:
    rooms = Rooms(options={"rules": [Rule("/write", scopes=["inference:write"])]})
    path = f"/keys/{rooms.issued.key.id}"
    assert "Try a request" not in text_of(rooms.get(path, "auditor"))
    refused = text_of(rooms.get(f"{path}?method=POST&path=/write", "administrator"))
    assert "Refused: scope missing" in refused
    assert "This takes: inference:write." in refused
    assert "Let in" not in refused
    let_in = text_of(rooms.get(f"{path}?method=GET&path=/read", "administrator"))
    assert "Let in by the rules" in let_in
    assert "What decorators in the application ask for is not known here" in let_in


def test_a_path_without_a_slash_is_not_tried(rooms: Rooms) -> None:
    path = f"/keys/{rooms.issued.key.id}?method=GET&path=v1/models"
    text = text_of(rooms.get(path, "administrator"))
    assert "A path begins with a slash, such as /v1/models." in text
    assert "Let in" not in text


def test_the_pages_of_limits_promise_no_limits_that_there_are_not(rooms: Rooms) -> None:
    for page in (f"/keys/{rooms.issued.key.id}", "/organizations/acme/limits"):
        text = text_of(rooms.get(page, "administrator"))
        assert "No limits of the key, its organization or the service. Routes may have" in text
        assert "The limits of the service apply" not in text


def test_a_whole_id_leads_to_its_key(rooms: Rooms) -> None:
    key = rooms.issued.key.id
    got = rooms.get(f"/organizations/acme/keys?q={key}", "auditor")
    assert (got.status, got["location"]) == (303, f"/keys/keys/{key}")
    foreign = rooms.guard.keys.issue(organization="other", name="x").key.id
    assert rooms.get(f"/organizations/acme/keys?q={foreign}", "auditor").status == 200


def test_a_page_says_that_the_keys_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = Rooms()
    key = rooms.issued.key.id

    def fail(*_: object) -> None:
        raise StoreUnavailableError("down")

    monkeypatch.setattr(rooms.store, "find_key", fail)
    got = rooms.get(f"/keys/{key}", "administrator")
    assert got.status == 503
    assert "The keys can&#39;t be reached at the moment." in text_of(got)


def test_a_developer_sees_and_rotates_own_keys_alone(rooms: Rooms) -> None:
    own = rooms.issue("inference:read", owner="dev").key.id
    for page in ("", "/rotate", "/revoke"):
        assert rooms.get(f"/keys/{own}{page}", "developer").status == 200
    text = text_of(rooms.get(f"/keys/{own}", "developer"))
    assert "Rotate…" in text
    assert f"/keys/{own}/edit" not in text
    assert rooms.get(f"/keys/{own}/edit", "developer").status == 403
    assert own in text_of(rooms.get("/organizations/acme/mine", "developer"))


def test_a_key_that_signed_in_has_no_keys_of_its_own_and_asks_for_none() -> None:
    rooms = Rooms()
    browser = Browser(Console(rooms.guard, key_sign_in=True))
    browser.send("/sign-in", "/sign-in", {"key": rooms.token("admin")})
    text = text_of(browser.get("/organizations/acme/requests"))
    assert "/mine" not in text
    assert "Request a key" not in text


def test_a_path_that_takes_another_method_says_which(rooms: Rooms) -> None:
    path = f"/keys/{rooms.issued.key.id}"
    caller, app = rooms.fronts["wsgi"]
    headers = {"sec-fetch-site": "same-origin"}
    got = caller(app, Sent("DELETE", path, person="administrator", headers=headers, mount="/keys"))
    assert (got.status, got["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("ceiling", [None, [], ["inference:read"]])
def test_saving_settings_as_they_are_raises_no_ceiling(ceiling: list[str] | None) -> None:
    rooms = Rooms()
    rooms.guard.organizations.update("acme", scopes=ceiling)
    before = rooms.guard.organizations.get("acme")
    page = rooms.get("/organizations/acme/edit", "operator")
    fields = dict(re.findall(r'<input[^>]*name="(\w+)"[^>]*value="([^"]*)"', text_of(page)))
    del fields["csrf"]
    assert rooms.post("/organizations/acme/settings", "operator", fields).status == 303
    assert rooms.guard.organizations.get("acme").scopes == before.scopes


def test_saving_a_form_as_it_is_keeps_what_it_does_not_tell_of_limits() -> None:
    rooms = Rooms()
    limits = (
        Limit("burst", "10/second; 100/minute", enforce=False),
        Limit("daily", "5/day", strategy="fixed-window"),
    )
    rooms.guard.organizations.update("acme", limits=limits)
    key = rooms.issue("inference:read", limits=limits).key
    for page, action in (
        ("/organizations/acme/edit", "/organizations/acme/settings"),
        (f"/keys/{key.id}/edit", f"/keys/{key.id}/edit"),
    ):
        text = text_of(rooms.get(page, "operator"))
        fields = dict(re.findall(r'<input[^>]*name="(\w+)"[^>]*value="([^"]*)"', text))
        del fields["csrf"]
        assert fields["limits"] == "burst=10/second, 100/minute; daily=5/day"
        assert rooms.post(action, "operator", fields).status == 303
    assert rooms.guard.organizations.get("acme").limits == limits
    assert rooms.guard.keys.get(key.id).limits == limits


@pytest.mark.parametrize("page", ["usage", "usage.csv"])
@pytest.mark.parametrize("step", ["15m", "hour", "day", "week", "month"])
@pytest.mark.parametrize(
    "query",
    [
        *("end=0001-01-01", "start=0001-01-01", "end=9999-12-31", "start=9999-12-31"),
        *("start=0001-01-01&end=0001-01-02", "start=9999-12-30&end=9999-12-31"),
    ],
)
def test_a_time_at_an_end_of_the_calendar_is_answered(
    rooms: Rooms, page: str, step: str, query: str
) -> None:
    for zone in ("UTC", "Asia/Tokyo", "America/New_York"):
        path = f"/organizations/acme/{page}?step={step}&zone={zone}&{query}"
        assert rooms.get(path, "auditor").status in (200, 422)


def typed(rooms: Rooms, page: str, person: str = "operator") -> dict[str, str]:
    """Return the fields of a page's form as a browser would send them."""
    text = text_of(rooms.get(page, person))
    found = re.findall(r'<input[^>]*name="(\w+)"[^>]*value="([^"]*)"', text)
    return {name: unescape(value) for name, value in found if name not in ("csrf", "scope")}


def test_a_rate_that_is_changed_keeps_all_else_of_its_limit_and_the_others() -> None:
    rooms = Rooms()
    burst = Limit("burst", "10/second; 100/minute", per="address", enforce=False)
    daily = Limit("daily", "5/day", strategy="fixed-window")
    rooms.guard.organizations.update("acme", limits=(burst, daily))
    key = rooms.issue("inference:read", limits=(burst, daily)).key
    for page, action in (
        ("/organizations/acme/edit", "/organizations/acme/settings"),
        (f"/keys/{key.id}/edit", f"/keys/{key.id}/edit"),
    ):
        fields = typed(rooms, page) | {"scope": "inference:read"}
        fields["limits"] = fields["limits"].replace("5/day", "6/day") + "; new=1/minute"
        assert rooms.post(action, "operator", fields).status == 303
    changed = Limit("daily", "6/day", strategy="fixed-window")
    kept = rooms.guard.organizations.get("acme").limits
    assert kept == (burst, changed, Limit("new", "1/minute", per="organization"))
    kept = rooms.guard.keys.get(key.id).limits
    assert kept == (burst, changed, Limit("new", "1/minute", per="key"))


def test_saving_settings_as_they_are_keeps_a_lifetime_to_the_second() -> None:
    rooms = Rooms()
    lifetime = timedelta(seconds=100001)
    rooms.guard.organizations.update("acme", max_key_lifetime=lifetime)
    rooms.signed_in_before = timedelta(days=1)  # a bound that is sent would ask to sign in
    fields = typed(rooms, "/organizations/acme/edit")
    assert rooms.post("/organizations/acme/settings", "operator", fields).status == 303
    assert rooms.guard.organizations.get("acme").max_key_lifetime == lifetime


def test_a_form_that_is_put_right_issues_one_key() -> None:
    rooms = Rooms()
    path = "/organizations/acme/keys"
    wrong = {"name": "New", "scope": "inference:read", "lifetime": "30", "networks": "x"}
    got = rooms.post(path, "administrator", wrong | {"once": "a" * 32})
    assert got.status == 422
    right = wrong | fields_of(got) | {"networks": ""}
    assert right["once"] == "a" * 32
    assert 'id="token"' in text_of(rooms.post(path, "administrator", right))
    assert rooms.post(path, "administrator", right).status == 410
    assert [key.name for key in rooms.guard.keys.list(organization="acme")].count("New") == 1


def approved_request(rooms: Rooms) -> str:
    created = rooms.guard.requests.create(
        organization="acme", name="x", scopes=["inference:read"], actor=KNOWN["developer"]
    )
    rooms.guard.requests.approve(created.request.id, actor=KNOWN["approver"])
    return f"/requests/{created.request.id}"


@pytest.mark.parametrize("verb", ["claim", "reclaim"])
def test_a_claim_that_the_store_lost_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    rooms = Rooms()
    path = approved_request(rooms)
    if verb == "reclaim":
        assert rooms.post(f"{path}/claim", "developer", {"once": "b"}).status == 200
    fields = fields_of(rooms.get(f"{path}/{verb}", "developer"))

    def fail(*_: object) -> None:
        raise StoreUnavailableError("down")

    with monkeypatch.context() as patch:
        patch.setattr(rooms.store, "commit", fail)
        assert rooms.post(f"{path}/{verb}", "developer", fields).status == 503
    assert 'id="token"' in text_of(rooms.post(f"{path}/{verb}", "developer", fields))
    assert rooms.post(f"{path}/{verb}", "developer", fields).status == 410


def test_the_form_of_a_key_that_changed_meanwhile_changes_nothing() -> None:
    rooms = Rooms()
    key = rooms.issue("inference:read", "inference:write").key
    path = f"/keys/{key.id}/edit"
    stale = typed(rooms, path) | {"scope": sorted(key.scopes), "name": "Stale"}
    rooms.guard.keys.update(key.id, scopes=["inference:read"])
    got = rooms.post(path, "operator", stale)
    assert got.status == 412
    assert "has changed" in text_of(got)
    assert rooms.guard.keys.get(key.id).scopes == {"inference:read"}
    assert 'value="Stale"' not in text_of(got)
    fresh = fields_of(got) | {"scope": "inference:read", "name": "Fresh"}
    assert rooms.post(path, "operator", fresh).status == 303
    assert rooms.guard.keys.get(key.id).name == "Fresh"


def test_a_preview_and_a_mistake_keep_the_version_that_a_form_was_made_from() -> None:
    rooms = Rooms()
    key = rooms.issue("inference:read").key
    path = f"/keys/{key.id}/edit"
    stale = typed(rooms, path) | {"scope": "inference:read"}
    rooms.guard.keys.update(key.id, name="Other")
    for fields in (stale | {"preview": "1"}, stale | {"networks": "300.0.0.0/8"}):
        got = rooms.post(path, "operator", fields)
        assert fields_of(got)["version"] == stale["version"]


@pytest.mark.parametrize("version", ["", "x", "9" * 30, "\u0663"])
def test_a_form_without_the_version_of_its_record_changes_nothing(version: str) -> None:
    rooms = Rooms()
    key = rooms.issued.key
    for page, action in (
        ("/organizations/acme/edit", "/organizations/acme/settings"),
        (f"/keys/{key.id}/edit", f"/keys/{key.id}/edit"),
    ):
        fields = typed(rooms, page) | {"version": version, "name": "Changed"}
        assert rooms.post(action, "operator", fields).status == 412
    assert rooms.guard.organizations.get("acme").name != "Changed"
    assert rooms.guard.keys.get(key.id).name == key.name


def test_the_form_of_settings_that_changed_meanwhile_drops_no_ceiling() -> None:
    rooms = Rooms()
    stale = typed(rooms, "/organizations/acme/edit")
    rooms.guard.organizations.update("acme", scopes=["inference:read"])
    got = rooms.post("/organizations/acme/settings", "operator", stale)
    assert got.status == 412
    assert "has changed" in text_of(got)
    assert 'value="inference:read"' in text_of(got)
    assert rooms.guard.organizations.get("acme").scopes == {"inference:read"}
    fresh = stale | {"scopes": "inference:read"} | fields_of(got)
    assert rooms.post("/organizations/acme/settings", "operator", fresh).status == 303
