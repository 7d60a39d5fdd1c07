"""`keyguard audit`, and the actor that the command line records."""

from __future__ import annotations

import getpass
import re
from collections.abc import Callable

import pytest

from keyguard.cli.options import actor
from tests.cli.conftest import Program, Store, Terminal

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


@pytest.fixture(autouse=True)
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")


def rows(said: str) -> list[list[str]]:
    """Return the cells of a table whose rows take one line each."""
    return [re.split(r"  +", line) for line in said.splitlines()]


def test_the_trail_says_who_did_what_newest_first(keyguard: Program, store: Store) -> None:
    created = keyguard("key", "create", "--org", "acme", "--name", "ci", "--json").json
    keyguard("key", "update", created["id"], "--scope", "a:b")
    keyguard("key", "revoke", created["id"], "--reason", "superseded", "--note", "old")

    headings, *entries = rows(keyguard("audit", "--key", created["id"]).stdout)

    assert headings == ["When", "Who", "What", "Which", "Change"]
    assert [entry[1:] for entry in entries] == [
        ["cli:ann", "revoked", created["id"], "superseded: old"],
        ["cli:ann", "updated", created["id"], "scopes a:b, was none"],
        ["cli:ann", "issued", created["id"], "ci"],
    ]
    assert all(re.fullmatch(r"just now|\d+ seconds? ago", entry[0]) for entry in entries)


def test_every_command_that_changes_something_says_who_ran_it(
    keyguard: Program, store: Store
) -> None:
    keyguard("org", "create", "beta")
    for command in (("update", "--name", "B"), ("disable",), ("enable",)):
        keyguard("org", command[0], "beta", *command[1:])
    create = ("key", "create", "--org", "beta", "--name", "ci", "--json")
    first, second, third = (keyguard(*create).json for _ in range(3))
    keyguard("key", "update", first["id"], "--name", "one")
    rotated = keyguard("key", "rotate", first["id"], "--json").json
    keyguard("key", "revoke", rotated["id"])
    with store.open() as guard:
        family = guard.keys.get(second["id"]).family
    keyguard("key", "revoke-family", family)
    keyguard("key", "revoke-token", stdin=third["token"])

    entries = keyguard("audit", "--org", "beta", "--json").json["items"]

    by_holder = f"key:{third['id']}"
    assert [entry["actor"] for entry in entries] == [by_holder, *["cli:ann"] * (len(entries) - 1)]
    assert {entry["action"] for entry in entries} == {
        *(f"organization.{what}" for what in ("created", "updated", "disabled", "enabled")),
        *(f"key.{what}" for what in ("issued", "updated", "rotated", "revoked")),
    }


def test_changes_are_told_in_words(keyguard: Program, store: Store) -> None:
    ceiling = ("--scope", "a:*", "--max-key-lifetime", "90d", "--limit", "9/minute")
    org = keyguard("org", "create", "beta", *ceiling, "--json").json
    keyguard("org", "update", "beta", "--any-scope", "--no-max-key-lifetime", "--no-limits")
    create = ("key", "create", "--org", "beta", "--name", "ci", "--metadata", "team=web")
    key = keyguard(*create, "--network", "192.0.2.0/24", "--json").json
    keyguard("key", "update", key["id"], "--no-networks")
    rotated = keyguard("key", "rotate", key["id"], "--grace", "0", "--json").json

    words = [" ".join(entry) for entry in in_full(keyguard, store)]

    assert words == [
        "issued ci; metadata team=web",
        f"rotated successor {rotated['id']}, revoked at once",
        "updated networks any, was 192.0.2.0/24",
        "issued ci; networks 192.0.2.0/24; metadata team=web",
        "updated scopes any, was a:*; keys work for ever, was 90 d; "
        "limits none, was organization-minute 9/minute",
        "created slug beta; scopes a:*; keys work for 90 d; limits organization-minute 9/minute",
    ]
    assert keyguard("audit", "--subject", org["id"]).stdout.count("\n") > 2


def in_full(keyguard: Program, store: Store) -> list[tuple[str, str]]:
    from keyguard.cli.audit import describe_change

    with store.open() as guard:
        return [
            (entry.action.value.partition(".")[2], describe_change(entry))
            for entry in guard.audit.list(organization="beta")
        ]


def test_the_trail_as_json_holds_each_entry_whole(keyguard: Program, store: Store) -> None:
    key = store.issue().key
    keyguard("key", "revoke", key.id, "--note", "old")

    listed = keyguard("audit", "--key", key.id, "--json").json

    newest = listed["items"][0]
    assert list(listed) == ["items", "next"]
    assert list(newest) == [
        *("id", "at", "actor", "action", "subject", "organization", "before", "after"),
    ]
    assert re.fullmatch(TIME, newest["at"])
    assert (newest["action"], newest["subject"]) == ("key.revoked", key.id)
    assert newest["before"] == dict.fromkeys(newest["after"])
    assert (newest["after"]["revoked_reason"], newest["after"]["revoked_note"]) == (
        "unspecified",
        "old",
    )
    assert (listed["items"][1]["actor"], listed["items"][1]["before"]) == ("service", None)


def test_the_trail_comes_in_pages_or_whole(keyguard: Program, store: Store) -> None:
    for _ in range(3):
        store.issue()

    first = keyguard("audit", "--limit", "2", "--json").json
    rest = keyguard("audit", "--after", first["next"], "--json").json
    whole = keyguard("audit", "--all", "--json").json
    table = keyguard("audit", "--limit", "2")

    assert first["items"] + rest["items"] == whole["items"]
    assert len(whole["items"]) == 4  # the organization's among them
    assert table.stderr == f"There are more: add --after {first['next']}, or --all.\n"


def test_a_trail_without_entries_says_so(keyguard: Program, store: Store) -> None:
    done = keyguard("audit", "--key", "nope")

    assert (done.status, done.stdout, done.stderr) == (
        0,
        "",
        "The audit trail has no such change.\n",
    )


def test_an_unknown_organization_or_a_wrong_page_is_told(keyguard: Program, store: Store) -> None:
    unknown = keyguard("audit", "--org", "nope")
    wrong = keyguard("audit", "--limit", "0")

    assert (unknown.status, unknown.sentence) == (
        1,
        "there is no organization 'nope'; keyguard org list shows all",
    )
    assert wrong.status == 2
    assert wrong.sentence


def test_the_table_fits_into_80_columns(terminal: Callable[..., Terminal], store: Store) -> None:
    with store.open() as guard:
        scopes = ["inference:read", "inference:write"]
        issued = guard.keys.issue(organization="acme", name="a name " * 9, scopes=scopes)
        guard.keys.rotate(issued.key.id, actor="somebody with a name that is long")
        guard.keys.revoke_token(issued.token, note="on the screen of a talk, and in its recording")

    window = terminal("audit")

    assert window.finish() == 0
    assert max(map(len, window.text.splitlines())) <= 80
    for word in ("somebody", "inference:write", "compromise:", "recording", "UTC"):
        assert word in window.text


@pytest.mark.parametrize("name", ["", "a\x1b[2J", "x" * 200])
def test_a_login_name_that_can_not_be_used_does_not_stop_a_command(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: name)

    assert actor() == "cli:unknown"


@pytest.mark.parametrize("failure", [KeyError, OSError, ImportError])
def test_a_user_without_a_login_name_can_run_commands(
    failure: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> str:
        raise failure

    monkeypatch.setattr(getpass, "getuser", fails)

    assert actor() == "cli:unknown"
