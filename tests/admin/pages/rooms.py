"""A world whose keys are managed with the console, by people of every role."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from keyguard import IssuedKey
from keyguard.admin import Console
from tests.admin.api.calls import Caller, Got, Sent, call_asgi, call_wsgi
from tests.admin.api.office import identify
from tests.world import World

FORM = {"content-type": "application/x-www-form-urlencoded"}


class Rooms(World):
    """A world with the console, mounted at ``/keys``, in front of either guard."""

    @cached_property
    def fronts(self) -> dict[str, tuple[Caller, Any]]:
        return {
            "asgi": (call_asgi, Console(self.async_guard, identify)),
            "wsgi": (call_wsgi, Console(self.guard, identify)),
        }

    @cached_property
    def issued(self) -> IssuedKey:
        return self.issue("inference:read")

    def get(self, path: str, person: str | None = None, front: str = "wsgi", **more: Any) -> Got:
        caller, app = self.fronts[front]
        path, _, query = path.partition("?")
        return caller(app, Sent("GET", path, query=query, person=person, mount="/keys", **more))

    def post(
        self, path: str, person: str, fields: dict[str, Any] | None = None, front: str = "wsgi"
    ) -> Got:
        """Send the form with an action as a browser does: with the hidden fields of its page."""
        caller, app = self.fronts[front]
        raw = urlencode({"csrf": self.token(path, person)} | (fields or {}), doseq=True).encode()
        return caller(app, Sent("POST", path, person=person, raw=raw, headers=FORM, mount="/keys"))

    def token(self, path: str, person: str) -> str:
        return "-"


def text_of(got: Got) -> str:
    return got.body.decode()


def fields_of(got: Got) -> dict[str, str]:
    """Return the hidden fields of a page."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', text_of(got))
    return dict(found)
