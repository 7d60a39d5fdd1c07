"""The page of an organization's members."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest

from keyguard import Allow, ConfigurationError, Organization, Person
from keyguard.admin import Console
from tests.admin.api.calls import Got, Sent, call_asgi, call_wsgi
from tests.admin.api.office import PEOPLE, identify
from tests.admin.pages.rooms import text_of
from tests.world import World

PAGE = "/organizations/acme/members"


@pytest.fixture
def world() -> World:
    world = World()
    world.guard.keys.issue(organization="acme", name="a", owner="grace & co")
    for name in ("b", "c"):
        world.guard.keys.issue(organization="acme", name=name, owner="dev")
    asker = world.issue("inference:read")
    decision = world.guard.authenticate([f"Bearer {asker.token.reveal()}"])
    assert isinstance(decision, Allow)
    for actor in ("dev", "linus", decision.principal):
        world.guard.requests.create(organization="acme", name="x", scopes=[], actor=actor)
    return world


def told(organization: Organization) -> list[Person]:
    return [person for person in PEOPLE.values() if person.role_in(organization.slug)]


def told_by_id(organization: Organization) -> list[Person]:
    return [Person(id="ada", roles={organization.id: "auditor", "acme": "developer"})]


def seen(world: World, members: Callable[..., Any] | None = None, query: str = "") -> Got:
    console = Console(world.guard, identify, members=members)
    return call_wsgi(console, Sent("GET", PAGE, query=query, person="auditor", mount="/keys"))


def rows(got: Got) -> dict[str, list[str]]:
    """Return the cells of each row by what its first says."""
    found = {}
    for row in re.findall("<tr>(.*?)</tr>", text_of(got).partition("<tbody>")[2], re.S):
        first, *others = (
            unescape(re.sub("<[^>]*>", "", cell)).strip()
            for cell in re.findall("<t[hd].*?</t[hd]>", row, re.S)
        )
        found[first] = others
    return found


def test_without_the_host_s_word_those_are_shown_whom_keys_and_requests_name(world: World) -> None:
    got = seen(world)

    assert rows(got) == {
        "dev": ["2", "1"],
        "grace & co": ["1", "none"],
        "linus": ["none", "1"],
    }
    assert 'href="/keys/organizations/acme/keys?owner=grace%20%26%20co"' in text_of(got)


def test_the_host_tells_names_and_roles_and_who_has_none_any_more_is_seen(world: World) -> None:
    assert rows(seen(world, told)) == {
        "Abeabe": ["approver", "none", "none"],
        "Adaada": ["administrator", "none", "none"],
        "Devdev": ["developer", "2", "1"],
        "grace & co": ["no role", "1", "none"],
        "linus": ["no role", "none", "1"],
        "Umauma": ["auditor", "none", "none"],
    }
    assert rows(seen(world, told_by_id))["ada"][0] == "auditor"


def test_members_of_another_organization_are_not_shown(world: World) -> None:
    assert "sam" not in text_of(seen(world, lambda _: PEOPLE.values()))


def test_fifty_members_are_a_page(world: World) -> None:
    people = [Person(id=f"p{n:02}", roles={"acme": "developer"}) for n in range(60)]
    first = seen(world, lambda _: people)
    assert 'href="?after=50"' in text_of(first)
    second = rows(seen(world, lambda _: people, "after=50"))
    assert len(rows(first)) == 50
    assert len({*rows(first), *second}) == 63


async def awaited(organization: Organization) -> list[Person]:
    return told(organization)


def test_the_host_may_tell_it_in_a_coroutine_function(world: World) -> None:
    console = Console(world.async_guard, identify, members=awaited)
    got = call_asgi(console, Sent("GET", PAGE, person="auditor", mount="/keys"))
    assert "Abeabe" in rows(got)
    with pytest.raises(ConfigurationError, match="members is a coroutine function"):
        Console(world.guard, identify, members=awaited)


@pytest.mark.parametrize("wrong", [None, "sesame", ["sesame"], [None], [Person]])
def test_what_is_wrong_with_members_is_told_to_the_log_alone(
    world: World, wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    got = seen(world, lambda _: wrong)

    assert got.status == 500
    assert b"sesame" not in got.body
    assert "members" in caplog.text
