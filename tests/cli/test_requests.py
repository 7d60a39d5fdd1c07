"""`keyguard request`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from keyguard import Allow, KeyRequest, StoreUnavailableError
from keyguard.cli import request
from keyguard.guard.requests import Requests
from tests.cli.conftest import Program, Store

TICKET = r"kgc_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}"
TOKEN = r"kg_live_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}"
CREATE = ("request", "create", "--org", "acme", "--name", "ci", "--scope", "a:b")


@pytest.fixture(autouse=True)
def login(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Be alice, and then whom the test says."""

    def be(name: str) -> None:
        monkeypatch.setenv("LOGNAME", name)

    be("alice")
    return be


def asked(store: Store) -> KeyRequest:
    with store.open() as guard:
        (found,) = guard.requests.list()
    return found


def id_of(ticket: str) -> str:
    return f"req_{ticket.split('_')[1]}"


def lets_in(store: Store, token: str) -> bool:
    with store.open() as guard:
        return isinstance(guard.authenticate([f"Bearer {token}"]), Allow)


def test_a_key_is_asked_for_approved_and_claimed(
    keyguard: Program, store: Store, login: Callable[[str], None]
) -> None:
    done = keyguard(*CREATE, "--expires-in", "30d", "--reason", "the report")
    assert re.fullmatch(rf"{TICKET}\n", done.stdout)
    ticket = done.stdout.strip()
    assert id_of(ticket) in done.stderr
    assert ticket not in done.stderr
    assert keyguard("request", "list", "--status", "pending").stdout.count(id_of(ticket)) == 1

    login("bob")
    text = keyguard(
        "request", "approve", id_of(ticket), "--expires-in", "10d", "--note", "ok"
    ).stdout
    assert re.search(r"^Asked for +30 d$", text, re.MULTILINE)
    assert re.search(r"^Granted for +10 d$", text, re.MULTILINE)

    done = keyguard("request", "claim", id_of(ticket), stdin=ticket)
    assert re.fullmatch(rf"{TOKEN}\n", done.stdout)
    assert lets_in(store, done.stdout.strip())
    (key,) = store.keys()
    assert (key.owner, key.expires_at) == ("cli:alice", key.created_at + timedelta(days=10))
    assert keyguard("request", "show", id_of(ticket), "--json").json["key"] == key.id

    again = keyguard("request", "claim", id_of(ticket), stdin=ticket)
    assert (again.status, again.sentence) == (
        1, f"request {id_of(ticket)!r} is claimed, so that can't be done",
    )  # fmt: skip


def test_the_ticket_is_one_field_of_the_json(keyguard: Program, store: Store) -> None:
    created = keyguard(*CREATE, "--json")

    assert created.stderr == ""
    form = created.json
    assert re.fullmatch(TICKET, form.pop("ticket"))
    assert form == keyguard("request", "show", form["id"], "--json").json
    assert list(form) == [
        *("id", "organization", "requester", "name", "status", "asked", "granted", "reason"),
        *("note", "decided_by", "created_at", "pending_until", "decided_at", "claim_by"),
        *("claimed_at", "key"),
    ]
    assert form["asked"] == {
        "scopes": ["a:b"], "expires_in": None, "limits": [], "allowed_networks": [],
    }  # fmt: skip
    assert keyguard("request", "list", "--json").json["items"] == [form]


def test_nobody_approves_what_the_same_login_asks_for(keyguard: Program, store: Store) -> None:
    ticket = keyguard(*CREATE).stdout.strip()

    refused = keyguard("request", "approve", id_of(ticket))

    assert refused.status == 1
    assert "own request" in refused.sentence


def test_another_may_be_named_as_who_asks(keyguard: Program, store: Store) -> None:
    keyguard(*CREATE, "--requester", "carol@acme.example")

    listed = keyguard("request", "list", "--requester", "carol@acme.example", "--json").json
    assert [item["requester"] for item in listed["items"]] == ["carol@acme.example"]
    assert keyguard("request", "list", "--requester", "dan").stderr == (
        "There are no requests to list.\n"
    )


@pytest.mark.parametrize("command", ["deny", "rescind"])
def test_what_is_refused_says_why(
    keyguard: Program, store: Store, login: Callable[[str], None], command: str
) -> None:
    request_id = id_of(keyguard(*CREATE).stdout)
    login("bob")
    if command == "rescind":
        keyguard("request", "approve", request_id)

    done = keyguard("request", command, request_id, "--note", "ask the other team")

    assert done.status == 0
    assert "ask the other team" in done.stdout
    assert asked(store).state == {"deny": "denied", "rescind": "rescinded"}[command]


