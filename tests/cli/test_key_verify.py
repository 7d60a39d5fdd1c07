"""`keyguard key verify`."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from keyguard import Deny, Keyguard, Reason
from tests.cli.conftest import Program, Store
from tests.world import StandingClock


def test_a_live_token_is_active(keyguard: Program, store: Store) -> None:
    issued = store.issue(scopes=["b:c", "a:b"])

    done = keyguard("key", "verify", stdin=issued.token.reveal())

    assert (done.status, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"Status +active\nKey +{issued.key.id}\nOrganization +{issued.key.organization}\n"
        r"Scopes +a:b, b:c\n",
        done.stdout,
    )


def test_a_live_token_is_active_as_json(keyguard: Program, store: Store) -> None:
    issued = store.issue(scopes=["a:b"])

    done = keyguard("key", "verify", "--json", stdin=issued.token.reveal())

    assert done.json == {
        "active": True,
        "id": issued.key.id,
        "organization": issued.key.organization,
        "scopes": ["a:b"],
        "allowed_networks": [],
    }


def test_a_token_that_is_bound_to_networks_is_active_there(keyguard: Program, store: Store) -> None:
    issued = store.issue(scopes=["a:b"], allowed_networks=["192.0.2.0/24"])

    words = keyguard("key", "verify", stdin=issued.token.reveal())
    shown = keyguard("key", "verify", "--json", stdin=issued.token.reveal()).json

    assert words.status == 0
    assert re.search(r"^Networks +192\.0\.2\.0/24$", words.stdout, re.MULTILINE)
    assert (shown["active"], shown["allowed_networks"]) == (True, ["192.0.2.0/24"])


@pytest.mark.parametrize("around", ["{}\n", "  {}  ", "{}\r\n", "\n{}\n\n"])
def test_white_space_around_a_token_does_not_matter(
    around: str, keyguard: Program, store: Store
) -> None:
    token = store.issue(scopes=["a:b"]).token.reveal()

    assert keyguard("key", "verify", stdin=around.format(token)).status == 0


def test_a_token_may_be_verified_where_a_service_requires_https(
    keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYGUARD_REQUIRE_HTTPS", "true")

    assert keyguard("key", "verify", stdin=store.issue(scopes=["a:b"]).token.reveal()).status == 0


def test_a_token_that_no_longer_works_is_refused_with_its_reason(
    keyguard: Program, store: Store
) -> None:
    later = store.issue(scopes=["a:b"], not_before=datetime(2999, 1, 1, tzinfo=UTC))
    revoked = store.issue(scopes=["a:b"])
    keyguard("key", "revoke", revoked.key.id)
    with Keyguard(store.url, clock=StandingClock(datetime(2001, 1, 1, tzinfo=UTC))) as guard:
        expired = guard.keys.issue(
            organization="acme", name="old", scopes=["a:b"], expires_in=timedelta(days=1)
        )

    rotated = store.issue(scopes=["a:b"])
    with store.open() as guard:
        guard.keys.rotate(rotated.key.id, grace=timedelta(microseconds=1))

    for issued, words, reason in (
        (rotated, "was rotated, and its grace has ended", "key_rotated"),
        (later, "does not work yet", "key_not_yet_valid"),
        (revoked, "is revoked", "key_revoked"),
        (expired, "has expired", "key_expired"),
    ):
        token = issued.token.reveal()
        said = keyguard("key", "verify", stdin=token)
        assert (said.status, said.sentence) == (1, f"key {issued.key.id} {words}")
        refused = keyguard("key", "verify", "--json", stdin=token)
        assert (refused.status, refused.stderr) == (1, "")
        assert refused.json == {"active": False, "reason": reason, "id": issued.key.id}


def test_a_token_of_a_disabled_organization_is_refused(keyguard: Program, store: Store) -> None:
    issued = store.issue(scopes=["a:b"])
    keyguard("org", "disable", "acme")

    done = keyguard("key", "verify", stdin=issued.token.reveal())

    assert (done.status, done.sentence) == (
        1,
        f"key {issued.key.id} does not work while its organization is disabled",
    )


def test_a_token_of_an_unknown_key_is_refused(keyguard: Program, store: Store) -> None:
    with Keyguard("memory://") as elsewhere:
        elsewhere.organizations.create("other")
        issued = elsewhere.keys.issue(organization="other", name="ci")

    done = keyguard("key", "verify", stdin=issued.token.reveal())

    assert (done.status, done.sentence) == (1, f"there is no key {issued.key.id}")


def test_input_that_is_not_a_token_is_refused_without_repeating_it(
    keyguard: Program, store: Store
) -> None:
    token = store.issue(scopes=["a:b"]).token.reveal()

    for text in ("hunter2", f"{token}x", f"Bearer {token}", "x" * 100_000, "\x00\x1b", b"\xff\xfe"):
        done = keyguard("key", "verify", stdin=text)
        assert done.status == 1
        assert done.sentence.startswith("this is not a token of this service: a token is kg_live_")
        assert token not in done.stderr


def test_no_token_at_all_is_wrong_usage(keyguard: Program, store: Store) -> None:
    done = keyguard("key", "verify", stdin=" \n")

    assert done.status == 2
    assert done.sentence.startswith("no token was given")


def test_a_store_that_fails_gives_no_verdict(keyguard: Program, store: Store) -> None:
    token = store.issue(scopes=["a:b"]).token.reveal()

    for arguments in ((), ("--json",)):
        done = keyguard("key", "verify", "--url", "sqlite:///new.db", *arguments, stdin=token)
        assert done.status == 1
        assert "new.db': check the URL" in done.sentence


def test_a_store_that_fails_without_a_message_gives_no_verdict(
    keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unsure(guard: Keyguard, fields: object, *, secure: bool, is_attempt: bool) -> Deny:
        return Deny(Reason.STORE_UNAVAILABLE)

    monkeypatch.setattr(Keyguard, "decide", unsure)

    done = keyguard("key", "verify", stdin="anything")

    assert (done.status, done.sentence) == (1, "the key store failed; try again later")
