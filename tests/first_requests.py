"""A process that prints which modules its first requests import.

``python -m tests.first_requests wsgi|asgi`` builds a guard and its middleware over a store in
memory with one key, without a manager, as a service does that only checks keys. Then it sends one
request of each kind and prints, as JSON, each kind's status and the modules that it imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from keyguard import AsyncKeyguard, Key, Keyguard, Organization, Rule
from keyguard.adapters import asgi, wsgi
from keyguard.core.keys.commit import Commit
from keyguard.core.keys.records import KeyRecord
from keyguard.core.tokens.format import TokenFormat, TokenParts
from keyguard.settings.hashing import TokenHasher
from keyguard.stores.memory.keys import AsyncMemoryStore, MemoryStore

NOW = datetime.now(UTC)
PARTS = TokenParts("4fKq0ZbT1mXw8RyA", "s" * 43)
LIVE = TokenFormat("kg_live").mint(PARTS)
FORGED = TokenFormat("kg_live").mint(TokenParts(PARTS.key_id, "t" * 43))
OPTIONS: dict[str, Any] = {
    "require_https": True,
    "revoke_exposed": True,
    "rules": [Rule("/limited", limits=["1/hour"]), Rule("/scoped", scopes=["none:such"])],
}

# Name, path, token, whether it comes over HTTPS
REQUESTS = (
    ("let in", "/", LIVE, True),
    ("without a key", "/", None, True),
    ("with a wrong secret", "/", FORGED, True),
    ("without the scope", "/scoped", LIVE, True),
    ("within the limit", "/limited", LIVE, True),
    ("over the limit", "/limited", LIVE, True),
    ("over plain HTTP", "/", LIVE, False),
)

Send = Callable[[str, str | None, bool], int]


def store() -> MemoryStore:
    """Return a store with one key."""
    backend = MemoryStore()
    owner = Organization(id="org_" + "0" * 16, slug="acme", name="Acme", created_at=NOW)
    key = Key(
        id=PARTS.key_id,
        family="fam_" + "0" * 16,
        organization=owner.id,
        name="ci",
        scopes=frozenset(),
        created_at=NOW,
    )
    backend.commit(Commit(entries=(), organizations=(owner,)))
    record = KeyRecord(key=key, organization=owner, digest=TokenHasher().hash(LIVE))
    backend.commit(Commit(entries=(), keys=(record,), unchanged=(owner,)))
    return backend


def over_wsgi() -> Send:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b""]

    middleware = wsgi.KeyguardMiddleware(app, Keyguard(store(), **OPTIONS))

    def send(path: str, token: str | None, secure: bool) -> int:
        statuses: list[str] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "REMOTE_ADDR": "192.0.2.1",
            "wsgi.url_scheme": "https" if secure else "http",
        }
        if token is not None:
            environ["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        list(middleware(environ, lambda status, headers, failure=None: statuses.append(status)))
        return int(statuses[0].split()[0])

    return send


def over_asgi() -> Send:
    import asyncio  # not for WSGI, or nobody would see it imported there

    runner = asyncio.Runner()
    runner.get_loop()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guard = AsyncKeyguard(AsyncMemoryStore(store()), **OPTIONS)
    middleware = asgi.KeyguardMiddleware(app, guard)

    def send(path: str, token: str | None, secure: bool) -> int:
        answers: list[int] = []
        fields = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "headers": fields,
            "client": ("192.0.2.1", 1),
            "scheme": "https" if secure else "http",
        }

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                answers.append(message["status"])

        async def receive() -> Any:
            return {"type": "http.request"}

        runner.run(middleware(scope, receive, answer))
        return answers[0]

    return send


def main(interface: str) -> None:
    send = {"wsgi": over_wsgi, "asgi": over_asgi}[interface]()
    found: dict[str, Any] = {}
    for name, path, token, secure in REQUESTS:
        before = set(sys.modules)
        status = send(path, None if token is None else token.reveal(), secure)
        found[name] = [status, sorted(set(sys.modules) - before)]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
