"""Before the claim nothing that keyguard keeps, tells or shows lets anybody in."""

from __future__ import annotations

import gc
import logging
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from keyguard import Allow, Keyguard, KeyguardError, Person, Secret
from keyguard.admin import Console
from keyguard.core.management.request_parties import TICKETS
from keyguard.runtime.events import log_event
from tests.admin.pages.rooms import Browser, text_of
from tests.services import RedisServer
from tests.test_secrecy import frames_of_keyguard, shows

PREFIX = "aiaas_live"


def secrets_in_memory(prefix: str) -> set[str]:
    """Return the secrets of a kind that live in this process."""
    # By its type: a lazy object of another test would be asked for its class, and may fail.
    found = (thing.reveal() for thing in gc.get_objects() if type(thing) is Secret)
    return {text for text in found if text.startswith(f"{prefix}_")}


@pytest.mark.usefixtures("caplog")
def test_no_token_exists_until_the_claim(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    of_others = secrets_in_memory(PREFIX)  # other tests' in the same process
    told: list[Any] = []
    path = tmp_path / "keys.db"
    guard = Keyguard(f"sqlite:///{path}", prefix=PREFIX, hooks=[log_event, told.append])
    guard.migrate()
    guard.organizations.create("acme")
    created = guard.requests.create(organization="acme", name="laptop", actor="alice")
    ticket = created.ticket.reveal()
    request = guard.requests.approve(created.request.id, actor="bob")

    def seen() -> str:
        files = b"".join(file.read_bytes() for file in tmp_path.glob("keys.db*"))
        records = [guard.requests.list(), guard.audit.list(), guard.keys.list(), told, created]
        return f"{files.decode(errors='replace')} {records} {caplog.text}"

    assert secrets_in_memory(PREFIX) <= of_others
    assert f"{PREFIX}_" not in seen()
    parts = TICKETS.parse(ticket)
    assert parts is not None
    for secret in (ticket, parts.secret):
        assert secret not in seen()
    assert not isinstance(guard.authenticate([f"Bearer {ticket}"]), Allow)

    issued = guard.requests.claim(request.id, ticket=ticket)

    token = issued.token.reveal()
    assert secrets_in_memory(PREFIX) - of_others == {token}
    assert isinstance(guard.authenticate([f"Bearer {token}"]), Allow)
    assert not shows(seen(), token)
    assert ticket not in seen()
    guard.close()


def test_neither_redis_nor_the_approver_s_pages_and_sessions_hear_of_a_token(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    of_others = secrets_in_memory(PREFIX)
    told: list[Any] = []
    guard = Keyguard(redis.create_database()[0], prefix=PREFIX, hooks=[log_event, told.append])
    guard.migrate()
    guard.organizations.create("acme")
    console = Console(guard, lambda _: Person(id="bob", roles={"acme": "administrator"}))
    with Redis.from_url(redis.url) as client, client.monitor() as monitor:
        created = guard.requests.create(organization="acme", name="laptop", actor="alice")
        ticket, path = created.ticket.reveal(), f"/requests/{created.request.id}"
        browser = Browser(console)
        page = browser.get(path)
        approved = browser.send(path, f"{path}/approve", {"lifetime": "90"})
        assert approved.status == 303, text_of(approved)
        pages = [page, approved, browser.get(path)]
        client.echo("approved")
        commands = heard(monitor, "approved")
        in_memory = secrets_in_memory(PREFIX)
        issued = guard.requests.claim(created.request.id, ticket=ticket)
        client.echo("claimed")
        commands_at_claim = heard(monitor, "claimed")
    guard.close()

    assert path.rpartition("/")[2] in commands
    parts = TICKETS.parse(ticket)
    assert parts is not None
    everything = f"{commands} {commands_at_claim} {pages} {told} {caplog.text}"
    for secret in (ticket, parts.secret, f"{PREFIX}_", issued.token.reveal()[-43:]):
        assert secret not in everything
    assert in_memory <= of_others


def heard(monitor: Any, end: str) -> str:
    """Return the commands that Redis received up to one."""
    commands: list[str] = []
    while not commands or end not in commands[-1]:
        commands.append(str(monitor.next_command()["command"]))
    return "\n".join(commands)


@pytest.mark.parametrize("operation", ["withdraw", "claim", "reclaim"])
@pytest.mark.parametrize("wrong", ["actor", "status", "ticket"])
def test_no_error_shows_the_ticket(operation: str, wrong: str) -> None:
    guard = Keyguard("memory://", prefix=PREFIX)
    guard.organizations.create("acme")
    created = guard.requests.create(organization="acme", name="laptop", actor="alice")
    ticket, request_id = created.ticket.reveal(), created.request.id
    guard.requests.deny(request_id, actor="bob")
    secret = TICKETS.parse(ticket)
    assert secret is not None
    del created
    arguments: dict[str, Any] = {
        "actor": {"request_id": request_id, "actor": "bob"},
        "status": {"request_id": request_id},
        "ticket": {"request_id": "req_" + "0" * 16},
    }[wrong]

    with pytest.raises(KeyguardError) as failed:
        getattr(guard.requests, operation)(ticket=ticket, **arguments)

    assert secret.secret not in frames_of_keyguard(failed.value)
