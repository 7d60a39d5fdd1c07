"""How keys end: revoked one by one, as a family, by whoever holds the token; and what stays."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from keyguard import (
    Action,
    InvalidValueError,
    NotFoundError,
    Reason,
    RefusedError,
    RevocationReason,
    Secret,
)
from tests.stored import Stored

HOUR = timedelta(hours=1)


@pytest.mark.parametrize("reason", [*RevocationReason, "key-compromise", "key_compromise"])
def test_a_key_is_revoked_for_a_reason_and_in_one_s_own_words(stored: Stored, reason: str) -> None:
    key = stored.issue().key

    revoked = stored.guard.keys.revoke(key.id, reason=reason, note="laptop lost, ticket 7")

    assert revoked.revoked_at == stored.clock.now
    assert revoked.revoked_reason is RevocationReason.of(reason)
    assert revoked.revoked_note == "laptop lost, ticket 7"
    assert stored.guard.keys.get(key.id) == revoked


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"reason": "laptop lost"},
            "is not a valid reason; use one of: unspecified, key compromise",
        ),
        ({"note": "a\nb"}, "note"),
        ({"note": "x" * 201}, "note"),
        ({"note": ""}, "note"),
        ({"actor": 7}, "actor"),
    ],
)
def test_what_is_no_reason_revokes_nothing(
    stored: Stored, options: dict[str, Any], said: str
) -> None:
    issued = stored.issue()

    with pytest.raises(InvalidValueError, match=said):
        stored.guard.keys.revoke(issued.key.id, **options)
    assert stored.lets_in(issued.token)


def test_a_revocation_is_final(stored: Stored) -> None:
    issued = stored.issue()
    revoked = stored.guard.keys.revoke(issued.key.id)
    keys = stored.guard.keys
    later = stored.clock.now + HOUR

    for operation in (
        lambda: keys.update(issued.key.id, expires_at=later),
        lambda: keys.update(issued.key.id, name="new"),
        lambda: keys.rotate(issued.key.id),
    ):
        with pytest.raises(RefusedError, match="is revoked, which is final"):
            operation()
    stored.guard.organizations.disable("acme")
    stored.guard.organizations.enable("acme")
    assert keys.get(issued.key.id) == revoked
    assert stored.refusal(issued.token) is Reason.KEY_REVOKED


def test_the_first_revocation_stays(stored: Stored) -> None:
    key = stored.issue().key
    first = stored.guard.keys.revoke(key.id, reason="superseded")
    trail = stored.trail()
    stored.clock.advance(HOUR)

    again = stored.guard.keys.revoke(key.id, reason="key compromise", note="no, stolen")

    assert again == first
    assert stored.trail() == trail


def test_the_successor_of_a_revoked_key_works_on(stored: Stored) -> None:
    old = stored.issue()
    new = stored.guard.keys.rotate(old.key.id)

    stored.guard.keys.revoke(old.key.id)

    assert stored.refusal(old.token) is Reason.KEY_REVOKED
    assert stored.lets_in(new.token)


def test_a_family_is_revoked_together(stored: Stored) -> None:
    first = stored.issue()
    second = stored.guard.keys.rotate(first.key.id)
    third = stored.guard.keys.rotate(second.key.id)
    bystander = stored.issue()
    stored.guard.keys.revoke(first.key.id, reason="superseded")
    before = len(stored.trail())

    gone = stored.guard.keys.revoke_family(first.key.family, reason="key compromise", actor="ada")

    assert {key.id for key in gone} == {first.key.id, second.key.id, third.key.id}
    assert {key.id: key.revoked_reason for key in gone} == {
        first.key.id: RevocationReason.SUPERSEDED,
        second.key.id: RevocationReason.KEY_COMPROMISE,
        third.key.id: RevocationReason.KEY_COMPROMISE,
    }
    for token in (first.token, second.token, third.token):
        assert stored.refusal(token) is Reason.KEY_REVOKED
    assert stored.lets_in(bystander.token)
    new = stored.trail()[before:]
    assert {(entry.action, entry.actor) for entry in new} == {(Action.KEY_REVOKED, "ada")}
    assert {entry.subject for entry in new} == {second.key.id, third.key.id}
    assert stored.guard.keys.revoke_family(first.key.family) == gone


def test_a_family_that_is_rotated_meanwhile_ends_with_its_newest_key(stored: Stored) -> None:
    old = stored.issue()
    made: list[Any] = []

    def rotate(guard: Any) -> Any:
        made.append(guard.keys.rotate(old.key.id))
        return made[0]

    guard = stored.interposing(rotate)

    gone = guard.keys.revoke_family(old.key.family)

    assert len(gone) == 2
    assert all(key.revoked_at is not None for key in stored.guard.keys.list())


@pytest.mark.parametrize("family", ["fam_" + "0" * 16])
def test_an_unknown_family_is_not_found(stored: Stored, family: str) -> None:
    with pytest.raises(NotFoundError, match="no family"):
        stored.guard.keys.revoke_family(family)


@pytest.mark.parametrize("family", ["", "fam_", "key", None, 7])
def test_what_is_no_family_is_refused(stored: Stored, family: Any) -> None:
    with pytest.raises(InvalidValueError, match="a family is fam_ and 16 characters"):
        stored.guard.keys.revoke_family(family)


@pytest.mark.parametrize("wrap", [lambda token: token, lambda token: token.reveal()])
def test_whoever_holds_a_token_can_kill_it(stored: Stored, wrap: Any) -> None:
    issued = stored.issue("admin")  # even the last that administers
    assert stored.lets_in(issued.token)

    gone = stored.guard.keys.revoke_token(wrap(issued.token), note="in a public repository")

    assert gone.revoked_reason is RevocationReason.KEY_COMPROMISE
    assert gone.revoked_note == "in a public repository"
    assert stored.refusal(issued.token) is Reason.KEY_REVOKED
    assert stored.trail()[-1].actor == f"key:{issued.key.id}"
    assert stored.guard.keys.revoke_token(wrap(issued.token)) == gone


def test_a_token_that_no_longer_works_can_still_be_killed(stored: Stored) -> None:
    issued = stored.issue(expires_in=HOUR)
    stored.clock.advance(2 * HOUR)

    assert stored.guard.keys.revoke_token(issued.token).revoked_at == stored.clock.now


def test_who_knows_an_id_alone_kills_nothing(stored: Stored) -> None:
    issued = stored.issue()
    tokens = stored.guard.real.policy.tokens
    parts = tokens.parse(issued.token.reveal())
    wrong = tokens.mint(type(parts)(parts.key_id, "0" * 43))

    with pytest.raises(NotFoundError, match=r"^that token belongs to no key$"):
        stored.guard.keys.revoke_token(wrong)
    for token in (issued.key.id, "", "Bearer", issued.token.reveal()[:-1], Secret("x")):
        with pytest.raises(NotFoundError, match=r"^this is not a token of this service: "):
            stored.guard.keys.revoke_token(token)
    assert stored.lets_in(issued.token)


def test_a_disabled_organization_s_keys_pause_together(stored: Stored) -> None:
    ours = [stored.issue() for _ in range(2)]
    stored.guard.organizations.create("other")
    theirs = stored.issue(organization="other")
    for issued in (*ours, theirs):
        assert stored.lets_in(issued.token)

    stored.guard.organizations.disable("acme", actor="ada")

    for guard in (stored.guard, stored.another()):
        assert [stored.refusal(one.token, guard) for one in ours] == [
            Reason.ORGANIZATION_DISABLED
        ] * 2
        assert stored.lets_in(theirs.token, guard)
    assert all(key.revoked_at is None for key in stored.guard.keys.list())
    stored.guard.organizations.enable("acme")
    for guard in (stored.guard, stored.another()):
        assert all(stored.lets_in(one.token, guard) for one in ours)


# The last administrator


def test_the_last_key_with_admin_stays_without_force(stored: Stored) -> None:
    last = stored.issue("admin")

    for operation in (
        lambda **options: stored.guard.keys.revoke(last.key.id, **options),
        lambda **options: stored.guard.keys.revoke_family(last.key.family, **options),
        lambda **options: stored.guard.keys.update(last.key.id, scopes=[], **options),
        lambda **options: stored.guard.keys.update(
            last.key.id, expires_at=stored.clock.now, **options
        ),
        lambda **options: stored.guard.keys.update(
            last.key.id, not_before=stored.clock.now + HOUR, **options
        ),
    ):
        with pytest.raises(RefusedError, match="is the last key of organization 'acme' that has"):
            operation()
    assert stored.guard.keys.get(last.key.id) == last.key
    stored.guard.keys.revoke(last.key.id, force=True)
    assert stored.refusal(last.token) is Reason.KEY_REVOKED


@pytest.mark.parametrize(
    "other",
    [
        {"scopes": ["inference:*"]},
        {"scopes": ["admin"], "organization": "other"},
        {"scopes": ["admin"], "expires_in": HOUR},
        {"scopes": ["admin"], "not_before": HOUR},
    ],
)
def test_a_key_that_does_not_administer_now_replaces_no_administrator(
    stored: Stored, other: dict[str, Any]
) -> None:
    stored.guard.organizations.create("other")
    last = stored.issue("admin")
    if "not_before" in other:
        other = other | {"not_before": stored.clock.now + 9 * HOUR}
    stored.issue(**other)
    stored.clock.advance(2 * HOUR)

    with pytest.raises(RefusedError, match="is the last"):
        stored.guard.keys.revoke(last.key.id)


@pytest.mark.parametrize("scope", ["admin", "*"])
def test_an_administrator_that_is_not_the_last_may_go(stored: Stored, scope: str) -> None:
    stored.issue(scope)
    key = stored.issue("admin").key

    assert stored.guard.keys.revoke(key.id).revoked_at == stored.clock.now


def test_a_rotated_administrator_may_go_and_its_successor_not(stored: Stored) -> None:
    old = stored.issue("admin")
    new = stored.guard.keys.rotate(old.key.id)

    with pytest.raises(RefusedError, match="is the last"):
        stored.guard.keys.revoke(new.key.id)
    stored.guard.keys.revoke(old.key.id)


def test_of_two_administrators_that_go_at_once_one_stays(stored: Stored) -> None:
    first, second = stored.issue("admin").key, stored.issue("admin").key
    guard = stored.interposing(lambda other: other.keys.revoke(second.id))

    with pytest.raises(RefusedError, match="is the last"):
        guard.keys.revoke(first.id)
    assert stored.guard.keys.get(first.id).revoked_at is None
