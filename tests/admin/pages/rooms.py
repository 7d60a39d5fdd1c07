"""A world whose keys are managed with the console, by people of every role."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from keyguard import IssuedKey, Person
from keyguard.admin import Console
from keyguard.admin.console.form_tokens import _signer
from keyguard.admin.exchange import Call
from tests.admin.api.calls import Caller, Got, Sent, call_asgi, call_wsgi
from tests.admin.api.office import PEOPLE, identify
from tests.world import World

FORM = {
    "content-type": "application/x-www-form-urlencoded",
    "cookie": "__Host-keyguard-form=browser",
}


class Rooms(World):
    """A world with the console, mounted at ``/keys``, in front of either guard."""

    signed_in_before = timedelta(0)
    """How long ago people proved who they are."""

    reauthenticate: str | None = None

    def identify(self, call: Call) -> Person | None:
        person = identify(call)
        at = self.clock.now - self.signed_in_before
        return person and replace(person, authenticated_at=at)

    @cached_property
    def fronts(self) -> dict[str, tuple[Caller, Any]]:
        return {
            "asgi": (
                call_asgi,
                Console(self.async_guard, self.identify, reauthenticate=self.reauthenticate),
            ),
            "wsgi": (
                call_wsgi,
                Console(self.guard, self.identify, reauthenticate=self.reauthenticate),
            ),
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
        """Send the form with an action as a browser does: with the token of its page."""
        caller, app = self.fronts[front]
        who = PEOPLE[person]
        signed = _signer("browser", f"/keys{path}").get_signature(f"person:{who.id}").decode()
        raw = urlencode({"csrf": signed} | (fields or {}), doseq=True).encode()
        return caller(app, Sent("POST", path, person=person, raw=raw, headers=FORM, mount="/keys"))


def text_of(got: Got) -> str:
    return got.body.decode()


def fields_of(got: Got) -> dict[str, str]:
    """Return the hidden fields of a page."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', text_of(got))
    return {name: value for name, value in found if name != "csrf"}


class Browser:
    """Keeps cookies, and sends forms with the hidden fields of the pages that they are on."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._cookies: dict[str, str] = {}

    def get(self, path: str) -> Got:
        return self.call("GET", path)

    def send(self, page: str, action: str, fields: dict[str, str]) -> Got:
        text = text_of(self.get(page)).replace("&amp;", "&")
        path, _, query = action.partition("?")
        form = re.search(rf'<form[^>]*action="/keys{path}[?"].*?</form>', text, re.S)
        assert form is not None
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form[0]))
        return self.call("POST", f"{path}?{query}", urlencode(hidden | fields).encode())

    def call(self, method: str, path: str, raw: bytes | None = None) -> Got:
        path, _, query = path.partition("?")
        cookie = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        headers = {**FORM, "cookie": cookie, "sec-fetch-site": "same-origin"}
        sent = Sent(method, path, query=query, raw=raw, headers=headers, mount="/keys")
        got = call_wsgi(self._app, sent)
        for name, value in got.headers:
            if name == "set-cookie":
                cookie_name, _, rest = value.partition("=")
                self._cookies[cookie_name] = rest.partition(";")[0]
        return got
