"""A world whose keys are managed over HTTP, by keys and by people of every role."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import Any

from keyguard.admin import ManagementAPI
from keyguard.admin.exchange import Call
from keyguard.core.identity.person import Person
from tests.admin.api.calls import Caller, Got, Sent, call_asgi, call_wsgi
from tests.world import World

PEOPLE = {
    "operator": Person(id="olga", name="Olga", operator=True),
    "administrator": Person(id="ada", name="Ada", roles={"acme": "administrator"}),
    "approver": Person(id="abe", name="Abe", roles={"acme": "approver"}),
    "auditor": Person(id="uma", name="Uma", roles={"acme": "auditor"}),
    "developer": Person(id="dev", name="Dev", roles={"acme": "developer"}),
    "stranger": Person(id="sam", name="Sam", roles={"other": "administrator"}),
    "nobody": Person(id="nemo"),
}


def identify(call: Call) -> Person | None:
    return PEOPLE.get(call.request.headers.get("X-Person", ""))


class Office(World):
    """A world with the API in front of either guard."""

    signed_in_before = timedelta(0)
    """How long ago people proved who they are."""

    def identify(self, call: Call) -> Person | None:
        person = identify(call)
        at = self.clock.now - self.signed_in_before
        return person and replace(person, authenticated_at=at)

    @cached_property
    def fronts(self) -> dict[str, tuple[Caller, Any]]:
        return {
            "asgi": (call_asgi, ManagementAPI(self.async_guard, self.identify)),
            "wsgi": (call_wsgi, ManagementAPI(self.guard, self.identify)),
        }

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        front: str = "wsgi",
        **more: Any,
    ) -> Got:
        caller, app = self.fronts[front]
        return caller(app, Sent(method, path, body=body, **more))

    def both(self, method: str, path: str, body: object = None, **more: Any) -> Got:
        """Make a call that changes nothing through both front ends, whose answers are equal."""
        first = self.call(method, path, body, front="asgi", **more)
        assert self.call(method, path, body, front="wsgi", **more) == first
        return first


class Ids:
    """The ids of the objects of one organization, for the parameters of paths."""

    def __init__(self, world: World, organization: str) -> None:
        issued = world.issue("inference:read", organization=organization, owner="dev")
        asked = world.guard.requests.create(organization=organization, name="a", actor="dev")
        self.organization = world.guard.organizations.get(organization).id
        self.key, self.family = issued.key.id, issued.key.family
        self.request, self.ticket = asked.request.id, asked.ticket.reveal()
        self.hint = f"ends_soon:{self.key}:30"

    def path(self, template: str) -> str:
        return template.format(**vars(self))


def like(text: str) -> str:
    """Return an id of the same form that nothing has."""
    kind, mark, number = text.rpartition("_")
    return f"{kind}{mark}{'7' * len(number)}"


def least_body(operation: Any) -> object:
    """Return a body that an operation takes."""
    if "requestBody" not in operation:
        return None
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    known = {"action": "revoke", "slug": "new", "method": "GET", "path": "/"}
    return {name: known.get(name, "a") for name in schema.get("required", ())}
