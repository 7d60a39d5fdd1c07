"""Where people are led to sign in: to a page that there is, and with no code of a link in it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from keyguard import Person
from keyguard.admin import Console, ManagementAPI
from keyguard.admin.sessions import Sessions
from keyguard.runtime.sync import run_sync
from tests.admin.api.calls import Sent, call_wsgi
from tests.admin.pages.rooms import Browser, Rooms, text_of
from tests.world import World

DISABLE = "/organizations/acme/disable"
CODE = "c" * 43


@pytest.mark.parametrize(
    ("options", "link"),
    [
        ({}, None),
        ({"reauthenticate": "/login"}, "/login?next="),
        ({"key_sign_in": True}, "/keys/sign-in?next="),
        ({"key_sign_in": True, "reauthenticate": "/login"}, "/login?next="),
    ],
    ids=str,
)
def test_a_session_that_is_too_old_is_led_to_a_page_that_there_is(
    options: dict[str, Any], link: str | None
) -> None:
    world = World()
    code = run_sync(Sessions(world.guard).make_link(Person(id="olga", operator=True)))
    browser = Browser(Console(world.guard, identify=lambda _: None, **options))
    browser.send(f"/sign-in/{code}", f"/sign-in/{code}", {})
    world.clock.advance(timedelta(minutes=11))

    text = text_of(browser.send(DISABLE, DISABLE, {}))

    assert "This needs a sign-in within the last ten minutes. Sign in again" in text
    assert (f'href="{link}' in text) if link else ("Go to the start" in text)


def test_the_api_alone_names_no_page_that_it_has_not() -> None:
    rooms = Rooms()
    rooms.signed_in_before = timedelta(minutes=11)
    sent = Sent("POST", DISABLE, person="administrator")

    stale = call_wsgi(ManagementAPI(rooms.guard, rooms.identify), sent)

    assert stale.status == 403
    assert "reauthenticate" not in stale.json


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("OPTIONS", f"/sign-in/{CODE}"),
        ("PUT", f"/sign-in/{CODE}"),
        ("GET", f"/sign-in/{CODE}/"),
        ("GET", f"/Sign-In/{CODE}"),
        ("GET", f"/x/sign-in/{CODE}"),
    ],
)
def test_no_code_of_a_link_gets_into_an_address(method: str, path: str) -> None:
    got = call_wsgi(Console(World().guard, key_sign_in=True), Sent(method, path, mount="/keys"))

    assert got["location"] == "/keys/sign-in?next=%2Fkeys%2F"
