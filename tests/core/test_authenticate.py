"""Authentication over scripted ports: what is asked in which order, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keyguard import Allow, Deny, Key, Organization, Reason, ScopeCatalogue
from keyguard.core.access.authenticate import LOOKUP_ATTEMPTS, check_transport
from keyguard.core.access.policy import Policy
from keyguard.core.keys.records import KeyRecord
from keyguard.core.tokens.format import TokenFormat, TokenParts
from tests.core.scripted import decided

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PARTS = TokenParts("4fKq0ZbT1mXw8RyA", "s" * 43)
POLICY = Policy(tokens=TokenFormat("kg_live"), catalogue=ScopeCatalogue({"a": "", "b": ""}))
FIELD = f"Bearer {POLICY.tokens.mint(PARTS).reveal()}"
ORGANIZATION = Organization(id="org_" + "0" * 16, slug="acme", name="Acme", created_at=NOW)
KEY = Key(
    id=PARTS.key_id,
    family="fam_" + "0" * 16,
    organization=ORGANIZATION.id,
    name="ci",
    scopes=frozenset({"a"}),
    created_at=NOW,
)
RECORD = KeyRecord(key=KEY, organization=ORGANIZATION, digest="$sha256$x")


def asked_of(*answers: Any) -> tuple[list[str], Any]:
    return decided([FIELD], POLICY, *answers)


@pytest.mark.parametrize(
    "fields",
    [[], ["Basic x"], ["Bearer"], ["Bearer garbage"], [FIELD[:-1]], [FIELD + "0"], [FIELD] * 2],
)
def test_what_can_be_no_key_asks_for_nothing(fields: list[str | bytes]) -> None:
    asked, decision = decided(fields, POLICY)

    assert asked == []
    assert isinstance(decision, Deny)


def test_a_known_token_asks_for_no_look_up() -> None:
    allow = Allow(POLICY.principal(RECORD))

    assert asked_of(allow, None) == (["recall", "note_use"], allow)


def test_an_unknown_key_is_compared_all_the_same() -> None:
    asked, decision = asked_of(None, None, False)

    assert asked == ["recall", "find_key", "verify"]
    assert decision == Deny(Reason.KEY_UNKNOWN, PARTS.key_id)


def test_a_wrong_secret_asks_for_the_same_as_an_unknown_key() -> None:
    asked, decision = asked_of(None, RECORD, False)

    assert asked == ["recall", "find_key", "verify"]
    assert decision == Deny(Reason.SECRET_WRONG, PARTS.key_id)


@pytest.mark.parametrize("answer", [None, 1, "True", object(), [True]])
def test_only_true_is_a_match(answer: Any) -> None:
    _, decision = asked_of(None, RECORD, answer)

    assert decision == Deny(Reason.SECRET_WRONG, PARTS.key_id)


def test_a_live_key_is_remembered_and_let_in() -> None:
    asked, decision = asked_of(None, RECORD, True, NOW, True, None, None)

    assert asked == ["recall", "find_key", "verify", "now", "remember", "offer_rehash", "note_use"]
    assert decision == Allow(POLICY.principal(RECORD))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (replace(RECORD, key=replace(KEY, revoked_at=NOW)), Reason.KEY_REVOKED),
        (replace(RECORD, key=replace(KEY, expires_at=NOW)), Reason.KEY_EXPIRED),
        (
            replace(RECORD, key=replace(KEY, not_before=NOW + timedelta(microseconds=1))),
            Reason.KEY_NOT_YET_VALID,
        ),
        (
            replace(RECORD, organization=replace(ORGANIZATION, disabled_at=NOW)),
            Reason.ORGANIZATION_DISABLED,
        ),
    ],
)
def test_a_dead_key_is_refused_and_forgotten(record: KeyRecord, reason: Reason) -> None:
    asked, decision = asked_of(None, record, True, NOW, None)

    assert asked == ["recall", "find_key", "verify", "now", "discard"]
    assert decision == Deny(reason, KEY.id, ORGANIZATION.id)


def test_a_key_that_changed_meanwhile_is_looked_up_again() -> None:
    revoked = replace(RECORD, key=replace(KEY, revoked_at=NOW))

    _, decision = asked_of(None, RECORD, True, NOW, False, revoked, True, NOW, None)

    assert decision == Deny(Reason.KEY_REVOKED, KEY.id, ORGANIZATION.id)


@pytest.mark.parametrize("remembered", [False, None, "yes"])
def test_a_key_that_changes_under_every_look_is_not_let_in(remembered: Any) -> None:
    looks = [RECORD, True, NOW, remembered] * LOOKUP_ATTEMPTS

    _, decision = asked_of(None, *looks)

    assert decision == Deny(Reason.STORE_UNAVAILABLE, KEY.id)


@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("failure", [OSError, KeyError, RuntimeError, ValueError])
def test_whatever_fails_wherever_it_fails_nobody_is_let_in(
    step: int, failure: type[Exception]
) -> None:
    answers: list[Any] = [None, RECORD, True, NOW, True]
    answers[step] = failure("boom")

    _, decision = asked_of(*answers)

    assert decision == Deny(Reason.STORE_UNAVAILABLE, PARTS.key_id)
    assert isinstance(decision.cause, failure)


@pytest.mark.parametrize(
    "nonsense",
    [True, "key", {}, KEY, replace(RECORD, key=replace(KEY, id="0" * 16))],
    ids=["True", "str", "dict", "a key without record", "another key"],
)
def test_a_store_that_answers_nonsense_lets_nobody_in(nonsense: Any) -> None:
    asked, decision = asked_of(None, nonsense)

    assert asked == ["recall", "find_key"]
    assert decision == Deny(Reason.STORE_UNAVAILABLE, PARTS.key_id)


def test_a_cache_that_answers_nonsense_is_ignored() -> None:
    asked, _ = asked_of(True, None, False)

    assert asked == ["recall", "find_key", "verify"]


def test_plain_http_is_refused_only_where_https_is_required() -> None:
    allow = Allow(POLICY.principal(RECORD))
    strict = replace(POLICY, require_https=True)

    assert check_transport(allow, POLICY, secure=False) is allow
    assert check_transport(allow, strict, secure=True) is allow
    assert check_transport(allow, strict, secure=False) == Deny(
        Reason.TRANSPORT_INSECURE, KEY.id, ORGANIZATION.id
    )
    assert check_transport(Deny(Reason.KEY_REVOKED, KEY.id), strict, secure=False) == Deny(
        Reason.TRANSPORT_INSECURE
    )