def test_who_asked_needs_no_ticket(
    keyguard: Program, store: Store, login: Callable[[str], None]
) -> None:
    request_id = id_of(keyguard(*CREATE).stdout)
    login("bob")
    keyguard("request", "approve", request_id)
    assert "there is no request" in keyguard("request", "claim", request_id, "--own").sentence
    login("alice")

    first = keyguard("request", "claim", request_id, "--own").stdout.strip()
    second = keyguard("request", "reclaim", request_id, "--own").stdout.strip()

    assert not lets_in(store, first)
    assert lets_in(store, second)


def test_a_request_is_withdrawn_with_its_ticket(keyguard: Program, store: Store) -> None:
    ticket = keyguard(*CREATE).stdout.strip()

    assert keyguard("request", "withdraw", id_of(ticket), stdin=ticket).status == 0
    assert asked(store).state == "withdrawn"


@pytest.mark.parametrize("command", ["claim", "reclaim", "withdraw"])
def test_a_ticket_is_never_an_argument(keyguard: Program, store: Store, command: str) -> None:
    ticket = keyguard(*CREATE).stdout.strip()
    for arguments in ((id_of(ticket), ticket), (ticket,)):
        refused = keyguard("request", command, *arguments, stdin=ticket)
        assert refused.status == 2
        assert ticket not in refused.stderr
    assert keyguard("request", command, id_of(ticket)).sentence.startswith("no ticket was given")


class Waits:
    """What a waiting command sleeps on: others do something meanwhile."""

    def __init__(self, *happenings: Callable[[], Any]) -> None:
        self.left = list(happenings)

    def __call__(self, seconds: float) -> None:
        self.left.pop(0)()


def test_waiting_ends_with_the_token(
    keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def approve() -> None:
        with store.open() as guard:
            guard.requests.approve(asked(store).id, actor="bob")

    find, down = Requests.get, [StoreUnavailableError("the key store is down")]

    def get(self: Requests, request_id: str) -> KeyRequest:
        if down:
            raise down.pop()
        return find(self, request_id)

    monkeypatch.setattr(Requests, "get", get)
    monkeypatch.setattr(request.time, "sleep", waits := Waits(lambda: None, lambda: None, approve))

    done = keyguard(*CREATE, "--wait")

    assert waits.left == []
    assert re.fullmatch(rf"{TOKEN}\n", done.stdout)
    assert lets_in(store, done.stdout.strip())
    assert "waits for its approval" in done.stderr
    assert "the key store is down; still waiting" in done.stderr


@pytest.mark.parametrize("end", ["deny", "expire"])
def test_waiting_ends_with_the_refusal(
    keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    def deny() -> None:
        with store.open() as guard:
            guard.requests.deny(asked(store).id, note="not here", actor="bob")

    if end == "expire":
        monkeypatch.setattr(KeyRequest, "status", lambda *_: "expired")
    monkeypatch.setattr(request.time, "sleep", Waits(deny))

    done = keyguard(*CREATE, "--wait")

    assert (done.status, done.stdout) == (1, "")
    assert ("is denied: not here" if end == "deny" else "is expired") in done.stderr


def test_a_ticket_that_can_t_be_written_is_worth_nothing(
    keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keyguard.cli.token_io.emit", full)

    refused = keyguard(*CREATE)

    assert refused.status == 1
    assert "so its request" in refused.sentence
    assert asked(store).state == "withdrawn"


def test_the_trail_tells_of_requests_in_words(
    keyguard: Program, store: Store, login: Callable[[str], None]
) -> None:
    ticket = keyguard(*CREATE, "--expires-in", "30d").stdout.strip()
    login("bob")
    keyguard("request", "approve", id_of(ticket))

    text = " ".join(keyguard("audit", "--subject", id_of(ticket)).stdout.split())

    assert "approved" in text
    assert "a:b, 30 d" in text


def test_keys_are_listed_by_their_owner(keyguard: Program, store: Store) -> None:
    create = ("key", "create", "--org", "acme", "--name", "ci")
    keyguard(*create, "--owner", "carol")
    keyguard(*create)

    (item,) = keyguard("key", "list", "--owner", "carol", "--json").json["items"]
    assert item["owner"] == "carol"
    changed = keyguard("key", "update", item["id"], "--owner", "dan", "--json").json
    assert changed["owner"] == "dan"
    assert re.search(r"^Owner +dan$", keyguard("key", "show", item["id"]).stdout, re.MULTILINE)
    assert keyguard("key", "update", item["id"], "--no-owner", "--json").json["owner"] is None
