"""`keyguard key rotate`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest

from keyguard import Allow, RevocationReason
from tests.cli.conftest import Program, Store, Terminal

TOKEN = r"kg_live_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


def test_off_a_terminal_stdout_is_the_new_token_alone(keyguard: Program, store: Store) -> None:
    issued = store.issue(scopes=["a:b"])

    done = keyguard("key", "rotate", issued.key.id)

    old, new = store.keys()
    assert re.fullmatch(rf"{TOKEN}\n", done.stdout)
    assert done.stdout.split("_")[2] == new.id == old.successor
    assert re.search(rf"^Key +{new.id}$", done.stderr, re.MULTILINE)
    fate = rf"^Old key +{old.id}, works until 20\S+ \S+ UTC \(in 1 day\)$"
    assert re.search(fate, done.stderr, re.MULTILINE)
    assert done.stderr.endswith("The token was written to stdout. It is not shown again.\n")


def test_both_tokens_work_within_the_grace(keyguard: Program, store: Store) -> None:
    issued = store.issue(scopes=["a:b"])

    token = keyguard("key", "rotate", issued.key.id).stdout.strip()

    with store.open() as guard:
        for text in (issued.token.reveal(), token):
            assert isinstance(guard.authenticate([f"Bearer {text}"]), Allow)
        old, new = guard.keys.list()
    assert old.grace_ends_at == new.created_at + timedelta(hours=24)
    assert (new.family, new.scopes) == (old.family, old.scopes)


def test_without_grace_the_old_key_is_revoked_at_once(keyguard: Program, store: Store) -> None:
    for grace in ("0", "0h"):
        issued = store.issue(scopes=["a:b"])

        done = keyguard("key", "rotate", issued.key.id, "--grace", grace)

        assert done.status == 0
        assert re.search(rf"^Old key +{issued.key.id}, revoked$", done.stderr, re.MULTILINE)
        with store.open() as guard:
            assert guard.keys.get(issued.key.id).revoked_reason is RevocationReason.SUPERSEDED


def test_grace_and_lifetime_are_spans(keyguard: Program, store: Store) -> None:
    issued = store.issue(expires_in=timedelta(days=90))

    keyguard("key", "rotate", issued.key.id, "--grace", "1d12h", "--expires-in", "2w")

    old, new = store.keys()
    assert old.grace_ends_at == new.created_at + timedelta(days=1, hours=12)
    assert new.expires_at == new.created_at + timedelta(weeks=2)


def test_rotate_prints_exactly_these_fields_as_json(keyguard: Program, store: Store) -> None:
    issued = store.issue(scopes=["a:b"])

    done = keyguard("key", "rotate", issued.key.id, "--json")

    old, new = store.keys()
    assert done.stderr == ""
    assert list(done.json) == [
        *("id", "token", "organization", "scopes", "expires_at", "predecessor"),
    ]
    assert re.fullmatch(TOKEN, done.json["token"])
    assert (done.json["id"], done.json["scopes"]) == (new.id, ["a:b"])
    before = done.json["predecessor"]
    assert list(before) == ["id", "grace_ends_at", "revoked_at"]
    assert (before["id"], before["revoked_at"]) == (old.id, None)
    assert re.fullmatch(TIME, before["grace_ends_at"])


def test_an_idempotency_key_that_is_repeated_shows_no_second_token(
    keyguard: Program, store: Store
) -> None:
    command = ("key", "rotate", store.issue().key.id, "--idempotency-key", "release 42")
    keyguard(*command)

    again = keyguard(*command)
    as_json = keyguard(*command, "--json")

    old, new = store.keys()
    assert (again.status, again.stdout) == (0, "")
    assert again.stderr.splitlines()[:2] == [
        f"Key {old.id} was already rotated under this idempotency key.",
        f"Its successor is {new.id}. The new token was shown then and is not shown again.",
    ]
    assert re.search(rf"^Key {old.id} works until 20.* UTC \(in 1 day\)\.$", again.stderr, re.M)
    assert (as_json.status, as_json.json["id"], as_json.json["token"]) == (0, new.id, None)
    assert as_json.json["predecessor"]["id"] == old.id


def test_a_repeated_rotation_says_what_became_of_the_keys(keyguard: Program, store: Store) -> None:
    command = ("key", "rotate", store.issue().key.id, "--idempotency-key", "a", "--grace", "0")
    keyguard(*command)
    _, new = store.keys()
    keyguard("key", "revoke", new.id)

    said = keyguard(*command).stderr.splitlines()

    assert len(said) == 2
    assert said[1].startswith(f"Its successor is {new.id}, now revoked. ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--grace", "soon"), "takes a length of time, not 'soon'"),
        (("--grace", "-1h"), "takes a length of time, not '-1h'"),
        (("--grace", ""), "takes a length of time, not ''"),
        (("--expires-in", "0"), "takes a length of time, not '0'"),
        (("--expires-in", "0d"), "'0d' is zero: give a longer time"),
        (("--expires-in", "3000000d"), "beyond the year 9999"),
        (("--idempotency-key", ""), "an idempotency key takes 1 to 200 characters"),
    ],
)
def test_a_wrong_option_rotates_nothing(
    arguments: tuple[str, str], sentence: str, keyguard: Program, store: Store
) -> None:
    key = store.issue().key

    done = keyguard("key", "rotate", key.id, *arguments)

    assert done.status == 2
    assert sentence in done.sentence
    assert store.keys() == (key,)


def test_a_key_that_can_not_be_rotated_is_refused(keyguard: Program, store: Store) -> None:
    rotated, revoked = store.issue().key, store.issue().key
    keyguard("key", "rotate", rotated.id)
    keyguard("key", "revoke", revoked.id)

    for key, words in ((rotated, "has a successor already"), (revoked, "is revoked")):
        done = keyguard("key", "rotate", key.id)
        assert done.status == 1
        assert done.sentence.startswith(f"key '{key.id}' {words}")
    assert len(store.keys()) == 3


def test_show_names_the_successor_and_the_end_of_the_grace(keyguard: Program, store: Store) -> None:
    key = store.issue().key
    keyguard("key", "rotate", key.id)
    _, new = store.keys()

    words = keyguard("key", "show", key.id).stdout
    shown = keyguard("key", "show", key.id, "--json").json
    listed = keyguard("key", "list").stdout

    assert re.search(rf"^Successor +{new.id}$", words, re.MULTILINE)
    assert re.search(r"^Grace ends +20.* UTC \(in 1 day\)$", words, re.MULTILINE)
    assert shown["successor"] == new.id
    assert re.fullmatch(TIME, shown["grace_ends_at"])
    assert re.search(rf"^{key.id} .* in 1 day ", listed, re.MULTILINE)


def test_on_a_terminal_the_new_token_is_shown_once_within_80_columns(
    terminal: Callable[..., Terminal], store: Store
) -> None:
    window = terminal("key", "rotate", store.issue(scopes=["a:b"]).key.id)

    assert window.finish() == 0
    assert len(re.findall(rf"^{TOKEN}$", window.shown, re.MULTILINE)) == 1
    assert window.shown.endswith("This token is shown only once: copy it now.\n")
    assert max(map(len, window.text.splitlines())) <= 80
