"""Serve AIaaS with a fresh key store, and print how to call it: ``python -m examples.demo``.

``FRAMEWORK`` is starlette (the default) or flask; ``PORT`` is 8000 by default. Each run makes a new
key store in ``.demo/aiaas-<port>.db``, which stays until the next run.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import TypeAlias

from examples import aiaas
from keyguard import CreatedRequest, IssuedKey, Keyguard, KeyguardError, Person, Settings
from keyguard.admin.sessions import Sessions
from keyguard.runtime.sync import run_sync

HOST = "127.0.0.1"
FOLDER = Path(".demo")
JSON_BODY = """-H "Content-Type: application/json" -d '{"model": "gpt-4", "prompt": "Hello"}'"""


Server: TypeAlias = Callable[[str, socket.socket, Callable[[], None]], None]
"""Serves the keys of a URL on a socket until Ctrl-C. Calls the function once it is ready."""


class CannotStartError(Exception):
    """The demo can't start. The message says why, in one sentence."""


@dataclass(frozen=True)
class Keys:
    writer: IssuedKey
    reader: IssuedKey
    admin: IssuedKey
    retired: IssuedKey
    globex: IssuedKey
    administrator: str  # the code of a link that signs in
    developer: str
    asked: CreatedRequest


def main() -> int:
    # A process that a script starts in the background inherits the setting to ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # On a busy machine, 40 ms are too few: the process would count for itself, and answer 429 late.
    os.environ.setdefault("KEYGUARD_LIMITER_TIMEOUT", "5")
    try:
        serve = chosen_server()
        settings = aiaas.settings()
        with listening_socket() as sock:
            port = sock.getsockname()[1]
            url = fresh_store(port)
            keys = issue_keys(url, settings)
            show_refusals()
            text = guide(f"http://{HOST}:{port}", keys, url, settings.prefix)
            serve(url, sock, partial(print, text, flush=True))
    except (CannotStartError, KeyguardError) as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass  # Ctrl-C ends the demo
    print("\nThe demo has ended.")
    return 0


def chosen_server() -> Server:
    framework = os.environ.get("FRAMEWORK") or "starlette"
    if framework not in SERVERS:
        raise CannotStartError(f"FRAMEWORK is {' or '.join(SERVERS)}, not {framework!r}")
    return SERVERS[framework]


def listening_socket() -> socket.socket:
    text = os.environ.get("PORT") or "8000"
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise CannotStartError(f"PORT is a number from 1 to 65535, not {text!r}")
    try:
        return socket.create_server((HOST, int(text)))
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            why = "is taken"
        elif problem.errno == errno.EACCES:
            why = "is reserved for the system's administrator"
        else:
            why = f"can't be used ({problem.strerror})"
        example = 8000 if int(text) != 8000 else 8001
        raise CannotStartError(
            f"port {text} of {HOST} {why}; choose another one, as in: make demo PORT={example}"
        ) from None


def fresh_store(port: int) -> str:
    path = FOLDER / f"aiaas-{port}.db"  # one file for each port
    try:
        FOLDER.mkdir(exist_ok=True)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as problem:
        raise CannotStartError(f"{path} can't be made again ({problem.strerror})") from None
    return f"sqlite:///{path.as_posix()}"


def issue_keys(url: str, settings: Settings) -> Keys:
    with Keyguard(url, settings=settings) as guard:
        guard.migrate()
        guard.organizations.create("acme", name="Acme Inc.", actor="demo")
        guard.organizations.create("globex", name="Globex Corporation", actor="demo")

        def issue(organization: str, name: str, *scopes: str) -> IssuedKey:
            return guard.keys.issue(
                organization=organization,
                name=name,
                scopes=scopes,
                expires_in=timedelta(days=90),
                actor="demo",
            )

        def link(person: str, role: str) -> str:
            who = Person(id=person, roles={"acme": role})
            return run_sync(Sessions(guard).make_link(who))

        keys = Keys(
            writer=issue("acme", "writer", "inference:read", "inference:write"),
            reader=issue("acme", "reader", "inference:read"),
            admin=issue("acme", "admin", "admin", "analytics:read"),
            retired=issue("acme", "retired", "inference:*"),
            globex=issue("globex", "admin", "*"),
            administrator=link("ada", "administrator"),
            developer=link("dev", "developer"),
            asked=guard.requests.create(
                organization="acme",
                name="dashboard",
                scopes=["analytics:read"],
                expires_in=timedelta(days=30),
                reason="The dashboard of the board",
                actor=Person(id="dev", roles={"acme": "developer"}),
            ),
        )
        guard.keys.revoke(keys.retired.key.id, note="to see it refused", actor="demo")
        return keys


