"""`keyguard purge`: what it deletes, what it asks before, and what it prints."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keyguard import Keyguard
from keyguard.cli.app import run
from keyguard.testing import MovingClock
from tests.cli.conftest import Program, Store, Terminal

DAY = timedelta(days=1)
START = datetime(2001, 1, 1, tzinfo=UTC)


@pytest.fixture
def old(store: Store) -> Store:
    """A store with two keys that were revoked long ago, and one that works."""
    clock = MovingClock(START)
    with store.open(clock=clock) as guard:
        for name in ("one", "two"):
            key = guard.keys.issue(organization="acme", name=name).key
            guard.keys.revoke(key.id)
            clock.advance(DAY)
        guard.keys.issue(organization="acme", name="live")
    return store


def names(store: Store) -> list[str]:
    held = store.keys()
    return [key.name for key in held]


def entries(store: Store) -> int:
    with store.open() as guard:
        return len(guard.audit.list().items)


def test_keys_that_ended_and_old_entries_are_deleted(keyguard: Program, old: Store) -> None:
    before = entries(old)
    done = keyguard("purge", "--keys", "400d", "--audit", "800d", "--yes")
    assert (done.status, done.stderr) == (0, "")
    keys, audit = done.stdout.splitlines()
    assert keys.startswith("2 keys deleted, ended before 20")
    assert audit.startswith("4 audit entries deleted, written before 20")
    assert names(old) == ["live"]
    assert entries(old) == before - 4 + 3  # two keys, and the deletion of entries


def test_only_what_is_named_is_deleted(
    keyguard: Program, old: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYGUARD_KEEP_ENDED_KEYS", "1209600")
    done = keyguard("purge", "--audit", "800d", "--yes", "--json")
    assert done.json["keys"] is None
    assert done.json["audit"]["count"] == 4
    assert len(names(old)) == 3


def test_the_settings_say_what_to_delete(
    keyguard: Program, old: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYGUARD_KEEP_ENDED_KEYS", "1209600")
    done = keyguard("purge", "--yes", "--json")
    assert done.json["audit"] is None
    assert (done.json["keys"]["count"], done.json["keys"]["damaged"]) == (2, [])
    assert names(old) == ["live"]


def test_where_nothing_says_what_to_delete_nothing_is(keyguard: Program, old: Store) -> None:
    done = keyguard("purge", "--yes")
    assert done.status == 2
    assert "pass --keys or --audit, such as --keys 400d, or set KEYGUARD_KEEP" in done.sentence
    assert len(names(old)) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--keys", "0"), "--keys takes a length of time, not "),
        (("--keys", "12d"), "--keys must be at least 13 days, because a request for a key may"),
        (("--audit", "29d"), "--audit must be at least 30 days, not 29d"),
        (("--keys", "1d12h"), "(request_lifetime and twice claim_lifetime), not 1d12h"),
        (("--keys", "400"), "--keys takes a length of time, not "),
        (("--keys", "200000w"), "reaches back before the year 1"),
    ],
)
def test_a_typing_error_deletes_nothing(
    keyguard: Program, old: Store, arguments: tuple[str, ...], said: str
) -> None:
    done = keyguard("purge", *arguments, "--yes")
    assert done.status == 2
    assert said in done.sentence
    assert len(names(old)) == 3


def test_a_dry_run_counts_and_deletes_nothing(keyguard: Program, old: Store) -> None:
    before = entries(old)
    done = keyguard("purge", "--keys", "400d", "--audit", "800d", "--dry-run", "--json")
    form = done.json
    assert form["dry_run"] is True
    assert (form["keys"]["count"], form["audit"]["count"]) == (2, 4)
    assert form["keys"]["before"].endswith("Z")
    assert "2 keys would be deleted" in keyguard("purge", "--keys", "400d", "--dry-run").stdout
    assert (len(names(old)), entries(old)) == (3, before)


def test_without_a_terminal_it_takes_a_yes(keyguard: Program, old: Store) -> None:
    done = keyguard("purge", "--keys", "400d", stdin="y\n")
    assert done.status == 2
    assert done.sentence.startswith("what is deleted is gone for good: add --yes")
    assert len(names(old)) == 3


@pytest.mark.parametrize(("answer", "left"), [("y", 1), ("yes", 1), ("", 3), ("n", 3), ("q", 3)])
def test_a_terminal_is_asked_first(
    terminal: Callable[..., Terminal], old: Store, answer: str, left: int
) -> None:
    window = terminal("purge", "--keys", "400d")
    window.wait_for("[y/N]")
    assert "2 keys would be deleted, ended before" in window.text
    window.type(f"{answer}\n")
    assert window.finish() == (0 if left == 1 else 1)
    assert ("nothing was deleted" in window.text) is (left == 3)
    assert len(names(old)) == left


def test_a_terminal_is_not_asked_about_nothing(
    terminal: Callable[..., Terminal], store: Store
) -> None:
    window = terminal("purge", "--keys", "400d")
    assert window.finish() == 0
    assert window.text.startswith("0 keys deleted")


def test_a_damaged_key_stays_and_is_named(keyguard: Program, old: Store) -> None:
    damaged = old.keys()[0].id
    with closing(sqlite3.connect(old.path)) as connection, connection:
        connection.execute("UPDATE keyguard_keys SET limits = '{' WHERE id = ?", (damaged,))
    done = keyguard("purge", "--keys", "400d", "--yes", "--json")
    assert done.status == 0
    assert (done.json["keys"]["count"], done.json["keys"]["damaged"]) == (1, [damaged])
    assert f"{damaged} stays: its record is damaged" in done.stderr


def test_the_trail_tells_of_it_in_words(keyguard: Program, old: Store) -> None:
    keyguard("purge", "--keys", "400d", "--audit", "800d", "--yes")
    rows = keyguard("audit").stdout
    assert "one; revoked at 2001-01-01 00:00 UTC" in " ".join(rows.split())
    assert "4 from before" in rows
    told = keyguard("audit", "--subject", "audit", "--json").json["items"]
    assert [entry["after"]["entries"] for entry in told] == [4]
    assert told[0]["actor"].startswith("cli:")


def test_a_key_whose_successor_was_deleted_is_shown_and_revoked(
    keyguard: Program, store: Store
) -> None:
    clock = MovingClock(START)
    with store.open(clock=clock) as guard:
        old = guard.keys.issue(organization="acme", name="old").key
        new = guard.keys.rotate(old.id, grace=timedelta(days=365 * 100)).key
        guard.keys.revoke(new.id)
    assert keyguard("purge", "--keys", "400d", "--yes").status == 0
    assert new.id in keyguard("key", "show", old.id).stdout
    done = keyguard("key", "revoke", old.id)
    assert (done.status, done.stdout) == (0, f"Key {old.id} was revoked.\n")


def test_it_works_on_the_guard_of_an_application(capsys: pytest.CaptureFixture[str]) -> None:
    clock: Any = MovingClock(START)
    with Keyguard("memory://", clock=clock, keep_ended_keys=1_209_600, hooks=()) as guard:
        guard.organizations.create("acme")
        key = guard.keys.issue(organization="acme", name="ci").key
        guard.keys.revoke(key.id)
        clock.advance(15 * DAY)
        assert run(["purge", "--yes"], guard=guard) == 0
        assert not guard.keys.list().items
    assert capsys.readouterr().out.startswith("1 key deleted")
