"""`keyguard key revoke`, `revoke-family` and `revoke-token`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest

from keyguard import RevocationReason
from keyguard.core.tokens.format import ENTROPY_SIZE, TokenParts
from tests.cli.conftest import Program, Store, Terminal

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


def test_revoking_keeps_the_first_time_reason_and_note(keyguard: Program, store: Store) -> None:
    key = store.issue(scopes=["a:b"]).key

    why = ("--reason", "key-compromise", "--note", "lost laptop")
    first = keyguard("key", "revoke", key.id, *why)
    second = keyguard("key", "revoke", key.id, "--reason", "superseded")

    (after,) = store.keys()
    assert (first.status, first.stdout) == (0, f"Key {key.id} was revoked.\n")
    assert second.status == 0
    assert second.stdout.startswith(f"Key {key.id} was already revoked ")
    assert after.revoked_reason is RevocationReason.KEY_COMPROMISE
    assert after.revoked_note == "lost laptop"


def test_show_tells_why_a_key_was_revoked(keyguard: Program, store: Store) -> None:
    key = store.issue().key
    keyguard("key", "revoke", key.id, "--reason", "superseded", "--note", "by the new one")

    words = keyguard("key", "show", key.id).stdout
    shown = keyguard("key", "show", key.id, "--json").json

    assert re.search(r"^Reason +superseded\nNote +by the new one$", words, re.MULTILINE)
    assert (shown["revoked_reason"], shown["revoked_note"]) == ("superseded", "by the new one")


def test_revoke_as_json_prints_the_key_as_it_stands_after(keyguard: Program, store: Store) -> None:
    key = store.issue(scopes=["a:b"]).key

    revoked = keyguard("key", "revoke", key.id, "--json").json

    assert (revoked["id"], revoked["status"]) == (key.id, "revoked")
    assert (revoked["revoked_reason"], revoked["revoked_note"]) == ("unspecified", None)
    assert re.fullmatch(TIME, revoked["revoked_at"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--reason", "laptop lost"),
            "'laptop lost' is not a valid reason; use one of: unspecified, ",
        ),
        (("--reason", ""), "'' is not a valid reason"),
        (("--reason", "stolen"), "key-compromise, "),
        (("--reason", "stolen"), "Put your own words into --note"),
        (("--note", "x" * 201), "a revocation's note takes 1 to 200 characters"),
        (("--note", "\x1b[2J"), "a revocation's note takes no control characters"),
    ],
)
@pytest.mark.parametrize("command", ["revoke", "revoke-family"])
def test_a_wrong_option_revokes_nothing(
    command: str, arguments: tuple[str, str], sentence: str, keyguard: Program, store: Store
) -> None:
    key = store.issue(scopes=["a:b"]).key
    named = key.id if command == "revoke" else key.family

    done = keyguard("key", command, named, *arguments)

    assert done.status == 2
    assert sentence in done.sentence
    assert store.keys()[0].revoked_at is None


@pytest.mark.parametrize("command", ["revoke", "revoke-family"])
def test_the_last_administrator_stays_without_force(
    command: str, keyguard: Program, store: Store
) -> None:
    key = store.issue(scopes=["*"]).key
    named = key.id if command == "revoke" else key.family

    refused = keyguard("key", command, named)
    forced = keyguard("key", command, named, "--force")

    assert refused.status == 1
    assert refused.sentence.endswith("issue another one first, or use --force")
    assert (forced.status, forced.stdout) == (0, f"Key {key.id} was revoked.\n")


def test_revoking_a_rotated_key_says_that_its_successor_still_works(
    keyguard: Program, store: Store
) -> None:
    key = store.issue().key
    keyguard("key", "rotate", key.id)
    _, new = store.keys()

    said = keyguard("key", "revoke", key.id).stdout
    keyguard("key", "revoke", new.id)
    later = keyguard("key", "revoke", key.id).stdout

    assert said == (
        f"Key {key.id} was revoked.\n"
        f"Its successor {new.id} still works; to revoke it too, run: "
        f"keyguard key revoke-family {key.family}\n"
    )
    assert "successor" not in later


def test_a_family_is_revoked_together(keyguard: Program, store: Store) -> None:
    key = store.issue().key
    other = store.issue().key
    keyguard("key", "rotate", key.id)

    first = keyguard("key", "revoke-family", key.family, "--reason", "key compromise")
    second = keyguard("key", "revoke-family", key.family)

    keys = store.keys()
    family = [each for each in keys if each.family == key.family]
    assert len(family) == 2
    assert first.stdout == "".join(f"Key {each.id} was revoked.\n" for each in family)
    assert re.fullmatch(
        "".join(rf"Key {each.id} was already revoked .+\n" for each in family), second.stdout
    )
    assert {each.revoked_reason for each in family} == {RevocationReason.KEY_COMPROMISE}
    assert next(each for each in keys if each.id == other.id).revoked_at is None


def test_a_family_is_revoked_as_json(keyguard: Program, store: Store) -> None:
    key = store.issue().key

    (item,) = keyguard("key", "revoke-family", key.family, "--json").json["items"]

    assert (item["id"], item["status"], item["family"]) == (key.id, "revoked", key.family)


def test_a_family_that_is_malformed_or_unknown_is_refused(keyguard: Program, store: Store) -> None:
    wrong = keyguard("key", "revoke-family", store.issue().key.id)
    unknown = keyguard("key", "revoke-family", "fam_0123456789abcdef")

    assert wrong.status == 2
    assert wrong.sentence.startswith("a family is fam_ and 16 characters")
    assert (unknown.status, unknown.sentence) == (1, "there is no family 'fam_0123456789abcdef'")


def test_a_token_is_enough_to_revoke_its_key(keyguard: Program, store: Store) -> None:
    issued = store.issue(scopes=["admin"])  # the last one: that does not matter here
    token = issued.token.reveal()

    first = keyguard("key", "revoke-token", "--note", "found in a gist", stdin=f"{token}\n")
    second = keyguard("key", "revoke-token", stdin=token)

    (key,) = store.keys()
    assert (first.status, first.stderr) == (0, "")
    assert first.stdout == f"Key {issued.key.id} was revoked.\n"
    assert second.stdout.startswith(f"Key {issued.key.id} was already revoked ")
    assert key.revoked_reason is RevocationReason.KEY_COMPROMISE
    assert key.revoked_note == "found in a gist"


def test_a_token_is_revoked_as_json_which_does_not_hold_it(keyguard: Program, store: Store) -> None:
    issued = store.issue()
    token = issued.token.reveal()

    done = keyguard("key", "revoke-token", "--json", stdin=token)

    assert (done.json["id"], done.json["revoked_reason"]) == (issued.key.id, "key compromise")
    assert token not in done.stdout


@pytest.mark.parametrize("text", ["hunter2", "\x00\x1b", b"\xff\xfe", "x" * 100_000])
def test_input_that_is_not_a_token_of_a_key_is_refused_without_repeating_it(
    text: str | bytes, keyguard: Program, store: Store
) -> None:
    done = keyguard("key", "revoke-token", stdin=text)

    assert done.status == 1
    assert done.sentence == (
        "this is not a token of this service: a token is kg_live_ and 66 characters, and this one "
        "has a wrong prefix, length or checksum; if the tokens of the service do not begin with "
        "kg_live_, set KEYGUARD_PREFIX to their prefix"
    )


def test_a_token_under_another_prefix_is_not_said_to_belong_to_no_key(
    keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = store.issue().token.reveal()
    monkeypatch.setenv("KEYGUARD_PREFIX", "aiaas_live")

    wrong = keyguard("key", "revoke-token", stdin=token)
    broken = keyguard("key", "revoke-token", stdin="aiaas_live_" + "x" * 66)

    assert (wrong.status, broken.status) == (1, 1)
    assert wrong.sentence.endswith(
        "do not begin with aiaas_live_, set KEYGUARD_PREFIX to their prefix"
    )
    assert broken.sentence.endswith("has a wrong prefix, length or checksum")
    monkeypatch.delenv("KEYGUARD_PREFIX")
    assert keyguard("key", "revoke-token", stdin=token).status == 0


def test_a_token_whose_secret_is_wrong_revokes_nothing(keyguard: Program, store: Store) -> None:
    key = store.issue().key
    with store.open() as guard:
        secret = TokenParts.draw(bytes(ENTROPY_SIZE))
        forged = guard.policy.tokens.mint(dataclasses.replace(secret, key_id=key.id))

    done = keyguard("key", "revoke-token", stdin=forged.reveal())

    assert (done.status, done.sentence) == (1, "that token belongs to no key")
    assert store.keys()[0].revoked_at is None


def test_a_token_is_refused_as_an_argument(keyguard: Program, store: Store) -> None:
    token = store.issue().token.reveal()

    done = keyguard("key", "revoke-token", token, stdin=token)
    nothing = keyguard("key", "revoke-token", stdin=" \n")

    assert done.status == nothing.status == 2
    assert done.sentence.startswith("a token is never passed as an argument")
    assert "keyguard key revoke-token on a terminal" in done.sentence
    assert nothing.sentence.startswith("no token was given")
    assert store.keys()[0].revoked_at is None


def test_on_a_terminal_the_token_is_asked_for_and_not_shown(
    terminal: Callable[..., Terminal], store: Store
) -> None:
    issued = store.issue()

    window = terminal("key", "revoke-token")
    window.wait_for("Token (not shown): ")
    window.type(f"{issued.token.reveal()}\n")

    assert window.finish() == 0
    assert issued.token.reveal() not in window.shown
    assert f"Key {issued.key.id} was revoked.\n" in window.text
