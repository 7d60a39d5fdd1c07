"""`keyguard pepper status`."""

from __future__ import annotations

import re

import pytest

from keyguard.core.tokens.secret import Secret
from keyguard.settings.hashing import TokenHasher
from tests.cli.conftest import Program, Store

OLD, NEW, SPARE = (f"{letter}x8Zk1xYw9vB3nM5tR7uJ2pLs4dFgHaKe6cXi0oVz" for letter in "QRS")


def pepper_id(pepper: str) -> str:
    (name,) = TokenHasher(None, [Secret(pepper)]).pepper_ids
    return name


@pytest.fixture
def mixed(keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with one key under plain SHA-256, two under the old pepper and a revoked one."""
    store.issue()
    monkeypatch.setenv("KEYGUARD_PEPPER", OLD)
    for _ in range(3):
        created = keyguard("key", "create", "--org", "acme", "--name", "ci", "--json").json
    keyguard("key", "revoke", created["id"])
    return store


def test_keys_are_counted_by_the_stored_form_of_their_tokens(
    keyguard: Program, mixed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYGUARD_PEPPER", f"{NEW} {OLD} {SPARE}")

    said = keyguard("pepper", "status")

    assert (said.status, said.stderr) == (0, "")
    assert [line.split(maxsplit=2) for line in said.stdout.splitlines()] == [
        ["Stored", "as", "Keys"],
        [f"hmac-sha256:{pepper_id(NEW)}", "0", "current"],
        [f"hmac-sha256:{pepper_id(OLD)}", "2"],
        ["sha256", "1"],
        [f"hmac-sha256:{pepper_id(SPARE)}", "0", "may be removed"],
        [],
        ["3", "keys", "are stored in an older form; the next use of a key renews it."],
        ["No", "key", f"needs the pepper {pepper_id(SPARE)} any longer: you may remove it."],
    ]


def test_a_pepper_that_is_not_set_is_a_problem(
    keyguard: Program, mixed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYGUARD_PEPPER", NEW)

    said = keyguard("pepper", "status")
    shown = keyguard("pepper", "status", "--json")

    assert said.status == shown.status == 1
    assert re.search(
        rf"^hmac-sha256:{pepper_id(OLD)} +2 +this pepper is not set$", said.stdout, re.M
    )
    assert said.stderr == (
        f"keyguard: 2 keys can't be verified: the pepper {pepper_id(OLD)} is not among those set; "
        "add it to KEYGUARD_PEPPER again, or to the pepper file\n"
    )
    assert (shown.json["missing"], shown.json["droppable"]) == ([pepper_id(OLD)], [])
    assert shown.stderr == ""


def test_the_report_as_json_has_these_fields(
    keyguard: Program, mixed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYGUARD_PEPPER", f"{OLD} {SPARE}")

    shown = keyguard("pepper", "status", "--json").json

    assert list(shown) == ["current", "digests", "droppable", "missing"]
    assert shown["current"] == f"hmac-sha256:{pepper_id(OLD)}"
    assert (shown["droppable"], shown["missing"]) == ([pepper_id(SPARE)], [])
    assert shown["digests"][:2] == [
        {
            "stored_as": f"hmac-sha256:{pepper_id(OLD)}",
            "pepper": pepper_id(OLD),
            "keys": 2,
            "current": True,
            "known": True,
        },
        {"stored_as": "sha256", "pepper": None, "keys": 1, "current": False, "known": True},
    ]


def test_a_pepper_that_no_key_needs_any_longer_may_be_removed(
    keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYGUARD_PEPPER", OLD)
    keyguard("key", "create", "--org", "acme", "--name", "ci")
    monkeypatch.setenv("KEYGUARD_PEPPER", f"{NEW} {OLD}")
    with store.open() as guard:
        (key,) = guard.keys.list()
        keyguard("key", "rotate", key.id, "--grace", "0")  # the new one is under the new pepper

    shown = keyguard("pepper", "status", "--json").json

    assert shown["droppable"] == [pepper_id(OLD)]


def test_without_a_pepper_there_is_none_to_remove(keyguard: Program, store: Store) -> None:
    store.issue()

    said = keyguard("pepper", "status")

    assert (said.status, said.stderr) == (0, "")
    assert re.fullmatch(r"Stored as +Keys\nsha256 +1 +current\n", said.stdout)


def test_a_group_without_a_command_shows_its_help(keyguard: Program) -> None:
    said = keyguard("pepper")

    assert said.status == 2
    assert "status" in said.stderr
