"""The page of an organization's members: who has a role in it, holds its keys or asks for some."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from keyguard.admin.callers import members_of
from keyguard.admin.console.page import Pages, role_of, view_of
from keyguard.admin.context import Context
from keyguard.admin.exchange import Answer
from keyguard.admin.rights import Right
from keyguard.core.keys.requests import OPEN
from keyguard.core.values import NO_PERSON

_COUNTED = 1000
_SHOWN = 50
_LONGEST_NUMBER = 7

PAGES = Pages()


class OrganizationMember(NamedTuple):
    """Somebody of an organization.

    Args:
        id: The host's id of the person.
        name: The name for people, or "".
        role: What it is in the organization; "" where nobody says so.
        keys: How many keys it holds.
        requests: How many of its requests are open.
    """

    id: str
    name: str
    role: str
    keys: int
    requests: int


@PAGES.add("GET", "/organizations/{organization}/members", Right.READ_ORGANIZATION)
async def show_members(context: Context) -> Answer:
    """Show who belongs to an organization, as the host and its keys and requests tell."""
    view = await view_of(context)
    listed = await context.management.keys.list(organization=view.owner.id, limit=_COUNTED)
    asked = await context.management.requests.list(
        organization=view.owner.id, statuses=OPEN, limit=_COUNTED
    )
    keys = Counter(key.owner for key in listed if key.owner is not None)
    requests = Counter(request.requester for request in asked)
    told = [] if context.members is None else await members_of(context.members, view.owner)
    people = {person.id: (person.name, role_of(person, view.owner)) for person in told}
    names = {name for name in (*keys, *requests) if not NO_PERSON.match(name)}
    names |= {name for name, (_, role) in people.items() if role}
    members = [
        OrganizationMember(name, *people.get(name, ("", "")), keys[name], requests[name])
        for name in names
    ]
    members.sort(key=lambda member: ((member.name or member.id).casefold(), member.id))
    after = view.query("after")
    start = int(after) if after.isdecimal() and len(after) <= _LONGEST_NUMBER else 0
    end = start + _SHOWN
    return view.show(
        "members.html",
        "Members",
        section="Members",
        members=members[start:end],
        told=context.members is not None,
        cut=_COUNTED if listed.next or asked.next else 0,
        next=view.next_page(str(end) if len(members) > end else None),
    )
