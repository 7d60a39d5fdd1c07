"""Damaged records at the command line: lists name them on stderr, and a key of one is revoked."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import pytest

from tests.cli.conftest import Program, Store

LEFT_OUT = "keyguard: {} is left out: its record is damaged and can't be read\n"


def write(store: Store, statement: str) -> None:
    """Execute a statement beside keyguard."""
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(statement)


def test_a_list_of_keys_names_what_it_leaves_out(keyguard: Program, store: Store) -> None:
    first, second, third = (store.issue(name).key.id for name in ("a", "b", "c"))
    store.spoil(second, scopes='quo"te')

    shown = keyguard("key", "list")
    listed = keyguard("key", "list", "--json")
    pages = [keyguard("key", "list", "--limit", "1", "--json")]
    while pages[-1].json["next"]:
        pages.append(
            keyguard("key", "list", "--limit", "1", "--json", "--after", pages[-1].json["next"])
        )

    assert shown.status == listed.status == 0
    assert second not in shown.stdout
    assert first in shown.stdout
    assert third in shown.stdout
    assert shown.stderr == listed.stderr == LEFT_OUT.format(second)
    assert listed.json["damaged"] == [second]
    assert [page.json.get("damaged", []) for page in pages] == [[], [second], []]
    assert keyguard("key", "list", "--all").stderr == LEFT_OUT.format(second)


def test_keys_of_a_damaged_organization_are_listed_and_revoked(
    keyguard: Program, store: Store
) -> None:
    key = store.issue().key
    write(store, "UPDATE keyguard_organizations SET limits = '{'")

    listed = keyguard("key", "list")
    organizations = keyguard("org", "list", "--json")
    of_it = keyguard("key", "list", "--org", key.organization, "--json")
    trail = keyguard("audit", "--org", key.organization, "--json")
    of_slug = keyguard("key", "list", "--org", "acme")
    revoked = keyguard("key", "revoke", key.id, "--json")

    assert [item["id"] for item in of_it.json["items"]] == [key.id]
    assert len(trail.json["items"]) == 2
    assert "of table keyguard_organizations holds" in of_slug.sentence
    assert (listed.status, listed.stderr) == (0, "")
    assert key.organization in " ".join(listed.stdout.split())
    assert organizations.json == {"items": [], "next": None, "damaged": [key.organization]}
    assert revoked.json["id"] == key.id
    assert revoked.json["damaged"] is True
    assert re.fullmatch(r".*T.*Z", revoked.json["revoked_at"])


def test_a_damaged_key_is_revoked(keyguard: Program, store: Store) -> None:
    key = store.issue().key
    store.spoil(key.id, metadata="{")

    shown = keyguard("key", "show", key.id)
    revoked = keyguard("key", "revoke", key.id)
    again = keyguard("key", "revoke", key.id)
    family = keyguard("key", "revoke-family", key.family)

    assert "restore it from a backup or delete it" in shown.sentence
    assert revoked.stdout == f"Key {key.id} was revoked. Its record is damaged and can't be read.\n"
    unchanged = (
        f"Key {key.id} was not changed. Its record is damaged and can't be read, but its "
        "field for the time of a revocation is filled already.\n"
    )
    assert (again.status, again.stdout) == (0, unchanged)
    assert (family.status, family.stdout) == (0, unchanged)


def test_a_key_is_revoked_whose_successor_is_damaged(keyguard: Program, store: Store) -> None:
    key = store.issue().key
    with store.open() as guard:
        successor = guard.keys.rotate(key.id).key
    store.spoil(successor.id, limits="7")

    revoked = keyguard("key", "revoke", key.id)

    assert (revoked.status, revoked.stdout) == (0, f"Key {key.id} was revoked.\n")


@pytest.mark.parametrize("after", ['{"scopes": 7}', '{"limits": [1]}', '{"expires_at": "soon"}'])
def test_an_entry_without_words_for_it_is_shown_as_it_is(
    after: str, keyguard: Program, store: Store
) -> None:
    store.issue()
    write(store, f"UPDATE keyguard_audit SET after = '{after}' WHERE id = 2")

    shown = keyguard("audit")

    assert (shown.status, shown.stderr) == (0, "")
    assert after in shown.stdout


def test_the_trail_names_what_it_leaves_out(keyguard: Program, store: Store) -> None:
    store.issue()
    write(store, "UPDATE keyguard_audit SET after = '[]' WHERE id = 2")

    listed = keyguard("audit", "--json")

    assert listed.stderr == LEFT_OUT.format(2)
    assert [entry["id"] for entry in listed.json["items"]] == ["1"]