def guide(base: str, keys: Keys, url: str, prefix: str) -> str:
    post = f"curl -i -X POST {base}/v1/inference"
    quiet = f"curl -s -o /dev/null -X POST {base}/v1/inference"
    program = os.path.relpath(Path(sys.executable).with_name("keyguard"))

    # Browsers keep the cookie of a sign-in over plain HTTP for this name alone.
    console = f"{base.replace(HOST, 'localhost')}/keys/sign-in"

    def bearer(issued: IssuedKey) -> str:
        return f'-H "Authorization: Bearer {issued.token.reveal()}"'

    api, asked = f"{base}/keys/api/v1", keys.asked.request.id
    ticket = json.dumps({"ticket": keys.asked.ticket.reveal()})
    body = '-H "Content-Type: application/json" -d'
    wanted = '{"name": "report", "scopes": ["analytics:read"], "reason": "The monthly report"}'
    claim = f"curl -i {api}/requests/{asked}/claim {body} '{ticket}'"
    many = f"for i in $(seq 70); do {quiet} {bearer(keys.writer)} {JSON_BODY}; done;"
    return dedent(f"""\
        AIaaS at {base}, its keys in {url}

        The tokens are shown here once; the store holds only their hashes.

        acme, writer: inference:read inference:write
        {keys.writer.token.reveal()}
        acme, reader: inference:read
        {keys.reader.token.reveal()}
        acme, admin: admin analytics:read
        {keys.admin.token.reveal()}
        acme, retired: inference:*, revoked
        {keys.retired.token.reveal()}
        globex, admin: *
        {keys.globex.token.reveal()}

        Each of these links signs in to the console once, within 5 minutes. Open them
        in two browsers.
        acme's administrator:
        {console}/{keys.administrator}
        a developer, who has asked for a key:
        {console}/{keys.developer}

        Paste these into another terminal:

        # goes to the directory of the demo
        cd {shlex.quote(str(Path.cwd()))}

        # 200: public
        curl -i {base}/healthz

        # 200: public, metrics for Prometheus
        curl -i {base}/metrics

        # 200: what the admin may do, as the management API says
        curl -i {base}/keys/api/v1/me {bearer(keys.admin)}

        # 201: asks for a key; the ticket in the answer is shown once
        curl -i {api}/organizations/acme/requests {bearer(keys.admin)} {body} '{wanted}'

        # 200: what the developer has asked for; no token exists yet
        curl -i {api}/requests/{asked} {bearer(keys.admin)}

        # 200: approves it
        curl -i -X POST {api}/requests/{asked}/approve {bearer(keys.admin)}

        # 201: claims the key with the developer's ticket; its token is shown now
        {claim}

        # 410: a key is claimed once
        {claim}

        # 401: no key
        curl -i {base}/v1/models

        # 200: the reader may read
        curl -i {base}/v1/models {bearer(keys.reader)}

        # 403: the reader may not write
        {post} {bearer(keys.reader)} {JSON_BODY}

        # 200: the writer may; the answer repeats the prompt
        {post} {bearer(keys.writer)} {JSON_BODY}

        # 422: the prompt is missing
        {post} {bearer(keys.writer)} -H "Content-Type: application/json" -d '{{"model": "gpt-4"}}'

        # 401: revoked
        {post} {bearer(keys.retired)} {JSON_BODY}

        # waits until what was counted has been told to the store: 10 seconds at most
        sleep 10

        # 200: acme's usage, by outcome
        curl -i '{base}/v1/analytics/usage?group_by=outcome' {bearer(keys.admin)}

        # 200: the reader's own usage
        curl -i {base}/v1/usage/me {bearer(keys.reader)}

        # shows acme's usage by key to operators
        {program} usage acme --group-by key --url {url}

        # shows what to look at: a client still has the retired key
        {program} hints --url {url}

        # 200: acme's keys, and no other organization's
        curl -i {base}/v1/admin/keys {bearer(keys.admin)}

        # 200: globex's keys, and no other organization's
        curl -i {base}/v1/admin/keys {bearer(keys.globex)}

        # rotates the writer: its old token works on for a day
        KEYGUARD_PREFIX={prefix} {program} key rotate {keys.writer.key.id} --url {url}

        # waits until the service has learned of it: 5 seconds at most, 1 as a rule
        sleep 5

        # 200: the old token still, and the field Keyguard-Key-Expires says until when
        {post} {bearer(keys.writer)} {JSON_BODY}

        # shows who changed what
        {program} audit --url {url}

        # revokes the reader
        {program} key revoke {keys.reader.key.id} --url {url}

        # waits until the service has learned of it: 5 seconds at most, 1 as a rule
        sleep 5

        # 401: the reader is revoked
        curl -i {base}/v1/models {bearer(keys.reader)}

        # 429: the writer may ask 60 times a minute
        {many} {post} {bearer(keys.writer)} {JSON_BODY}

        The log below says why a key was refused; the client does not learn it.
        Ctrl-C ends the demo.
        """)


def show_refusals() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("keyguard")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def serve_starlette(url: str, sock: socket.socket, ready: Callable[[], None]) -> None:
    import uvicorn

    from examples.starlette_app.app import create_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    Server(uvicorn.Config(create_app(url), log_config=None, log_level="warning")).run([sock])


def serve_flask(url: str, sock: socket.socket, ready: Callable[[], None]) -> None:
    from werkzeug.serving import make_server

    from examples.flask_app.app import create_app

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    address, port = sock.getsockname()
    with make_server(address, port, create_app(url), threaded=True, fd=sock.fileno()) as server:
        ready()
        server.serve_forever()


SERVERS: dict[str, Server] = {"starlette": serve_starlette, "flask": serve_flask}

if __name__ == "__main__":
    sys.exit(main())
