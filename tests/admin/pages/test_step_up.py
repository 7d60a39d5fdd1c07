"""What reaches far asks a person to sign in again after ten minutes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.admin.pages.rooms import Rooms, text_of

ACME = "/organizations/acme"
NEW_KEY = {"name": "ci", "lifetime": "30", "once": "a" * 22}
SETTINGS = {"name": "Acme Inc.", "time_zone": "UTC"}
FAR: dict[str, tuple[str, str, dict[str, Any]]] = {
    "issue admin": (f"{ACME}/keys", "administrator", NEW_KEY | {"scope": ["admin"]}),
    "edit to admin": ("/keys/{key}/edit", "administrator", {"name": "new", "scope": ["admin"]}),
    "edit of admin": ("/keys/{admin}/edit", "administrator", {"name": "a", "scope": ["admin"]}),
    "rotate admin": (
        "/keys/{admin}/rotate",
        "administrator",
        {"grace": "3600", "once": "a" * 22},
    ),
    "bounds": (f"{ACME}/settings", "operator", SETTINGS | {"max_keys": "7"}),
    "disable": (f"{ACME}/disable", "administrator", {}),
}
NEAR: dict[str, tuple[str, str, dict[str, Any]]] = {
    "issue": (f"{ACME}/keys", "administrator", NEW_KEY | {"scope": ["inference:read"]}),
    "edit": ("/keys/{key}/edit", "administrator", {"name": "new", "scope": ["inference:read"]}),
    "settings": (f"{ACME}/settings", "operator", SETTINGS),
    "enable": (f"{ACME}/enable", "administrator", {}),
}


@pytest.fixture
def rooms() -> Rooms:
    rooms = Rooms()
    assert rooms.issued
    rooms.signed_in_before = timedelta(minutes=11)
    return rooms


@pytest.mark.parametrize("what", FAR)
def test_what_reaches_far_takes_a_fresh_sign_in(rooms: Rooms, what: str) -> None:
    path, person, fields = FAR[what]
    admin = rooms.issue("admin").key.id
    path = path.format(key=rooms.issued.key.id, admin=admin)
    before = rooms.guard.audit.list().items

    got = rooms.post(path, person, fields)

    assert got.status == 403
    assert "Sign in again" in text_of(got)
    assert rooms.guard.audit.list().items == before
    rooms.signed_in_before = timedelta(minutes=1)
    assert rooms.post(path, person, fields).status in (200, 303)
    assert rooms.guard.audit.list().items != before


@pytest.mark.parametrize("what", NEAR)
def test_all_else_does_not(rooms: Rooms, what: str) -> None:
    path, person, fields = NEAR[what]

    got = rooms.post(path.format(key=rooms.issued.key.id), person, fields)

    assert got.status in (200, 303)
