"""``keyguard console``: serve the console alone, and make links that sign in to it."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Generator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import typer

from keyguard.cli.options import (
    HASHED_STORE,
    STORE,
    Common,
    argument_id,
    flag,
    login_name,
    option,
    with_options,
)
from keyguard.cli.output import emit
from keyguard.cli.parsing import parse_pairs
from keyguard.core.identity.person import Person
from keyguard.core.management.administrators import ADMIN
from keyguard.exceptions import ConfigurationError, InvalidValueError
from keyguard.runtime.sync import run_sync

if TYPE_CHECKING:
    from keyguard.guard import Keyguard

_PORT = 8123
_LAST_PORT = 65535
_ADDRESSES = re.compile(r"https?://[^/?#\s]+(/[^?#\s]*)?", re.IGNORECASE)
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_SILENCE = 5
"""How many seconds a client may be silent."""

_NO_ROLE = "For an operator give --operator"
_ADDRESS = f"http://localhost:{_PORT}"

app = typer.Typer(help="Manage keys in a browser.")


@app.callback(invoke_without_command=True)
@with_options(*HASHED_STORE)
def serve(
    common: Common,
    port: int = option("PORT", "The port to listen on.", default=_PORT),
) -> None:
    """Serve the console on this machine, and print a link that signs you in as an operator.

    It is for one person at this machine, until Ctrl-C or SIGTERM, and answers to the names of this
    machine alone. For more people, mount the console in an
    application: see the page on the console.
    """
    if common.is_followed:
        return
    if not 0 <= port <= _LAST_PORT:
        raise InvalidValueError(f"--port takes 1 to {_LAST_PORT}, or 0 for any that is free")
    from keyguard.admin import Console  # other commands need no extra

    with common.guard() as guard:
        console = Console(guard, key_sign_in=True, allowed_hosts=_LOOPBACK)
        try:
            server = make_server("127.0.0.1", port, console, _Server, _Handler)
        except OSError as failure:
            if failure.errno != errno.EADDRINUSE:
                raise ConfigurationError(
                    f"can't listen on port {port} ({failure.strerror or failure})"
                ) from None
            another = port + 1 if port < _LAST_PORT else _PORT
            raise ConfigurationError(
                f"port {port} is taken; choose another one, such as: {common.command} "
                f"--port {another}"
            ) from None
        with server:
            address = f"http://localhost:{server.server_port}"
            link = _link(guard, Person(id=login_name(), operator=True))
            emit(
                f"The console is at {address}/, for this machine alone. Ctrl-C ends it.\n"
                "This link signs you in as an operator, once, within 5 minutes:\n\n"
                f"  {address}{link}\n"
            )
            with _ending_on(signal.SIGTERM):
                server.serve_forever()


@app.command()
@with_options(*STORE)
def login(
    common: Common,
    operator: bool = flag("--operator", "Sign in as an operator, who may do everything."),
    key: str | None = option("KEY", "Sign in as this key, which needs the scope admin."),
    person: str | None = option("ID", "Sign in as the person with this id; your login by default."),
    role: list[str] | None = option(
        "ORG=ROLE",
        "The person's role in an organization: administrator, approver, auditor or developer; may "
        "be repeated.",
    ),
    at: str = option("URL", "Where the console is mounted.", default=_ADDRESS),
) -> None:
    """Print a link that signs in to the console once, within 5 minutes.

    Anybody who has the link can sign in: send it only where you could send a password. The session
    of a person lasts an hour. The session of a key lasts 12 hours, and ends with the key.
    """
    if not _ADDRESSES.fullmatch(at):
        raise InvalidValueError(
            "--at takes an address that begins with http:// or https://, such as "
            "https://api.example.com/console"
        )
    roles = parse_pairs("--role", "ORG=ROLE, such as acme=developer", role)
    if (key is not None) + operator + bool(roles) != 1 or (key is not None and person is not None):
        raise InvalidValueError("give --operator, --key, or a --role for each organization")
    who: Person | str
    with common.guard() as guard:
        if key is not None:
            found = guard.keys.get(argument_id(key))
            if ADMIN not in guard.policy.grant(found.scopes):
                raise InvalidValueError(f"key {found.id!r} does not have the scope {ADMIN}")
            who = found.id
        else:
            for organization in roles:
                guard.organizations.get(organization)  # a slip would sign in with no right at all
            try:
                who = Person(
                    id=login_name() if person is None else person, roles=roles, operator=operator
                )
            except InvalidValueError as problem:
                words = str(problem).replace("An operator has operator=True", _NO_ROLE)
                raise InvalidValueError(words) from None
        link = f"{at.rstrip('/')}{_link(guard, who)}"
    common.show({"link": link, "expires_in": 300}, f"{link}\n")


def _link(guard: Keyguard, who: Person | str) -> str:
    from keyguard.admin.sessions import Sessions

    return f"/sign-in/{run_sync(Sessions(guard).make_link(who))}"


@contextmanager
def _ending_on(number: signal.Signals) -> Generator[None]:
    """End as Ctrl-C does on a signal: what is under way is finished first."""
    before = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(number, before)


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection. The end waits for them; a silent client waits _SILENCE."""


class _Handler(WSGIRequestHandler):
    timeout = _SILENCE

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing: the path of a link is as good as a password."""
