"""The console and the API mounted in each framework: the same calls get the same bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient
from werkzeug.test import Client

from keyguard import Keyguard, Person
from keyguard.admin.headers import SAFETY_FIELDS
from keyguard.admin.sessions import Sessions
from keyguard.runtime.sync import run_sync
from tests.adapters.django_site import changed
from tests.examples.pages import run
from tests.recipes.conftest import Store

PAGE = "docs/how-to/console-embedding.md"
FRAMEWORKS = (
    "Starlette",
    "FastAPI",
    "Flask",
    "Django",
    "Litestar",
    "Quart",
    "plain ASGI",
    "plain WSGI",
)
HTTPS = "https://localhost"
API = "/keys/api/v1"
OURS = {"Sec-Fetch-Site": "same-origin"}
# Fields that a server or a framework adds by itself.
OF_THE_SERVER = {"date", "server", "vary"}

# Method, path, what to send, the scope of the key (None: no key; "": a key without scopes).
CASES: dict[str, tuple[str, str, Any, str | None]] = {
    "me": ("GET", "/me", None, "admin"),
    "no key": ("GET", "/me", None, None),
    "organization": ("GET", "/organizations/acme", None, "admin"),
    "no scope": ("GET", "/organizations/acme", None, ""),
    "foreign": ("GET", "/organizations/other", None, "admin"),
    "unknown": ("GET", "/nothing", None, "admin"),
    "method": ("DELETE", "/me", None, "admin"),
    "options": ("OPTIONS", "/me", None, "admin"),
    "head": ("HEAD", "/me", None, "admin"),
    "keys": ("GET", "/organizations/acme/keys?limit=1", None, "admin"),
    "bad query": ("GET", "/organizations/acme/keys?limit=0", None, "admin"),
    "bad body": ("POST", "/organizations/acme/keys", {"name": "a", "nme": "b"}, "admin"),
    "no If-Match": ("PATCH", "/organizations/acme", {"name": "a"}, "admin"),
    "openapi": ("GET", "/openapi.json", None, "admin"),
}


def client_of(names: dict[str, Any]) -> Any:
    app = names["application"] if "application" in names else names["app"]
    if isinstance(names["guard"], Keyguard):
        return Client(app)
    return TestClient(app, base_url=HTTPS, follow_redirects=False)


@pytest.fixture
def mounted(store: Store, patience: None) -> Iterator[Callable[[str], Any]]:
    """Return a client of a recipe's application."""
    closing: list[Callable[[], object]] = []

    def make(framework: str) -> Any:
        with changed(KEYGUARD={"guard": store.guard}):
            names = run(PAGE, FRAMEWORKS.index(framework), {"__name__": "service"})
        client, guard = client_of(names), names["guard"]
        if isinstance(client, Client):
            closing.append(guard.close)
        elif framework == "plain ASGI":  # it has no lifespan
            closing.append(lambda: asyncio.run(guard.aclose()))
        else:
            client.__enter__()
            closing.append(lambda: client.__exit__(None, None, None))
        return client

    yield make
    for close in closing:
        close()


def call(client: Any, method: str, path: str, body: Any = None, **headers: str) -> Any:
    options: dict[str, Any] = {"headers": headers}
    if isinstance(body, dict):
        options["json"] = body
    elif body is not None:
        options["data"] = body
    if isinstance(client, Client):
        return client.open(path, method=method, base_url=HTTPS, **options)
    if "data" in options:
        options["content"] = options.pop("data")
    return client.request(method, path, **options)


def bytes_of(answer: Any) -> tuple[Any, ...]:
    fields = sorted(
        (name.lower(), value)
        for name, value in answer.headers.items()
        if name.lower() not in OF_THE_SERVER
    )
    content = answer.get_data() if hasattr(answer, "get_data") else answer.content
    return answer.status_code, fields, content


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_framework_gives_the_same_bytes(
    framework: str, mounted: Callable[[str], Any], store: Store
) -> None:
    store.guard.organizations.create("other")
    keys = {scope: store.bearer(*scope.split()) for scope in ("admin", "")}
    here, reference = mounted(framework), mounted("plain WSGI")
    for name, (method, path, body, scope) in CASES.items():
        headers = {} if scope is None else keys[scope]

        answers = [
            bytes_of(call(client, method, f"{API}{path}", body, **headers))
            for client in (here, reference)
        ]

        assert answers[0] == answers[1], name
        for field, value in SAFETY_FIELDS:
            assert (field.lower(), value) in answers[0][1], name


def follow(client: Any, store: Store, person: Person) -> Any:
    """Follow a link that signs a person in, as a browser does."""
    path = f"/keys/sign-in/{run_sync(Sessions(store.guard).make_link(person))}"
    page = call(client, "GET", path)
    text = page.text
    (token,) = re.findall(r'name="csrf" value="([^"]+)"', text)
    form = {"Content-Type": "application/x-www-form-urlencoded", **OURS}
    return call(client, "POST", path, urlencode({"csrf": token}), **form)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_person_signs_in_by_a_link_and_sees_the_pages(
    framework: str, mounted: Callable[[str], Any], store: Store
) -> None:
    client = mounted(framework)
    ada = Person(id="ada", name="Ada", roles={"acme": "administrator"})

    answer = follow(client, store, ada)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/keys/")
    page = call(client, "GET", "/keys/organizations/acme")
    assert page.status_code == 200
    (style,) = re.findall(r'href="(/keys/static/console[^"]+\.css)"', page.text)
    assert call(client, "GET", style).status_code == 200
    assert call(client, "POST", f"{API}/organizations/acme/disable", **OURS).status_code == 200
    assert call(client, "POST", f"{API}/organizations/acme/enable").status_code == 403


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_key_that_is_revoked_is_out_on_the_next_call(
    framework: str, mounted: Callable[[str], Any], store: Store
) -> None:
    client = mounted(framework)
    key = store.guard.keys.issue(organization="acme", name="test", scopes=["admin"])
    headers = {"Authorization": f"Bearer {key.token.reveal()}"}
    assert call(client, "GET", f"{API}/me", **headers).status_code == 200

    revoked = call(client, "POST", f"{API}/keys/{key.key.id}/revoke", **store.bearer("admin"))

    assert revoked.status_code == 200
    assert call(client, "GET", f"{API}/me", **headers).status_code == 401


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_mount_opens_nothing_else(framework: str, mounted: Callable[[str], Any]) -> None:
    client = mounted(framework)

    for path in ("/", "/v1", "/keysx", "/keys/%2e%2e/v1", "/KEYS/api/v1/me"):
        assert call(client, "GET", path).status_code in (400, 401), path
