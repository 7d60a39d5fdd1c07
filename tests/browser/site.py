"""A site with the console, served to a real browser, and a second site that attacks it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from keyguard import Keyguard, Organization, ScopeCatalogue
from keyguard.admin import Console
from keyguard.admin.exchange import Call
from keyguard.core.identity.person import Person
from keyguard.runtime.process import Clock

ROLES = ("administrator", "approver", "auditor", "developer")
HOSTILE = "<img src=x onerror=pwned=1>'\"{{7*7}}javascript:pwned=1 " + "W" * 120

Environ = dict[str, Any]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


class Site:
    """A site at 127.0.0.1, whose people are who the cookie ``who`` says.

    The same server is another site under the name ``localhost``, where ``/evil`` has the page that
    the query holds.
    """

    def __init__(self, clock: Clock = time) -> None:
        self.guard = Keyguard(
            "memory://",
            realm="AIaaS",
            prefix="aiaas_live",
            catalogue=ScopeCatalogue(
                {
                    "inference:read": "Read inference capabilities",
                    "inference:write": "Make inference requests",
                    "analytics:read": "Access usage analytics",
                    "admin": "Administrative operations",
                },
                implies={"admin": ["analytics:read"]},
            ),
            clock=clock,
            hooks=(),
        )
        self.guard.organizations.create("acme", name="Acme Labs")
        self.guard.keys.issue(organization="acme", name="Root", scopes=["admin"])
        self.served: list[str] = []
        self._console = Console(self.guard, self._identify, members=self._members)
        self._server = make_server("127.0.0.1", 0, self._answer, _Server, _Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.other_url = f"http://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.guard.close()

    def fill(self, name: str = "Nightly batch") -> str:
        """Give the organization keys in every state, requests and usage; return a key's id."""
        guard = self.guard
        first = guard.keys.issue(
            organization="acme",
            name=name,
            scopes=["inference:read", "inference:write"],
            owner=name if name == HOSTILE else "developer",
            metadata={name[:100]: name},
            limits=["100/minute"],
            expires_in=timedelta(days=20),
        )
        for status in ("revoked", "rotated", "later"):
            key = guard.keys.issue(organization="acme", name=name, actor=name).key
            if status == "revoked":
                guard.keys.revoke(key.id, note=name, actor=name)
            if status == "rotated":
                guard.keys.rotate(key.id, grace=timedelta(days=1), actor=name)
        for decision in ("pending", "approved", "denied"):
            asked = guard.requests.create(
                organization="acme",
                name=name,
                scopes=["inference:read", "inference:write"],
                reason=name,
                actor="developer" if decision == "approved" else name,
            )
            if decision == "approved":
                guard.requests.approve(
                    asked.request.id, scopes=["inference:read"], note=name, actor="boss"
                )
            if decision == "denied":
                guard.requests.deny(asked.request.id, note=name, actor="boss")
        for _ in range(5):
            guard.authenticate([f"Bearer {first.token.reveal()}"])
            guard.authenticate([f"Bearer {first.token.reveal()}"], scopes=["admin"])
        guard.flush()
        return first.key.id

    def paths(self, key: str) -> dict[str, str]:
        """Return the path of each page of an organization with keys, by the role that sees it."""
        requests = {
            request.state.value: request.id
            for request in self.guard.requests.list(organization="acme")
        }
        acme = "/organizations/acme"
        paths = {
            f"{acme}{page}": "administrator"
            for page in (
                *("", "/keys", "/keys?q=nothing", "/keys/new", "/requests", "/requests/new"),
                *(
                    "/usage?group=outcome",
                    "/usage?step=never",
                    "/audit",
                    "/limits",
                    "/settings",
                    "/members",
                ),
                *("/edit", "/disable", "/mine"),
            )
        }
        paths |= {
            f"/keys/{key}{page}": "administrator" for page in ("", "/edit", "/rotate", "/revoke")
        }
        paths[f"/requests/{requests['pending']}"] = "administrator"
        paths[f"/requests/{requests['pending']}/deny"] = "administrator"
        paths[f"/requests/{requests['denied']}"] = "auditor"
        paths[f"/requests/{requests['approved']}"] = "developer"
        paths[f"/requests/{requests['approved']}/claim"] = "developer"
        return paths | {
            "/organizations": "administrator",
            "/organizations/new": "operator",
            "/sign-out": "nobody",
            "/nowhere": "auditor",
            f"{acme}/audit?": "developer",
        }

    def _identify(self, call: Call) -> Person | None:
        who = call.request.cookies.get("who", "")
        if who == "operator":
            return Person(id="operator", operator=True, authenticated_at=self.guard.now())
        if who not in ROLES:
            return None
        return Person(
            id=who,
            name=who.capitalize(),
            roles={"acme": who},
            authenticated_at=self.guard.now(),
        )

    def _members(self, organization: Organization) -> list[Person]:
        """Return people of whom two have the longest and the worst names."""
        people = [Person(id=role, name=role.capitalize(), roles={"acme": role}) for role in ROLES]
        people.append(Person(id=HOSTILE[:90], name=HOSTILE, roles={organization.id: "auditor"}))
        return people if organization.slug == "acme" else []

    def _answer(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        self.served.append(path)
        if path.startswith("/keys/"):
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/keys", path.removeprefix("/keys")
            return self._console(environ, start)
        if path == "/evil":
            page = parse_qs(environ["QUERY_STRING"])["page"][0]
            start("200 OK", [("Content-Type", "text/html; charset=utf-8")])
            return [f"<!doctype html><title>evil</title>{page}".encode()]
        start("404 Not Found", [("Content-Type", "text/plain")])
        return [b""]
